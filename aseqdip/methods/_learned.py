"""What methods share that reconstruct by a trained prior."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aseqdip import priors
from aseqdip.engine import Cost, Executed
from aseqdip.methods._classical import Classical, bare
from aseqdip.methods.base import Shared, State
from aseqdip.operators.ct import ParallelBeam
from aseqdip.priors.files import FAMILIES, Card
from aseqdip.problem import Kind, Problem


@dataclass(kw_only=True)
class LearnedState(State):
    """The state of a method with a prior.

    Attributes:
        prior: the denoiser; it does not change.
        network: what it calls, which counts its cost.
    """

    prior: priors.Prior
    network: Executed

    @property
    def cost(self) -> Cost:
        return self.network.cost or Cost()


class Learned(Classical):
    """A method with a prior: its ``Options`` have the knob ``prior``."""

    group = "learned"
    code = (priors.Prior, Card, *FAMILIES.values())

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        cls.reads(options)  # raises where there is no such prior

    @classmethod
    def reads(cls, options: Any) -> tuple[Path, ...]:
        return tuple(priors.shipped().values()) if options.prior is None else (priors.file_of(options.prior),)

    def opened(self, problem: Problem) -> tuple[str, priors.Prior, Executed]:
        """The prior's name, the prior, and the network that it calls; the record says which."""
        channels = problem.z0.shape[1]
        ct = isinstance(bare(problem.operator), ParallelBeam)
        name = self.options.prior or priors.usual(channels, self.signed, ct)
        card, network = priors.load(name, channels, self.signed)
        executed = Executed(network.to(self.engine.device), "fp32", torch.contiguous_format)
        what = ("name", "family", "data", "images", "steps", "source")  # plain values: a record holds no others
        self.facts |= {f"prior_{key}": value for key in what if (value := getattr(card, key))}
        return name, priors.Prior(card, executed, channels, self.signed), executed
