"""A Bayesian deep image prior by stochastic gradient Langevin dynamics (Cheng et al., CVPR 2019)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aseqdip.methods.base import Iterate, NetworkState
from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.parts import knob
from aseqdip.problem import Problem

log = logging.getLogger(__name__)


class SGLDDIP(VanillaDIP):
    """Vanilla DIP whose convolution weights receive N(0, (weight_noise * lr)^2) noise after each Adam step.

    The result is the mean of the outputs, one in ``thinning`` after ``burn_in`` of the steps (7000 of 20000 in the
    original: 1400 of 4000); of two and more, the pixel-wise standard deviation is saved as "std" (divided by their
    number, which is in the facts). Until the first sample the output itself is the estimate.
    """

    name = "sgld_dip"
    title = "SGLD-DIP"
    paper = "Cheng, Gadelha, Maji, Sheldon: A Bayesian perspective on the deep image prior, CVPR 2019"

    @dataclass
    class Options(VanillaDIP.Options):
        weight_noise: float = knob("noise on the weights after each step, in units of lr", 2.0, low=0)
        burn_in: float = knob("part of the steps before samples are kept", 0.35, low=0, high=0.99)
        thinning: int = knob("steps from one sample to the next", 50, low=1)

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        weights = [p for p in state.network.parameters() if p.ndim == 4]  # convolutions, not biases or batch norm
        scale = self.options.weight_noise * self.shared.lr
        for iterate in super().iterates(problem, state):
            with torch.no_grad():
                for weight in weights:
                    weight.add_(torch.randn(weight.shape, generator=state.rng, device=weight.device), alpha=scale)
            yield iterate

    def estimate(self, x: Tensor, state: NetworkState) -> Tensor:
        first, extra = int(self.options.burn_in * self.shared.steps), state.extra
        if "count" not in extra:
            extra.update(count=x.new_zeros(()), sum=torch.zeros_like(x), squares=torch.zeros_like(x))
        if state.step <= first:
            return x
        if (state.step - first - 1) % self.options.thinning == 0:
            extra["count"] += 1
            extra["sum"] += x
            extra["squares"] += x.square()
        return extra["sum"] / extra["count"]

    def arrays(self, state: NetworkState) -> dict[str, Tensor]:
        self.facts["samples"] = count = int(state.extra.get("count", 0))
        if count < 2:
            log.warning("method=sgld_dip: %d sample(s), so there is no std: set a smaller thinning or burn_in.", count)
            return {}
        mean = state.extra["sum"] / state.extra["count"]
        return {"std": (state.extra["squares"] / state.extra["count"] - mean.square()).clamp_min(0).sqrt()}
