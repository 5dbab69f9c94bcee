"""Records of schema 1, as this version's: with what they hold, and without the command, which they do not."""

from pathlib import PurePath
from typing import Any

#: the knobs that measurements depended on, as schema 1 spelled them; all others are the method's
TASK_KNOBS = {
    "mri": ("accel", "noise", "mask", "operator.center_fraction", "operator.coils", "operator.calibration"),
    "ct": ("views", "photons", "start"),
    "denoising": ("sigma",),
    "inpainting": ("sigma", "hiar", "mask", "operator.missing", "start"),
    "deblurring": ("sigma", "kernel", "operator.kernel_size"),
}
DATA_KNOBS = ("dataset.reader", "dataset.slice", "dataset.folder", "dataset.files", "dataset.hu_low", "dataset.hu_high")
COMMON_KNOBS = (*DATA_KNOBS, "folders", "size", "truth")
#: said by the record's own fields, or by none: where the data lay, and which precision was asked for
LEFT_OUT = ("task.name", "dataset.name", "method.name", "seed", "data_root", "precision")
TITLES = {
    **{"mri": "MRI", "ct": "CT", "denoising": "Denoising", "inpainting": "In-painting", "deblurring": "Deblurring"},
    **{
        "direct": "Direct",
        "vanilla_dip": "Vanilla DIP",
        "tv_dip": "TV-DIP",
        "es_dip": "ES-DIP",
        "sgld_dip": "SGLD-DIP",
    },
    **{"rethinking_dip": "Rethinking DIP", "self_guided_dip": "Self-Guided DIP", "ref_guided_dip": "Ref-Guided DIP"},
    "aseqdip": "aSeqDIP",
}
START = {"mri": "zero-filled", "ct": "filtered back-projection"}
PICTURES = ("denoising", "inpainting", "deblurring")
KEPT = (
    *("image", "task", "setting", "method", "dataset", "preset", "recipe", "result", "steps", "network_parameters"),
    *(
        "passes_per_step",
        "flops_per_step",
        "seconds",
        "device",
        "threads",
        "precision",
        "seed",
        "noise_std",
        "versions",
    ),
)
SAID = ("schema", "deviations_from_paper", "scores", "curve", "seconds_per_step", "source", "identity", "config")


def setting_title(setting: str) -> str:
    """accel4 as 4x, and so on; another word as it is."""
    for word, shown in (("accel", "{}×"), ("views", "{} views"), ("sigma", "σ {}"), ("hiar", "HIAR {}")):
        if setting.startswith(word):
            return shown.format(setting.removeprefix(word))
    return {"nonlinear": "non-linear blur", "motion": "linear blur"}.get(setting, setting)


def converted(old: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 1 as plain values of schema 2. Raises ValueError where a part is of another kind."""
    identity, config = _part(old, "identity"), _part(old, "config")
    task, method, setting = (str(old.get(name, "unknown")) for name in ("task", "method", "setting"))
    dataset = {f"dataset.{name}": _part(config, "dataset").get(name) for name in ("folder", "files")}
    chosen = {"stop": config.get("stop"), **dataset, **identity}
    measured = {*COMMON_KNOBS, *TASK_KNOBS.get(task, ())}
    settings = {_name(k): v for k, v in chosen.items() if k not in measured and k not in LEFT_OUT}
    if settings.get("input") != "reference":
        settings.pop("pool", None)
    if "precision" in identity:
        settings["precision"] = old.get("precision")
    return {
        **{name: old[name] for name in KEPT if name in old},
        "schema": 2,
        "content": "",
        "source": PurePath(str(old.get("source", ""))).name,
        "titles": {
            "task": TITLES.get(task, task),
            "setting": setting_title(setting),
            "method": TITLES.get(method, method),
            "start": START.get(task, "measurement"),
        },
        "scores": {name: _score(_part(_part(old, "scores"), name)) for name in _part(old, "scores")},
        "curve": _curve(_part(old, "curve")),
        "facts": {name: value for name, value in old.items() if name not in (*KEPT, *SAID)},
        "departures": {_name(k): v for k, v in _part(old, "deviations_from_paper").items()},
        "problem": {_name(k): v for k, v in chosen.items() if k in measured},
        "settings": settings,
        "results_version": 0,
    }


def _part(old: dict[str, Any], name: str) -> dict[str, Any]:
    part = old.get(name)
    if part is not None and not isinstance(part, dict):
        raise ValueError(f"{name}: expected an object, found {type(part).__name__}")
    return part or {}


def _name(old: str) -> str:
    """A knob's name without the groups that are gone."""
    renamed = {"method.noise": "weight_noise", "network.name": "network"}
    if old in renamed:
        return renamed[old]
    return old.removeprefix("operator.").removeprefix("method.")


def _score(old: dict[str, Any]) -> dict[str, Any]:
    """An infinite PSNR was written as null, like one that is not known; the SSIM tells them apart."""
    psnr, ssim = old.get("psnr"), old.get("ssim")
    extras = {f"{name}_db": v for name, v in old.items() if name not in ("psnr", "ssim", "step")}
    exact = psnr is None and ssim is not None
    return {"psnr_db": "inf" if exact else psnr, "ssim": ssim, "step": old.get("step"), "extras": extras}


def _curve(old: dict[str, Any]) -> dict[str, Any]:
    psnr = old.get("psnr") or []
    if isinstance(psnr, list) and all(v is None for v in psnr):
        return {}
    return {name: old[name] for name in ("every", "psnr", "psnr_ema") if name in old}
