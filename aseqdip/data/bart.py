"""Multi-coil k-space in BART's format, a pair of files .hdr and .cfl."""

import re
from pathlib import Path

import numpy as np

from aseqdip.data._files import check_size, opened, printable
from aseqdip.data.base import Sample, finite
from aseqdip.data.kspace import KSpaceReader
from aseqdip.errors import UserError
from aseqdip.operators.mri import ifft1c

EXPECTED = (
    "BART's k-space: dimensions (readout, phase, phase 2, coils, 1 ...) in the .hdr, and as many values in the .cfl"
)
#: places of BART's dimensions
COIL, SLICE = 3, 13


class Bart(KSpaceReader):
    """k-space as ``bart`` has it: dimensions 0 to 2 of the scan, 3 of the coils, 13 of the slices.

    Rows are the readout, columns the phase-encoded lines. Of a 3-D scan, slices are the places along its readout, and
    both axes are phase-encoded. What is 0 everywhere was not acquired.
    """

    name = "bart"
    title = "multi-coil k-space (BART)"
    suffixes = (".cfl",)

    def count(self, path: Path) -> int | None:
        dims = self._dims(path)
        n = dims[0] if _is_3d(dims) else dims[SLICE]
        return None if n == 1 else n

    def read_slice(self, path: Path, index: int | None) -> Sample:
        sample, dims = self.sample(path), self._dims(path)
        with opened(path, EXPECTED) as file:
            values = np.fromfile(file, np.complex64)
        if values.size != np.prod(dims):
            raise UserError(f"{printable(path)} holds {values.size} values, its .hdr says {dims}: {EXPECTED}.")
        array = finite(values.reshape(dims, order="F").squeeze(tuple(range(4, 13)) + (14, 15)), printable(path))
        kspace = array.permute(4, 3, 0, 1, 2)  # slices, coils, x, y, z
        if _is_3d(dims):
            kspace = ifft1c(kspace[0], 1).permute(1, 0, 2, 3)
        else:  # one of the three has length 1
            kspace = kspace.squeeze(4 if dims[2] == 1 else 2 if dims[0] == 1 else 3)
        return self.measured(sample, path, self.one_of(sample, path, kspace, index).contiguous())

    def _dims(self, path: Path) -> tuple[int, ...]:
        """All 16 dimensions. UserError for a header that is missing, damaged, or of something else."""
        with opened(path.with_suffix(".hdr"), EXPECTED) as file:
            lines = file.read(4096).decode("ascii", "replace").splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith("# Dimensions")), -2)
        found = [int(n) for n in re.findall(r"\d+", lines[at + 1])] if at >= 0 and at + 1 < len(lines) else []
        dims = tuple((found + 16 * [1])[:16])
        other = [n for i, n in enumerate(dims) if i not in (0, 1, 2, COIL, SLICE)]
        if not found or max(other) > 1 or min(dims) < 1 or sorted(dims[:3])[1] < 2 or _is_3d(dims) and dims[SLICE] > 1:
            raise UserError(f"{printable(path.with_suffix('.hdr'))} says {found or 'nothing'}; expected {EXPECTED}.")
        check_size(path, "the k-space", dims, 8, self.options.max_gib)
        return dims


def _is_3d(dims: tuple[int, ...]) -> bool:
    return min(dims[:3]) > 1
