"""One image or scan as read from disk, and how a user names those to reconstruct."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from typing import Any as Config  # until readers are parts
from aseqdip.errors import UserError


@dataclass
class Sample:
    """What a reader returns: an image, or the k-space of one slice.

    Attributes:
        source: the file (and slice) it came from, for the record.
        patient: whose image it is, as the file says; else the file.
        image: picture, CT slice or MR image, (channels, height, width); real in [0, 1], or complex with one channel.
        kspace: centred k-space of one slice, complex, (coils, height, width).
        maps: coil sensitivity maps stored with the k-space, complex, (coils, height, width).
        mask: columns that were acquired, boolean, (width,); None if all were.
        window: CT: the Hounsfield units that 0 and 1 stand for.
    """

    source: str
    image: Tensor | None = None
    kspace: Tensor | None = None
    maps: Tensor | None = None
    mask: Tensor | None = None
    patient: str = ""
    window: tuple[float, float] = (-1024.0, 2000.0)


#: image names in order, each with the function that reads it
Items = dict[str, Callable[[], Sample]]


def data_folder(cfg: Config) -> Path:
    """``data_root/<dataset.folder>`` if it exists, else ``data_root`` itself; UserError if neither does."""
    root = Path(cfg.data_root).expanduser()
    folder = root / cfg.dataset.folder
    if folder.is_dir():
        return folder
    if not root.is_dir():
        raise UserError(
            f"The data folder {root} does not exist. dataset={cfg.dataset.name} expects its files in "
            f"{folder} or in {root}: set data_root=... (or the environment variable ASEQDIP_DATA)."
        )
    return root


def list_files(cfg: Config, suffixes: Sequence[str], bare: Callable[[Path], bool] = lambda file: False) -> list[Path]:
    """The files that the data set names; else those with a suffix, or with none or a number if ``bare`` accepts them, sorted.

    Raises UserError if one of those named is missing, or if there is none.
    """
    folder = data_folder(cfg)
    if cfg.dataset.files is not None:
        return _listed(cfg, folder)
    visible = [f for f in folder.iterdir() if not f.name.startswith(".")]
    files = sorted(
        f for f in visible if f.suffix.lower() in suffixes or (f.suffix[1:].isdigit() or not f.suffix) and bare(f)
    )
    if not files:
        found = sorted({f.suffix or f.name for f in folder.iterdir()})[:8]
        raise UserError(
            f"No {', '.join(suffixes)} file in {folder}, where dataset={cfg.dataset.name} expects its images; "
            f"found {', '.join(found) if found else 'an empty folder'}: set data_root=... to the folder that holds them."
        )
    return files


def _listed(cfg: Config, folder: Path) -> list[Path]:
    files = [folder / name for name in cfg.dataset.files or []]
    missing = [str(f.relative_to(folder)) for f in files if not f.is_file()]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(
            f"dataset={cfg.dataset.name} lists {len(files)} files, of which {len(missing)} are missing in {folder}: {shown}. "
            "Set data_root=... to the folder that docs/data.md describes; python scripts/prepare.py says what is missing."
        )
    return files


def unique_names(files: Sequence[Path]) -> dict[str, Path]:
    """Stem -> file; the whole name where two files share a stem. UserError if two share their whole name."""
    stems = [f.stem for f in files]
    named = {f.stem if stems.count(f.stem) == 1 else f.name: f for f in files}
    if len(named) < len(files):
        raise UserError("Two images of a data set have the same file name: results could not be told apart.")
    return named


def finite(array: np.ndarray, what: str) -> Tensor:
    """The array as a tensor; UserError if it holds NaN or infinity."""
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise UserError(f"{what} holds {bad} values that are NaN or infinite: repair or leave out the file.")
    return torch.from_numpy(np.ascontiguousarray(array))


def center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The central part of the last two axes, no larger than asked for."""
    rows, columns = image.shape[-2:]
    height, width = min(height, rows), min(width, columns)
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[..., top : top + height, left : left + width]


def fit(image: Tensor, height: int, width: int) -> Tensor:
    """The central part of the last two axes, padded with zeros on all sides where there is too little of it."""
    image = center_crop(image, height, width)
    down, right = height - image.shape[-2], width - image.shape[-1]
    return F.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2))


def select(names: Sequence[str], spec: Any) -> list[str]:
    """The images a user asks for, in order.

    ``spec``: "all", an index or a name, a range "2:5" (Python's meaning: it may reach beyond the end, and be empty), or a
    list of indices and names. Raises UserError for an index or name there is not.
    """
    if spec == "all":
        return list(names)
    if isinstance(spec, (list, tuple)):
        return list(dict.fromkeys(name for part in spec for name in select(names, part)))
    text = str(spec)
    if text in names:
        return [text]
    if match := re.fullmatch(r"(\d*):(\d*)", text):
        start, stop = (int(g) if g else None for g in match.groups())
        return list(names)[start:stop]
    if re.fullmatch(r"-?\d+", text) and -len(names) <= int(text) < len(names):
        return [names[int(text)]]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise UserError(
        f"images={text}: there is no such image. The data set has {len(names)}, indices 0 to {len(names) - 1}: {shown}."
    )
