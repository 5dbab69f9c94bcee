"""What a reader is: it finds the images of a data set, names them, and reads one when asked."""

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip.data._files import bytes_digest, printable, regular, there
from aseqdip.errors import UserError
from aseqdip.parts import NoOptions, Part, knob

R = TypeVar("R")
HOUNSFIELD = "Hounsfield units"  # a unit of files
#: slices of one file that ``slice=all`` makes images of; a file that declares more is damaged or needs a choice
MOST_SLICES = 10_000


@dataclass
class Origin:
    """Where a sample stands in its file, and how its values are written there: what a result in the same kind needs.

    Attributes:
        kind: of the file: picture, tiff, dicom, nifti, kspace, array; "" for what is generated or bundled.
        low, high: the file's values of what the sample has as 0 and 1; unit: theirs, in words.
        volume: name of the volume it is a slice of, "" for none; slice, slices: its number there, and how many it has.
        digest: of the file's bytes; volume_digest: of those of all files of its volume. Readers need not care.
        path: of the file. Never recorded.
    """

    kind: str = ""
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    volume: str = ""
    slice: int = 0
    slices: int = 1
    digest: str = ""
    volume_digest: str = ""
    path: Path | None = None

    @property
    def recorded(self) -> dict[str, Any]:
        """What records have of it."""
        return {key: value for key, value in vars(self).items() if key != "path"}


@dataclass
class Sample:
    """What a reader returns: an image, or the k-space or the sinogram of one slice.

    Attributes:
        source: the file below its data folder (and slice) that it came from, for the record.
        image: picture, CT slice or MR image, (channels, height, width); real in [0, 1], or complex with one channel.
        kspace: centred k-space of one slice, complex, (coils, height, width).
        maps: coil sensitivity maps stored with the k-space, complex, (coils, height, width).
        mask: columns that were acquired, boolean, (width,), or points, (height, width); None if all were.
        sinogram: line integrals in any unit, (detectors, views); angles: of the views, in radians, (views,).
        aspect: whether a resized picture keeps its aspect.
        patient: whose image it is, as the file says; else the file. Never recorded.
        scan: which scan it is of, where the file says so; its images share what is drawn for a scan. Never recorded.
        hu_width, hu_low: CT: Hounsfield units from 0 to 1, and at 0.
        notes: what had to be guessed, a line each, for the user and the record.
        origin: where it stands in its file, for results in the same kind.
    """

    source: str
    image: Tensor | None = None
    kspace: Tensor | None = None
    maps: Tensor | None = None
    mask: Tensor | None = None
    sinogram: Tensor | None = None
    angles: Tensor | None = None
    aspect: bool = False
    patient: str = ""
    scan: str = ""
    hu_width: float = 3024.0
    hu_low: float = -1024.0
    notes: list[str] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)


#: image names in order, each with the function that reads it
Items = dict[str, Callable[[], Sample]]


class Reader(Part, ABC):
    """A kind of data set.

    Args:
        options: values of its ``Options``.
        root: the folder of all data; ``folder`` below it is read where there is one, else ``root`` itself.
        files: the images by file below that folder, in order; None: every file there.
        size: the side asked for, in pixels, or "native": for readers that generate.
        name: the data set's name, for messages.

    Attributes:
        generated: whether its images are drawn or come with a package: then their names say all about them.
        gives: what its samples hold, "image", "kspace" or "sinogram"; a task says which it takes.
    """

    Options: ClassVar[type] = NoOptions
    generated: ClassVar[bool] = False
    gives: ClassVar[str] = "image"

    def __init__(
        self,
        options: Any = None,
        root: Path = Path(),
        folder: str = "",
        files: Sequence[str] | None = None,
        size: str = "native",
        name: str = "",
    ) -> None:
        self.options = self.Options() if options is None else options
        self.root, self.folder, self.files = Path(root), folder, files
        self.size, self.dataset = size, name or self.name

    @abstractmethod
    def items(self) -> Items:
        """Every image by name, in order; nothing is read yet. Raises UserError if there is none."""


