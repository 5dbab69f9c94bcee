"""Parallel-beam computed tomography: Radon transform, its exact adjoint, filtered back-projection."""

import copy
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn.functional import pad

from aseqdip.errors import UserError
from aseqdip.operators.base import Map, Operator, linear_map

#: sub-bins per detector bin; rounding to 1/64 of a bin costs no more than the footprint model itself
FINE = 32
#: a footprint is at most 2 sqrt(2) bins wide, so a pixel touches at most this many detector bins
REACH = 4
#: views that count as all there are: one a degree, as in the authors' script
COMPLETE = 180


class ParallelBeam(Operator):
    """2-D parallel-beam Radon transform ``A = scale * R``, view k at 180 k / views degrees.

    Pixel (row, column) projects to ``t = X cos(angle) - Y sin(angle)`` with ``X = column - size // 2`` and
    ``Y = row - size // 2``; detector i lies at ``t = i - detectors // 2``. These are the conventions of
    ``skimage.transform.radon(..., circle=False)``, whose rotate-and-sum ``R`` approximates by its continuous
    form: a pixel is a bilinear tent, its shadow a tent of half-width |cos| convolved with one of half-width
    |sin| (box spline: Entezari, Nilchian, Unser, IEEE TMI 31, 2012).

    ``R = F B``: ``B`` adds each pixel to the nearest of ``FINE`` sub-bins per detector bin (one non-zero per
    pixel and view, a third of R's), ``F`` spreads the sub-bins with the footprint (a small stencil per view).

    Args:
        size: image side in pixels.
        views: number of angles, equispaced over 180 degrees, end excluded.
        angles: others than these, in radians, as many as views, within a turn.
        normalise: divide R by its spectral norm, so that ``||A|| = 1``.

    Attributes:
        detectors: ``ceil(sqrt(2) * size)`` bins, one pixel wide each.
        radon_norm: spectral norm of R.
        scale: ``1 / radon_norm``, or 1 without normalisation.

    Raises UserError if size or views is below 1, and for angles that are not those of the views.
    """

    footprint: Tensor
    tent: Tensor
    ramp: Tensor
    share: Tensor
    kept: Tensor | None

    def __init__(self, *, size: int, views: int, angles: Sequence[float] | None = None, normalise: bool = True) -> None:
        super().__init__()
        for name, value in (("size", size), ("views", views)):
            if value < 1:
                raise UserError(f"ParallelBeam expects {name} >= 1, found {name}={value}: set a positive number.")
        self.size, self.views, self.detectors = size, views, _detectors(size)
        # held here: a CUDA graph knows them by address alone
        self._maps: dict[torch.device, tuple[Map, Map]] = {}
        self._angles = tuple((np.pi * np.arange(views) / views if angles is None else np.asarray(angles)).tolist())
        _check_angles(self._angles, views)
        for name, constant in (
            ("footprint", _stencil(np.cos(self._angles), np.sin(self._angles))),
            ("tent", _stencil(np.ones(1), np.zeros(1))),
            ("ramp", _ramp(self.detectors)),
            ("share", _share(np.asarray(self._angles))),
        ):
            self.register_buffer(name, constant, persistent=False)
        self.register_buffer("kept", None, persistent=False)
        self.scale = 1.0
        self.radon_norm = self.norm((1, 1, size, size))
        if normalise:
            self.scale = 1 / self.radon_norm

    def forward(self, image: Tensor) -> Tensor:
        """Sinogram of an image.

        Args:
            image: shape (batch, 1, size, size), real; computed in fp32.

        Returns:
            shape (batch, 1, detectors, views), fp32, line integrals in pixel lengths times ``scale``.

        Raises UserError on any other shape.
        """
        self._check("image", image, (1, self.size, self.size))
        project, backproject = self._pair(self.footprint)
        return self._only_kept(self.scale * linear_map(image.float(), project, backproject))

    def without(self, kept: Tensor) -> "ParallelBeam":
        """The same operator whose measurements are 0 where ``kept``, (detectors, views), is False.

        Its ``direct`` interpolates them along the detector.
        """
        part = copy.copy(self)
        part._buffers = {**self._buffers, "kept": kept}
        return part

    def _only_kept(self, sinogram: Tensor) -> Tensor:
        return sinogram if self.kept is None else sinogram * self.kept

    def adjoint(self, measurements: Tensor) -> Tensor:
        """Back-projection ``A^T y``, (batch, 1, detectors, views) to (batch, 1, size, size), fp32."""
        self._check("sinogram", measurements, (1, self.detectors, self.views))
        project, backproject = self._pair(self.footprint)
        return linear_map(self.scale * self._only_kept(measurements).float(), backproject, project)

    def direct(self, measurements: Tensor) -> Tensor:
        """Filtered back-projection: Ram-Lak ramp, linear interpolation; image units, not clipped.

        Shapes as in ``adjoint``; differentiable. Agrees with ``skimage.transform.iradon(filter_name="ramp",
        circle=False, output_size=size)`` (Kak and Slaney, Computerized Tomographic Imaging, chapter 3).
        """
        self._check("sinogram", measurements, (1, self.detectors, self.views))
        length = 2 * (len(self.ramp) - 1)
        if self.kept is not None:
            measurements = _interpolated(measurements, self.kept)
        spectrum = torch.fft.rfft(measurements.float(), n=length, dim=2) * self.ramp[:, None]
        filtered = torch.fft.irfft(spectrum, n=length, dim=2)[:, :, : self.detectors]
        weighted = filtered * (math.pi / (2 * self.views * self.scale))
        project, backproject = self._pair(self.tent)  # back-projecting tents is linear interpolation
        return linear_map(weighted, backproject, project)

    def correction(self, residual: Tensor) -> Tensor:
        """Filtered back-projection of the residual completed with zeros to ``COMPLETE`` views.

        That of the few views alone takes each for its neighbours, too: repeated, the error grows (10 times a pass for
        18 views, 128 pixels; by completion not at all), as does that of views which crowd in a part of the half-turn.
        """
        return self.direct(residual * self.share)

    def _check(self, what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        if tensor.dim() != 4 or tuple(tensor.shape[1:]) != expected:
            raise UserError(
                f"ParallelBeam(size={self.size}, views={self.views}) expects a {what} of shape "
                f"(batch, {', '.join(map(str, expected))}), found {tuple(tensor.shape)}: "
                f"reshape the {what}, or build the operator with its size and number of views."
            )

    def _pair(self, stencil: Tensor) -> tuple[Map, Map]:
        return partial(self._project, stencil=stencil), partial(self._backproject, stencil=stencil)

    def _binning(self, device: torch.device) -> tuple[Map, Map]:
        if device not in self._maps:
            self._maps[device] = _binning(self.size, self._angles, device)
        return self._maps[device]

    # F multiplies element by element: a convolution or matmul would drop to TF32 or bf16 wherever the caller
    # allows these, and forward and adjoint would no longer match.

    def _project(self, image: Tensor, stencil: Tensor) -> Tensor:
        scatter, _ = self._binning(image.device)
        bins = scatter(image.flatten(1)).view(len(image), self.views, -1)
        windows = bins.unfold(-1, REACH * FINE, FINE)
        return (windows * stencil.flatten(1)[:, None]).sum(-1).transpose(1, 2)[:, None]

    def _backproject(self, sinogram: Tensor, stencil: Tensor) -> Tensor:
        _, gather = self._binning(sinogram.device)
        windows = pad(sinogram[:, 0].transpose(1, 2), (REACH - 1, REACH - 1)).unfold(-1, REACH, 1)
        spread = (windows[..., i, None] * stencil[:, None, -1 - i] for i in range(REACH))
        bins = sum(spread, start=windows.new_zeros(()))
        return gather(bins.flatten(1)).view(-1, 1, self.size, self.size)


@lru_cache(maxsize=4)
def _binning(size: int, angles: tuple[float, ...], device: torch.device) -> tuple[Map, Map]:
    """``B`` and ``B^T`` as functions: (batch, size^2) to (batch, views * blocks * FINE) and back."""
    matrices = _matrices(size, angles)
    if device.type == "cpu":
        scatter, gather = (partial(_scipy_product, matrix) for matrix in matrices)
    else:
        scatter, gather = (partial(_torch_product, _to_torch(matrix, device)) for matrix in matrices)
    return scatter, gather


@lru_cache(maxsize=1)  # a case is made on the CPU and then moved: half a second each
def _matrices(size: int, angles: tuple[float, ...]) -> tuple[sparse.csr_array, sparse.csr_array]:
    """``B`` and ``B^T`` as compressed rows."""
    detectors, views = _detectors(size), len(angles)
    blocks = detectors + REACH - 1  # all that reaches a detector: 2 before the first to 1 behind the last
    centred = np.arange(size) - size // 2
    x, y = (np.multiply.outer(centred, part).astype(np.float32) for part in (np.cos(angles), np.sin(angles)))
    bins = x - y[:, None]  # t, of shape (row, column, view)
    bins += detectors // 2 + 2
    bins *= FINE
    columns = np.rint(bins, out=bins).astype(np.int32) + np.arange(views, dtype=np.int32) * (blocks * FINE)
    # every pixel has one non-zero per view, in ascending order: these are compressed rows, nothing to sort
    starts = np.arange(0, columns.size + 1, views, dtype=np.int32)
    entries = (np.ones(columns.size, np.float32), columns.ravel(), starts)
    gather = sparse.csr_array(entries, shape=(size**2, views * blocks * FINE))
    return gather.T.tocsr(), gather


def _scipy_product(matrix: sparse.csr_array, rows: Tensor) -> Tensor:
    # on a CPU torch's own sparse product takes the same time at best, five times as long at worst
    return torch.from_numpy(np.stack([matrix @ row for row in rows.detach().numpy()]))


def _torch_product(matrix: Tensor, rows: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return torch.stack([matrix @ row for row in rows])


def _to_torch(matrix: sparse.csr_array, device: torch.device) -> Tensor:
    starts, columns, values = (
        torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, size=matrix.shape, check_invariants=False)


def _interpolated(sinogram: Tensor, kept: Tensor) -> Tensor:
    """The sinogram with bins that are not kept interpolated linearly, along the detector, from those that are."""
    last = len(kept) - 1
    bins = torch.arange(len(kept), device=kept.device)[:, None].expand_as(kept)
    before = torch.where(kept, bins, -1).cummax(0).values
    after = torch.where(kept, bins, last + 1).flip(0).cummin(0).values.flip(0)
    low, high = torch.where(before < 0, after, before).clamp(0, last), torch.where(after > last, before, after)
    high = high.clamp(0, last)
    share = ((bins - low) / (high - low).clamp_min(1)).to(sinogram)
    known = sinogram * kept
    return torch.lerp(known.gather(2, low.expand_as(known)), known.gather(2, high.expand_as(known)), share)


def _check_angles(angles: Sequence[float], views: int) -> None:
    if len(angles) != views:
        raise UserError(f"ParallelBeam has {views} views and {len(angles)} angles: give as many.")
    if (largest := float(np.abs(angles).max())) > 2 * math.pi + 1e-3:
        raise UserError(f"ParallelBeam takes angles in radians, within a turn; found {largest:g}: numpy.deg2rad them.")


def _share(angles: NDArray[np.float64]) -> Tensor:
    """What each view has of the half-turn, in units of what filtered back-projection gives it: (views,).

    Half of the way to either neighbour, at most as much as where views are ``COMPLETE``.
    """
    order = np.argsort(angles % np.pi, kind="stable")
    gaps = np.diff(angles[order] % np.pi, append=(angles[order[0]] % np.pi) + np.pi)
    arcs = np.empty(len(angles))
    arcs[order] = (gaps + np.roll(gaps, 1)) / 2
    return torch.from_numpy(np.minimum(arcs, np.pi / COMPLETE) * (len(angles) / np.pi)).float()


def _detectors(size: int) -> int:
    return math.ceil(math.sqrt(2) * size)


def _stencil(cos: NDArray[np.float64], sin: NDArray[np.float64]) -> Tensor:
    """Footprint per view, block before the detector bin and sub-bin: shape (views, REACH, FINE).

    Tent of half-width |cos| convolved with tent of half-width |sin|, each of area 1: the second differences
    over both widths of |t|^3 / 12.
    """
    # widths stay above 0, where the formula would be 0 / 0
    a, b = (np.maximum(np.abs(width), 3e-5)[:, None] for width in (cos, sin))
    distance = 2 - np.arange(REACH * FINE) / FINE  # from sub-bin to detector bin
    steps = ((-1, 1), (0, -2), (1, 1))
    terms = (p * q * np.abs(distance + i * a + j * b) ** 3 for i, p in steps for j, q in steps)
    footprint = sum(terms) / (12 * (a * b) ** 2)
    return torch.from_numpy(footprint.astype(np.float32).reshape(-1, REACH, FINE))


def _ramp(detectors: int) -> Tensor:
    """Ram-Lak response on the half spectrum, from its samples in space (Kak and Slaney, equation 61)."""
    length = max(64, 2 ** math.ceil(math.log2(2 * detectors)))
    distance = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(distance % 2, -1 / (np.pi * np.maximum(distance, 1)) ** 2, 0)
    kernel[0] = 0.25
    return torch.from_numpy(2 * np.fft.rfft(kernel).real.astype(np.float32))
