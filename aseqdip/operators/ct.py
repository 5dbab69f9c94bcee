"""Parallel-beam computed tomography: Radon transform, its exact adjoint, filtered back-projection."""

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn.functional import pad

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator

FINE = (
    32  #: sub-bins per detector bin; rounding to 1/64 of a bin costs no more than the footprint model itself
)
REACH = 4  #: a footprint is at most 2 sqrt(2) bins wide, so a pixel touches at most this many detector bins
GROUPS = 8  #: the views are dealt to this many matrices: the unit of work of a thread


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
        normalise: divide R by its spectral norm, so that ``||A|| = 1``.

    Attributes:
        detectors: ``ceil(sqrt(2) * size)`` bins, one pixel wide each.
        radon_norm: spectral norm of R.
        scale: ``1 / radon_norm``, or 1 without normalisation.

    Raises UserError if size or views is below 1.
    """

    footprint: Tensor
    tent: Tensor
    ramp: Tensor

    def __init__(self, *, size: int, views: int, normalise: bool = True) -> None:
        super().__init__()
        for name, value in (("size", size), ("views", views)):
            if value < 1:
                raise UserError(
                    f"ParallelBeam expects {name} >= 1, found {name}={value}: set a positive number."
                )
        self.size, self.views, self.detectors = size, views, math.ceil(math.sqrt(2) * size)
        angles = np.pi * np.arange(views) / views
        for name, constant in (
            ("footprint", _stencil(np.cos(angles), np.sin(angles))),
            ("tent", _stencil(np.ones(1), np.zeros(1))),
            ("ramp", _ramp(self.detectors)),
        ):
            self.register_buffer(name, constant, persistent=False)
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
        return self.scale * self._apply_linear(image, self._project, self._backproject, self.footprint)

    def adjoint(self, measurements: Tensor) -> Tensor:
        """Back-projection ``A^T y``, (batch, 1, detectors, views) to (batch, 1, size, size), fp32."""
        self._check("sinogram", measurements, (1, self.detectors, self.views))
        return self._apply_linear(self.scale * measurements, self._backproject, self._project, self.footprint)

    def direct(self, measurements: Tensor) -> Tensor:
        """Filtered back-projection: Ram-Lak ramp, linear interpolation; image units, not clipped.

        Shapes as in ``adjoint``; differentiable. Agrees with ``skimage.transform.iradon(filter_name="ramp",
        circle=False, output_size=size)`` (Kak and Slaney, Computerized Tomographic Imaging, chapter 3).
        """
        self._check("sinogram", measurements, (1, self.detectors, self.views))
        length = 2 * (len(self.ramp) - 1)
        spectrum = torch.fft.rfft(measurements.float(), n=length, dim=2) * self.ramp[:, None]
        filtered = torch.fft.irfft(spectrum, n=length, dim=2)[:, :, : self.detectors]
        weighted = filtered * (math.pi / (2 * self.views * self.scale))
        # linear interpolation is back-projection with a tent of one bin for footprint
        return self._apply_linear(weighted, self._backproject, self._project, self.tent)

    def _check(self, what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        if tensor.dim() != 4 or tuple(tensor.shape[1:]) != expected:
            raise UserError(
                f"ParallelBeam(size={self.size}, views={self.views}) expects a {what} of shape "
                f"(batch, {', '.join(map(str, expected))}), found {tuple(tensor.shape)}: "
                f"reshape the {what}, or build the operator with its size and number of views."
            )

    @staticmethod
    def _apply_linear(
        x: Tensor, product: "_StencilProduct", transpose: "_StencilProduct", stencil: Tensor
    ) -> Tensor:
        result: Tensor = _Linear.apply(x.float(), partial(product, stencil), partial(transpose, stencil))
        return result

    # F multiplies element by element: a convolution or matmul would drop to TF32 or bf16 wherever the caller
    # allows these, and forward and adjoint would no longer match.

    def _project(self, stencil: Tensor, image: Tensor) -> Tensor:
        bins = _binning(self.size, self.views, image.device).scatter(image.flatten(1))
        windows = bins.unflatten(1, (self.views, -1)).unfold(-1, REACH * FINE, FINE)
        return (windows * stencil.flatten(1)[:, None]).sum(-1).transpose(1, 2).unsqueeze(1)

    def _backproject(self, stencil: Tensor, sinogram: Tensor) -> Tensor:
        views = sinogram.squeeze(1).transpose(1, 2)
        windows = pad(views, (REACH - 1, REACH - 1)).unfold(-1, REACH, 1)
        bins = (windows[..., None] * stencil.flip(1)[:, None]).sum(-2)
        pixels = _binning(self.size, self.views, sinogram.device).gather(bins.flatten(1))
        return pixels.view(-1, 1, self.size, self.size)


_Product = Callable[[Tensor], Tensor]
_StencilProduct = Callable[[Tensor, Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """``product(x)`` whose derivative is ``transpose``, and so on to any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: _Product, transpose: _Product) -> Tensor:
        ctx.product, ctx.transpose = product, transpose
        return product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.transpose, ctx.product), None, None


