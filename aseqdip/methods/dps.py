"""Diffusion posterior sampling."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.methods._classical import bare, squared
from aseqdip.methods._diffusion import SamplerState, VPSampler
from aseqdip.operators.bkse import EncodedBlur
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.parts import knob
from aseqdip.problem import Problem

#: with fewer steps than 1000 each is larger, but at most this many times
LARGEST = 5


class DPS(VPSampler):
    """Ancestral sampling, each step followed by one against the gradient of the distance from the measurements.

        x0 = (x_t - sqrt(1 - ab_t) eps) / sqrt(ab_t), in [-1, 1] but for MR
        x' = c1 x0 + c2 x_t + sd n
        x_{t-1} = x' - zeta d ||y - A x0|| / d x_t

    c1 = beta sqrt(ab_{t-1}) / (1 - ab_t), c2 = (1 - ab_{t-1}) sqrt(1 - beta) / (1 - ab_t), beta = 1 - ab_t / ab_{t-1},
    sd^2 between beta and beta (1 - ab_{t-1}) / (1 - ab_t), as the network has learned it, or beta where it has not.
    The norm is not squared, as released; that of CT is of the filtered back-projection, as in MCG: A^H alone has few
    high frequencies. ``zeta`` is for 1000 steps and 256 x 256 x 3 values: with fewer steps it is multiplied by
    1000 / steps, at most by 5, and it is proportional to the square root of the number of values.
    """

    name = "dps"
    title = "DPS"
    paper = "Chung, Kim, Mccann, Klasky, Ye: Diffusion posterior sampling for general noisy inverse problems, ICLR 2023"

    @dataclass
    class Options(VPSampler.Options):
        iterations: int = knob(
            "of the 1000 times; fewer than 200 guide poorly (steps is for networks and has no effect here)", 1000,
            low=2, high=1000, by_preset={"smoke": 4, "quick": 200},
        )  # fmt: skip
        zeta: float | None = knob(
            "step towards the measurements, times 1000 / iterations, at most 5; default: 0.3 for blur, as released, "
            "else 0.5",
            None,
            low=0,
        )

    @classmethod
    def caution(cls, options: Any) -> str:
        least = 1000 // LARGEST
        if options.iterations >= least:
            return ""
        return (
            f"method=dps: {options.iterations} steps guide the image poorly to its measurements: each is {LARGEST} "
            f"times as large as with 1000, and would have to be {1000 / options.iterations:.3g} times. Set "
            f"iterations={least} or more, or a zeta {least / options.iterations:.3g} times as large, which may diverge."
        )

    def times(self, count: int) -> NDArray[np.float64]:
        return np.linspace(0, count - 1, self.steps)

    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        ab, before = (float(s.levels[k]) if k >= 0 else 1.0 for k in (number, number - 1))
        beta = 1 - ab / before
        with torch.enable_grad(), s.network.counting():
            x = s.extra["x"].detach().requires_grad_()
            x0, v = self.estimate(s, x, ab)
            x0 = x0 if self.signed else x0.clamp(-1, 1 if self.bounded else None)
            (gradient,) = torch.autograd.grad(self.norm(problem, x0), x)
        with torch.no_grad():
            x0 = x0.detach()
            mean = beta * before**0.5 / (1 - ab) * x0 + (1 - before) * (1 - beta) ** 0.5 / (1 - ab) * x
            noise = s.noise()  # the last is drawn, too, and not used
            if number:
                mean = mean + self.deviation(ab, before, v) * noise
            return mean - self.zeta(problem) * gradient, x0

    def norm(self, problem: Problem, u: Tensor) -> Tensor:
        """||y - A u||."""
        residual, A = self.residual(problem, self.ours(u)), bare(problem.operator)
        if isinstance(A, ParallelBeam):
            residual = problem.operator.direct(residual)
        return self.unit * squared(residual).clamp_min(1e-20).sqrt()

    def zeta(self, problem: Problem) -> float:
        """The step of this problem."""
        blur = isinstance(bare(problem.operator), (MotionBlur, CameraBlur, EncodedBlur))
        usual = 0.3 if blur else 0.5
        zeta: float = usual if self.options.zeta is None else self.options.zeta
        return zeta * min(LARGEST, 1000 / self.steps) * (problem.z0.numel() / (3 * 256**2)) ** 0.5

    def deviation(self, ab: float, before: float, v: Tensor | None) -> Tensor | float:
        """sd of the noise of a step that is not the last."""
        beta = 1 - ab / before
        if v is None:
            return beta**0.5
        share = (v + 1) / 2
        return (share * math.log(beta) / 2 + (1 - share) * math.log(beta * (1 - before) / (1 - ab)) / 2).exp()
