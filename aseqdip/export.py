"""Results in the kinds of files that people use: PNG, TIFF, HDF5, DICOM, NIfTI. Axes, units and scale: docs/data.md."""

import argparse
import glob
import gzip
import hashlib
import io
import logging
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip import records
from aseqdip.data._files import bytes_digest, regular
from aseqdip.errors import UserError, in_short
from aseqdip.figures import pixels, white
from aseqdip.files import write_atomically
from aseqdip.records import Record

log = logging.getLogger(__name__)


@dataclass
class Result:
    """One reconstruction, as far as a file for others needs it.

    Attributes:
        shown: the displayed image, (rows, columns) or (rows, columns, 3), real.
        source: the file that it was read from; None where that is not there.
    """

    record: Record
    shown: np.ndarray
    source: Path | None = None

    @property
    def origin(self) -> dict[str, Any]:
        """The record's; of one from before records had it, what can be told."""
        scale = self.record.facts.get("scale", 1.0)
        found = {"kind": "", "low": 0.0, "high": 1 / scale, "unit": "", "slice": 0, "slices": 1, **self.record.origin}
        return {"digest": "", "volume": "", "volume_digest": "", **found}

    @property
    def values(self) -> np.ndarray:
        """In the units of the file, float32."""
        low, high = self.origin["low"], self.origin["high"]
        return (low + (high - low) * self.shown.astype(np.float64)).astype(np.float32)

    def region(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Top, left, rows and columns of the file's image that are shown."""
        top, left, height, width = self.origin.get("region") or (0, 0, rows, columns)
        return top, left, height, width

    @property
    def line(self) -> str:
        """What it is, for a header."""
        titles, r = self.record.titles, self.record
        return f"{titles.get('task', r.task)} {titles.get('setting', r.setting)}, {titles.get('method', r.method)}"

    @property
    def in_levels(self) -> bool:
        """Whether its values are grey levels of a picture, and 1 is still white: not where the task has a scale."""
        origin = self.origin
        return origin["kind"] in ("picture", "tiff") and origin["low"] >= 0 and "scale" not in self.record.facts

    def needed(self, what: str) -> Path:
        """Its source. UserError where there is none of the kind, or not the one that was read, whoever's it is now."""
        image, name = self.record.image, self.record.source
        if self.origin["kind"] != what:
            raise UserError(f"{image} was not read from a {what} file, whose header the result would need.")
        if not self.origin["digest"]:
            raise UserError(
                f"{image}: its record does not say which {name} was read, and a file of that name may be another "
                f"patient's: compute it again, which writes the {what} file, too."
            )
        if self.source is None or not regular(self.source):
            raise UserError(f"{image}: its file {name} is not there: say --data FOLDER.")
        if bytes_digest(self.source) != self.origin["digest"]:
            raise UserError(
                f"{image}: {name} is not the file that it was computed from: say --data FOLDER of that one, or compute "
                "the image of this one."
            )
        return self.source


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


# --- writers: a folder and results in, which are an image or all slices of a volume ----------------------------------


def write_png(folder: Path, results: Sequence[Result]) -> None:
    """16 bits a channel; black is 0, white 1, or the largest value where that is larger."""
    if len(results) == 1:  # slices have theirs beside them
        shown = np.clip(results[0].shown, 0, None)
        content = _png(np.rint(shown / max(1.0, float(shown.max())) * 65535).astype(">u2"))
        _write(folder / "reconstruction.png", content)


def _png(levels: np.ndarray) -> bytes:
    """A PNG of (rows, columns) or (rows, columns, 3), 16 bits, which Pillow cannot write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = np.ascontiguousarray(levels).view(np.uint8).reshape(len(levels), -1)
    data = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # before each row: not filtered
    head = struct.pack(">IIBBBBB", levels.shape[1], len(levels), 16, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def write_tiff(folder: Path, results: Sequence[Result]) -> None:
    """A picture in its own grey levels, 16 bits; 0 to 65535 where it has 8 bits or fewer. All else as floats."""
    import tifffile

    values, high = np.stack([result.values for result in results]), max(result.origin["high"] for result in results)
    tags: list[tuple[int, str, int, int, bool]] = []
    said = ", ".join(filter(None, (results[0].line, results[0].origin["unit"])))
    if 1 < high < 2**16 and all(result.in_levels for result in results):
        white = 65535 if high < 256 else int(high)
        values = np.rint(np.clip(values / high, 0, 1) * white).astype(np.uint16)
        tags = [(281, "H", 1, white, True)]  # MaxSampleValue: what white is
    file = io.BytesIO()
    colours = "rgb" if values.ndim == 4 else "minisblack"
    tifffile.imwrite(file, values, metadata=None, extratags=tags, description=said, photometric=colours)
    _write(folder / "reconstruction.tif", file.getvalue())


def write_h5(folder: Path, results: Sequence[Result]) -> None:
    """``reconstruction``, float32, (slices, rows, columns), or (slices, rows, columns, 3), in the file's units."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        stored = file.create_dataset("reconstruction", data=np.stack([result.values for result in results]))
        stored.attrs["unit"] = results[0].origin["unit"] or "displayed values"
        stored.attrs["method"] = results[0].line
        stored.attrs["slice"] = [result.origin["slice"] for result in results]
    _write(folder / "reconstruction.h5", content.getvalue())


def write_nifti(folder: Path, results: Sequence[Result]) -> None:
    """float32 in the file's units, in its space: the affine is that of what is shown."""
    import nibabel

    first = results[0]
    source: Any = nibabel.load(first.needed("nifti"))
    # rows run from anterior to posterior, as data/nifti.py reads them
    array = np.stack([result.values[::-1].T for result in results], axis=-1)
    top, left, rows, columns = first.region(source.shape[1], source.shape[0])
    place = np.eye(4)
    for axis, (start, length) in enumerate(((left, columns), (source.shape[1] - top - rows, rows))):
        place[axis, axis] = length / array.shape[axis]
        place[axis, 3] = start + (place[axis, axis] - 1) / 2
    place[2, 3] = first.origin["slice"]
    header = source.header.copy()
    header.set_data_dtype(np.float32)
    header["descrip"] = first.line.encode()[:79]
    content = gzip.compress(type(source)(array, source.affine @ place, header).to_bytes(), mtime=0)
    _write(folder / "reconstruction.nii.gz", content)


def write_dicom(folder: Path, results: Sequence[Result]) -> None:
    """Derived files: the headers of those that were read, with UIDs of their own; one for each that was read."""
    import pydicom

    files: dict[Path, list[Result]] = {}
    for result in results:
        files.setdefault(result.needed("dicom"), []).append(result)
    written = set()
    for number, (path, frames) in enumerate(files.items()):
        image = _derived(pydicom.dcmread(path), frames)
        name = "reconstruction.dcm" if len(files) == 1 else f"reconstruction/{number:04d}.dcm"
        content = io.BytesIO()
        image.save_as(content, enforce_file_format=True)
        _write(folder / name, content.getvalue())
        written.add(folder / name)
    for old in {*folder.glob("reconstruction/[0-9]*.dcm"), *folder.glob("reconstruction.dcm")} - written:
        old.unlink()  # a slice of what was here before, between these


def _derived(image: Any, frames: Sequence[Result]) -> Any:
    """A DICOM image of these frames of the image, as (frames of) a new series."""
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    from aseqdip.data._dicom import rescale

    first = frames[0]
    values = np.stack([frame.values for frame in frames])
    path = first.needed("dicom")
    factors = np.array([rescale(image, path, f.origin["slice"] if "NumberOfFrames" in image else 0) for f in frames])
    slope, intercept = factors[:, 0, None, None], factors[:, 1, None, None]
    stored = np.rint((values - intercept) / slope)
    kind = "i" if image.PixelRepresentation else "u"
    fits = stored.max() <= np.iinfo(f"{kind}2").max and (kind == "u" or stored.min() >= np.iinfo("i2").min)
    room = np.iinfo(f"{kind}2" if fits else f"{kind}4")  # a file of 32 bits, or a peak higher than the file's
    pixels = np.clip(stored, room.min, room.max).astype(room.dtype.newbyteorder("<")).tobytes()
    if "PerFrameFunctionalGroupsSequence" in image:
        groups = image.PerFrameFunctionalGroupsSequence
        image.PerFrameFunctionalGroupsSequence = [groups[frame.origin["slice"]] for frame in frames]
    if "NumberOfFrames" in image:
        image.NumberOfFrames = len(frames)
    _place(image, first, values.shape[1:])
    image.PixelData = pixels
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OW", False
    image.BitsAllocated = image.BitsStored = room.bits
    image.HighBit = room.bits - 1
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit"):
        if name in image:
            delattr(image, name)
    series = str(image.get("SeriesInstanceUID") or image.get("SOPInstanceUID") or first.record.source)
    settings = hashlib.sha256(f"{first.record.identity} {first.record.image}".encode() + pixels).hexdigest()
    image.SOPInstanceUID = generate_uid(entropy_srcs=[str(image.get("SOPInstanceUID")), settings])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[series, first.record.identity])
    image.SeriesNumber = 1000 + int(image.get("SeriesNumber") or 0)
    image.SeriesDescription = f"{image.get('SeriesDescription') or ''} {first.line}".strip()[:64]
    image.DerivationDescription = f"aseqdip {first.record.versions.get('aseqdip', '')}: {first.line}"
    image.ImageType = ["DERIVED", "SECONDARY", *list(image.get("ImageType") or [])[2:]]
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _place(image: Any, result: Result, shape: tuple[int, ...]) -> None:
    """Rows, columns, pixel spacing and position of what is shown, in every group of the header that has them."""
    top, left, rows, columns = result.region(image.Rows, image.Columns)
    factors = rows / shape[0], columns / shape[1]
    down, right = top + (factors[0] - 1) / 2, left + (factors[1] - 1) / 2
    image.Rows, image.Columns = shape[:2]
    shared = list(image.get("SharedFunctionalGroupsSequence") or [])
    groups = [image, *shared, *(image.get("PerFrameFunctionalGroupsSequence") or [])]
    parts = [part for group in groups for part in [group, *(g for e in group if e.VR == "SQ" for g in e.value)]]
    spacing = next((list(part.PixelSpacing) for part in parts if part.get("PixelSpacing")), None)
    turn = next((list(part.ImageOrientationPatient) for part in parts if part.get("ImageOrientationPatient")), None)
    if spacing is None or (top, left, *factors) == (0, 0, 1, 1):
        return
    for part in parts:
        if part.get("ImagePositionPatient") and turn is not None:
            step = [down * spacing[0] * turn[3 + i] + right * spacing[1] * turn[i] for i in range(3)]
            moved = [float(a) + b for a, b in zip(part.ImagePositionPatient, step, strict=True)]
            part.ImagePositionPatient = [f"{value:.10g}" for value in moved]
        if part.get("PixelSpacing"):
            part.PixelSpacing = [f"{float(a) * b:.10g}" for a, b in zip(spacing, factors, strict=True)]


