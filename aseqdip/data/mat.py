"""MR images from MATLAB files, complex or magnitude; coils are simulated."""

from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.data._files import check_size, hdf5_dataset, opened, opened_hdf5, printable
from aseqdip.data.base import Sample, VolumeReader, finite
from aseqdip.errors import UserError

EXPECTED = "a MATLAB file with an array 'image', (rows, columns) or (rows, columns, slices)"


class Mat(VolumeReader):
    """``image``, (rows, columns) or (rows, columns, slices), as MATLAB has it; also of files of version 7.3."""

    name = "mat"
    title = "MR images (MATLAB)"
    suffixes = (".mat",)

    def count(self, path: Path) -> int | None:
        array = self.whole(path, self._array)
        return len(array) if array.ndim == 3 else None

    def read_slice(self, path: Path, index: int | None) -> Sample:
        sample = self.sample(path)
        image = self.one_slice(sample, path, self.whole(path, self._array), index).astype(np.complex64)
        sample.image = finite(image, f"{printable(path)}: image")[None]
        sample.origin.unit = "values of the file"
        return sample

    def _array(self, path: Path) -> np.ndarray:
        """(rows, columns) or (slices, rows, columns). UserError for what is no image."""
        with opened(path, EXPECTED) as file:
            is_hdf5 = b"MATLAB 7.3" in file.read(128)
        array = self._of_hdf5(path) if is_hdf5 else self._of_older(path)
        if array is None or array.dtype.kind not in "iufc" or array.ndim not in (2, 3):
            found = "nothing of that name" if array is None else f"shape {array.shape}, type {array.dtype}"
            raise UserError(f"{printable(path)}: expected {EXPECTED}; found {found}.")
        return array

    def _of_older(self, path: Path) -> np.ndarray | None:
        from scipy.io import loadmat, whosmat

        with opened(path, EXPECTED) as file:
            for name, shape, _ in whosmat(file):
                if name == "image":
                    check_size(path, "'image'", shape, 16, self.options.max_gib)
            file.seek(0)
            array: Any = loadmat(file, variable_names=["image"]).get("image")
        return None if array is None else np.moveaxis(array, 2, 0) if np.ndim(array) == 3 else np.asarray(array)

    def _of_hdf5(self, path: Path) -> np.ndarray | None:
        with opened_hdf5(path, EXPECTED) as file:
            stored = hdf5_dataset(file, path, "image")
            if stored is None:
                return None
            check_size(path, "'image'", stored.shape, 16, self.options.max_gib)
            array = np.asarray(stored)
        if array.dtype.names == ("real", "imag"):
            array = array["real"] + 1j * array["imag"]
        return array.swapaxes(-1, -2)  # HDF5 has MATLAB's axes in reverse order