class FileReader(Reader):
    """A reader of files that hold an image each. Add :meth:`read`.

    Attributes:
        suffixes: of its files, lower case.
        kind: of its files, as :class:`Origin` has it.
    """

    suffixes: ClassVar[tuple[str, ...]]
    kind: ClassVar[str] = "array"

    @dataclass
    class Options:
        max_gib: float = knob("largest image or slice that is read, in GiB", 2.0, above=0, result=False)

    options: Options

    @abstractmethod
    def read(self, path: Path) -> Sample:
        """The image of one file. Raises UserError for a file that cannot be read, naming it."""

    def is_bare(self, path: Path) -> bool:
        """Whether a file without a suffix (or with a number for one) is one of its files."""
        return False

    def items(self) -> Items:
        return {name: partial(self._read_whole, path) for name, path in self.paths().items()}

    def _read_whole(self, path: Path) -> Sample:
        """The image of a file, which says what file that was."""
        sample = self.read(path)
        sample.origin.digest = bytes_digest(path)
        return sample

    def paths(self) -> dict[str, Path]:
        """The files by the names of their images, in order. UserError if one of a list is missing, or for none."""
        folder = self.data_folder()
        files = self._listed(folder) if self.files is not None else self._found(folder)
        return unique_names(files, folder, self.suffixes)

    def data_folder(self) -> Path:
        """``root/folder`` if it exists, else ``root``; UserError if neither is a folder."""
        try:
            root = self.root.expanduser()
            inside = root / self.folder
            if inside.is_dir():
                return inside
            if root.is_dir():
                return root
            state = "is a file, not a folder" if root.exists() else "does not exist"
        except (OSError, RuntimeError, ValueError) as error:  # no right to look, no such user, a name too long
            raise UserError(
                f"The data folder {printable(self.root)} cannot be opened ({error}): set data_root=..."
            ) from error
        raise UserError(
            f"The data folder {printable(root)} {state}. dataset={self.dataset} expects its files in "
            f"{printable(inside)} or in {printable(root)}: set data_root=... (or the environment variable "
            "ASEQDIP_DATA)."
        )

    def _listed(self, folder: Path) -> list[Path]:
        """The files that the data set names, in order."""
        names = list(dict.fromkeys(self.files or []))
        if not names:
            raise UserError(f"dataset={self.dataset}: its list of files is empty: name some, or leave the list out.")
        missing = [printable(name) for name in names if not there(folder / name)]
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise UserError(
                f"dataset={self.dataset} lists {len(names)} files, of which {len(missing)} are missing in "
                f"{printable(folder)}: {shown}. Set data_root=... to the folder that docs/data.md describes; python "
                "scripts/prepare.py says what is missing."
            )
        return [folder / name for name in names]

    def _found(self, folder: Path) -> list[Path]:
        """Every file of the folder with one of the suffixes, or that is one of its files without."""
        try:
            inside = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
        except OSError as error:
            raise UserError(f"The folder {printable(folder)} cannot be read ({error.strerror}).") from error
        files = [f for f in inside if self._is_own(f)]
        if not files:
            seen = sorted({printable(f.suffix or f.name) for f in inside})[:8]
            raise UserError(
                f"No {', '.join(self.suffixes)} file in {printable(folder)}, where dataset={self.dataset} expects its "
                f"images; found {', '.join(seen) or 'an empty folder'}: set data_root=... to the folder that holds "
                "them."
            )
        return files

    def _is_own(self, path: Path) -> bool:
        if path.name.lower().endswith(self.suffixes):
            # pipes and broken links are listed, and fail when they are read; a folder is no image
            return regular(path) or not _is_folder(path)
        return (path.suffix[1:].isdigit() or not path.suffix) and regular(path) and self.is_bare(path)

    def source(self, path: Path) -> str:
        """The file's path below the data folder, for records."""
        try:
            return printable(path.relative_to(self.data_folder()))
        except (UserError, ValueError):
            return printable(path.name)

    def sample(self, path: Path, patient: str = "", **parts: Any) -> Sample:
        """A sample of this file; a file that does not say whose image it is is a patient of its own."""
        origin = Origin(self.kind, path=path)
        return Sample(self.source(path), patient=patient or str(path.absolute()), origin=origin, **parts)


