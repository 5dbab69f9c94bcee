"""Multi-coil Cartesian k-space in the ISMRM's raw data format (HDF5), read by h5py alone."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from aseqdip.data._files import check_size, opened_hdf5, printable
from aseqdip.data.base import Sample, center_crop, finite
from aseqdip.data.kspace import KSpaceReader
from aseqdip.errors import UserError
from aseqdip.operators.mri import fft1c, ifft1c

EXPECTED = "an ISMRMRD file: a group 'dataset' with 'xml' and 'data', Cartesian"
#: flags of readouts that are no lines of the image: noise, separate calibration, navigators, phase correction, dummies
NO_IMAGE = sum(1 << (bit - 1) for bit in (19, 20, 23, 24, 26, 27, 28, 29, 30))
#: counters of which only the first value is reconstructed
FIRST = ("contrast", "phase", "repetition", "set")


class Ismrmrd(KSpaceReader):
    """Rows are the readout without its oversampling, columns the phase-encoded lines; averages are averaged.

    Of a 3-D scan, slices are the places along the readout, and both axes are phase-encoded. Of several contrasts,
    phases, repetitions or sets the first is taken.
    """

    name = "ismrmrd"
    title = "multi-coil k-space (ISMRMRD)"
    suffixes = (".h5", ".mrd")

    def count(self, path: Path) -> int | None:
        n = len(self.whole(path, self._read)[0])
        return None if n == 1 else n

    def read_slice(self, path: Path, index: int | None) -> Sample:
        sample = self.sample(path)
        kspace, notes = self.whole(path, self._read)
        kept = finite(self.one_of(sample, path, kspace, index), printable(path))
        sample.notes += notes
        return self.measured(sample, path, kept)

    def _read(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """k-space, (slices, coils, rows, columns), and what was left out. UserError for what is no Cartesian scan."""
        with opened_hdf5(path, EXPECTED) as file:
            header = ElementTree.fromstring(file["dataset/xml"][0])
            for element in header.iter():
                element.tag = element.tag.rpartition("}")[2]
            encoding = header.find("encoding")
            if encoding is None or (kind := encoding.findtext("trajectory", "")).lower() != "cartesian":
                raise UserError(
                    f"{printable(path)}: its trajectory is '{'' if encoding is None else kind}': {EXPECTED}."
                )
            nx, ny, nz = (int(encoding.findtext(f"encodedSpace/matrixSize/{a}", "0")) for a in "xyz")
            wanted = int(encoding.findtext("reconSpace/matrixSize/x", str(nx)))
            limits = [f"encodingLimits/kspace_encoding_step_{i}/center" for i in (1, 2)]
            centres = [int(encoding.findtext(limit) or n // 2) for limit, n in zip(limits, (ny, nz), strict=True)]
            readouts = file["dataset/data"]
            heads = readouts.fields("head")[:]
            kept = (heads["flags"] & np.uint64(NO_IMAGE)) == 0
            left_out = [name for name in FIRST if heads["idx"][name][kept].max() > 0]
            for name in left_out:
                kept &= heads["idx"][name] == 0
            slices, coils = int(heads["idx"]["slice"][kept].max()) + 1, int(heads["active_channels"][kept].max())
            check_size(path, "the k-space", (slices, coils, nx, ny, nz), 16, self.options.max_gib)
            total = np.zeros((slices, coils, nx, ny, nz), np.complex64)
            times = np.zeros((slices, 1, 1, ny, nz), np.float32)
            for i in np.flatnonzero(kept):
                _add(total, times, heads[i], readouts[int(i)]["data"], (ny, nz), centres)
        total /= np.maximum(times, 1)
        notes = [f"only the first {name} was taken" for name in left_out]
        lines = center_crop(ifft1c(torch.from_numpy(total), 2).movedim(2, -1), ny, wanted).movedim(-1, 2)
        if nz == 1:
            return fft1c(lines, 2)[..., 0].numpy(), notes
        return lines[0].movedim(1, 0).numpy(), notes


def _add(
    total: np.ndarray, times: np.ndarray, head: Any, data: Any, shape: tuple[int, int], centres: list[int]
) -> None:
    """One readout at its place: the centre of each axis at n // 2, where it may be cut off (partial Fourier)."""
    values = np.asarray(data, np.float32).view(np.complex64).reshape(int(head["active_channels"]), -1)
    at = [int(head["idx"][f"kspace_encode_step_{i + 1}"]) - centres[i] + shape[i] // 2 for i in (0, 1)]
    n, first = values.shape[1], total.shape[2] // 2 - int(head["center_sample"])
    if not (0 <= at[0] < shape[0] and 0 <= at[1] < shape[1] and 0 <= first <= total.shape[2] - n):
        raise UserError(
            f"a readout of {n} samples at line {at} does not fit into {total.shape[2]} x {shape}: {EXPECTED}."
        )
    number = int(head["idx"]["slice"])
    total[number, : len(values), first : first + n, at[0], at[1]] += values
    times[number, 0, 0, at[0], at[1]] += 1
