"""Self-guided deep image prior (Liang et al., 2024): the input is learned along with the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aseqdip.methods.base import Iterate, NetworkMethod, NetworkState
from aseqdip.parts import knob
from aseqdip.problem import Problem


class SelfGuidedDIP(NetworkMethod):
    """min_{phi, z} ||A E[f_phi(z + eta)] - y||^2 + alpha ||E[f_phi(z + eta)] - z||^2 (paper, eq. 2).

    The expectation is the mean of ``passes`` network passes, each with fresh eta ~ U(0, eta * max z) per element;
    z starts at U(0, 1) and has its own learning rate ``lr_z``. The result is the mean of the last passes.

    The authors' alpha for MRI, 2, belongs to plain norms and an operator of norm 488: here 0.004 with residual=norm, as
    in recipe=original. The default is the number itself, for squared norms and norm 1: another weight.
    """

    name = "self_guided_dip"
    title = "Self-Guided DIP"
    paper = "Liang, Bell, Qu, Wang, Ravishankar: Analysis of deep image prior and exploiting self-guidance, 2024"
    carries = True  # it was learned

    @dataclass
    class Options:
        alpha: float = knob("weight of its regulariser", 1.0, low=0, by_task={"mri": 2.0})
        passes: int = knob("network passes that stand for the expectation", 4, low=1)
        eta: float = knob("width of the input noise relative to the input's maximum", 0.5, low=0)
        lr_z: float = knob("learning rate of the input", 0.1, low=0)

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        return {"start": "the network's input begins at random"}

    def initial_input(self, problem: Problem) -> Tensor:
        return torch.rand(problem.z0.shape, generator=problem.generator("input"))

    def optimiser(self, network: nn.Module, z: Tensor) -> torch.optim.Optimizer:
        weights = {"params": list(network.parameters()), "lr": self.shared.lr}
        return self.engine.adam([weights, {"params": [z.requires_grad_()], "lr": self.options.lr_z}])

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        A, y, f, z, m = problem.operator, problem.y, state.network, state.z, self.options

        def expectation() -> Tensor:
            width = m.eta * z.detach().max()
            noise = [torch.rand(z.shape, generator=state.rng, device=z.device) for _ in range(m.passes)]
            return torch.stack([f(z + width * eta) for eta in noise]).mean(0)

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = expectation()
            data, guide = self.distance(A(x) - y), m.alpha * self.distance(x - z)
            return x, {"loss": data + guide, "data": data, "regulariser": guide}

        yield from self.descend(state, objective, expectation)
