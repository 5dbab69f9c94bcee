"""DICOM files: their values, and which of them are slices of one volume, in order of position."""

import hashlib
import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aseqdip.data._files import bytes_digest, check_size, opened, printable
from aseqdip.data.base import Sample, VolumeReader
from aseqdip.errors import UserError

log = logging.getLogger(__name__)
T = TypeVar("T")
EXPECTED = "a DICOM image"
DEFLATED = "1.2.840.10008.1.2.1.99"

#: what the folder of an image of ours holds, from its beginning on, and what the folder of its run is called
MARKS = ("record.json", "failure.json", "reconstruction.npz", ".claim")
RUN = re.compile(r"\w+-[0-9a-f]{8}")


class DicomReader(VolumeReader):
    """A reader of DICOM files: those of one series in its folder are a volume, in order of their positions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: of files that are slices of a series: the series' name, the file's number in it, how many it has
        self.series: dict[Path, tuple[str, int, int]] = {}
        self._digests: dict[str, str] = {}

    def is_bare(self, path: Path) -> bool:
        """Scanners and archives often write DICOM files without a suffix: their magic word tells them."""
        if path.name.upper() == "DICOMDIR":  # the index of a disc, which holds no image
            return False
        try:
            with opened(path, EXPECTED) as file:
                return file.read(132)[128:] == b"DICM"
        except UserError:
            return True  # it fails when it is read, and says why

    def is_dicom(self, path: Path) -> bool:
        """Whether a file of the reader's is one (and not NumPy's)."""
        return path.suffix.lower() != ".npz"

    def count(self, path: Path) -> int | None:
        return read_header(path, lambda head: None if (n := int(head.get("NumberOfFrames") or 1)) == 1 else n)

    def _found(self, folder: Path) -> list[Path]:
        """The folder's files; where it has none, those of the folders below it, as archives and scanners export."""
        below = sorted(f for f in folder.rglob("*") if not any(n.startswith(".") for n in f.relative_to(folder).parts))
        if any(self._is_own(f) for f in below if f.parent == folder):
            return super()._found(folder)
        # results of ours are no data, nor what unfinished and failed runs leave: nothing in the folder of a run is
        marked = {f.parent.parent for f in folder.rglob("*") if f.name in MARKS} - {folder, *folder.parents}
        runs = {f for f in marked if RUN.fullmatch(f.name)}
        return [f for f in below if self._is_own(f) and runs.isdisjoint(f.parents)] or super()._found(folder)

    def paths(self) -> dict[str, Path]:
        names = super().paths()
        if self.files is not None:  # a list has its own order, of images that have nothing to do with each other
            return names
        groups: dict[str, list[tuple[float, int, str]]] = {}
        for name, path in names.items():
            uid, kind, position, number = _place(path) if self.is_dicom(path) else ("", "", 0.0, 0)
            groups.setdefault(f"{uid} {kind}" if uid else str(path), []).append((position, number, name))
        order: dict[str, Path] = {}
        for number, group in enumerate(groups.values()):
            group.sort()
            for index, (_, _, name) in enumerate(group):
                order[name] = path = names[name]
                if len(group) > 1:
                    self.series[path] = (f"series{number}", index, len(group))
            if said := uneven([position for position, *_ in group]):
                _say(f"{group[0][2]}: its series is taken for a volume of {len(group)} slices, but {said}.")
        return order

    def _read_of(self, volume: str, path: Path, index: int | None) -> Sample:
        sample = super()._read_of(volume, path, index)
        origin = sample.origin
        if self.is_dicom(path) and (uid := _place(path)[0]):
            sample.scan = hashlib.sha256(uid.encode()).hexdigest()[:16]
        if path in self.series and origin.slices == 1:
            origin.volume, origin.slice, origin.slices = self.series[path]
            origin.volume_digest = self._series_digest(origin.volume)
        return sample

    def files_of(self, series: str) -> list[Path]:
        """The files of a series, in order."""
        return [path for path, (name, *_) in self.series.items() if name == series]

    def _series_digest(self, series: str) -> str:
        """A hash of all its files: neither its name nor its UID, which anonymising may change, tells it from others."""
        if series not in self._digests:
            files = "\n".join(map(_digest_or_none, self.files_of(series)))
            self._digests[series] = hashlib.sha256(files.encode()).hexdigest()
        return self._digests[series]


@cache
def _say(warning: str) -> None:
    """Once: a folder is looked through for more than one end."""
    log.warning("%s", warning)


def uneven(positions: Sequence[float]) -> str:
    """What is odd about the places of a volume's slices, ascending, in mm: where some are missing or lie twice."""
    steps = np.diff(positions)
    if not steps.any():  # one slice, or nothing is said of any
        return ""
    if (steps == 0).any():
        return f"{(steps == 0).sum()} of them lie where another one does (time points, weightings)"
    # beside each; one spacing may follow another, as in scans of heads
    beside = [np.delete(steps[max(0, i - 1) : i + 2], min(i, 1)) for i in range(len(steps))]
    gaps = [i for i, near in enumerate(beside) if len(near) and steps[i] > 1.5 * near.max()]
    places = ", ".join(f"{positions[i]:g} and {positions[i + 1]:g} mm" for i in gaps[:3])
    return f"between {places} there are none: some may be missing" if len(gaps) else ""


