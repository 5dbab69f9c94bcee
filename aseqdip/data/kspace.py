"""Multi-coil k-space in fastMRI's HDF5 layout."""

from functools import partial
from pathlib import Path

import h5py
import numpy as np

from typing import Any as Config  # until readers are parts
from aseqdip.data.sample import Items, Sample, finite, list_files, unique_names
from aseqdip.errors import UserError

LAYOUT = "a complex dataset 'kspace' of shape (slices, coils, rows, columns), as fastMRI's multi-coil files have"


def items(cfg: Config) -> Items:
    """One item for each file (``dataset.slice=middle`` or an index) or for each slice (``all``)."""
    files = unique_names(list_files(cfg, (".h5", ".hdf5")))
    wanted = cfg.dataset.slice
    if wanted == "middle":
        return {name: partial(read_slice, file, None) for name, file in files.items()}
    if wanted != "all" and not wanted.isdigit():
        raise UserError(f"dataset.slice={wanted}: expected middle, all, or an index.")
    return {
        f"{name}_s{index:03d}": partial(read_slice, file, index)
        for name, file in files.items()
        for index in (_slices(file) if wanted == "all" else [int(wanted)])
    }


def read_slice(path: Path, index: int | None) -> Sample:
    """One slice of a file; the middle one for None.

    The file may also hold ``mask`` (columns,), which marks it as prospectively undersampled, and ``sens_maps``
    (slices or 1, coils, rows, columns). Raises UserError for anything that is not this layout.
    """
    with _open(path) as file:
        kspace = _kspace(file, path)
        index = kspace.shape[0] // 2 if index is None else index
        if not 0 <= index < kspace.shape[0]:
            raise UserError(f"{path} has slices 0 to {kspace.shape[0] - 1}; dataset.slice={index} is not among them.")
        patient = str(file.attrs.get("patient_id", path.stem))
        sample = Sample(source=f"{path}, slice {index}", patient=patient)
        try:
            sample.kspace = finite(kspace[index].astype(np.complex64), f"{path}: kspace of slice {index}")
            if "sens_maps" in file:
                stored = file["sens_maps"]
                if stored.shape[1:] != kspace.shape[1:] or stored.shape[0] not in (1, kspace.shape[0]):
                    raise UserError(
                        f"{path}: 'sens_maps' has shape {stored.shape}, k-space {kspace.shape}: coils, rows and "
                        "columns must agree, and slices too unless one set of maps is for all."
                    )
                maps = stored[min(index, stored.shape[0] - 1)].astype(np.complex64)
                sample.maps = finite(maps, f"{path}: sens_maps")
            if "mask" in file:
                mask = np.asarray(file["mask"]).squeeze().astype(bool)
                if mask.shape != kspace.shape[-1:]:
                    raise UserError(
                        f"{path}: 'mask' has shape {mask.shape}, but k-space has {kspace.shape[-1]} columns: "
                        "expected one value for each column."
                    )
                sample.mask = finite(mask, f"{path}: mask")
        except OSError as error:
            raise UserError(f"{path} could not be read to its end ({error}): is the file truncated?") from error
    return sample


def _slices(path: Path) -> range:
    try:
        with _open(path) as file:
            return range(_kspace(file, path).shape[0])
    except UserError:
        return range(1)  # reading that slice will say what is wrong, and the other files are read


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} is not a readable HDF5 file ({error}): is it truncated or of another format?"
        ) from error


def _kspace(file: h5py.File, path: Path) -> h5py.Dataset:
    if not isinstance(file.get("kspace"), h5py.Dataset):
        raise UserError(f"{path} holds {', '.join(file) or 'nothing'}; expected {LAYOUT}.")
    kspace = file["kspace"]
    if kspace.ndim != 4 or not np.issubdtype(kspace.dtype, np.complexfloating):
        raise UserError(f"{path}: 'kspace' has shape {kspace.shape} and type {kspace.dtype}; expected {LAYOUT}.")
    return kspace
