"""What methods share that reconstruct by a trained prior."""

import logging
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from aseqdip import priors
from aseqdip.engine import Cost, Executed
from aseqdip.errors import UserError
from aseqdip.methods._classical import Classical, bare
from aseqdip.methods.base import Shared, State
from aseqdip.operators.ct import ParallelBeam
from aseqdip.priors.files import DENOISERS, FAMILIES, Card
from aseqdip.problem import Kind, Problem

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrainedState(State):
    """The state of a method with a network that does not change.

    Attributes:
        network: which counts its cost.
    """

    network: Executed

    @property
    def cost(self) -> Cost:
        return self.network.cost or Cost()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cost": None if self.network.cost is None else astuple(self.network.cost)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.network.cost = None if saved["cost"] is None else Cost(*saved["cost"])


@dataclass(kw_only=True)
class LearnedState(TrainedState):
    """The state of a method with a prior: the denoiser, which calls the network."""

    prior: priors.Prior


class Learned(Classical):
    """A method with a trained network: its ``Options`` have the knob ``prior``.

    Attributes:
        families: of networks that it can use.
        usual: the name of its network where there is one for all images.
    """

    group = "learned"
    code = (priors.Prior, Card, *(family for family in FAMILIES.values() if isinstance(family, type)))
    families: ClassVar[tuple[str, ...]] = (*DENOISERS, "ffdnet")
    usual: ClassVar[str] = ""

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        cls.reads(options)  # raises where there is no such prior

    @classmethod
    def reads(cls, options: Any) -> tuple[Path, ...]:
        name = options.prior or cls.usual
        return (priors.file_of(name),) if name else tuple(priors.shipped().values())

    def opened(self, problem: Problem) -> tuple[str, priors.Prior, Executed]:
        """The prior's name, the prior, and the network that it calls."""
        channels = problem.z0.shape[1]
        ct = isinstance(bare(problem.operator), ParallelBeam)
        name = self.options.prior or priors.usual(channels, self.signed, ct)
        card, network = self.loaded(name, channels)
        if (size := card.size) and problem.z0.shape[-2:] != (size, size):
            sides = " x ".join(map(str, problem.z0.shape[-2:]))
            wanted = f"{size} x {size} pixels"
            log.warning("prior=%s was trained on %s; found %s: set size=%s.", name, wanted, sides, size)
        low, high = problem.z0.aminmax()
        beyond = 0.1 + 5 * (problem.noise_std or 0)
        if not self.signed and not -beyond <= low <= high <= 1 + beyond:
            log.warning("prior=%s is one of images in [0, 1]; the start image has %.3g to %.3g.", name, low, high)
        return name, priors.Prior(card, network, channels, self.signed), network

    def loaded(self, name: str, channels: int) -> tuple[Card, Executed]:
        """A network and its card; the record says which. Raises UserError for one of another kind."""
        card, network = priors.load(name, channels, self.signed)
        if card.family not in self.families:
            raise UserError(
                f"prior={name} is a network of the family {card.family}; method={self.name} takes "
                f"{', '.join(self.families)}: leave prior out."
            )
        executed = Executed(network.to(self.engine.device), "fp32", torch.contiguous_format)
        what = ("name", "family", "data", "images", "steps", "source")  # plain values: a record holds no others
        self.facts |= {f"prior_{key}": value for key in what if (value := getattr(card, key))}
        return card, executed
