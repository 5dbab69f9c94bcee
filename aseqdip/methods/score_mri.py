"""Score-MRI: predictor and corrector, each followed by the measurements."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import bare
from aseqdip.methods._diffusion import SamplerState, VESampler
from aseqdip.methods.base import Shared
from aseqdip.operators.base import Scaled
from aseqdip.operators.mri import MultiCoilMRI, to_channels, to_complex
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class ScoreMRI(VESampler):
    """Sampling by predictor and corrector:

        corrector   x <- x_i + e score + sqrt(2 e) n,   e = 2 (snr ||n|| / ||score||)^2
        predictor   x <- x + (s_i^2 - s_{i-1}^2) score + sqrt(s_i^2 - s_{i-1}^2) n

    each followed by x <- x + A^H (y - A x). The image is that of all coils, combined: the released code runs the
    network for each coil, and its combination of them applies the maps twice. The last step adds no noise.

    ``coil_images=each`` is the paper's algorithm SSOS: coil after coil, first the predictor, then the corrector, which
    has an e for the real and one for the imaginary part, each followed by the coil's own measurements, x_c <- x_c + F^H
    M (y_c - M F x_c); maps have no part in it. As released, the result is what the last corrector gives before its
    noise: that of the last predictor, 0.01, is left in. The image is the root sum of squares over coils. That has no
    phase, and gets the one of sum_c conj(S_c) x_c, so that it can be scored and shown like any other; it is 0 where the
    maps are, and divided by their own root sum of squares where that is not 1. Random numbers come in the released
    order: the real parts of x_T of all coils, in one tensor with the imaginary ones; then for each level and coil those
    of the predictor and those of the corrector.
    """

    name = "score_mri"
    title = "Score-MRI"
    paper = "Chung, Ye: Score-based diffusion models for accelerated MRI, Medical Image Analysis 2022"

    @dataclass
    class Options(VESampler.Options):
        iterations: int = knob(
            "noise levels (steps is for networks and has no effect here)", 500, low=2, high=2000,
            by_preset={"smoke": 4, "quick": 100},
        )  # fmt: skip
        snr: float = knob("r, the length of the corrector's step", 0.16, low=0)
        coil_images: str = knob(
            "combined: one image of all coils is sampled; each: every coil's image, by the paper's SSOS, at as many "
            "times the cost as there are coils",
            "combined",
            choices=("combined", "each"),
        )

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if kind.task not in ("mri", "operator"):
            raise UserError(f"method=score_mri is for task=mri; found task={kind.task}: use method=dps or ddnm.")
        super().check(options, shared, kind)

    @property
    def each(self) -> bool:
        """Whether x is the coils' images, (coils, 2, height, width)."""
        return bool(self.options.coil_images == "each")

    def first(self, problem: Problem) -> Tensor:
        x = super().first(problem)
        if not self.each:
            return x
        A = coils_of(problem)
        self.alone, self.size = single_coil(A), size_of(A.maps)
        self.level = float(self.size.max())  # so that coil images are of order one, as the prior's are
        return coil_images(A.maps / self.level, x)

    def begin(self, most: float, first: Tensor, noise: Tensor) -> tuple[NDArray[np.float64], bool, float, Tensor]:
        if self.each:  # drawn as all real parts, then all imaginary ones
            noise = noise.reshape(2, -1, *noise.shape[2:]).transpose(0, 1)
        return super().begin(most, first, noise)

    @torch.no_grad()
    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        sigma, before = float(s.levels[number]), float(s.levels[number - 1]) if number else 0.0
        if self.each:
            return self.advance_each(problem, s, sigma, before)
        gap, n = sigma**2 - before**2, s.noise()
        with s.network.counting():
            score = self.score(s, s.extra["x"], sigma)
            e = 2 * (self.options.snr * n.norm() / score.norm()) ** 2
            x = self.consistent(problem, s.extra["x"] + e * score + (2 * e).sqrt() * n)
            score = self.score(s, x, sigma)
        mean, n = x + gap * score, s.noise()
        estimate = self.consistent(problem, x + sigma**2 * score)
        return self.consistent(problem, mean + gap**0.5 * n) if number else estimate, estimate

    def advance_each(self, problem: Problem, s: SamplerState, sigma: float, before: float) -> tuple[Tensor, Tensor]:
        """The same for the coils' images; the estimate is an image, as ``image`` makes it of theirs."""
        gap, found, estimates = sigma**2 - before**2, [], []
        A, y = self.alone, measured(problem) / self.level
        with s.network.counting():
            for x, y_c in zip(s.extra["x"].split(1), y.split(1, 1), strict=True):
                score, n = self.score(s, x, sigma), s.noise(x)
                estimates.append(consistent(A, y_c, x + sigma**2 * score))
                x = consistent(A, y_c, x + gap * score + gap**0.5 * n)
                score, n = self.score(s, x, sigma), s.noise(x)
                e = 2 * (self.options.snr * length(n) / length(score)) ** 2
                mean = x + e * score
                found.append(consistent(A, y_c, mean + (2 * e).sqrt() * n if before else mean))
        return torch.cat(found), self.image(problem, torch.cat(estimates))

    def image(self, problem: Problem, x: Tensor) -> Tensor:
        """Of the coils' images the root sum of squares, with the phase of their combination by the maps."""
        if not self.each:
            return x
        coils = to_complex(x).transpose(0, 1)
        combined = (coils_of(problem).maps.conj() * coils).sum(1, keepdim=True)
        return to_channels(size_of(coils[0]) * (self.level / self.size) * combined.sgn())

    def consistent(self, problem: Problem, x: Tensor) -> Tensor:
        """x + A^H (y - A x)."""
        return x + problem.operator.adjoint(self.residual(problem, x))


def coils_of(problem: Problem) -> MultiCoilMRI:
    """The operator with the coils. Raises UserError where there are none."""
    A = bare(problem.operator)
    if not isinstance(A, MultiCoilMRI):
        raise UserError(
            f"coil_images=each samples the image of every coil, and the operator, {type(A).__name__}, has no coils "
            "that could be told apart: leave it out, which samples the combined image."
        )
    return A


def size_of(coils: Tensor) -> Tensor:
    """The root sum of squares of what each coil has, (coils, height, width), as (1, 1, height, width); never 0."""
    size: Tensor = coils.abs().square().sum(0, keepdim=True).sqrt()[None].clamp_min(1e-12)
    return size


def coil_images(maps: Tensor, x: Tensor) -> Tensor:
    """S_c x, (coils, 2, height, width), of one image, (1, 2, height, width)."""
    return to_channels((to_complex(x) * maps).transpose(0, 1))


def single_coil(A: MultiCoilMRI) -> MultiCoilMRI:
    """M F, for the image of one coil."""
    alone = torch.ones_like(A.maps[:1], device="cpu")
    return MultiCoilMRI(alone, A.mask.cpu()).to(A.maps.device)


def measured(problem: Problem) -> Tensor:
    """y in the units of M F."""
    return problem.y / problem.operator.factor if isinstance(problem.operator, Scaled) else problem.y


def consistent(A: MultiCoilMRI, y: Tensor, x: Tensor) -> Tensor:
    """x + F^H M (y - M F x) of one coil: what was measured of its k-space is y."""
    return x + A.adjoint(y - A(x))


def length(x: Tensor) -> Tensor:
    """The norms of real and imaginary part, (1, 2, 1, 1)."""
    return x.norm(dim=(-2, -1), keepdim=True)
