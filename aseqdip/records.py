"""What one reconstruction leaves on disk, where, and how a folder of them is read again."""

import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from aseqdip.config import Config, DatasetConfig, knobs
from aseqdip.files import write_atomically
from aseqdip.methods import METHODS
from aseqdip.tasks import setting

#: rows of a curve, each with one number for each of COLUMNS; NaN where there is no value
Rows = Sequence[Sequence[float]]

#: a curve's columns, in order; PSNR in dB; psnr_ema is that of the running average of the iterates (decay 0.99)
COLUMNS = ("iteration", "loss", "data", "autoencoding", "regulariser", "psnr", "ssim", "psnr_ema")

TASK_KNOBS: dict[str, tuple[str, ...]] = {
    "mri": ("accel", "noise", "mask", "operator.center_fraction", "operator.coils", "operator.calibration"),
    "ct": ("views", "photons", "dataset.hu_low", "dataset.hu_high", "start"),
    "denoising": ("sigma",),
    "inpainting": ("sigma", "hiar", "mask", "operator.missing", "start"),
    "deblurring": ("sigma", "kernel", "operator.kernel_size"),
}
COMMON_KNOBS = (
    "task.name",
    "dataset.name",
    "dataset.reader",
    "dataset.slice",
    "data_root",
    "size",
    "truth",
    "seed",
)
STOP_KNOBS: dict[str, tuple[str, ...]] = {
    "none": (),
    "wmv": ("stop", "window", "patience"),
    "emv": ("stop", "patience"),
    "zero": ("stop",),
    "discrepancy": ("stop",),
}

#: what the paper states (Sec. 4.1, Algorithm 1; App. C.6 for TV-DIP); any other value is a deviation that the record names
PAPER: dict[str, Any] = {
    **{"steps": 4000, "N": 2, "lam": 1.0, "lr": 1e-4, "residual": "squared", "input_update": "network"},
    **{"start": "paper", "method.rho": 1.0, "network.init": "normal", "ema": 0.0, "stop": "none"},
}
#: lists of images in ``configs/data_task``, and data sets that are a folder of their own, each with that folder
LISTS = {
    **{"calibration_bsds": "natural/train", "calibration_ct": "ct/train"},
    **{"calibration_mri": "mri/magnitude/train", "paper_ct": "aapm", "paper_mri": "multicoil_val"},
    **{"public_cbsd68": "natural/cbsd68", "public_ct": "ct", "public_ffhq": "natural/ffhq256"},
    **{"public_mri": "mri", "public_scans": "mri/kspace"},
}
FOLDERS = {**LISTS, "aapm": "aapm", "cbsd68": "cbsd68", "fastmri": "multicoil_val", "ffhq": "ffhq256"}
WINDOW = tuple(DatasetConfig.__dataclass_fields__[name].default for name in ("hu_low", "hu_high"))
#: what other methods of the comparison are made of
THEIRS: dict[str, dict[str, Any]] = {
    "es_dip": {"stop": "wmv"},
    "rethinking_dip": {"stop": "zero", "ema": 0.99},
}


def identity(cfg: Config) -> dict[str, Any]:
    """The knobs that can change this run's result, by dotted name: those of its task, its method, its data."""
    wanted = (*COMMON_KNOBS, *TASK_KNOBS[cfg.task.name], "method.name", *METHODS[cfg.method.name].knobs)
    if METHODS[cfg.method.name].knobs:
        wanted += ("precision", "ema", *STOP_KNOBS[cfg.stop])
    chosen: dict[str, Any] = {}
    for name, _ in knobs():
        if name in wanted or name.split(".")[0] in wanted:
            chosen[name] = attrgetter(name)(cfg)
    if cfg.start == "paper":  # left out, as it was before there was a choice
        chosen.pop("start", None)
    if cfg.input not in ("normal", "oracle"):
        chosen.pop("input_noise", None)
    if cfg.input != "reference" and "pool" in chosen:
        chosen["pool"] = None
    if cfg.dataset.reader in ("brain", "body", "photos"):
        del chosen["data_root"]  # generated or bundled: no folder is read
    else:
        chosen |= _files(cfg.dataset, chosen)
    return chosen


def _files(dataset: DatasetConfig, chosen: dict[str, Any]) -> dict[str, Any]:
    """Which files, unless the data set's name says it: their folder, and those below it that a list names files of."""
    found: dict[str, Any] = {}
    if dataset.folder != FOLDERS.get(dataset.name, ""):
        found["dataset.folder"] = dataset.folder
    if dataset.files and dataset.name not in LISTS:  # their names are the images'
        found["folders"] = sorted({str(PurePath(file).parent) for file in dataset.files})
    window = {"dataset.hu_low": dataset.hu_low, "dataset.hu_high": dataset.hu_high}
    if dataset.reader == "ct" and not chosen.keys() & window.keys() and tuple(window.values()) != WINDOW:
        found |= window
    return found


