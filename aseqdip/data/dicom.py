"""MR and other images in grey values from DICOM files; CT has a reader of its own, which knows its units."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.data._dicom import DicomReader, check_grey, read_dicom
from aseqdip.data._files import printable
from aseqdip.data.base import Sample, finite
from aseqdip.errors import UserError


class Dicom(DicomReader):
    """Single slices, multi-frame files and series; the largest value of a volume is 1, and 0 is 0 or the least.

    Of MONOCHROME1, whose large values are dark, it is the other way round: an image is as a viewer shows it.
    """

    name = "dicom"
    title = "DICOM images (MR and others)"
    suffixes = (".dcm", ".ima")
    kind = "dicom"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ranges: dict[Path, tuple[float, float, int]] = {}

    def read_slice(self, path: Path, index: int | None) -> Sample:
        values, header = self._read(path)
        sample = self.sample(path, str(header.get("PatientID") or ""))
        low, high = self._range(path, sample)
        if header.PhotometricInterpretation == "MONOCHROME1":
            low, high = high, low
        image = self.one_slice(sample, path, values, index).astype(np.float32)
        sample.image = finite((image - low) / ((high - low) or 1), printable(path))[None]
        sample.origin = replace(sample.origin, low=low, high=high, unit="values of the file, rescaled")
        return sample

    def _read(self, path: Path) -> tuple[np.ndarray, Any]:
        return read_dicom(path, self.options.max_gib, lambda image: check_grey(image, path, ct=False))

    def _range(self, path: Path, sample: Sample) -> tuple[float, float]:
        """Least (at most 0) and largest value of the volume that a file is, or is a slice of."""
        files = self.files_of(self.series[path][0]) if path in self.series else [path]
        if files[0] not in self._ranges:
            ends = [end for end in map(self._ends, files) if end is not None]
            self._ranges[files[0]] = min(0.0, *(low for low, _ in ends)), max(high for _, high in ends), len(ends)
        low, high, read = self._ranges[files[0]]
        if read < len(files):
            sample.notes.append(
                f"{len(files) - read} of the {len(files)} files of its series cannot be read: 0 to 1 "
                "are what the others have"
            )
        return low, high

    def _ends(self, path: Path) -> tuple[float, float] | None:
        """Least and largest value of a file; None for one that cannot be read, which fails by itself."""
        try:
            values, _ = self._read(path)
        except UserError:
            return None
        return float(values.min()), float(values.max())
