"""Manifold-constrained gradients, for CT."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import bare, squared
from aseqdip.methods._diffusion import SamplerState, VESampler
from aseqdip.methods.base import Shared
from aseqdip.operators.ct import COMPLETE, ParallelBeam
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class MCG(VESampler):
    """Sampling by predictor and corrector, then a step along the data manifold and one of ART towards the measurements:

        predictor   x <- x_i + (s_i^2 - s_{i-1}^2) score + sqrt(s_i^2 - s_{i-1}^2) n
        corrector   x+ = x + e score + sqrt(2 e) n,   e = 2 (snr ||n|| / ||score||)^2
        gradient    g = alpha d ||F (y - R x0)|| / dx,   x0 = x + s_i^2 score,   F filtered back-projection
                    g <- F (1 - M) R g over a complete set of angles, M those that are measured
        x_{i-1} = x+ + l_i R^T (y - R x+) / R^T R 1 - g,   l_i = 1 - 0.4 i / 2000

    with both scores at s_i and the norm as it is, not squared, as released. The last step adds no noise: its x+ is x0,
    where the released code returns an image with noise of 0.01. ``alpha`` is for 256 x 256 pixels and proportional to
    the square root of their number.
    """

    name = "mcg"
    title = "MCG"
    paper = (
        "Chung, Sim, Ryu, Ye: Improving diffusion models for inverse problems using manifold constraints, NeurIPS 2022"
    )

    @dataclass
    class Options(VESampler.Options):
        # the released 2000 noise levels begin at 378, where every image is noise; a shipped prior begins at 1
        iterations: int = knob(
            "noise levels (steps is for networks and has no effect here)", 2000, low=2, high=2000,
            by_preset={"smoke": 4, "quick": 100},
        )  # fmt: skip
        snr: float = knob("r, the length of the corrector's step", 0.16, low=0)
        alpha: float = knob("step against the gradient", 0.1, low=0)

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if kind.task not in ("ct", "operator"):
            raise UserError(f"method=mcg is for task=ct; found task={kind.task}: use method=dps.")
        super().check(options, shared, kind)

    def start(self, problem: Problem) -> SamplerState:
        self.complete, self.free = unmeasured(bare(problem.operator))
        self.complete = self.complete.to(problem.z0.device)
        A = problem.operator
        self.weight = A.adjoint(A(torch.ones_like(problem.z0))).clamp_min(1e-12)
        return super().start(problem)

    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        sigma, before = float(s.levels[number]), float(s.levels[number - 1]) if number else 0.0
        gap, A, last = sigma**2 - before**2, problem.operator, not number
        with torch.enable_grad(), s.network.counting():
            with torch.no_grad():
                x, n = s.extra["x"], s.noise()
                x = x + gap * self.score(s, x, sigma) + (0 if last else gap**0.5 * n)
            x.requires_grad_()
            score = self.score(s, x, sigma)
            x0 = x + sigma**2 * score
            norm = squared(A.direct(self.residual(problem, x0))).clamp_min(1e-20).sqrt()
            (gradient,) = torch.autograd.grad(norm, x)
        with torch.no_grad():
            x, x0, score, n = x.detach(), x0.detach(), score.detach(), s.noise()
            e = 2 * (self.options.snr * n.norm() / score.norm()) ** 2
            x = x0 if last else x + e * score + (2 * e).sqrt() * n
            share = 1 - 0.4 * (self.steps - 1 - number) / 2000
            x = x + share * A.adjoint(self.residual(problem, x)) / self.weight
            return x - self.options.alpha * (x.numel() / 256**2) ** 0.5 * self.along(gradient), x0

    def along(self, g: Tensor) -> Tensor:
        """F (1 - M) R g: what of it no measured angle sees."""
        return self.complete.direct(self.free * self.complete(g))


def unmeasured(A: Any) -> tuple[ParallelBeam, Tensor]:
    """R over at least ``COMPLETE`` angles, A's among them, and 1 where an angle is not A's."""
    if not isinstance(A, ParallelBeam) or not np.allclose(A._angles, np.pi * np.arange(A.views) / A.views):
        raise UserError(
            "method=mcg needs parallel beams whose angles are equally spaced over 180 degrees: use method=dps."
        )
    between = math.ceil(COMPLETE / A.views)
    free = torch.arange(between * A.views, device=A.ramp.device) % between != 0
    return ParallelBeam(size=A.size, views=between * A.views, normalise=False), free
