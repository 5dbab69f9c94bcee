"""The paper of the generated anatomies: analytic shapes and random fields, painted on a fine grid and averaged.

Coordinates are x (right) and y (down) in [-1, 1], on a grid at least twice as fine as asked for, box-averaged: an index
is the same anatomy at every size. Lengths are in half fields of view; a shape is a function that is positive inside:
roughly, the depth.
"""

import math
from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.data.base import Items, Reader, Sample
from aseqdip.errors import UserError

Array = NDArray[Any]  # float32 throughout
Point = tuple[float, float]

LARGEST = 4096  # pixels a side: the fine grid and its fields take a few GiB then


class Phantom(Reader):
    """A reader that draws its images. Add :meth:`draw`.

    Attributes:
        side: pixels a side where size=native.
    """

    generated = True
    side: ClassVar[int]

    @abstractmethod
    def draw(self, size: int, index: int) -> Tensor:
        """One image, (size, size)."""

    def items(self) -> Items:
        if self.size != "native" and not self.size.isdecimal():
            raise UserError(f"size={self.size}: expected a number of pixels, or native.")
        side = self.side if self.size == "native" else int(self.size)
        if not 8 <= side <= LARGEST:
            raise UserError(
                f"size={self.size}: expected 8 to {LARGEST} pixels, as dataset={self.name} draws its images."
            )

        def load(index: int) -> Sample:
            return Sample(f"generated {self.name} phantom {index}", image=self.draw(side, index)[None])

        return {f"{self.name}{index:02d}": partial(load, index) for index in range(20)}


class Shape(NamedTuple):
    """A small shape: how deep each pixel of a window of the sheet lies inside it (negative outside)."""

    window: tuple[slice, slice]
    depth: Array

    def within(self, other: Array) -> "Shape":
        return Shape(self.window, np.minimum(self.depth, other[self.window]))

    def carve(self, other: Array, gap: float = 0.0) -> None:
        """Take this shape and a gap around it away from another one."""
        other[self.window] = np.minimum(other[self.window], -self.depth - np.float32(gap))


class Sheet:
    """The fine grid of one phantom: an image, gently warped coordinates x and y, random fields and shapes."""

    def __init__(self, size: int, index: int, family: int, background: float) -> None:
        if not 8 <= size <= LARGEST or index < 0:
            raise UserError(
                f"a phantom needs a size from 8 to {LARGEST} and index >= 0; found size {size}, index {index}."
            )
        self.rng = np.random.default_rng([family, index])
        self.size, self.factor = size, max(2, -(-640 // size))
        n = size * self.factor
        self.image: Array = np.full((n, n), background, dtype=np.float32)
        self.axis = (np.arange(n, dtype=np.float32) + 0.5) * np.float32(2 / n) - 1
        shift_x, shift_y = (0.014 * self.field(1.1) + 0.005 * self.field(0.32) for _ in "xy")
        self.x, self.y = self.axis + shift_x, self.axis[:, None] + shift_y

    def field(self, wavelength: float) -> Array:
        """A smooth random field of unit variance, with waves of about one length in all directions."""
        period = 2.7
        top = int(np.ceil(1.6 * period / wavelength))
        modes = np.arange(-top, top + 1)
        ratio = np.hypot(modes, modes[:, None]) * wavelength / period
        weight = np.where(ratio > 0, np.exp(-((ratio - 0.85) ** 2) / 0.18), 0)
        real, imaginary = self.rng.standard_normal((2, *weight.shape)) / np.sqrt((weight**2).sum())
        waves = np.exp(2j * np.pi / period * np.outer(self.axis, modes)).astype(np.complex64)
        half = waves @ (weight * (real + 1j * imaginary)).astype(np.complex64)
        # the real part of half @ waves.T, as one real product
        return np.hstack([half.real, -half.imag]) @ np.hstack([waves.real, waves.imag]).T

    def lines(self, field: Array) -> Array:
        """Distance to the zero lines of a field, to first order."""
        slope = np.hypot(*np.gradient(field, self.axis, self.axis))
        distance: Array = np.abs(field) / (slope + 4)  # the constant keeps flat places from becoming blots
        return distance

    def jitter(self, spread: float) -> float:
        return float(self.rng.uniform(-spread, spread))

    def window(self, centre: Point, reach: Point) -> tuple[slice, slice]:
        """Where |x - centre| < reach, with a margin for the warp of the coordinates."""
        ends = ((c - r - 0.1, c + r + 0.1) for c, r in zip(centre, reach, strict=True))
        across, along = (slice(*np.searchsorted(self.axis, end)) for end in ends)
        return along, across

    def ellipse(self, centre: Point, axes: Point, tilt: float = 0.0) -> Shape:
        window = self.window(centre, (max(axes), max(axes)))
        u, v = self.x[window] - centre[0], self.y[window] - centre[1]
        c, s = math.cos(tilt), math.sin(tilt)
        radius = np.sqrt(((c * u + s * v) / axes[0]) ** 2 + ((c * v - s * u) / axes[1]) ** 2)
        return Shape(window, (1 - radius) * min(axes))

    def capsule(self, start: Point, end: Point, radii: Point) -> Shape:
        """A rod from start to end whose radius goes from radii[0] to radii[1]."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        window = self.window((start[0] + dx / 2, start[1] + dy / 2), (abs(dx) / 2 + 0.04, abs(dy) / 2 + 0.04))
        u, v = self.x[window] - start[0], self.y[window] - start[1]
        along = np.clip((u * dx + v * dy) / (dx * dx + dy * dy), 0, 1)
        radius = np.sqrt((u - along * dx) ** 2 + (v - along * dy) ** 2)
        return Shape(window, radii[0] + (radii[1] - radii[0]) * along - radius)

    def paint(self, shape: Shape | Array, value: float | Array, soft: float = 0.004) -> None:
        """Set the inside of a shape to a value, over an edge of the given width."""
        window, depth = shape if isinstance(shape, Shape) else ((slice(None), slice(None)), shape)
        old, new = self.image[window], value[window] if isinstance(value, np.ndarray) else value
        self.image[window] += np.clip(depth * np.float32(1 / soft) + np.float32(0.5), 0, 1) * (new - old)

    def average(self, fine: Array) -> Tensor:
        return torch.from_numpy(fine.reshape(self.size, self.factor, self.size, self.factor).mean(axis=(1, 3)))
