"""Least squares by conjugate gradients, ended early: CG-SENSE for MRI."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import Converging, Tensors, bare, left_by_noise, squared
from aseqdip.methods.base import Shared
from aseqdip.operators.base import Operator
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class CG(Converging):
    """min_x ||A x - y||^2 by conjugate gradients on the normal equations (CGLS) from x = 0.

    The number of iterations is its only regularisation: it ends where the data are fitted to within the noise, if its
    level is known (the discrepancy principle), or after ``iterations``.
    """

    name = "cg"
    title = "CG"
    paper = "Pruessmann, Weiger, Bornert, Boesiger: Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001"
    every = 1  # a few iterations are all there are
    #: as for TV
    fitted: ClassVar[dict[type[Operator], float]] = {}
    usual_fitted: ClassVar[float] = 0.5

    @dataclass
    class Options(Converging.Options):
        iterations: int = knob("iterations at most (steps is for networks and has no effect here)", 30, low=1)
        tolerance: float = knob("relative change of the image in an iteration at which it ends", 1e-3, low=0)

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not kind.linear:
            raise UserError("method=cg needs a linear operator: use method=tv, or for deblurring kernel=motion.")
        if kind.identity or kind.hole:
            raise UserError(
                f"method=cg would give back the measurement: task={kind.task} needs a regulariser, as in method=tv."
            )

    def begin(self, problem: Problem) -> Tensors:
        x, back = torch.zeros_like(problem.z0), problem.operator.adjoint(problem.y)
        noise, fitted = problem.noise_std, self.fitted.get(type(bare(problem.operator)), self.usual_fitted)
        target = x.new_tensor(0.0 if not noise else left_by_noise(problem, noise, fitted))
        return {"x": x, "r": problem.y.clone(), "d": back, "gamma": back.square().sum(), "target": target}

    def advance(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        A, tiny = problem.operator, torch.finfo(s["x"].dtype).tiny
        Ad = A(s["d"])
        alpha = s["gamma"] / squared(Ad).clamp_min(tiny)
        s["x"], s["r"] = s["x"] + alpha * s["d"], s["r"] - alpha * Ad
        back = A.adjoint(s["r"])
        gamma = back.square().sum()
        s["d"], s["gamma"] = back + gamma / s["gamma"].clamp_min(tiny) * s["d"], gamma
        data = squared(s["r"])
        return s["x"], {"loss": data, "data": data}

    def ended(self, s: Tensors, terms: Tensors, change: Tensor) -> Tensor:
        """Where the noise level is known, it alone decides."""
        return torch.where(s["target"] > 0, terms["data"] <= s["target"], super().ended(s, terms, change))