class _ScipyBinning:
    """``B`` and ``B^T`` on the CPU: SciPy's compressed rows, a third of the time of torch's, in threads.

    ``scatter``: (batch, size^2) to (batch, views * blocks * FINE); ``gather`` is its transpose.
    """

    def __init__(self, size: int, views: int) -> None:
        # B^T has one row per pixel and one non-zero per view: compressed rows without any sorting
        detectors = math.ceil(math.sqrt(2) * size)
        width = (detectors + REACH - 1) * FINE  # sub-bins of a view, with all that reaches an outer detector
        centred = np.arange(size) - size // 2
        groups = [group for group in np.array_split(np.arange(views), GROUPS) if len(group)]
        ones = np.ones(size * size * len(groups[0]), np.float32)
        self.splits = [len(group) * width for group in groups]
        self.gathers = []
        for group in groups:
            angles = np.pi * group / views
            t = (np.cos(angles) * centred[:, None]) - (np.sin(angles) * centred[:, None])[:, None]
            t += detectors // 2 + 2  # block 0 is the one two detectors before the first
            t *= FINE
            columns = np.rint(t, out=t).astype(np.int32) + np.arange(len(group), dtype=np.int32) * width
            starts = np.arange(0, columns.size + 1, len(group), dtype=np.int32)
            entries = (ones[: columns.size], columns.ravel(), starts)
            self.gathers.append(sparse.csr_array(entries, shape=(size * size, len(group) * width)))
        self.scatters = [matrix.T for matrix in self.gathers]

    def scatter(self, pixels: Tensor) -> Tensor:
        rows = pixels.detach().numpy()
        parts = _in_threads(lambda matrix: np.stack([matrix @ row for row in rows]), self.scatters)
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def gather(self, bins: Tensor) -> Tensor:
        parts = [part.numpy() for part in bins.detach().split(self.splits, dim=1)]
        images = _in_threads(lambda m, part: np.stack([m @ row for row in part]), self.gathers, parts)
        return torch.from_numpy(sum(images[1:], start=images[0]))


class _TorchBinning:
    """The same ``B`` and ``B^T`` as compressed rows of torch, both stored, for other devices."""

    def __init__(self, size: int, views: int, device: torch.device) -> None:
        matrix = sparse.hstack(_ScipyBinning(size, views).gathers, format="csr")
        self.gather_matrix = _to_torch(matrix, device)
        self.scatter_matrix = _to_torch(matrix.T.tocsr(), device)

    def scatter(self, pixels: Tensor) -> Tensor:
        return self._product(self.scatter_matrix, pixels)

    def gather(self, bins: Tensor) -> Tensor:
        return self._product(self.gather_matrix, bins)

    @staticmethod
    def _product(matrix: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return torch.stack([matrix @ row for row in rows])


@lru_cache(maxsize=4)
def _binning(size: int, views: int, device: torch.device) -> _ScipyBinning | _TorchBinning:
    return _ScipyBinning(size, views) if device.type == "cpu" else _TorchBinning(size, views, device)


def _in_threads(work: Callable[..., NDArray[np.float32]], *lists: list[Any]) -> list[NDArray[np.float32]]:
    """``map`` in torch's number of threads (SciPy's products release the GIL); no pool outlives a fork."""
    with ThreadPoolExecutor(min(torch.get_num_threads(), GROUPS)) as pool:
        return list(pool.map(work, *lists))


def _to_torch(matrix: Any, device: torch.device) -> Tensor:
    parts = [torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape)


def _stencil(cos: NDArray[np.float64], sin: NDArray[np.float64]) -> Tensor:
    """Footprint per view, block before the detector bin and sub-bin: shape (views, REACH, FINE).

    Tent of half-width |cos| convolved with tent of half-width |sin|, each of area 1: the second differences
    over both widths of |t|^3 / 12.
    """
    a, b = (
        np.maximum(np.abs(width), 3e-5)[:, None] for width in (cos, sin)
    )  # a width of 0 would divide 0 by 0
    distance = 2 - np.arange(REACH * FINE) / FINE  # from sub-bin to detector bin
    steps = ((-1, 1), (0, -2), (1, 1))
    terms = (p * q * np.abs(distance + i * a + j * b) ** 3 for i, p in steps for j, q in steps)
    footprint = sum(terms) / (12 * (a * b) ** 2)
    return torch.from_numpy(footprint.astype(np.float32)).unflatten(1, (REACH, FINE))


def _ramp(detectors: int) -> Tensor:
    """Ram-Lak response on the half spectrum, from its samples in space (Kak and Slaney, equation 61)."""
    length = max(64, 2 ** math.ceil(math.log2(2 * detectors)))
    distance = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(distance % 2, -1 / (np.pi * np.maximum(distance, 1)) ** 2, 0)
    kernel[0] = 0.25
    return torch.from_numpy(2 * np.fft.rfft(kernel).real.astype(np.float32))
