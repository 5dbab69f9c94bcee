"""MR and other images from NIfTI files; needs nibabel."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.data._files import check_size, opened, printable
from aseqdip.data.base import Sample, VolumeReader, finite
from aseqdip.errors import UserError

EXPECTED = "a NIfTI image"


class Nifti(VolumeReader):
    """Slices along the third axis, upright where the axes are right, anterior, superior; 1 is a volume's largest value,
    0 is 0 or its least."""

    name = "nifti"
    title = "NIfTI volumes"
    suffixes = (".nii", ".nii.gz")
    kind = "nifti"

    def count(self, path: Path) -> int | None:
        return None if (n := self._opened(path).shape[2]) == 1 else n

    def read_slice(self, path: Path, index: int | None) -> Sample:
        sample = self.sample(path)
        slices, low, high = self.whole(path, self._read)
        image = (self.one_of(sample, path, slices, index) - low) / ((high - low) or 1)
        sample.image = finite(image, printable(path))[None]
        sample.origin = replace(sample.origin, low=low, high=high, unit="values of the file")
        return sample

    def _read(self, path: Path) -> tuple[np.ndarray, float, float]:
        """(slices, rows, columns), its least value, at most 0, and its largest."""
        image = self._opened(path)
        with opened(path, EXPECTED):  # names whatever fails
            array = np.asanyarray(image.dataobj).reshape(image.shape[:3]).astype(np.float32)
        finite(array, printable(path))
        # (columns, rows from posterior to anterior, slices) of the file
        return array[:, ::-1].transpose(2, 1, 0), min(0.0, float(array.min())), float(array.max())

    def _opened(self, path: Path) -> Any:
        """The file's header and its data, not yet read. UserError for what is no single volume of numbers."""
        try:
            import nibabel
        except ImportError as error:
            raise UserError("dataset=nifti needs nibabel: pip install nibabel.") from error
        with opened(path, EXPECTED):
            image: Any = nibabel.load(path)
            shape = tuple(image.shape)
            if (
                len(shape) not in (2, 3)
                and shape[3:] != (1,) * (len(shape) - 3)
                or image.get_data_dtype().kind not in "iuf"
            ):
                raise UserError(
                    f"{printable(path)} has shape {shape} and type {image.get_data_dtype()}; expected real numbers, "
                    "(columns, rows, slices): save one volume of it."
                )
            check_size(path, "the volume", shape, 8, self.options.max_gib)
            return image if len(shape) > 2 else image.__class__(image.dataobj[..., None], image.affine, image.header)
