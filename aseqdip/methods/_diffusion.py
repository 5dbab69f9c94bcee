"""What samplers of diffusion models share: a prior, the times at which they call it, noise, units."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip import priors
from aseqdip.engine import Cost, Executed
from aseqdip.errors import UserError
from aseqdip.methods._classical import Classical, bare, first_image, squared
from aseqdip.methods.base import Iterate, Shared, State
from aseqdip.operators.ct import ParallelBeam
from aseqdip.parts import knob
from aseqdip.priors.files import FAMILIES, Card
from aseqdip.priors.schedules import ALPHA_BARS, SIGMAS
from aseqdip.problem import Kind, Problem

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SamplerState(State):
    """The state of a sampler: x_t, extra["x"], and the stream that its noise comes from.

    Attributes:
        prior: the denoiser; it does not change.
        network: what it calls, which counts its cost.
        rng: on the CPU, so that every device has the same noise.
        levels: of the times it visits, rising: ab, or sigma.
    """

    prior: priors.Prior
    network: Executed
    rng: torch.Generator
    levels: NDArray[np.float64]

    @property
    def cost(self) -> Cost:
        return self.network.cost or Cost()

    def noise(self) -> Tensor:
        """Standard normal, like x_t."""
        x = self.extra["x"]
        return torch.randn(x.shape, generator=self.rng).to(x.device)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rng": self.rng.get_state()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.rng.set_state(saved["rng"].cpu())


class Sampler(Classical):
    """x_T, x_{T-1} ... x_0, images with less and less noise, each from the last, by prior and measurements.

    Samplers work, as released, on images u in [-1, 1]: here, and nowhere else, ours in [0, 1] become u = 2 x - 1; real
    and imaginary part of MR stay as they are. y - A u is then ``unit`` times our y - A x. An iterate is the estimate of
    x at that time, the last is x_0.

    A prior trained up to sigma_T begins from noise. One trained up to less begins at the time with its noise level,
    from the start image with that noise (Chung, Sim, Ye: Come-closer-diffuse-faster, CVPR 2022).
    """

    group = "learned"
    code = (priors.Prior, Card, *FAMILIES.values())

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

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        cls.reads(options)  # raises where there is no such prior

    @classmethod
    def reads(cls, options: Any) -> tuple[Path, ...]:
        return tuple(priors.shipped().values()) if options.prior is None else (priors.file_of(options.prior),)

    @abstractmethod
    def begin(self, most: float, first: Tensor, noise: Tensor) -> tuple[NDArray[np.float64], bool, float, Tensor]:
        """The levels up to sigma ``most``; whether it begins from noise alone; the largest sigma; x there."""

    @abstractmethod
    def advance(self, problem: Problem, s: SamplerState, number: int) -> tuple[Tensor, Tensor]:
        """x at the time before the one with this number, 0 ending it, and the estimate u at this one."""

    def start(self, problem: Problem) -> SamplerState:
        o, channels = self.options, problem.z0.shape[1]
        name = o.prior or priors.usual(channels, self.signed, isinstance(bare(problem.operator), ParallelBeam))
        card, network = priors.load(name, channels, self.signed)
        executed = Executed(network.to(self.engine.device), "fp32", torch.contiguous_format)
        prior = priors.Prior(card, executed, channels, self.signed)
        least, most = prior.sigmas
        if o.sigma_max is not None and not least < o.sigma_max <= 1.01 * most:
            raise UserError(
                f"sigma_max={o.sigma_max:g}: expected more than {least:.3g} and at most {most:.3g}, what "
                f"prior={name} was trained on: set another, or leave it out."
            )
        if card.size and problem.z0.shape[-2:] != (card.size, card.size):
            sides = " x ".join(map(str, problem.z0.shape[-2:]))
            wanted = f"{card.size} x {card.size} pixels"
            log.warning("prior=%s was trained on %s; found %s: set size=%s.", name, wanted, sides, card.size)
        rng, nothing = problem.generator("sampling"), np.zeros(0)
        s = SamplerState(prior=prior, network=executed, rng=rng, levels=nothing, extra={"x": problem.z0})
        first = first_image(problem) * self.unit - (self.unit - 1)
        s.levels, whole, sigma, s.extra["x"] = self.begin(1.001 * self.unit * (o.sigma_max or most), first, s.noise())
        what = ("name", "family", "data", "images", "steps", "source")
        self.facts = {
            "prior": {key: value for key in what if (value := getattr(card, key))},
            "sigma_max": float(f"{sigma / self.unit:.4g}"),
            "begins": "noise" if whole else "start image",
        }
        return s

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        assert isinstance(state, SamplerState)
        while state.step < self.steps:
            number = self.steps - 1 - state.step
            state.extra["x"], u = self.advance(problem, state, number)
            x = self.ours(u if number else state.extra["x"])
            data = squared(self.residual(problem, x))
            state.step += 1
            yield Iterate(state.step, x, {"loss": data, "data": data})

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
