"""What a method is: a stream of iterates, and the state that must survive a kill."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from aseqdip.engine import Cost, Engine, Executed, Objective
from aseqdip.errors import UserError
from aseqdip.networks import check_size, make_network
from aseqdip.networks.base import NetworkSettings
from aseqdip.parts import Part, knob
from aseqdip.problem import Kind, Problem


@dataclass
class Shared:
    """The settings that every iterative method is given."""

    steps: int = knob("parameter updates in total, N*K in the paper", 4000, low=1)
    lr: float = knob("Adam's learning rate beta", 1e-4, above=0)
    residual: str = knob("both terms as squared norms (paper) or plain norms", "squared", choices=("squared", "norm"))
    network: NetworkSettings = field(default_factory=NetworkSettings)


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
        step: parameter updates so far.
        extra: a method's own tensors (running sums).
    """

    step: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers of a network are fitted."""
        return 0

    @property
    def cost(self) -> Cost:
        """What a step costs, once one has been taken."""
        return Cost()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only: safe to load with ``weights_only=True``."""
        return {"step": self.step, "extra": self.extra}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.step, self.extra = saved["step"], saved["extra"]


@dataclass(kw_only=True)
class NetworkState(State):
    """The state of a method that fits a network.

    Attributes:
        z: the network's input.
        rng: random numbers drawn while iterating, on the device.
    """

    network: Executed
    optimiser: torch.optim.Optimizer
    z: Tensor
    rng: torch.Generator

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def cost(self) -> Cost:
        return self.network.cost or Cost()

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "z": self.z.detach(),
            "rng": self.rng.get_state(),
            "cost": None if self.network.cost is None else astuple(self.network.cost),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        with torch.no_grad():
            self.z.copy_(saved["z"])
        self.rng.set_state(saved["rng"].cpu())
        self.network.cost = None if saved["cost"] is None else Cost(*saved["cost"])
        super().load_state_dict(saved)


S = TypeVar("S", bound=State)


class Method(Part, ABC, Generic[S]):
    """A reconstruction method: mathematics only; no files, scores, devices or clocks.

    Args:
        options: its own knobs, an instance of its ``Options``.
        shared: the settings all methods have.
        engine: executes networks and steps.
        signed: whether images take negative values (complex MRI).

    Attributes:
        defaults: shared settings that this method has otherwise, by name: ``{"stop": "wmv"}``.
        group: under which a table puts it.
        iterative: whether averages and stopping rules mean anything to it.
        learns: whether it fits a network, so that steps, lr, residual, precision and network.* mean anything to it.
        offers: what a stopping rule may need of its terms: "residual" (the data term is ||A x - y||^2), "error" (its
            loss estimates the error and falls below zero).
        average_restarts: steps at which the running average of the iterates begins anew.
        extra_passes: network passes per step beside those of the loss.
        pool: the folder that references come from; None for the data set's other images.
        before: "network" and input "z" that the slice before this one ended with, under warm=slice.
        code: classes of other rooms that its results depend on.
        bounded: whether images that are not complex lie in [0, 1]; not where a start image alone tells how bright.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    group: ClassVar[str] = "untrained network"
    iterative: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    offers: ClassVar[frozenset[str]] = frozenset({"residual"})
    average_restarts: tuple[int, ...] = ()
    extra_passes: float = 0.0
    pool: str | None = None
    before: dict[str, Any] | None = None
    code: ClassVar[tuple[type, ...]] = ()
    bounded: bool = True

    def __init__(self, options: Any, shared: Shared, engine: Engine, signed: bool) -> None:
        self.options, self.shared, self.engine, self.signed = options, shared, engine, signed
        self.facts: dict[str, Any] = {}  # what the record should say of this run's choices

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        """Raise UserError for settings that cannot work on a problem of this kind; called before any data are read."""

    @classmethod
    def caution(cls, options: Any) -> str:
        """What to know of settings that work, but badly, and what to set, said once a run; "" where all is well."""
        return ""

    @classmethod
    def wants(cls, options: Any) -> str:
        """What it must be given besides measurements: "references", "truth" (a diagnostic), or nothing."""
        return ""

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        """The knobs that others of its choices leave without effect, each with why: said to who sets one."""
        return {}

    @classmethod
    def uses(cls, options: Any) -> tuple[str, ...]:
        """The names of other methods whose image it takes."""
        return ()

    @classmethod
    def reads(cls, options: Any) -> tuple[Path, ...]:
        """Files and folders that its result depends on, besides those that a knob gives the path of."""
        return ()

    @property
    def label(self) -> str:
        """Its title in the record, known once it has started: another than the class's where it runs something else."""
        return self.title

    @property
    def steps(self) -> int:
        """How many iterates there will be."""
        return self.shared.steps if self.iterative else 1

    @abstractmethod
    def start(self, problem: Problem) -> S:
        """The state before the first step."""

    @abstractmethod
    def iterates(self, problem: Problem, state: S) -> Iterator[Iterate]:
        """The iterates from ``state`` on; ``state`` is current whenever one is yielded."""

    def arrays(self, state: S) -> dict[str, Tensor]:
        """What a method leaves besides its reconstruction, by name, image-shaped."""
        return {}

    def distance(self, residual: Tensor) -> Tensor:
        """``||r||_2^2`` (paper), or ``||r||_2`` with ``residual=norm``; real and imaginary parts count separately."""
        if residual.is_complex():
            residual = torch.view_as_real(residual)
        squared: Tensor = _SumOfSquares.apply(residual)  # type: ignore[no-untyped-call]
        # the released MRI and CT scripts minimise plain norms: an exact penalty, whose weight grows as r shrinks
        return squared if self.shared.residual == "squared" else squared.clamp_min(1e-20).sqrt()