class VolumeReader(FileReader):
    """A reader of files that may hold several slices. Add :meth:`count` and :meth:`read_slice`."""

    @dataclass
    class Options(FileReader.Options):
        slice: str = knob(
            "slice of a volume: middle, all (an image each), or an index; auto: all of them for images=all of a data "
            "set without a list, else the middle one",
            "auto",
        )

    options: Options

    _kept: tuple[Any, Any] | None = None

    @abstractmethod
    def count(self, path: Path) -> int | None:
        """How many slices a file has, as its header says; None for a file that is no volume. Raises UserError."""

    @abstractmethod
    def read_slice(self, path: Path, index: int | None) -> Sample:
        """One slice of a file; the middle one for None. Raises UserError, also for an index there is not."""

    def read(self, path: Path) -> Sample:
        return self.read_slice(path, int(self.options.slice) if self.options.slice.isdecimal() else None)

    def items(self) -> Items:
        wanted = "middle" if self.options.slice == "auto" else self.options.slice
        if wanted not in ("middle", "all") and not wanted.isdecimal():
            raise UserError(f"dataset.slice={wanted}: expected middle, all, or an index from 0; or auto.")
        items: Items = {}
        for name, path in self.paths().items():
            for index in self._slices(path) if wanted == "all" else [int(wanted) if wanted != "middle" else None]:
                slice_name = name if index is None else f"{name}_s{index:03d}"
                while slice_name in items:  # another file is called what a slice is
                    slice_name += "+"
                items[slice_name] = partial(self._read_of, name, path, index)
        return items

    def _read_of(self, volume: str, path: Path, index: int | None) -> Sample:
        """One slice of a file, which says what file and what volume it is of."""
        sample = self.read_slice(path, index)
        origin = sample.origin
        origin.digest = bytes_digest(path)
        if origin.slices > 1:
            origin.volume, origin.volume_digest = volume, origin.digest
        return sample

    def _slices(self, path: Path) -> Sequence[int | None]:
        """Its slices' indices; [None] for a file that is no volume, or that cannot be read: reading it says why."""
        try:
            count = self.count(path)
        except UserError:
            return [None]
        return [None] if count is None or not 1 < count <= MOST_SLICES else range(count)

    def one_slice(self, sample: Sample, path: Path, array: np.ndarray, index: int | None) -> np.ndarray:
        """An image's rows and columns, out of (rows, columns) or (slices, rows, columns)."""
        if array.ndim == 3:
            return array[self.choose(sample, path, index, len(array))]
        self.check_index(path, index, 1)
        return array

    def one_of(self, sample: Sample, path: Path, slices: Any, index: int | None) -> Any:
        """One of several slices, an array or tensor (slices, ...); the only one is no slice of a volume."""
        number = self.choose(sample, path, index, len(slices)) if len(slices) > 1 else 0
        return slices[number]

    def whole(self, path: Path, read: Callable[[Path], R]) -> R:
        """What ``read`` gives of a file that can only be read whole; kept for its next slice, while it is the same."""
        try:
            found = path.stat()
        except OSError:
            return read(path)  # which says why
        file = path, found.st_mtime_ns, found.st_size
        if self._kept is None or self._kept[0] != file:
            self._kept = file, read(path)
        kept: R = self._kept[1]
        return kept

    def choose(self, sample: Sample, path: Path, index: int | None, count: int) -> int:
        """The index of a slice out of ``count``, the middle one for None; the sample says which. UserError for none."""
        self.check_index(path, index, count)
        number = count // 2 if index is None else index
        sample.source += f", slice {number}"
        sample.origin.slice, sample.origin.slices = number, count
        if index is None and count > 1:
            sample.notes.append(f"slice {number} of {count} was taken: dataset.slice=all makes an image of each")
        return number

    def check_index(self, path: Path, index: int | None, count: int) -> None:
        """Raise UserError for a slice that there is not."""
        if count > MOST_SLICES and index is None:
            raise UserError(
                f"{printable(path)} declares {count} slices, more than {MOST_SLICES}: is the file damaged? If not, "
                "take one of them with dataset.slice=INDEX."
            )
        if index is not None and not 0 <= index < count:
            has = f"has slices 0 to {count - 1}" if count > 1 else "holds one slice, 0"
            raise UserError(f"{printable(path)} {has}; dataset.slice={index} is not among them.")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def unique_names(files: Sequence[Path], folder: Path, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """A name for each file: without its suffix; with it where two share that; with its folders where two share this."""
    outside = [f.absolute().parent for f in files if not f.is_relative_to(folder)]
    together = os.path.commonpath(outside) if outside else folder

    def forms(path: Path) -> tuple[str, ...]:
        suffix = next(
            (s for s in sorted(suffixes, key=len, reverse=True) if path.name.lower().endswith(s)), path.suffix
        )
        stem = path.name[: -len(suffix)] if suffix else path.name
        whole = path.relative_to(folder) if path.is_relative_to(folder) else path.absolute().relative_to(together)
        return stem if stem.strip(".") else path.name, path.name, "_".join(whole.parts)

    names = [forms(f) for f in files]
    level = [0] * len(files)
    while True:
        now = [printable(name[i]) for name, i in zip(names, level, strict=True)]
        count = Counter(now)
        again = [i for i, name in enumerate(now) if count[name] > 1 and level[i] < 2]
        if not again:
            break
        for i in again:
            level[i] += 1
    for i, name in enumerate(now):  # a_b/c and a/b_c
        while now.index(name) < i:
            name = now[i] = name + "+"
    return dict(zip(now, files, strict=True))


def finite(array: np.ndarray, what: str) -> Tensor:
    """The array as a tensor; UserError if it holds NaN or infinity."""
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise UserError(f"{what} holds {bad} values that are NaN or infinite: repair or leave out the file.")
    return torch.from_numpy(np.ascontiguousarray(array))


def central(shape: Sequence[int], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the central part of an image's (rows, columns), no larger than asked for."""
    rows, columns = shape
    height, width = min(height, rows), min(width, columns)
    return (rows - height) // 2, (columns - width) // 2, height, width


def center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The central part of the last two axes, no larger than asked for."""
    top, left, height, width = central(image.shape[-2:], height, width)
    return image[..., top : top + height, left : left + width]


def fit(image: Tensor, height: int, width: int) -> Tensor:
    """The central part of the last two axes, padded with zeros on all sides where there is too little of it."""
    image = center_crop(image, height, width)
    down, right = height - image.shape[-2], width - image.shape[-1]
    return F.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2))


def select(names: Sequence[str], spec: Any) -> list[str]:
    """The images a user asks for, in order.

    ``spec``: "all", an index or a name, a range "2:5" (Python's meaning: it may reach beyond the end, and be empty),
    "./NAME" for a name that looks like an index, or a list of these. Raises UserError for an index or name there is
    not, and for what is one image's name and another's index.
    """
    if spec == "all":
        return list(names)
    if isinstance(spec, (list, tuple)):
        if not spec:
            raise UserError("images=[]: the list is empty: name an image, an index, a range such as 0:5, or all.")
        return list(dict.fromkeys(name for part in spec for name in select(names, part)))
    text = str(spec)
    index = int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
    at = names[index] if index is not None and -len(names) <= index < len(names) else None
    if text in names:
        if at not in (None, text) and text == str(index):
            raise UserError(
                f"images={text} is the name of one image and the index of another ({at}): write images=./{text} for "
                f"the name, images={text}:{int(text) + 1} for the index."
            )
        return [text]
    if text.removeprefix("./") in names:
        return [text.removeprefix("./")]
    if match := re.fullmatch(r"(\d*):(\d*)", text):
        start, stop = (int(g) if g else None for g in match.groups())
        return list(names)[start:stop]
    if at is not None:
        return [at]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise UserError(
        f"images={printable(text)}: there is no such image. The data set has {len(names)}, indices 0 to "
        f"{len(names) - 1}: {shown}."
    )
