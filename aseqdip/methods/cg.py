"""Least squares by conjugate gradients, ended early: CG-SENSE for MRI."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import Converging, Tensors, begin_cgls, cgls, noise_fitted, squared
from aseqdip.methods.base import Shared
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class CG(Converging):
    """min_x ||A x - y||^2 by conjugate gradients on the normal equations (CGLS) from x = 0.

    The number of iterations is its only regularisation: it ends where the data are fitted to within the noise, if its
    level is known (the discrepancy principle), or after ``iterations``.
    """

    name = "cg"
    title = "CG"
    paper = (
        "Pruessmann, Weiger, Bornert, Boesiger: Advances in sensitivity encoding with arbitrary k-space "
        "trajectories, MRM 2001"
    )
    instead = "it begins from 0"
    every = 1  # a few iterations are all there are
    #: the part of the noise that is fitted at the end, as for TV
    fitted: ClassVar[float] = 0.35

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
        return begin_cgls(problem.operator, problem.y)

    def advance(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        cgls(problem.operator, s)
        data = squared(s["r"])
        return s["x"], {"loss": data, "data": data}

    def ended(self, problem: Problem, s: Tensors, terms: Tensors, change: Tensor) -> Tensor:
        """Where there is noise of known level, it alone decides."""
        if problem.noise_std:
            return torch.as_tensor(noise_fitted(problem, problem.noise_std, terms["data"]) >= self.fitted)
        return super().ended(problem, s, terms, change)