class NetworkMethod(Method[NetworkState]):
    """A method that fits an untrained network to the one measurement there is.

    Attributes:
        carries: whether under warm=slice the input is that of the slice before, too: weights belong to a random or
            learned input. An image of the slice's own is a better input than the image before it (docs/data.md).
    """

    carries: bool = False

    def start(self, problem: Problem) -> NetworkState:
        check_size(self.shared.network, tuple(problem.z0.shape), problem.image)
        z = self.initial_input(problem).to(problem.z0.device)
        weights = problem.generator("network")
        network = make_network(self.shared.network, z.shape[1], problem.z0.shape[1], self.signed, weights)
        prepared = self.engine.prepare(network)
        if self.before is not None:
            prepared.load_state_dict(self.before["network"])
            z = self._carried(z, self.before["z"], problem.image) if self.carries else z
        rng = self.engine.generator(problem.generator("steps").initial_seed())
        return NetworkState(network=prepared, optimiser=self.optimiser(prepared, z), z=z, rng=rng)

    def _carried(self, own: Tensor, before: Tensor, image: str) -> Tensor:
        if own.shape != before.shape:
            raise UserError(
                f"warm=slice: {image} has {tuple(own.shape)}, the slice before it {tuple(before.shape)}: leave it out."
            )
        return before.to(own.device, copy=True)

    def initial_input(self, problem: Problem) -> Tensor:
        """The network's first input, a tensor of the state's own."""
        return problem.z0.clone()

    def optimiser(self, network: nn.Module, z: Tensor) -> torch.optim.Optimizer:
        """Adam on the network's parameters, at ``lr``."""
        return self.engine.adam([{"params": list(network.parameters()), "lr": self.shared.lr}])

    def descend(self, state: NetworkState, objective: Objective, output: Callable[[], Tensor]) -> Iterator[Iterate]:
        """One optimiser step on ``objective`` after another; the last iterate is ``output`` with the final weights."""
        step_on = self.engine.descend(objective, state.optimiser, state.network, state.rng)
        for step in range(state.step + 1, self.shared.steps + 1):
            x, terms = step_on()
            if step == self.shared.steps:
                with torch.no_grad():
                    x = output()
            state.step = step
            yield Iterate(step, x, terms)


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