def _digest_or_none(path: Path) -> str:
    """One slice that cannot be read is no reason to refuse the others."""
    try:
        return bytes_digest(path)
    except UserError:
        return "unreadable"


def _place(path: Path) -> tuple[str, str, float, int]:
    """The series a file belongs to, what else slices of one volume share, its position across them in mm, its number.

    The series is "" where it says nothing.
    """

    def ask(head: Any) -> tuple[str, str, float, int]:
        number = int(head.get("InstanceNumber") or 0)
        if int(head.get("NumberOfFrames") or 1) > 1:
            return "", "", 0.0, number
        across, at = head.get("ImageOrientationPatient"), head.get("ImagePositionPatient")
        position = float(np.cross(across[:3], across[3:]) @ np.asarray(at, float)) if across and at else 0.0
        # the planes of a localizer and the echoes of a scan may be one series
        turned = [round(float(value), 1) + 0.0 for value in across or ()]
        kind = f"{turned} {head.get('Rows')} x {head.get('Columns')} {head.get('EchoTime')}"
        return str(head.get("SeriesInstanceUID") or ""), kind, round(position, 4), number

    try:
        return read_header(path, ask)
    except UserError:
        return "", "", 0.0, 0  # reading it says why it cannot be read


def read_header(path: Path, ask: Callable[[Any], T]) -> T:
    """What ``ask`` finds in a DICOM file's header; UserError also for what it raises: values are decoded late."""
    import pydicom

    with opened(path, EXPECTED) as file:
        return ask(pydicom.dcmread(file, stop_before_pixels=True))


def read_dicom(path: Path, max_gib: float, check: Callable[[Any], None]) -> tuple[np.ndarray, Any]:
    """Values of an image, stored value * RescaleSlope + RescaleIntercept, and its header.

    Shape (rows, columns), or (frames, rows, columns).

    Args:
        check: raises UserError for a header that is not of an image wanted here.

    Raises UserError for what has no grey values, or, of modality CT, does not say how they become Hounsfield units.
    """
    import pydicom.filereader

    with opened(path, EXPECTED) as file:
        check_size(path, "the file", (path.stat().st_size or 1,), 1, max_gib)
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            # unpacked at once, to whatever size
            raise UserError(f"{printable(path)} is a deflated DICOM file, which is not read: save it uncompressed.")
        image = pydicom.dcmread(file)
        check(image)
        frames, bits = int(image.get("NumberOfFrames") or 1), int(image.get("BitsAllocated") or 16)
        factors = np.array([rescale(image, path, i) for i in range(min(frames, 10_000))])[..., None, None]
        shape = (frames, int(image.get("Rows") or 0), int(image.get("Columns") or 0))
        check_size(path, "the image", shape, max(bits // 8, 4), max_gib)
        pixels = image.pixel_array
        slopes, intercepts = factors[:, 0], factors[:, 1]
        for name in ("PatientID", "Modality"):  # what readers ask for is decoded here, where its errors become ours
            image.get(name)
        return np.asarray(
            pixels * slopes + intercepts if pixels.ndim == 3 else pixels * slopes[0] + intercepts[0]
        ), image


def rescale(image: Any, path: Path, frame: int = 0) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept of a frame.

    Raises UserError for a CT without them: the units are unknown then, often by 1024. Of others the stored values are
    taken.
    """
    place = image
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):  # of enhanced CT and MR
        groups = image.get(name) or []
        if "RescaleSlope" not in place and groups:
            group = groups[frame if name.startswith("Per") and frame < len(groups) else 0]
            place = next(iter(group.get("PixelValueTransformationSequence") or []), place)
    found = {name: place.get(name) for name in ("RescaleSlope", "RescaleIntercept")}
    if [*found.values()] == [None, None] and image.get("Modality", "CT") != "CT":
        return 1.0, 0.0
    try:
        slope, intercept = (float(value) for value in found.values())
    except (TypeError, ValueError):
        slope = intercept = math.nan
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
        said = ", ".join(f"{name} {'missing' if v is None else printable(v) or 'empty'}" for name, v in found.items())
        raise UserError(
            f"{printable(path)}: {said}; expected two numbers, the first not 0: without them the values are not "
            "Hounsfield units. Repair the file, or store Hounsfield units as array 'hu' of an .npz file."
        )
    return slope, intercept


def check_grey(image: Any, path: Path, ct: bool) -> None:
    """Raise UserError for a DICOM image in colour, and for one that is of modality CT where that is not wanted."""
    modality, kind = str(image.get("Modality") or "CT"), str(image.get("PhotometricInterpretation", ""))
    grey = int(image.get("SamplesPerPixel") or 1) == 1 and kind.startswith("MONOCHROME")
    if grey and (modality == "CT") is ct:
        return
    found = f"{printable(path)} is of modality {printable(modality)}, {printable(kind) or 'of unknown colours'}: "
    if ct and grey:
        advice = (
            "read it with dataset=dicom. If its values are Hounsfield units, store them as array 'hu' of an .npz file."
        )
    else:
        advice = "read it with dataset=ct." if grey else "save it as a picture (dataset=folder)."
    raise UserError(f"{found}expected {'a CT image in grey values' if ct else 'grey values, and no CT'}; {advice}")
