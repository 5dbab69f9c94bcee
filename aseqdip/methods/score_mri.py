"""Score-MRI: predictor and corrector, each followed by the measurements."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._diffusion import SamplerState, VESampler
from aseqdip.methods.base import Shared
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class ScoreMRI(VESampler):
    """Sampling by predictor and corrector:

        corrector   x <- x_i + e score + sqrt(2 e) n,   e = 2 (snr ||n|| / ||score||)^2
        predictor   x <- x + (s_i^2 - s_{i-1}^2) score + sqrt(s_i^2 - s_{i-1}^2) n

    each followed by x <- x + A^H (y - A x). The image is that of all coils, combined: the released code runs the
    network for each coil, and its combination of them applies the maps twice. The last step adds no noise.
    """

    name = "score_mri"
    title = "Score-MRI"
    paper = "Chung, Ye: Score-based diffusion models for accelerated MRI, Medical Image Analysis 2022"

    @dataclass
    class Options(VESampler.Options):
        iterations: int = knob("noise levels (steps is for networks and has no effect here)", 500, low=2, high=2000)
        snr: float = knob("r, the length of the corrector's step", 0.16, low=0)

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if kind.task not in ("mri", "operator"):
            raise UserError(f"method=score_mri is for task=mri; found task={kind.task}: use method=dps or ddnm.")
        super().check(options, shared, kind)

    @torch.no_grad()
    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        sigma, before = float(s.levels[number]), float(s.levels[number - 1]) if number else 0.0
        gap, n = sigma**2 - before**2, s.noise()
        with s.network.counting():
            score = self.score(s, s.extra["x"], sigma)
            e = 2 * (self.options.snr * n.norm() / score.norm()) ** 2
            x = self.consistent(problem, s.extra["x"] + e * score + (2 * e).sqrt() * n)
            score = self.score(s, x, sigma)
        mean, n = x + gap * score, s.noise()
        estimate = self.consistent(problem, x + sigma**2 * score)
        return self.consistent(problem, mean + gap**0.5 * n) if number else estimate, estimate

    def consistent(self, problem: Problem, x: Tensor) -> Tensor:
        """x + A^H (y - A x)."""
        return x + problem.operator.adjoint(self.residual(problem, x))
