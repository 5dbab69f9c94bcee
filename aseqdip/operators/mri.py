"""Multi-coil Cartesian MRI, ``A = M F S`` (paper, Sec. 2), and its sampling masks."""

import math

import numpy as np
import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator, linear_map, values_of


def to_complex(image: Tensor) -> Tensor:
    """Two real channels (batch, 2, height, width) to one complex image (batch, 1, height, width)."""
    return torch.complex(image[:, :1], image[:, 1:])


def to_channels(image: Tensor) -> Tensor:
    """Complex image (batch, 1, height, width) to two real channels (batch, 2, height, width)."""
    return torch.cat((image.real, image.imag), dim=1)


def fft2c(image: Tensor) -> Tensor:
    """Centred orthonormal 2-D FFT over the last two axes (the fastMRI convention)."""
    shifted = torch.fft.ifftshift(image, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))


def ifft2c(kspace: Tensor) -> Tensor:
    """Inverse of :func:`fft2c`."""
    shifted = torch.fft.ifftshift(kspace, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))


def fft1c(image: Tensor, axis: int) -> Tensor:
    """:func:`fft2c` along one axis."""
    shifted = torch.fft.ifftshift(image, dim=axis)
    return torch.fft.fftshift(torch.fft.fft(shifted, dim=axis, norm="ortho"), dim=axis)


def ifft1c(kspace: Tensor, axis: int) -> Tensor:
    """Inverse of :func:`fft1c`."""
    shifted = torch.fft.ifftshift(kspace, dim=axis)
    return torch.fft.fftshift(torch.fft.ifft(shifted, dim=axis, norm="ortho"), dim=axis)


def _centring(n: int) -> tuple[Tensor, Tensor]:
    """Phases (image side, k-space side) that turn a plain FFT of length n into the centred one.

    exp(-2 pi i (k-c)(m-c)/n) = exp(-2 pi i km/n) exp(2 pi i mc/n) exp(2 pi i kc/n) exp(-2 pi i c^2/n), c = n//2:
    two multiplications that fold into maps and mask, instead of copies of every coil image by fftshift.
    """
    centre = n // 2
    index = torch.arange(n, dtype=torch.float64)
    image = 2 * math.pi * torch.remainder(index * centre, n) / n
    kspace = 2 * math.pi * torch.remainder(index * centre - centre**2, n) / n
    return _unit(image), _unit(kspace)


def _unit(angle: Tensor) -> Tensor:
    """exp(i angle) in complex64."""
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


class MultiCoilMRI(Operator):
    """``(A x)_c = M F (S_c x)``: coil sensitivities, centred orthonormal FFT, sampled columns or points of k-space.

    Args:
        maps: coil sensitivity maps S, complex, shape (coils, height, width), sum_c |S_c|^2 = 1 on their
            support, so that ``||A|| <= 1``.
        mask: sampled columns, shape (width,); or sampled points, (height, width), as scans with two phase-encoded axes
            have them. Boolean, or numbers: what is not 0 is sampled.

    Image: (batch, 2, height, width). Measurements: complex, (batch, coils, height, sampled columns):
    only what was sampled is stored; for points (batch, coils, height, width), 0 where nothing was sampled.
    Raises UserError if mask and maps differ in size, or in axes from what they are said to have here, or nothing is
    sampled.
    """

    maps: Tensor
    mask: Tensor
    _columns: Tensor
    _maps: Tensor
    _phase: Tensor

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        super().__init__()
        maps, mask = values_of(maps).to(torch.complex64), values_of(mask)
        maps = maps[0] if maps.dim() == 4 and len(maps) == 1 else maps
        if maps.dim() != 3:
            raise UserError(f"Coil maps are (coils, height, width); found {tuple(maps.shape)}.")
        if mask.shape not in (maps.shape[-1:], maps.shape[-2:]):
            raise UserError(
                f"The sampling mask has {' x '.join(map(str, mask.shape))} columns, the k-space has {maps.shape[-1]}: "
                "they must agree."
            )
        mask = mask != 0  # whole numbers would be taken for positions below
        if not mask.any():
            raise UserError("The sampling mask samples no column at all: at least one is needed.")
        some = mask if mask.dim() == 1 else torch.ones_like(mask[0])
        rows, columns = _centring(maps.shape[-2]), _centring(maps.shape[-1])
        self.register_buffer("maps", maps)
        self.register_buffer("mask", mask)
        self.register_buffer("_columns", some.nonzero().squeeze(1))
        self.register_buffer("_maps", maps * rows[0][:, None] * columns[0])
        self.register_buffer("_phase", rows[1][:, None] * columns[1][some.cpu()].to(maps.device))
        if mask.dim() == 2:
            self._phase = self._phase * mask

    def forward(self, image: Tensor) -> Tensor:
        return linear_map(image, self._apply_a, self._apply_adjoint)

    def adjoint(self, measurements: Tensor) -> Tensor:
        return linear_map(measurements, self._apply_adjoint, self._apply_a)

    def _apply_a(self, image: Tensor) -> Tensor:
        kspace = torch.fft.fft(to_complex(image) * self._maps, dim=-1, norm="ortho")
        kspace = kspace.index_select(-1, self._columns)  # the second FFT only where something is sampled
        return torch.fft.fft(kspace, dim=-2, norm="ortho") * self._phase

    def _apply_adjoint(self, measurements: Tensor) -> Tensor:
        lines = torch.fft.ifft(measurements * self._phase.conj(), dim=-2, norm="ortho")
        kspace = lines.new_zeros(*lines.shape[:-1], self.mask.shape[-1])
        kspace.index_copy_(-1, self._columns, lines)
        coils = torch.fft.ifft(kspace, dim=-1, norm="ortho")
        return to_channels((coils * self._maps.conj()).sum(1, keepdim=True))

    def sample(self, kspace: Tensor) -> Tensor:
        """What is sampled of a full centred k-space, (batch, coils, height, width) -> measurements."""
        kspace = (kspace if isinstance(kspace, Tensor) else values_of(kspace)).to(self.mask.device)
        return kspace.index_select(-1, self._columns) if self.mask.dim() == 1 else kspace * self.mask


