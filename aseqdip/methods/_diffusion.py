"""What samplers of diffusion models share: a prior, the times at which they call it, noise, units."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import first_image, squared
from aseqdip.methods._learned import Learned, LearnedState
from aseqdip.methods.base import Iterate, State
from aseqdip.parts import knob
from aseqdip.priors.schedules import ALPHA_BARS, SIGMAS
from aseqdip.problem import Problem

#: the noise levels that variance-exploding networks were trained on
LEAST, MOST = 0.01, 378.0


@dataclass(kw_only=True)
class SamplerState(LearnedState):
    """The state of a sampler: x_t, extra["x"], and the stream that its noise comes from.

    Attributes:
        rng: on the CPU, so that every device has the same noise.
        levels: of the times it visits, rising: ab, or sigma.
    """

    rng: torch.Generator
    levels: NDArray[np.float64]

    def noise(self, like: Tensor | None = None) -> Tensor:
        """Standard normal, like x_t, or like a part of it."""
        x = self.extra["x"] if like is None else like
        return torch.randn(x.shape, generator=self.rng).to(x.device)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rng": self.rng.get_state()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.rng.set_state(saved["rng"].cpu())


class Sampler(Learned):
    """x_T, x_{T-1} ... x_0, images with less and less noise, each from the last, by prior and measurements.

    Samplers work, as released, on images u in [-1, 1]: here, and nowhere else, ours in [0, 1] become u = 2 x - 1; real
    and imaginary part of MR stay as they are. y - A u is then ``unit`` times our y - A x. An iterate is the estimate of
    x at that time, the last is x_0.

    A prior trained up to sigma_T begins from noise. One trained up to less begins at the time with its noise level,
    from the start image with that noise (Chung, Sim, Ye: Come-closer-diffuse-faster, CVPR 2022).
    """

    @dataclass
    class Options:
        prior: str | None = knob(
            "denoiser: mr, ct, natural, grey, one of python -m aseqdip.weights, or a file; default: for the images",
            None,
            file=True,
        )
        sigma_max: float | None = knob(
            "noise level to begin with, images being in [0, 1]; default: the prior's largest, at most the schedule's",
            None,
            above=0,
        )

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.unit = 1.0 if self.signed else 2.0

    @abstractmethod
    def begin(self, most: float, first: Tensor, noise: Tensor) -> tuple[NDArray[np.float64], bool, float, Tensor]:
        """The levels up to sigma ``most``; whether it begins from noise alone; the largest sigma; x there."""

    @abstractmethod
    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        """x at the time before the one with this number, 0 ending it, and the estimate u at this one."""

    def start(self, problem: Problem) -> SamplerState:
        o = self.options
        name, prior, network = self.opened(problem)
        least, most = prior.sigmas
        if o.sigma_max is not None and not least < o.sigma_max <= 1.01 * most:
            raise UserError(
                f"sigma_max={o.sigma_max:g}: expected more than {least:.3g} and at most {most:.3g}, what "
                f"prior={name} was trained on: set another, or leave it out."
            )
        rng, nothing, first = problem.generator("sampling"), np.zeros(0), self.first(problem)
        s = SamplerState(prior=prior, network=network, rng=rng, levels=nothing, extra={"x": first})
        s.levels, whole, sigma, s.extra["x"] = self.begin(1.001 * self.unit * (o.sigma_max or most), first, s.noise())
        self.facts |= {
            "sigma_max": float(f"{sigma / self.unit:.4g}"),
            "begins": "noise" if whole else "start image",
        }
        return s

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        assert isinstance(state, SamplerState)
        while state.step < self.steps:
            number = self.steps - 1 - state.step
            state.extra["x"], u = self.advance(problem, state, number)
            x = self.ours(u if number else self.image(problem, state.extra["x"]))
            data = squared(self.residual(problem, x))
            state.step += 1
            yield Iterate(state.step, x, {"loss": data, "data": data})

    def first(self, problem: Problem) -> Tensor:
        """The start image, in the sampler's units; x_t is shaped like it."""
        return first_image(problem) * self.unit - (self.unit - 1)

    def image(self, problem: Problem, x: Tensor) -> Tensor:
        """The image u that x_0 is."""
        return x

    def ours(self, u: Tensor) -> Tensor:
        """The image in our units."""
        return (u + (self.unit - 1)) / self.unit

    def residual(self, problem: Problem, x: Tensor) -> Tensor:
        """y - A x in our units."""
        return problem.y - problem.operator(x)

    def predict(self, s: SamplerState, x: Tensor, sigma: float) -> tuple[Tensor, Tensor | None]:
        """The prior's estimate u of the image in x = u + sigma n, and the v of its variance, if it has one."""
        found, v = s.prior.predict(self.ours(x), sigma / self.unit)
        return self.unit * found - (self.unit - 1), v


class VPSampler(Sampler):
    """x_t = sqrt(ab_t) u + sqrt(1 - ab_t) n."""

    @abstractmethod
    def times(self, count: int) -> NDArray[np.float64]:
        """The times, rising, at which the prior is called, of 0 ... count - 1."""

    def begin(self, most: float, first: Tensor, noise: Tensor) -> tuple[NDArray[np.float64], bool, float, Tensor]:
        count, t = int((most >= SIGMAS).sum()), np.arange(len(SIGMAS))
        whole, times = count == len(SIGMAS), self.times(count)
        # between two times only where the prior was not trained on whole ones
        ab = ALPHA_BARS[times.round().astype(int)] if whole else np.exp(np.interp(times, t, np.log(ALPHA_BARS)))
        last = float(ab[-1])
        x = noise if whole else last**0.5 * first + (1 - last) ** 0.5 * noise
        return ab, whole, ((1 - last) / last) ** 0.5, x

    def estimate(self, s: SamplerState, x: Tensor, ab: float) -> tuple[Tensor, Tensor | None]:
        """The prior's estimate u of the image in x_t, and v."""
        return self.predict(s, x / ab**0.5, ((1 - ab) / ab) ** 0.5)


class VESampler(Sampler):
    """x_i = x + s_i n, s_i from 378 down to 0.01 in equal ratios, with score = (D(x_i, s_i) - x_i) / s_i^2.

    As released, on images as they are: [0, 1], or real and imaginary part.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.unit = 1.0

    def begin(self, most: float, first: Tensor, noise: Tensor) -> tuple[NDArray[np.float64], bool, float, Tensor]:
        whole, last = most >= MOST, min(most / 1.001, MOST)
        x = last * noise if whole else first + last * noise
        return np.geomspace(LEAST, last, self.steps), whole, last, x

    def score(self, s: SamplerState, x: Tensor, sigma: float) -> Tensor:
        """The gradient of the log density of x."""
        return (self.predict(s, x, sigma)[0] - x) / sigma**2
