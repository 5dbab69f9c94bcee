"""Rethinking DIP for denoising (Jo et al., ICCV 2021): the loss is an unbiased estimate of the error."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aseqdip.errors import UserError
from aseqdip.methods.base import Iterate, NetworkMethod, NetworkState, Shared
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class RethinkingDIP(NetworkMethod):
    """min_phi E [ mean (f_phi(u) - y)^2 + 2 sigma^2 div f_phi(u) / n - sigma^2 ]   (SURE, means over n values)

    The input is the noisy image itself, u = y + e, with fresh noise e of a standard deviation drawn from
    U(0, perturb * sigma) at each step; the divergence is estimated along one random direction. ``stop=zero`` ends where
    the loss falls below zero, and ``ema`` averages the outputs: the defaults of this method. The average begins anew at
    steps 10 and 200; the authors' code does so at 12 and 202 if that is better by the truth. Denoising with known sigma
    only.
    """

    name = "rethinking_dip"
    title = "Rethinking DIP"
    paper = "Jo, Chun, Choi: Rethinking deep image prior for denoising, ICCV 2021"
    defaults = {"stop": "zero", "ema": 0.99}
    offers = frozenset({"error"})
    average_restarts = (10, 200)

    @dataclass
    class Options:
        perturb: float = knob("largest noise added to its input, in units of the image's noise", 0.5, low=0)
        optimiser: str = knob("optimiser", "adam", choices=("adam", "radam"))
        decay: float = knob("factor on lr after every 300 steps", 1.0, above=0, high=1)

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not kind.identity or not kind.noise:
            raise UserError(
                "method=rethinking_dip is for task=denoising with sigma above 0: its loss estimates the error (SURE), "
                f"which needs the image plus Gaussian noise of known size; found task={kind.task}, "
                f"sigma={kind.noise or 0:g}."
            )

        if shared.residual != "squared":
            raise UserError(
                f"method=rethinking_dip: residual={shared.residual} has no effect, its loss is a mean of squares: "
                "leave it out."
            )

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        return {"start": "its network's input is the noisy image"}

    def optimiser(self, network: nn.Module, z: Tensor) -> torch.optim.Optimizer:
        group = {"params": list(network.parameters()), "lr": self.shared.lr}
        return self.engine.adam([group], rectified=self.options.optimiser == "radam")

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        f, y, sigma, m = state.network, problem.y, problem.noise_std, self.options
        if not sigma:
            raise UserError("method=rethinking_dip needs the noise level of the image: set sigma above 0.")

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            spread = m.perturb * sigma * torch.rand((), generator=state.rng, device=y.device)
            u = (y + spread * torch.randn(y.shape, generator=state.rng, device=y.device)).requires_grad_()
            x = f(u)
            data = (x - y).square().mean()
            penalty = 2 * sigma**2 * divergence(x, u, state.rng) / y.numel() - sigma**2
            return x, {"loss": data + penalty, "data": data, "regulariser": penalty}

        for iterate in self.descend(state, objective, lambda: f(y)):
            self.engine.set_rate(state.optimiser, self.shared.lr * m.decay ** (iterate.step // 300))
            yield iterate


def divergence(x: Tensor, u: Tensor, rng: torch.Generator) -> Tensor:
    """An unbiased estimate of trace(dx/du), differentiable: b . (dx/du)^T b for one b ~ N(0, I) (Hutchinson)."""
    b = torch.randn(u.shape, generator=rng, device=u.device)
    (along,) = torch.autograd.grad((b * x).sum(), u, create_graph=True)
    return (b * along).sum()
