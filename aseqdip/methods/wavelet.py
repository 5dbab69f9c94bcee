"""l1-wavelets: the sparse reconstruction of compressed sensing."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from aseqdip.methods._classical import Tensors, Weighted, begin_descent, descend
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI
from aseqdip.parts import knob
from aseqdip.problem import Problem

#: Daubechies' orthogonal low-pass filter with four vanishing moments
FILTER = (
    0.23037781330885523, 0.7148465705525415, 0.6308807679295904, -0.02798376941698385,
    -0.18703481171888114, 0.030841381835986965, 0.032883011666982945, -0.010597401784997278,
)  # fmt: skip


class Wavelet(Weighted):
    """min_x 1/2 ||A x - y||^2 + rho max|A^H y| ||W x||_1 by FISTA; channels share the size of a coefficient.

    W: orthogonal Daubechies wavelets, periodic; the coarsest level is free. Translation invariance by random shifts:
    the proximal map is the mean of those of ``shifts`` transforms, each shifted by numbers of pixels drawn anew for
    every iteration. shifts=0 is the one transform that is not shifted, whose iterates converge to the minimum.
    """

    name = "wavelet"
    title = "l1-wavelet"
    paper = "Lustig, Donoho, Pauly: Sparse MRI: the application of compressed sensing for rapid MR imaging, MRM 2007"

    fitted = 0.42
    rhos = {
        MultiCoilMRI: (1e-4, 1.5e-3), ParallelBeam: (3e-4, 1e-3), Identity: (1e-3, 0.05), Mask: (1e-2, 0.03),
        MotionBlur: (1e-5, 1e-3), CameraBlur: (1e-5, 1e-3),
    }  # fmt: skip

    @dataclass
    class Options(Weighted.Options):
        iterations: int = knob("iterations at most (steps is for networks and has no effect here)", 150, low=1)
        levels: int = knob("levels of the wavelet transform", 4, low=1, high=8)
        shifts: int = knob("randomly shifted transforms in an iteration; 0: one that is not shifted", 2, low=0)

    def begin(self, problem: Problem) -> Tensors:
        return {**begin_descent(problem), **self.weights(problem)}

    def advance(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        shifts = self.shifts(problem, step)

        def prox(b: Tensor, w: Tensor) -> Tensor:
            shrunk = [self.shrink(b.roll(by, (-2, -1)), w).roll((-by[0], -by[1]), (-2, -1)) for by in shifts]
            return torch.stack(shrunk).mean(0)

        descend(problem, s, prox)
        return s["x"], self.terms(s["Ax"] - problem.y, s["x"], s["weight"])

    def shifts(self, problem: Problem, step: int) -> list[tuple[int, int]]:
        """The shifts of an iteration, down and right in pixels: a function of its number alone, so that a resumed run
        has them.
        """
        if self.options.shifts == 0:
            return [(0, 0)]
        rng, span = problem.generator(f"shifts {step}"), 2**self.options.levels
        drawn: list[list[int]] = torch.randint(span, (self.options.shifts, 2), generator=rng).tolist()
        return [(down, right) for down, right in drawn]

    def regulariser(self, x: Tensor) -> Tensor:
        size = transform(padded(x, self.options.levels), self.options.levels).square().sum(1).sqrt()
        return size.sum() - coarse(size, self.options.levels).sum()

    def shrink(self, b: Tensor, w: Tensor) -> Tensor:
        """argmin_x 1/2 ||x - b||^2 + w ||W x||_1; nearly, for an image whose sides 2^levels does not divide."""
        levels = self.options.levels
        found = transform(padded(b, levels), levels)
        size = found.square().sum(1, keepdim=True).sqrt()
        factor = (1 - w / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)
        coarse(factor, levels).fill_(1)
        return inverse(found * factor, levels)[..., : b.shape[-2], : b.shape[-1]]


def padded(x: Tensor, levels: int) -> Tensor:
    """The image with sides that 2^levels divides, continued by its edge."""
    down, right = (-side % 2**levels for side in x.shape[-2:])
    return pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def coarse(found: Tensor, levels: int) -> Tensor:
    """The part of the coefficients that is the image at the coarsest scale, as a view."""
    return found[..., : found.shape[-2] >> levels, : found.shape[-1] >> levels]


def transform(x: Tensor, levels: int) -> Tensor:
    """W x: each level's coarse part in the upper left quarter, where the next level replaces it."""
    x = x.clone()
    for level in range(levels):
        part = coarse(x, level)
        rows, columns = (split(side, x.device) for side in part.shape[-2:])
        part.copy_(rows @ part @ columns.T)
    return x


def inverse(found: Tensor, levels: int) -> Tensor:
    """W^T, its inverse."""
    x = found.clone()
    for level in reversed(range(levels)):
        part = coarse(x, level)
        rows, columns = (split(side, x.device) for side in part.shape[-2:])
        part.copy_(rows.T @ part @ columns)
    return x


@cache
def split(side: int, device: torch.device) -> Tensor:
    """One level in one dimension, periodic: an orthogonal matrix, (side, side), low frequencies first."""
    low = torch.tensor(FILTER, dtype=torch.float64)
    high = low.flip(0) * torch.tensor([1.0, -1.0]).repeat(len(low) // 2)
    row, tap = torch.arange(side // 2)[:, None], torch.arange(len(low))
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for part, taps in ((0, low), (side // 2, high)):
        where = (row + part).expand(-1, len(low)), (2 * row + tap) % side
        matrix.index_put_(where, taps.expand(side // 2, -1), accumulate=True)
    return matrix.float().to(device)
