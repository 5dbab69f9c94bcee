"""Fully sampled MR images, complex or magnitude, from NumPy files; coils are simulated."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aseqdip.data._files import check_size, load_arrays, printable
from aseqdip.data.base import Sample, VolumeReader, finite
from aseqdip.errors import UserError

EXPECTED = (
    "an .npz file with an array 'image' of shape (rows, columns) or (slices, rows, columns), or such an .npy file"
)


class ComplexImages(VolumeReader):
    """``.npz`` with an array ``image`` (and, if wanted, a text ``subject``: whose it is), or ``.npy``."""

    name = "complex"
    title = "MR images (NumPy)"
    suffixes = (".npz", ".npy")

    @dataclass
    class Options(VolumeReader.Options):
        pass

    options: Options

    def count(self, path: Path) -> int | None:
        array, _ = load_numbers(path, "image", EXPECTED, self.options.max_gib, headers=True)
        return len(array) if array.ndim == 3 else None

    def read_slice(self, path: Path, index: int | None) -> Sample:
        array, subject = load_numbers(path, "image", EXPECTED, self.options.max_gib)
        sample = self.sample(path, subject)
        sample.origin.unit = "values of the file"
        with np.errstate(over="ignore"):  # infinite afterwards, and said
            image = self.one_slice(sample, path, array, index).astype(np.complex64)
        sample.image = finite(image, f"{printable(path)}: image")[None]
        if array.ndim == 3 and 4 * array.shape[-1] < min(array.shape[:2]):
            sample.notes.append(
                f"slices come first: {' x '.join(map(str, array.shape))} are taken as {len(array)} slices; "
                "np.moveaxis(image, -1, 0) moves them from the end"
            )
        if _is_centred_spectrum(image):
            sample.notes.append(
                "nearly all of its energy is in the middle, as of k-space, and it is taken for an image: docs/data.md "
                "says how k-space is read"
            )
        return sample


def _is_centred_spectrum(image: np.ndarray) -> bool:
    """Whether a sixteenth of both sides, in the middle, holds more than 0.7 of the energy, of an image's 1/256."""
    energy = np.abs(image).astype(np.float64) ** 2
    rows, columns = (n // 16 for n in image.shape)
    top, left = image.shape[0] // 2 - rows // 2, image.shape[1] // 2 - columns // 2
    return min(rows, columns) > 0 and energy[top : top + rows, left : left + columns].sum() > 0.7 * energy.sum()


def load_numbers(path: Path, key: str, expected: str, max_gib: float, headers: bool = False) -> tuple[np.ndarray, str]:
    """The array of a NumPy file, and whose it is, where it says so in a text 'subject'. UserError if it is no image."""
    arrays = load_arrays(path, [key, "subject"], expected, max_gib, headers)
    array = arrays[key]
    if array.dtype.kind not in "iufc":
        raise UserError(f"{printable(path)}: '{key}' has type {array.dtype}; expected numbers.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] in (3, 4) and min(array.shape[:2]) > 4):
        raise UserError(
            f"{printable(path)}: '{key}' has shape {array.shape}; expected (rows, columns), or (slices, rows, columns)."
        )
    check_size(path, f"'{key}' as numbers", array.shape, 8, max_gib)
    return array, str(arrays["subject"]) if "subject" in arrays else ""