def center_width(mask: Tensor) -> int:
    """Width of the largest block around the middle column that is fully sampled."""
    n = mask.numel()
    return next((w for w in range(n, 0, -1) if bool(mask[(n - w + 1) // 2 :][:w].all())), 0)


def centre_side(mask: Tensor) -> int:
    """Side of the largest square around the middle of k-space of which every point, (height, width), is sampled."""
    sides = range(min(mask.shape), 0, -1)
    corners = ((s, *((n - s + 1) // 2 for n in mask.shape)) for s in sides)  # as ESPIRiT takes it
    return next((s for s, top, left in corners if bool(mask[top:, left:][:s, :s].all())), 0)


MASKS = ("random", "equispaced", "variable_density")


def cartesian_mask(kind: str, width: int, accel: float, center_fraction: float, rng: np.random.RandomState) -> Tensor:
    """Which of ``width`` k-space columns are sampled, boolean (width,), at acceleration ``accel``.

    round(width * center_fraction) central columns are always sampled. The others:
    "random": independently, so that width/accel are expected (the fastMRI challenge's random mask);
    "equispaced": evenly from a random offset, adjusted for the centre (fastMRI's equispaced fraction mask);
    "variable_density": exactly width/accel in total, drawn with a density falling as (1 - |k|/k_max)^2.

    Raises UserError if the centre alone exceeds width/accel or the kind is unknown.
    """
    low = round(width * center_fraction)
    if low > width / accel:
        raise UserError(
            f"accel={accel:g} samples {width / accel:.0f} of {width} columns, but the fully sampled centre alone has "
            f"{low}: lower center_fraction or accel."
        )
    mask = np.zeros(width, dtype=bool)
    start = (width - low + 1) // 2
    if kind == "random":
        probability = (width / accel - low) / (width - low)
        mask = rng.uniform(size=width) < probability
    elif kind == "equispaced" and low == width / accel:
        pass  # the centre is all there is
    elif kind == "equispaced":
        spacing = accel * (low - width) / (low * accel - width)
        offset = rng.randint(0, high=round(spacing))
        mask[np.around(np.arange(offset, width - 1, spacing)).astype(int)] = True
    elif kind == "variable_density":
        density = (1 - np.abs(np.linspace(-1, 1, width))) ** 2 + 1e-3
        density[start : start + low] = 0
        count = round(width / accel) - low
        mask[rng.choice(width, size=count, replace=False, p=density / density.sum())] = True
    else:
        raise UserError(f"mask={kind} is unknown for MRI: use one of {', '.join(MASKS)}.")
    mask[start : start + low] = True
    return torch.from_numpy(mask)
