"""Denoising diffusion null-space models."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import begin_cgls, cgls
from aseqdip.methods._diffusion import SamplerState, VPSampler
from aseqdip.methods.base import Shared
from aseqdip.operators.base import Operator
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class DDNM(VPSampler):
    """DDIM sampling in which the range of A^+ is taken from the measurements, the null space from the prior.

        x0 = (x_t - sqrt(1 - ab_t) eps) / sqrt(ab_t),   x^ = x0 + A^+ (y - A x0)
        x_{t-1} = a x^ + st (eta n + sqrt(1 - eta^2) eps),   a = sqrt(ab_{t-1}),   st = sqrt(1 - ab_{t-1})

    With noise of known standard deviation sy it is DDNM+, by the rule for singular values 0 and 1 (the largest is 1
    here): in the range of A^+, what a sy leaves of st is noise, and where it leaves nothing the correction shrinks:

        st >= a sy:   x^ as above,   noise sqrt(st^2 - a^2 sy^2) n
        st <  a sy:   x^ = x0 + sqrt(1 - eta^2) st / (a sy) A^+ (y - A x0),   noise st eta n

    A^+ r is found by conjugate gradients from 0, ended after ``inner`` iterations: exact at once for denoising and
    in-painting, a regularisation for CT and blur. Levels that are not known count as none.
    """

    name = "ddnm"
    title = "DDNM"
    paper = "Wang, Yu, Zhang: Zero-shot image restoration using denoising diffusion null-space model, ICLR 2023"

    @dataclass
    class Options(VPSampler.Options):
        iterations: int = knob(
            "of the 1000 times (steps is for networks and has no effect here)", 100, low=2, high=1000,
            by_preset={"smoke": 4},
        )  # fmt: skip
        eta: float = knob("share of new noise in a step", 0.85, low=0, high=1)
        inner: int = knob("iterations of conjugate gradients for A^+", 10, low=1)

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not kind.linear:
            raise UserError(
                "method=ddnm needs a linear operator, which has a pseudo-inverse: use method=dps, or for deblurring "
                "kernel=motion."
            )
        super().check(options, shared, kind)

    def times(self, count: int) -> NDArray[np.float64]:
        return np.floor(np.arange(self.steps) * (count / self.steps))

    @torch.no_grad()
    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        x, A, eta, inner = s.extra["x"], problem.operator, self.options.eta, self.options.inner
        ab, before = float(s.levels[number]), float(s.levels[number - 1]) if number else 1.0
        with s.network.counting():
            x0, _ = self.estimate(s, x, ab)
        eps, n = (x - ab**0.5 * x0) / (1 - ab) ** 0.5, s.noise()
        a, st, sy = before**0.5, (1 - before) ** 0.5, self.unit * (problem.noise_std or 0.0)
        correction = self.unit * pseudo_inverse(A, self.residual(problem, self.ours(x0)), inner)
        free = st * (eta * n + (1 - eta**2) ** 0.5 * eps)
        if not sy:
            return a * (x0 + correction) + free, x0 + correction
        measured, factor = (st**2 - (a * sy) ** 2) ** 0.5 if st >= a * sy else st * eta, 1.0
        if st < a * sy:
            factor = st * (1 - eta**2) ** 0.5 / (a * sy)
        moved = pseudo_inverse(A, A(measured * n - free), inner) if number else 0
        return a * (x0 + factor * correction) + free + moved, x0 + factor * correction


def pseudo_inverse(A: Operator, r: Tensor, iterations: int) -> Tensor:
    """argmin ||A d - r|| of least norm, nearly: CGLS from 0."""
    s = begin_cgls(A, r)
    least = 1e-12 * s["gamma"]  # what rounding leaves of a system that is solved is no direction
    for _ in range(iterations):
        cgls(A, s, least)
    return s["x"]
