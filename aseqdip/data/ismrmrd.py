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
#: flags of readouts that are no lines of the image: noise, separate calibration, navigators, phase correction,
#: feedback, dummies, other coils, phase stabilization
NO_IMAGE = sum(1 << (bit - 1) for bit in (19, 20, 23, 24, 26, 27, 28, 29, 30, 31))
REVERSED = 1 << 21  # flag of readouts whose samples run backwards
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
            wanted = _wanted(encoding, nx)
            limits = [f"encodingLimits/kspace_encoding_step_{i}/center" for i in (1, 2)]
            centres = [int(encoding.findtext(limit) or n // 2) for limit, n in zip(limits, (ny, nz), strict=True)]
            readouts = file["dataset/data"]
            heads = readouts.fields("head")[:]
            kept = (heads["flags"] & np.uint64(NO_IMAGE)) == 0
            notes = []
            if "encoding_space_ref" in heads.dtype.names and (other := kept & (heads["encoding_space_ref"] > 0)).any():
                notes.append(f"{int(other.sum())} readouts of other encoded spaces than the first were left out")
                kept &= ~other
            first = FIRST if nz == 1 else (*FIRST, "slice")
            left_out = [name for name in first if heads["idx"][name][kept].max() > 0]
            for name in left_out:
                kept &= heads["idx"][name] == 0
            slices, coils = int(heads["idx"]["slice"][kept].max()) + 1, int(heads["active_channels"][kept].max())
            check_size(path, "the k-space", (slices, coils, nx, ny, nz), 16, self.options.max_gib)
            total = np.zeros((slices, coils, nx, ny, nz), np.complex64)
            times = np.zeros((slices, 1, 1, ny, nz), np.float32)
            for i in np.flatnonzero(kept):
                _add(total, times, heads[i], readouts[int(i)]["data"], (ny, nz), centres)
        total /= np.maximum(times, 1)
        notes += [f"only the first {'slab' if name == 'slice' else name} was taken" for name in left_out]
        if backwards := int((heads["flags"][kept] & np.uint64(REVERSED) > 0).sum()):
            notes.append(f"{backwards} readouts that the file says run backwards were turned round")
        lines = center_crop(ifft1c(torch.from_numpy(total), 2).movedim(2, -1), nz, wanted).movedim(-1, 2)
        if nz == 1:
            return fft1c(lines, 2)[..., 0].numpy(), notes
        return lines[0].movedim(1, 0).numpy(), notes


def _wanted(encoding: ElementTree.Element, nx: int) -> int:
    """Rows without oversampling: the part of the encoded field of view that the image has; without both, its rows."""
    fields = [float(encoding.findtext(f"{space}Space/fieldOfView_mm/x") or 0) for space in ("encoded", "recon")]
    if min(fields) > 0:
        return round(nx * min(1.0, fields[1] / fields[0]))
    return int(encoding.findtext("reconSpace/matrixSize/x", str(nx)))


def _add(
    total: np.ndarray, times: np.ndarray, head: Any, data: Any, shape: tuple[int, int], centres: list[int]
) -> None:
    """One readout at its place: the centre of each axis at n // 2, where it may be cut off (partial Fourier)."""
    values, centre = _readout(head, data)
    at = [int(head["idx"][f"kspace_encode_step_{i + 1}"]) - centres[i] + shape[i] // 2 for i in (0, 1)]
    n, first = values.shape[1], total.shape[2] // 2 - centre
    if not (0 <= at[0] < shape[0] and 0 <= at[1] < shape[1] and 0 <= first <= total.shape[2] - n):
        raise UserError(
            f"a readout of {n} samples at line {at} does not fit into {total.shape[2]} x {shape}: {EXPECTED}."
        )
    number = int(head["idx"]["slice"])
    total[number, : len(values), first : first + n, at[0], at[1]] += values
    times[number, 0, 0, at[0], at[1]] += 1


def _readout(head: Any, data: Any) -> tuple[np.ndarray, int]:
    """Its samples, (coils, samples), forwards and without those to be discarded, and the number of the central one."""
    values = np.asarray(data, np.float32).view(np.complex64).reshape(int(head["active_channels"]), -1)
    names = head.dtype.names
    before, after = (int(head[name]) if name in names else 0 for name in ("discard_pre", "discard_post"))
    values, centre = values[:, before : values.shape[1] - after], int(head["center_sample"]) - before
    if not int(head["flags"]) & REVERSED:
        return values, centre
    n = values.shape[1]
    if centre not in (n // 2, n - 1 - n // 2):  # in what order it is counted then, files do not agree on
        raise UserError(
            f"a readout runs backwards and has its centre at sample {centre} of {n}: expected the middle one, as of a "
            "whole echo. Turn such readouts round in the file, and take their flag ACQ_IS_REVERSE away."
        )
    return values[:, ::-1], n // 2
