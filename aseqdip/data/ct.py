"""CT slices in Hounsfield units, from DICOM or NumPy files, as values from 0 to 1 through a fixed window."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aseqdip.data._files import check_size, opened, printable
from aseqdip.data.base import Sample, VolumeReader, finite
from aseqdip.data.complex import load_numbers
from aseqdip.errors import UserError
from aseqdip.parts import knob

T = TypeVar("T")
EXPECTED = "a DICOM image"
DEFLATED = "1.2.840.10008.1.2.1.99"
NUMPY = "an .npz file with an array 'hu', in Hounsfield units, of shape (rows, columns) or (slices, rows, columns)"


class CT(VolumeReader):
    """DICOM files, or ``.npz`` with an array ``hu`` (and, if wanted, a text ``subject``: whose it is)."""

    name = "ct"
    title = "CT slices (DICOM, NumPy)"
    suffixes = (".dcm", ".npz", ".ima")

    @dataclass
    class Options(VolumeReader.Options):
        hu_low: float = knob("Hounsfield units shown as 0", -1024.0)
        hu_high: float = knob("Hounsfield units shown as 1", 2000.0)

    options: Options

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.options.hu_high <= self.options.hu_low:
            raise UserError(
                f"dataset.hu_low={self.options.hu_low:g} dataset.hu_high={self.options.hu_high:g}: expected low below "
                "high."
            )

    def is_bare(self, path: Path) -> bool:
        """Scanners and archives often write DICOM files without a suffix: their magic word tells them."""
        try:
            with opened(path, EXPECTED) as file:
                return file.read(132)[128:] == b"DICM"
        except UserError:
            return True  # it fails when it is read, and says why

    def count(self, path: Path) -> int | None:
        if path.suffix.lower() == ".npz":
            hu, _ = load_numbers(path, "hu", NUMPY, self.options.max_gib, headers=True)
            return len(hu) if hu.ndim == 3 else None
        return read_header(path, lambda head: None if (n := int(head.get("NumberOfFrames") or 1)) == 1 else n)

    def read_slice(self, path: Path, index: int | None) -> Sample:
        read = read_numpy if path.suffix.lower() == ".npz" else read_dicom
        hu, patient, notes = read(path, self.options.max_gib)
        sample = self.sample(path, patient, hu_width=self.options.hu_high - self.options.hu_low, notes=notes)
        hu = self.one_slice(sample, path, hu, index)
        low, high = self.options.hu_low, self.options.hu_high
        scaled = finite((hu.astype(np.float32) - low) / (high - low), printable(path))
        sample.image = scaled.clamp(0, 1)[None]
        return sample


def read_numpy(path: Path, max_gib: float = 2.0) -> tuple[np.ndarray, str, list[str]]:
    """Hounsfield units as an ``.npz`` file holds them, whose they are, and what had to be guessed."""
    hu, subject = load_numbers(path, "hu", NUMPY, max_gib)
    if hu.dtype.kind == "c":
        raise UserError(f"{printable(path)}: 'hu' is complex; expected Hounsfield units, which are real.")
    guess = "no value of 'hu' is below 0, and air is -1000 Hounsfield units: taken as they are"
    return hu, subject, [guess] if hu.min() >= 0 else []


def read_header(path: Path, ask: Callable[[Any], T]) -> T:
    """What ``ask`` finds in a DICOM file's header; UserError also for what it raises: values are decoded late."""
    import pydicom

    with opened(path, EXPECTED) as file:
        return ask(pydicom.dcmread(file, stop_before_pixels=True))


def read_dicom(path: Path, max_gib: float = 2.0) -> tuple[np.ndarray, str, list[str]]:
    """Hounsfield units of a CT image, stored value * RescaleSlope + RescaleIntercept; the patient's id; and guesses.

    Shape (rows, columns), or (frames, rows, columns). Raises UserError for what is no CT image, or does not say how its
    values become Hounsfield units.
    """
    import pydicom.filereader

    with opened(path, EXPECTED) as file:
        check_size(path, "the file", (path.stat().st_size or 1,), 1, max_gib)
        if (
            pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED
        ):  # unpacked at once, to whatever size
            raise UserError(f"{printable(path)} is a deflated DICOM file, which is not read: save it uncompressed.")
        image = pydicom.dcmread(file)
        modality, kind = str(image.get("Modality") or "CT"), str(image.get("PhotometricInterpretation", ""))
        if modality != "CT" or int(image.get("SamplesPerPixel") or 1) != 1 or not kind.startswith("MONOCHROME"):
            raise UserError(
                f"{printable(path)} is of modality {printable(modality)}, {printable(kind) or 'of unknown colours'}: "
                "expected a CT image in grey values. If they are Hounsfield units, store them as array 'hu' of an .npz "
                "file."
            )
        slope, intercept = _rescale(image, path)
        frames, bits = int(image.get("NumberOfFrames") or 1), int(image.get("BitsAllocated") or 16)
        shape = (frames, int(image.get("Rows") or 0), int(image.get("Columns") or 0))
        check_size(path, "the image", shape, max(bits // 8, 4), max_gib)
        hu, patient = np.asarray(image.pixel_array * slope + intercept), str(image.get("PatientID") or "")
    guess = "the file does not say its modality: taken as CT"
    return hu, patient, [] if image.get("Modality") else [guess]


def _rescale(image: Any, path: Path) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept. Raises UserError without them: the units are unknown then, often by 1024."""
    place = image
    for name in ("SharedFunctionalGroupsSequence", "PixelValueTransformationSequence"):  # of enhanced CT
        if "RescaleSlope" not in place and place.get(name):
            place = place.get(name)[0]
    found = {name: place.get(name) for name in ("RescaleSlope", "RescaleIntercept")}
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
