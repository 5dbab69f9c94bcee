"""Multi-coil k-space in fastMRI's HDF5 layout."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aseqdip.data._files import check_size, hdf5_dataset, opened_hdf5, printable
from aseqdip.data.base import Sample, VolumeReader, finite
from aseqdip.errors import UserError

if TYPE_CHECKING:
    import h5py

LAYOUT = "a complex dataset 'kspace' of shape (slices, coils, rows, columns), as fastMRI's multi-coil files have"
EXPECTED = f"a complete HDF5 file with {LAYOUT}"


class KSpaceReader(VolumeReader):
    """A reader of k-space, of whatever format."""

    gives = "kspace"
    kind = "kspace"

    def measured(self, sample: Sample, path: Path, kspace: Tensor, mask: Tensor | None = None) -> Sample:
        """The sample with one slice, (coils, rows, columns), and what was acquired. UserError for an empty one."""
        if not kspace.any():
            number = sample.origin.slice
            raise UserError(f"{printable(path)}: the k-space of slice {number} is 0 everywhere: leave the slice out.")
        sample.kspace = kspace
        sample.mask, notes = sampled_columns(kspace, mask, printable(path))
        sample.notes += [*notes, *_uncentred(kspace)]
        sample.origin.unit = "magnitude of the orthonormal inverse FFT of the file's k-space"
        return sample


class KSpace(KSpaceReader):
    """``kspace``; and, where the file has them, ``mask`` (columns,), which marks it as prospectively undersampled, and
    ``sens_maps`` (slices or 1, coils, rows, columns). The mask is checked against the k-space, or found from it."""

    name = "kspace"
    title = "multi-coil k-space (fastMRI's HDF5)"
    suffixes = (".h5", ".hdf5")

    def count(self, path: Path) -> int:
        with opened_hdf5(path, EXPECTED) as file:
            return int(_kspace(file, path).shape[0])

    def read_slice(self, path: Path, index: int | None) -> Sample:
        with opened_hdf5(path, EXPECTED) as file:
            stored = _kspace(file, path)
            sample = self.sample(path, patient=_patient(file) or path.stem)
            index = self.choose(sample, path, index, stored.shape[0])
            kspace = self._read(path, stored, index)
            if (maps := hdf5_dataset(file, path, "sens_maps")) is not None:
                sample.maps = self._maps(path, maps, stored.shape, index)
            mask = hdf5_dataset(file, path, "mask")
            given = None if mask is None else _mask(path, mask, stored.shape[-2:])
        return self.measured(sample, path, kspace, given)

    def _read(self, path: Path, stored: "h5py.Dataset", index: int) -> Tensor:
        """One slice of a data set, complex64, no larger than allowed."""
        name = stored.name.strip("/")
        check_size(path, f"a slice of '{name}'", stored.shape[1:], stored.dtype.itemsize, self.options.max_gib)
        if stored.chunks:  # the part of a file that is unpacked at once
            check_size(path, f"a chunk of '{name}'", stored.chunks, stored.dtype.itemsize, self.options.max_gib)
        if stored.id.get_storage_size() == 0:
            raise UserError(
                f"{printable(path)}: '{name}' declares shape {stored.shape}, but nothing of it was written."
            )
        with np.errstate(over="ignore"):  # infinite afterwards, and said
            array = stored[index].astype(np.complex64)
        return finite(array, f"{printable(path)}: {name} of slice {index}")

    def _maps(self, path: Path, stored: "h5py.Dataset", shape: tuple[int, ...], index: int) -> Tensor:
        """The coil maps of a slice. Raises UserError for another shape than k-space's, or a size that is no map's."""
        if stored.shape[1:] != shape[1:] or stored.shape[0] not in (1, shape[0]):
            raise UserError(
                f"{printable(path)}: 'sens_maps' has shape {stored.shape}, k-space {shape}: coils, rows and columns "
                "must agree, and slices too unless one set of maps is for all."
            )
        maps = self._read(path, stored, min(index, stored.shape[0] - 1))
        largest = float(maps.abs().max())
        if not 1e-6 <= largest <= 1e6:
            raise UserError(
                f"{printable(path)}: the largest magnitude in 'sens_maps' is {largest:.3g}; expected about 1, the "
                "squares of all coils adding up to 1: rescale the maps, or remove them to have them estimated."
            )
        return maps


def _kspace(file: "h5py.File", path: Path) -> "h5py.Dataset":
    kspace = hdf5_dataset(file, path, "kspace")
    if kspace is None:
        names = ", ".join(printable(name) for name, _ in zip(file, range(8), strict=False))
        raise UserError(f"{printable(path)} holds {names or 'nothing'}; expected {LAYOUT}.")
    shape = kspace.shape
    if shape is None or len(shape) != 4 or not np.issubdtype(kspace.dtype, np.complexfloating):
        raise UserError(f"{printable(path)}: 'kspace' has shape {shape} and type {kspace.dtype}; expected {LAYOUT}.")
    check_size(path, "'kspace'", shape, 0, 1)
    return kspace


def _patient(file: "h5py.File") -> str:
    """The attribute patient_id, if it is one text."""
    value = file.attrs.get("patient_id", "")
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else ""


def _mask(path: Path, stored: "h5py.Dataset", shape: tuple[int, int]) -> Tensor:
    """The stored mask, boolean, (columns,) or (rows, columns). UserError for another shape, or other values than 0 and
    1."""
    rows, columns = shape
    sides = [n for n in stored.shape or () if n != 1]
    points = sides == [rows, columns]
    if sides != [columns] and not points and not (columns == 1 and stored.shape and not sides):
        raise UserError(
            f"{printable(path)}: 'mask' has shape {stored.shape}, but k-space has {columns} columns: expected one "
            f"value for each column, or for each of its {rows} x {columns} points."
        )
    values = np.asarray(stored).reshape(shape if points else -1)
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        found = ", ".join(printable(v) for v in np.unique(values.astype(str))[:4])
        raise UserError(f"{printable(path)}: 'mask' holds {found}; expected 0 and 1 (1: the column was acquired).")
    if not values.any():
        raise UserError(f"{printable(path)}: 'mask' is 0 everywhere: no column was acquired.")
    return torch.from_numpy(values.astype(bool))


def _uncentred(kspace: Tensor) -> list[str]:
    """A note where (coils, rows, columns) is strongest at the ends of an axis, as a bare FFT leaves it."""
    energy = kspace.abs().double().square().sum(0)
    peak = divmod(int(energy.argmax()), energy.shape[1])
    axes = [
        axis - 2 for axis, (at, n) in enumerate(zip(peak, energy.shape, strict=True)) if min(at, n - at) <= 1 < n // 4
    ]

    def middle(image: Tensor) -> float:
        rows, columns = (slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in image.shape)
        return float(image[rows, columns].sum())

    if not axes or middle(torch.fft.fftshift(energy, axes)) < 4 * middle(energy):
        return []
    ends = f"{'axes' if len(axes) > 1 else 'axis'} {' and '.join(map(str, axes))}"
    return [
        f"k-space is strongest at the ends of its {ends}: its centre is expected in the middle; np.fft.fftshift "
        "moves it there"
    ]


def sampled_columns(kspace: Tensor, mask: Tensor | None, where: str) -> tuple[Tensor | None, list[str]]:
    """The columns of (coils, rows, columns) that were acquired, and what had to be guessed.

    A stored mask, (columns,) or (rows, columns), must agree with the data: 0 where it says that nothing was acquired.
    Without one, empty columns between others are taken as not acquired, and empty points where both axes have gaps;
    empty columns at the edges alone are zero-padding, as scanners add for a finer grid.
    Raises UserError where the data contradict the mask, or are undersampled other than by columns.
    """
    size = kspace.abs().amax(0)
    columns, rows = size.amax(0), size.amax(1)
    if mask is not None and mask.dim() == 2:
        if _holds(size, ~mask):
            raise UserError(
                f"{where}: 'mask' says of {int((~mask).sum())} points that they were not acquired, but they hold data. "
                "Set them to 0, or remove 'mask' if all were acquired."
            )
        return (mask, []) if (mask != mask.any(0)).any() else sampled_columns(kspace, mask[0], where)
    if mask is not None and _holds(columns, ~mask):
        wrong_axis = len(rows) == len(columns) and not _holds(rows, ~mask)
        raise UserError(
            f"{where}: 'mask' says of {int((~mask).sum())} columns that they were not acquired, but they hold data"
            + (
                "; the rows do not: the mask counts rows. Swap the last two axes of everything in the file."
                if wrong_axis
                else ". Set them to 0, or remove 'mask' if all columns were acquired."
            )
        )
    gaps = _gaps(columns > 0)
    if mask is None and (_holes(size) > 0.05 or (gaps.any() and _gaps(rows > 0).any())):
        points = size > 0
        note = f"{int((~points).sum())} of {points.numel()} points of k-space are empty and no mask is stored: taken as"
        return points, [f"{note} not acquired (two phase-encoded axes), so there is no truth to compare with"]
    if int(_gaps(rows > 0).sum()):
        raise UserError(
            f"{where}: {int((rows == 0).sum())} of {len(rows)} rows of k-space are empty; columns are expected to be "
            "what is undersampled: swap the last two axes of everything in the file."
        )
    if (holes := _holes(size)) > 0.05:
        raise UserError(
            f"{where}: {holes:.0%} of the points in the columns that the mask calls acquired are empty: store a mask "
            "of all points, (rows, columns)."
        )
    empty = int((columns == 0).sum())
    if mask is None and gaps.any():
        note = f"{empty} of {len(columns)} columns of k-space are empty and no mask is stored: taken as not acquired"
        return columns > 0, [note + ", so there is no truth to compare with"]
    if mask is None:
        filled = columns.nonzero().flatten()
        before, after = int(filled[0]), len(columns) - 1 - int(filled[-1])
        note = f"{empty} of {len(columns)} columns at the edges of k-space are empty: taken as zero-padding"
        if abs(before - after) > 0.1 * len(columns):
            note += (
                f", though {before} are on one side and {after} on the other: if that is partial Fourier, store a mask "
                "of what was acquired; the truth is an image of what is there"
            )
        return None, [note] if empty else []
    if (gaps & mask).any():
        note = f"{int((gaps & mask).sum())} columns that the mask calls acquired are empty: taken as not acquired"
        return mask & ~gaps, [note]
    if mask.all():
        return None, ["the mask stored with k-space says that all of it was acquired: undersampling is simulated"]
    return mask, []


def _holds(size: Tensor, where: Tensor) -> bool:
    """Whether lines hold more than what rounding leaves of zeros."""
    return bool((size[where] > 1e-6 * size.max()).any())


def _gaps(filled: Tensor) -> Tensor:
    """Empty lines between filled ones, boolean."""
    index = filled.nonzero().flatten()
    gaps = ~filled
    gaps[: int(index[0])] = False
    gaps[int(index[-1]) :] = False
    return gaps


def _holes(size: Tensor) -> float:
    """The part of the centre of the acquired columns that is empty: by undersampling in two dimensions, a spiral ..."""
    block = size[size.amax(1) > 0][:, size.amax(0) > 0]
    height, width = block.shape
    # its middle half: an elliptical window leaves only corners empty
    centre = block[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return float((centre == 0).float().mean())
