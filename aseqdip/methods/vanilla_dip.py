"""Vanilla deep image prior (Ulyanov et al., CVPR 2018)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aseqdip.methods.base import Iterate, Method, State
from aseqdip.problem import Problem


class VanillaDIP(Method):
    """min_phi ||A f_phi(z) - y||^2 with a fixed random input z ~ U(0, 0.1) (paper, eq. 1)."""

    def initial_input(self, problem: Problem) -> Tensor:
        z = 0.1 * torch.rand(problem.z0.shape, generator=problem.generator("input"))
        return z.to(problem.z0.device)

    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        assert state is not None
        A, y, f, z = problem.operator, problem.y, state.network, state.z

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = f(z)
            data = self.distance(A(x) - y)
            return x, {"loss": data, "data": data}

        descend = self.engine.descend(objective, state.optimiser)
        for step in range(state.step + 1, self.cfg.steps + 1):
            x, terms = descend()
            if step == self.cfg.steps:
                with torch.no_grad():
                    x = f(z)  # the result belongs to the final weights
            state.step = step
            yield Iterate(step, x, terms)
