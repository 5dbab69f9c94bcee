"""Generated coil sensitivity maps, for making multi-coil measurements out of one complex image."""

import math

import torch
from torch import Tensor

from aseqdip.errors import UserError


def simulated_coils(count: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth maps of coils on a ring around the field of view, like those of a birdcage head array.

    The transverse field of a long straight wire at p is ``(r - p) / |r - p|^2`` as a complex number
    (Biot-Savart), softened by a distance out of the plane; the image is a slice through that field.

    Args:
        count: number of coils, at least 1 (fastMRI knees have 15).
        shape: (height, width) in pixels; the ring follows the shape of the field of view.
        generator: CPU generator that moves each coil slightly off its place on the ring.

    Returns:
        Maps S, shape (count, height, width), complex64, with ``sum_c |S_c|^2 = 1`` at every pixel.

    Raises:
        UserError: if count or a side of the shape is not positive.
    """
    if count < 1 or min(shape) < 1:
        raise UserError(f"simulated coils need count >= 1 and a non-empty shape; found {count} coils, shape {shape}.")
    jitter = torch.rand((3, count), generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * (torch.arange(count) + 0.5 * jitter[0]) / count
    # the corners of the field of view lie at radius 1.41: the ring stays clear of them
    position = torch.polar(1.55 + 0.2 * jitter[1], angle)
    phase = torch.polar(torch.ones(count, dtype=torch.float64), 2 * math.pi * jitter[2])
    y, x = (2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n - 1 for n in shape)
    offset = torch.complex(x.expand(shape), y[:, None].expand(shape)) - position[:, None, None]
    maps: Tensor = phase[:, None, None] * offset / (offset.abs() ** 2 + 0.15)
    return maps.div(maps.norm(dim=0)).to(torch.complex64)


def smooth_phase(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A unit-magnitude image with a slowly varying phase, as the field and the receiver give a real scan.

    The phase is a random polynomial of second order that spans pi.

    Args:
        shape: (height, width) in pixels.
        generator: CPU generator of the coefficients.

    Returns:
        exp(i phase), shape (height, width), complex64.
    """
    y, x = (2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n - 1 for n in shape)
    y = y[:, None]
    terms = (x + 0 * y, y + 0 * x, x * y, x**2 + 0 * y, y**2 + 0 * x)
    weights = torch.randn(len(terms), generator=generator, dtype=torch.float64)
    phase = sum((w * t for w, t in zip(weights, terms, strict=True)), start=torch.zeros(shape, dtype=torch.float64))
    phase = phase * torch.pi / (phase.max() - phase.min()).clamp_min(1e-9)
    return torch.polar(torch.ones_like(phase), phase).to(torch.complex64)
