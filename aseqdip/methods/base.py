"""What a method is: a stream of iterates, and the state that must survive a kill."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aseqdip.config import Config
from aseqdip.engine import Cost, Engine, Executed, Objective
from aseqdip.networks import make_network
from aseqdip.problem import Problem


@dataclass
class Iterate:
    """What a method yields after each parameter update.

    Attributes:
        step: parameter updates so far, from 1.
        image: the current reconstruction, (1, channels, height, width).
        terms: 0-d tensors: "loss" and its parts: "data", "autoencoding" (aSeqDIP), "regulariser" (others).
    """

    step: int
    image: Tensor
    terms: dict[str, Tensor]


@dataclass
class State:
    """Everything a reconstruction needs to go on where it stopped.

    Attributes:
        z: the network's input.
        rng: random numbers drawn while iterating, on the device.
        step: parameter updates so far.
        extra: a method's own tensors (running sums).
    """

    network: Executed
    optimiser: torch.optim.Optimizer
    z: Tensor
    rng: torch.Generator
    step: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only: safe to load with ``weights_only=True``."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "z": self.z.detach(),
            "rng": self.rng.get_state(),
            "step": self.step,
            "extra": self.extra,
            "cost": None if self.network.cost is None else astuple(self.network.cost),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        with torch.no_grad():
            self.z.copy_(saved["z"])
        self.rng.set_state(saved["rng"].cpu())
        self.step = saved["step"]
        self.extra = saved["extra"]
        self.network.cost = None if saved["cost"] is None else Cost(*saved["cost"])


class Method(ABC):
    """A reconstruction method: mathematics only; no files, scores, devices or clocks.

    Args:
        cfg: the run's configuration.
        engine: executes networks and steps.
        signed: whether images take negative values (complex MRI).
    """

    #: knobs this method depends on, besides those of the task; the rest cannot change its result
    knobs: tuple[str, ...] = ("steps", "lr", "residual", "network")
    #: steps at which the running average of the iterates begins anew
    average_restarts: tuple[int, ...] = ()
    #: network passes per step beside those of the loss
    extra_passes: float = 0.0

    def __init__(self, cfg: Config, engine: Engine, signed: bool) -> None:
        self.cfg = cfg
        self.engine = engine
        self.signed = signed
        self.facts: dict[str, Any] = {}  # what the record should say of this run's choices

    def start(self, problem: Problem) -> State | None:
        """The state before the first step; None for a method without one."""
        z = self.initial_input(problem).to(problem.z0.device)
        weights = problem.generator("network")
        network = make_network(self.cfg.network, z.shape[1], problem.z0.shape[1], self.signed, weights)
        prepared = self.engine.prepare(network)
        rng = self.engine.generator(problem.generator("steps").initial_seed())
        return State(prepared, self.optimiser(prepared, z), z, rng)

    def initial_input(self, problem: Problem) -> Tensor:
        """The network's first input, a tensor of the state's own."""
        return problem.z0.clone()

    def optimiser(self, network: nn.Module, z: Tensor) -> torch.optim.Optimizer:
        """Adam on the network's parameters, at ``lr``."""
        return self.engine.adam([{"params": list(network.parameters()), "lr": self.cfg.lr}])

    @abstractmethod
    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        """The iterates from ``state`` on; ``state`` is current whenever one is yielded."""

    def descend(self, state: State, objective: Objective, output: Callable[[], Tensor]) -> Iterator[Iterate]:
        """One optimiser step on ``objective`` after another; the last iterate is ``output`` with the final weights."""
        step_on = self.engine.descend(objective, state.optimiser, state.network, state.rng)
        for step in range(state.step + 1, self.cfg.steps + 1):
            x, terms = step_on()
            if step == self.cfg.steps:
                with torch.no_grad():
                    x = output()
            state.step = step
            yield Iterate(step, x, terms)

    def arrays(self, state: State | None) -> dict[str, Tensor]:
        """What a method leaves besides its reconstruction, by name, image-shaped."""
        return {}

    def distance(self, residual: Tensor) -> Tensor:
        """``||r||_2^2`` (paper), or ``||r||_2`` with ``residual=norm``; real and imaginary parts count separately."""
        if residual.is_complex():
            residual = torch.view_as_real(residual)
        squared: Tensor = _SumOfSquares.apply(residual)  # type: ignore[no-untyped-call]
        # the released MRI and CT scripts minimise plain norms: an exact penalty, whose weight grows as r shrinks
        return squared if self.cfg.residual == "squared" else squared.clamp_min(1e-20).sqrt()


class _SumOfSquares(torch.autograd.Function):
    """``r.square().sum()``, whose gradient 2 r takes one kernel as large as r instead of four."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor) -> Tensor:
        ctx.save_for_backward(residual)
        return residual.square().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (residual,) = ctx.saved_tensors
        return residual * (2 * gradient)
