"""Every knob, once: its type, its meaning, its allowed range. Values live in ``configs/``."""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aseqdip.errors import UserError


def config_folder() -> Path:
    """``configs/``: beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def knob(
    help: str,  # noqa: A002 - reads as what it is
    default: Any = MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A config field with its one-line meaning and its range: low <= value <= high, value > above, or choices."""
    metadata = {"help": help, "low": low, "above": above, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass
class TaskConfig:
    name: str = knob("which inverse problem", choices=("mri", "ct", "denoising", "inpainting", "deblurring"))


@dataclass
class DataConfig:
    name: str = knob(
        "builtin: each task's own samples; else a list of images in data_root (docs/data.md): public substitutes, the "
        "paper's sets, real scans, faces"
    )


@dataclass
class DatasetConfig:
    name: str = knob("name of the data set, as in the results")
    reader: str = knob(
        "how its files are read", choices=("brain", "body", "photos", "kspace", "complex", "ct", "picture")
    )
    folder: str = knob("sub-folder of data_root; data_root itself is read where there is none", "")
    files: list[str] | None = knob(
        "the images of this data set, by file below its folder, in order; default: every file", None
    )
    slice: str = knob("slice of a volume: middle, all, or an index", "middle")
    hu_low: float = knob("CT: Hounsfield units shown as 0", -1024.0)
    hu_high: float = knob("CT: Hounsfield units shown as 1", 2000.0)


@dataclass
class OperatorConfig:
    name: str = knob("which forward operator", choices=("mri", "ct", "identity", "mask", "blur"))
    center_fraction: float | None = knob(
        "MRI: fully sampled central part of k-space; default 0.32/accel (0.08 at 4x, 0.04 at 8x)",
        None,
        above=0,
        high=1,
    )
    coils: int = knob("MRI: coils simulated for images without k-space", 15, low=1)
    calibration: int = knob("MRI: side of the central k-space block ESPIRiT maps are estimated from", 24, low=6)
    missing: float = knob("in-painting, mask=random: fraction of the pixels missing", 0.97, above=0, high=1)
    kernel_size: int = knob("deblurring: side of the blur kernel in pixels, odd", 31, low=3)


@dataclass
class NetworkConfig:
    name: str = knob("which network", choices=("unet", "skip", "s2s"))
    width: int = knob("channels at full resolution", low=1)
    depth: int = knob("number of down-samplings", low=1, high=8)
    skip: int = knob("skip network: channels of its skip connections", 4, low=1)
    upsample: str = knob("skip network: how it up-samples", "bilinear", choices=("bilinear", "nearest"))
    sigmoid: bool | None = knob("output through a sigmoid; default: skip and s2s, for images in [0, 1]", None)
    init: str = knob(
        "initial weights: normal is N(0, 0.02^2), he is N(0, 2/fan-in), default is PyTorch's",
        "normal",
        choices=("normal", "default", "he"),
    )


METHOD_NAMES = (
    *("aseqdip", "vanilla_dip", "tv_dip", "es_dip", "sgld_dip", "rethinking_dip", "self_guided_dip"),
    *("ref_guided_dip", "direct"),
)


@dataclass
class MethodConfig:
    name: str = knob("which method", choices=METHOD_NAMES)
    rho: float = knob("tv_dip: weight of total variation", 1.0, low=0)
    tv: str = knob("tv_dip: kind of total variation", "isotropic", choices=("isotropic", "anisotropic"))
    noise: float = knob("sgld_dip: noise on the weights after each step, in units of lr", 2.0, low=0)
    burn_in: float = knob("sgld_dip: part of the steps before samples are kept", 0.35, low=0, high=0.99)
    thinning: int = knob("sgld_dip: steps from one sample to the next", 50, low=1)
    alpha: float = knob("self_guided_dip: weight of its regulariser", 1.0, low=0)
    passes: int = knob("self_guided_dip: network passes that stand for the expectation", 4, low=1)
    eta: float = knob("self_guided_dip: width of the input noise relative to the input's maximum", 0.5, low=0)
    lr_z: float = knob("self_guided_dip: learning rate of the input", 0.1, low=0)
    perturb: float = knob("rethinking_dip: largest noise added to its input, in units of sigma", 0.5, low=0)
    optimiser: str = knob("rethinking_dip: optimiser", "adam", choices=("adam", "radam"))
    decay: float = knob("rethinking_dip: factor on lr after every 300 steps", 1.0, above=0, high=1)


@dataclass
class RecipeConfig:
    name: str = knob(
        "matched: every method on aSeqDIP's network, initialisation and learning rate; original: on its own paper's; "
        "paper: aSeqDIP's text on the preset's steps and width; best: what the study of readings found best for a task"
    )


@dataclass
class PresetConfig:
    name: str = knob("paper: the paper's protocol; quick: minutes on a CPU; smoke: seconds, a functional check")


@dataclass
class TrackerConfig:
    name: str = knob("where curves go besides the files", choices=("wandb", "none"))
    project: str = knob("W&B project", "aseqdip")
    entity: str | None = knob("W&B team or user; default: the key's own", None)


@dataclass
class Config:
    """The whole configuration of a run. The paper's values are the defaults (``configs/config.yaml``)."""

    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    operator: OperatorConfig = field(default_factory=OperatorConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    preset: PresetConfig = field(default_factory=PresetConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    study: str = knob(
        "an experiment of its own: fig6, the paper's 1-D network (Appendix A.2); calibration, which reading of the paper "
        "reproduces it (docs/reproduction.md)",
        choices=("none", "fig6", "calibration"),
    )
    steps: int = knob("parameter updates in total, N*K in the paper", low=1)
    N: int = knob("aSeqDIP: parameter updates per input update; steps must be a multiple", low=1)
    lam: float = knob("aSeqDIP: weight lambda of the autoencoding term", low=0)
    lr: float = knob("Adam's learning rate beta", above=0)
    residual: str = knob("both terms as squared norms (paper) or plain norms", choices=("squared", "norm"))
    input_update: str = knob(
        "aSeqDIP: next input z is the network's output (paper), that made consistent with the data, or 2y - f(z)",
        choices=("network", "data_consistent", "reflection"),
    )

    start: str = knob(
        "aSeqDIP's z0: the paper's (A^H y, CT: clipped FBP; pictures: y), CT: adjoint, scaled to fit y; in-painting: mean, the "
        "hole filled with the mean of the known pixels",
        choices=("paper", "adjoint", "mean"),
    )
    input: str = knob(
        "fixed input of Vanilla DIP and its relatives: U(0, 0.1), N(0, 1), the start image, the nearest image of a pool, or "
        "(oracle) the truth: no method, a diagnostic of the paper's Fig. 1",
        choices=("noise", "normal", "measurement", "reference", "oracle"),
    )
    input_noise: float = knob(
        "input=normal, oracle: standard deviation of its Gaussian noise, drawn once; images are about 1 at their brightest",
        low=0,
    )
    input_channels: int | None = knob(
        "channels of a random input (original DIP: 32, which needs network=skip); default: as many as the image",
        low=1,
    )
    pool: str | None = knob(
        "input=reference: folder of fully sampled images, in the data set's format; default: the data set's other images"
    )
    perturb: float = knob("standard deviation of fresh noise on that input at each step (original DIP: 0.033)", low=0)
    ema: float = knob(
        "decay of the running average of iterates given as the result; 0: no averaging", low=0, high=0.9999
    )
    stop: str = knob(
        "rule that picks the result without the truth: none (last iterate), windowed or exponential moving variance, data fit "
        "to within the known noise level, or (rethinking_dip) the loss's first value below zero",
        choices=("none", "wmv", "emv", "discrepancy", "zero"),
    )
    window: int = knob("stop=wmv: iterates in its window", low=2)
    patience: int = knob("stop: iterates without a new minimum before it stops", low=1)

    accel: float = knob("MRI: acceleration factor", above=1)
    views: int = knob("CT: projection angles over 180 degrees", low=1)
    sigma: float = knob("pictures: standard deviation of the added noise, on the 0..255 scale", low=0)
    hiar: float = knob("in-painting: area of the central hole over the image's area", above=0, high=0.9)
    noise: float = knob(
        "MRI: standard deviation of the complex noise added to k-space, relative to the peak of the coil images",
        low=0,
    )
    photons: float | None = knob("CT: photons per ray for Poisson noise; default: noise-free", above=0)
    mask: str = knob(
        "MRI: random, equispaced or variable_density columns; in-painting: center, random, or a picture file (white = known)"
    )
    kernel: str = knob(
        "deblurring: nonlinear, blur seen through a camera response; motion, linear",
        choices=("motion", "nonlinear"),
    )
    size: str = knob("image side: MRI crops to it, others resize to it (paper: 320 and 512); or native")
    truth: str = knob(
        "known: measurements are simulated and scored; none: the file itself is the measurement",
        choices=("known", "none"),
    )

    images: Any = knob("which: an index or name, a range 0:5, a list [0,3], or all")
    seed: int = knob("seed of all random numbers: masks, noise, weights", low=0)
    seeds: list[int] | None = knob("several seeds, one after another: seeds=0,1,2; wins over seed", low=0)
    data_root: str = knob("folder that holds the data; default: $ASEQDIP_DATA, else data")
    outputs: str = knob("folder that results go to")
    device: str = knob("auto, cpu, cuda, cuda:1 ...")
    precision: str = knob("of the network: auto is bf16 where the hardware has it", choices=("auto", "fp32", "bf16"))
    parallel: str = knob("images at a time on this device, each on its share of it: a number, or auto")
    budget_minutes: float | None = knob(
        "stop cleanly after this time, counted from the start of the command; the same command then continues",
        above=0,
    )
    score_every: int = knob(
        "PSNR and SSIM of every so many iterates (and the first and last); the reconstruction is the same, the best is sought "
        "among them",
        low=1,
    )
    checkpoint_minutes: float = knob("how often an unfinished reconstruction is saved", above=0)


def knobs(cls: Any = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every leaf of the schema with its dotted name."""
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(f.type):
            yield from knobs(f.type, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


GROUPS = tuple(f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)) + (
    "experiment",
    "cell",
)


def unknown_key(key: str) -> UserError:
    """The error for a name that is in no schema, with the nearest names that are."""
    names = [name for name, _ in knobs()] + list(GROUPS)
    close = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return UserError(f"There is no setting '{key}'. {hint}All settings: python run.py --help")


def check_value(name: str, f: dataclasses.Field[Any], value: Any) -> None:
    """Raise UserError unless a typed value lies in its field's range."""
    meta = f.metadata
    if value is None:
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            check_value(name, f, part)
        return
    problem = None
    if meta["choices"] is not None and value not in meta["choices"]:
        problem = f"one of {', '.join(meta['choices'])}"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "a finite number"
    elif meta["low"] is not None and value < meta["low"]:
        problem = f"at least {meta['low']:g}"
    elif meta["above"] is not None and value <= meta["above"]:
        problem = f"more than {meta['above']:g}"
    elif meta["high"] is not None and value > meta["high"]:
        problem = f"at most {meta['high']:g}"
    if problem:
        raise UserError(f"{name}={value}: expected {problem} ({meta['help']}).")


def _type_name(f: dataclasses.Field[Any]) -> str:
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    options = [t for t in (get_args(f.type) or (f.type,)) if t is not type(None)]
    name = kinds.get(options[0], "a value")
    return name if len(options) == len(get_args(f.type) or (f.type,)) else name + " or null"


def check_override(key: str, value: Any) -> None:
    """Raise UserError if ``key=value`` names no knob, has the wrong type, or is out of range."""
    fields = dict(knobs())
    if key not in fields:
        raise unknown_key(key)
    trial = OmegaConf.structured(Config)
    try:
        OmegaConf.update(trial, key, value)
        typed = OmegaConf.select(trial, key)
    except OmegaConfBaseException as error:
        if isinstance(value, str) and "${" in value:
            return  # an interpolation: only known once composed
        f = fields[key]
        raise UserError(f"{key}={value}: expected {_type_name(f)} ({f.metadata['help']}).") from error
    if not (isinstance(typed, str) and "${" in typed):
        check_value(key, fields[key], typed)


def typed_config(composed: Any) -> Config:
    """A composed Hydra config as a checked :class:`Config`. Raises UserError for anything out of range."""
    try:
        cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), composed))
    except OmegaConfBaseException as error:
        raise UserError(f"The configuration does not fit its schema: {str(error).splitlines()[0]}") from error
    assert isinstance(cfg, Config)
    for name, f in knobs():
        check_value(name, f, attrgetter(name)(cfg))
    if cfg.method.name == "aseqdip" and cfg.steps % cfg.N:
        raise UserError(
            f"steps={cfg.steps} is not a multiple of N={cfg.N}: each input update follows N parameter updates; "
            f"use steps={cfg.steps // cfg.N * cfg.N or cfg.N} or another N."
        )
    if cfg.size != "native" and not (cfg.size.isdigit() and int(cfg.size) > 0):
        raise UserError(f"size={cfg.size}: expected a number of pixels (512) or native.")
    if cfg.parallel != "auto" and not (cfg.parallel.isdigit() and int(cfg.parallel) > 0):
        raise UserError(f"parallel={cfg.parallel}: expected a number of images (4) or auto.")
    if cfg.data.name != "builtin" and not cfg.dataset.files:
        raise UserError(
            f"data={cfg.data.name} has no list of images for task={cfg.task.name}: use data=builtin, or dataset=... with "
            "data_root=... for images of your own."
        )
    if cfg.dataset.hu_low >= cfg.dataset.hu_high:
        raise UserError(f"dataset.hu_low={cfg.dataset.hu_low:g} must be below dataset.hu_high={cfg.dataset.hu_high:g}.")
    if cfg.operator.kernel_size % 2 == 0:
        raise UserError(f"operator.kernel_size={cfg.operator.kernel_size}: expected an odd number of pixels.")
    return cfg
