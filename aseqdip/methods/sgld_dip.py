"""A Bayesian deep image prior by stochastic gradient Langevin dynamics (Cheng et al., CVPR 2019)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aseqdip.methods.base import Iterate, State
from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.problem import Problem


class SGLDDIP(VanillaDIP):
    """Vanilla DIP whose convolution weights receive N(0, (noise * lr)^2) noise after each Adam step.

    The result is the mean of the outputs, one in ``thinning`` after ``burn_in`` of the steps (7000 of 20000 in the
    original: 1400 of 4000); their pixel-wise standard deviation is saved as "std". Until the first sample the
    output itself is the estimate.
    """

    knobs = (*VanillaDIP.knobs, "method.noise", "method.burn_in", "method.thinning")

    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        assert state is not None
        weights = [p for p in state.network.parameters() if p.ndim == 4]  # convolutions, not biases or batch norm
        scale = self.cfg.method.noise * self.cfg.lr
        for iterate in super().iterates(problem, state):
            with torch.no_grad():
                for weight in weights:
                    weight.add_(torch.randn(weight.shape, generator=state.rng, device=weight.device), alpha=scale)
            yield iterate

    def estimate(self, x: Tensor, state: State) -> Tensor:
        first, extra = int(self.cfg.method.burn_in * self.cfg.steps), state.extra
        if not extra:
            extra.update(count=x.new_zeros(()), sum=torch.zeros_like(x), squares=torch.zeros_like(x))
        if state.step <= first:
            return x
        if (state.step - first - 1) % self.cfg.method.thinning == 0:
            extra["count"] += 1
            extra["sum"] += x
            extra["squares"] += x.square()
        return extra["sum"] / extra["count"]

    def arrays(self, state: State | None) -> dict[str, Tensor]:
        if state is None or not state.extra or not state.extra["count"]:  # stopped before its first sample
            return {}
        mean = state.extra["sum"] / state.extra["count"]
        return {"std": (state.extra["squares"] / state.extra["count"] - mean.square()).clamp_min(0).sqrt()}