WRITERS: dict[str, Callable[[Path, Sequence[Result]], None]] = {
    "png": write_png, "tiff": write_tiff, "h5": write_h5, "dicom": write_dicom, "nifti": write_nifti,
}  # fmt: skip
#: kinds that need the header of the file that was read
HEADERS = ("dicom", "nifti")
#: what is written beside every result, by the kind of its file; of others a PNG
BESIDE = {"tiff": ["tiff"], "dicom": ["png", "dicom"], "nifti": ["png", "nifti"]}
BESIDE |= dict.fromkeys(("kspace", "array"), ["png", "h5"])


def beside(folder: Path, results: Sequence[Result]) -> None:
    """A result in the kind of its own file. What cannot be written is said: no file for others is worth the result."""
    for kind in BESIDE.get(results[0].origin["kind"], ["png"]):
        try:
            WRITERS[kind](folder, results)
        except OSError:
            raise
        except Exception as error:  # a header of somebody's that the library does not take
            log.warning("%s could not be written as %s: %s", results[0].record.image, kind, error)


# --- volumes -------------------------------------------------------------------------------------------------------


def volume_folder(volume: str, digest: str) -> str:
    """The name of a volume's folder: two patients may have files, and folders of slices, of one name."""
    return f"volume-{volume}-{digest[:6]}"


