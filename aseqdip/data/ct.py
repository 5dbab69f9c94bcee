"""CT slices in Hounsfield units, from DICOM or NumPy files, as values from 0 to 1 through a fixed window."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.data._dicom import DicomReader, check_grey, read_dicom
from aseqdip.data._files import printable
from aseqdip.data.base import HOUNSFIELD, Sample, VolumeReader, finite
from aseqdip.data.complex import load_numbers
from aseqdip.errors import UserError
from aseqdip.parts import knob

NUMPY = "an .npz file with an array 'hu', in Hounsfield units, of shape (rows, columns) or (slices, rows, columns)"


class CT(DicomReader):
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

    def count(self, path: Path) -> int | None:
        if not self.is_dicom(path):
            hu, _ = load_numbers(path, "hu", NUMPY, self.options.max_gib, headers=True)
            return len(hu) if hu.ndim == 3 else None
        return super().count(path)

    def read_slice(self, path: Path, index: int | None) -> Sample:
        read = read_ct if self.is_dicom(path) else read_numpy
        hu, patient, notes = read(path, self.options.max_gib)
        low, high = self.options.hu_low, self.options.hu_high
        sample = self.sample(path, patient, hu_width=high - low, hu_low=low, notes=notes)
        hu = self.one_slice(sample, path, hu, index)
        sample.origin = replace(sample.origin, low=low, high=high, unit=HOUNSFIELD)
        if self.is_dicom(path):
            sample.origin.kind = "dicom"
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


def read_ct(path: Path, max_gib: float = 2.0) -> tuple[np.ndarray, str, list[str]]:
    """Hounsfield units of a DICOM file, the patient's id, and what had to be guessed. UserError for what is no CT."""
    hu, image = read_dicom(path, max_gib, lambda image: check_grey(image, path, ct=True))
    guess = "the file does not say its modality: taken as CT"
    return hu, str(image.get("PatientID") or ""), [] if image.get("Modality") else [guess]