def digest(chosen: dict[str, Any]) -> str:
    """A hash of knobs and their values, in hexadecimal digits: what folders and groups are named by."""
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def run_folder(cfg: Config) -> Path:
    """``outputs/task/setting/method-hash``: a function of the config alone, never of the clock."""
    return Path(cfg.outputs) / cfg.task.name / setting(cfg) / f"{cfg.method.name}-{digest(identity(cfg))[:8]}"


def deviations(cfg: Config) -> dict[str, Any]:
    """The knobs whose value is not the paper's, among those this method uses."""
    chosen, paper = identity(cfg), {**PAPER, **THEIRS.get(cfg.method.name, {})}
    if METHODS[cfg.method.name].knobs:
        chosen["stop"] = cfg.stop  # an identity leaves out that there is none
    return {k: chosen[k] for k in paper if k in chosen and chosen[k] != paper[k]}


def write_json(path: Path, content: Any) -> None:
    """JSON with null for NaN and infinities."""
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_curve(path: Path, rows: Rows) -> None:
    """``curve.csv``: one row an iteration, columns ``COLUMNS``; empty where there is no value."""
    lines = [",".join(COLUMNS)]
    lines += [f"{int(row[0])}," + ",".join("" if np.isnan(v) else f"{v:.9g}" for v in row[1:]) for row in rows]
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``curve.csv``; NaN where there is no value."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name in COLUMNS}


def thin(rows: Rows) -> dict[str, Any]:
    """A curve's PSNR, of the iterates and of their running average, in at most 200 means over "every" iterations each.

    Small enough to live in the record itself, so that curves can be drawn from records alone; the last block may be shorter.
    """
    every = max(1, -(-len(rows) // 200))
    table = np.asarray(rows, dtype=float).reshape(-1, len(COLUMNS))
    starts = np.arange(0, len(table), every)
    means = {}
    for name in ("psnr", "psnr_ema"):
        column = table[:, COLUMNS.index(name)]
        scored = ~np.isnan(column)  # score_every leaves some out
        if len(starts):
            sums, counts = (
                np.add.reduceat(part, starts) for part in (np.where(scored, column, 0), scored.astype(float))
            )
            means[name] = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
        else:
            means[name] = np.empty(0)
    return {"every": every, **{name: [round(float(v), 3) for v in values] for name, values in means.items()}}


def write_arrays(path: Path, **arrays: torch.Tensor | None) -> None:
    """Compressed ``.npz`` of the tensors that are there."""
    kept = {name: a.detach().cpu().numpy() for name, a in arrays.items() if a is not None}
    write_atomically(path, lambda file: np.savez_compressed(file, **kept))  # type: ignore[arg-type]


def finished(folder: Path) -> bool:
    """Whether this image's reconstruction is complete: its record is written last."""
    return (folder / "record.json").is_file() and _trace(folder, {"record.json"}).state == "done"


def environment() -> dict[str, str]:
    """Versions that a result may depend on."""
    names = ("aseqdip", "torch", "numpy", "scipy", "scikit-image", "hydra-core")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from aseqdip import __version__

            found[name] = __version__ if name == "aseqdip" else "unknown"
    return {"python": platform.python_version(), "platform": platform.platform(), **found}


def config_dict(cfg: Config) -> dict[str, Any]:
    """The whole configuration as plain values."""
    return dataclasses.asdict(cfg)


@dataclass
class Trace:
    """What was found in the folder of one reconstruction.

    Attributes:
        state: "done" (content is its record), "failed" (content is its failure.json), "unfinished" (begun, with no end
            on disk), or "damaged" (a file that cannot be read; error says why).
    """

    folder: Path
    state: str
    content: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def scan(folders: Iterable[Path]) -> Iterator[Trace]:
    """Every reconstruction below the folders, finished or not, in order; each once, however the folders overlap."""
    seen: set[str] = set()
    for folder in folders:
        for root, below, files in os.walk(folder):
            below.sort()
            names = {"record.json", "failure.json", ".claim", "checkpoint.pt", "curve.csv"}.intersection(files)
            if names and (real := os.path.realpath(root)) not in seen:
                seen.add(real)
                trace = _trace(Path(root), names)
                if "study" not in trace.content:  # Fig. 6 has no image
                    yield trace


def _trace(folder: Path, names: set[str]) -> Trace:
    for name, state in (("record.json", "done"), ("failure.json", "failed")):
        if name in names:
            try:
                content = json.loads((folder / name).read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                return Trace(folder, "damaged", error=f"{name}: {error}")
            if not isinstance(content, dict):
                return Trace(folder, "damaged", error=f"{name}: expected an object, found {type(content).__name__}")
            return Trace(folder, state, content)
    return Trace(folder, "unfinished")