def volumes(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The volumes of which every slice is there, by their folders' names, their slices in order."""
    return {name: slices for name, slices in begun(results).items() if len(slices) == count_of(slices)}


def count_of(slices: Sequence[Result]) -> int:
    """How many slices the volume of these has."""
    return int(slices[0].origin["slices"])


def begun(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The volumes, by their folders' names, and what slices of them there are, in order.

    Raises UserError where it cannot be told which slices belong together.
    """
    found: dict[str, dict[int, Result]] = {}
    for result in results:
        origin = result.origin
        if not origin["volume"]:
            continue
        name, number = volume_folder(origin["volume"], origin["volume_digest"]), origin["slice"]
        if not origin["volume_digest"]:
            raise UserError(
                f"{result.record.image} is a slice of {origin['volume']}, and its record does not say of whose: "
                "compute it again to have the whole volume. The slices themselves are written."
            )
        if (other := found.setdefault(name, {}).setdefault(number, result)) is not result:
            raise UserError(
                f"{other.record.image} and {result.record.image} are both slice {number} of {name}: move the folder of "
                "one of them away to have the whole volume. The slices themselves are written."
            )
    for name, slices in found.items():
        if len(shapes := {result.values.shape for result in slices.values()}) > 1:
            sizes = " and ".join(sorted(" x ".join(map(str, shape)) for shape in shapes))
            raise UserError(f"{name}: its slices are of {sizes} pixels, which make no volume. The slices are written.")
    return {name: [slices[i] for i in sorted(slices)] for name, slices in found.items()}


def montage(path: Path, results: Sequence[Result]) -> None:
    """Every slice in a grid, one scale for all; of more than 64 evenly spaced ones."""
    from PIL import Image

    chosen = [
        results[i] for i in np.unique(np.linspace(0, len(results) - 1, min(64, len(results))).round().astype(int))
    ]
    across = int(np.ceil(len(chosen) ** 0.5))
    high = white(*(result.shown for result in chosen))
    tiles = []
    for result in chosen:
        tile = Image.fromarray((np.clip(result.shown / high, 0, 1) * 255).round().astype(np.uint8))
        tile.thumbnail((256, 256))
        tiles.append(tile)
    width, height = tiles[0].size
    sheet = Image.new(tiles[0].mode, (across * width, -(-len(tiles) // across) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % across * width, i // across * height))
    write_atomically(path, lambda file: sheet.save(file, format="PNG"))


def load(folder: Path, record: Record, source: Path | None) -> Result:
    """A finished reconstruction of a folder. UserError where its arrays are not there."""
    try:
        with np.load(folder / "reconstruction.npz", allow_pickle=False) as file:
            return Result(record, pixels(file["shown"]), source)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{folder}: its reconstruction.npz cannot be read ({in_short(error)}): compute it again, with redo=true."
        ) from error


# --- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> None:
    """``aseqdip export FOLDER ... --to KIND``: every result below the folders, beside it; whole volumes, too."""
    parser = argparse.ArgumentParser(prog="aseqdip export", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold results")
    parser.add_argument("--to", choices=list(WRITERS), required=True)
    parser.add_argument("--data", type=Path, help="the folder of the data that they were computed from")
    words = parser.parse_args(argv)
    runs: dict[Path, list[Result]] = {}
    refused: list[str] = []  # others may be of the kind
    for trace in records.scan(words.folder):
        if trace.record is not None and trace.lines is None:
            try:
                result = load(trace.folder, trace.record, None)
                if words.to in HEADERS and result.origin["kind"] == words.to:
                    result.source = source(trace.record, words.data)
                WRITERS[words.to](trace.folder, [result])
            except (UserError, OSError) as error:
                refused.append(str(error) if str(trace.folder) in str(error) else f"{trace.folder}: {error}")
                continue
            sys.stdout.write(f"{trace.folder}\n")
            runs.setdefault(trace.folder.parent, []).append(result)
    if not runs and not refused:
        raise UserError(f"There is no finished result below {', '.join(map(str, words.folder))}.")
    for run, results in runs.items():
        for name, slices in begun(results).items():
            if len(slices) < (count := count_of(slices)):
                why = f"{len(slices)} of {count} slices are finished and could be written, so the volume is not"
                sys.stderr.write(f"{run / name}: {why}.\n")
                continue
            try:
                WRITERS[words.to](run / name, slices)
            except (UserError, OSError) as error:
                refused.append(f"{run / name}: {error}")
                continue
            sys.stdout.write(f"{run / name}\n")
    if refused:
        raise UserError("\n".join(refused))


def source(record: Record, data: Path | None) -> Path | None:
    """The file that an image was read from, below the folder of data that is given, or that its command names.

    Of several of its name the one with the bytes that were read; else any of them, which is refused with a reason.
    """
    said = next((word.partition("=")[2] for word in record.command if word.startswith("data_root=")), None)
    if data is None and said is not None and said.strip("\"'").startswith(".../"):
        raise UserError(f"its record does not say where {record.source} was: say --data FOLDER.")
    root = data or Path((said or os.environ.get("ASEQDIP_DATA", "data")).strip("\"'")).expanduser()
    name = record.source.partition(", slice ")[0]
    found = [path for path in (root / name, *sorted(root.glob(f"*/{glob.escape(name)}"))) if name and regular(path)]
    wanted = record.origin.get("digest")
    return next((path for path in found if bytes_digest(path) == wanted), next(iter(found), None))
