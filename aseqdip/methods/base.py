"""What a method is: a stream of iterates, and the state that must survive a kill."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aseqdip.config import Config
from aseqdip.engine import Engine
from aseqdip.networks import make_network
from aseqdip.problem import Problem


@dataclass
class Iterate:
    """What a method yields after each parameter update.

    Attributes:
        step: parameter updates so far, from 1.
        image: the current reconstruction, (1, channels, height, width).
        terms: 0-d tensors: "loss" and its parts "data", "autoencoding" where they exist.
    """

    step: int
    image: Tensor
    terms: dict[str, Tensor]


@dataclass
class State:
    """Everything a reconstruction needs to go on where it stopped."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    z: Tensor
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only: safe to load with ``weights_only=True``."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "z": self.z,
            "step": self.step,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.z.copy_(saved["z"])
        self.step = saved["step"]


class Method(ABC):
    """A reconstruction method: mathematics only; no files, scores, devices or clocks.

    Args:
        cfg: the run's configuration.
        engine: executes networks and steps.
        signed: whether images take negative values (complex MRI).
    """

    #: knobs this method depends on, besides those of the task; the rest cannot change its result
    knobs: tuple[str, ...] = ("steps", "lr", "residual", "network")

    def __init__(self, cfg: Config, engine: Engine, signed: bool) -> None:
        self.cfg = cfg
        self.engine = engine
        self.signed = signed

    def start(self, problem: Problem) -> State | None:
        """The state before the first step; None for a method without one."""
        z = self.initial_input(problem)
        channels = problem.z0.shape[1]
        weights = problem.generator("network")
        network = self.engine.prepare(
            make_network(self.cfg.network, z.shape[1], channels, self.signed, weights)
        )
        return State(network, self.engine.adam(network, self.cfg.lr), z)

    def initial_input(self, problem: Problem) -> Tensor:
        """The network's first input, a tensor of the state's own."""
        return problem.z0.clone()

    @abstractmethod
    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        """The iterates from ``state`` on; ``state`` is current whenever one is yielded."""

    def distance(self, residual: Tensor) -> Tensor:
        """``||r||_2^2`` (paper), or ``||r||_2`` with ``residual=norm``; real and imaginary parts count separately."""
        if residual.is_complex():
            residual = torch.view_as_real(residual)
        squared = residual.square().sum()
        # the released MRI and CT scripts minimise plain norms: an exact penalty, whose weight grows as r shrinks
        return squared if self.cfg.residual == "squared" else squared.clamp_min(1e-20).sqrt()
