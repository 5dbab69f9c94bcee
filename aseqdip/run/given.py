"""What ``aseqdip.reconstruct`` is given: settings by name, an operator, measurements; what is wrong with them."""

import dataclasses
import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError, in_short, near
from aseqdip.methods.base import Method, Shared
from aseqdip.networks import NETWORKS
from aseqdip.networks.base import NetworkSettings
from aseqdip.operators.base import Functions, Operator
from aseqdip.operators.bkse import EncodedBlur
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI
from aseqdip.parts import make_options
from aseqdip.problem import Problem

log = logging.getLogger(__name__)

#: what only the fit of a network uses
LEARNING = ("steps", "lr", "residual")
FINER = (torch.float64, torch.complex128)
SINGLE = " Its tensors must be of single precision, as images are: operator.float(), and complex64."
#: a setting's default may be a task's: here that which the operator is of
TASK_OF: dict[type[Operator], str] = {
    MultiCoilMRI: "mri",
    ParallelBeam: "ct",
    Mask: "inpainting",
    Identity: "denoising",
    **dict.fromkeys((MotionBlur, CameraBlur, EncodedBlur), "deblurring"),
}


def named(method: Any) -> str:
    """The name of a method's class. Raises UserError for what is none."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"method={method}: expected a name, or a class that extends Method (docs/extending.md).")
    return str(getattr(method, "name", method.__name__))


def operator_of(given: Any) -> Operator:
    """The operator, or that of two functions, ``forward`` and ``adjoint``. Raises UserError for what is neither."""
    if isinstance(given, Operator):
        return given
    forward, adjoint = (getattr(given, name, None) for name in ("forward", "adjoint"))
    linear = getattr(given, "linear", True) is not False
    if callable(forward) and callable(adjoint) and not isinstance(given, type) and linear:
        return Functions(forward, adjoint)
    if not (isinstance(given, (tuple, list)) and len(given) == 2 and all(map(callable, given))):
        raise UserError(
            "operator: expected one of aseqdip.operators, an object with forward and adjoint, or these two functions, "
            f"(A, adjoint); found {type(given).__name__}. One that is not linear is a class that extends Operator."
        )
    return Functions(*given)


def home_of(A: Operator, y: Any) -> torch.device:
    """Where an operator computes: where its tensors are, or the measurements, if it has none."""
    held = (*A.parameters(), *A.buffers(), y)[0]
    return held.device if isinstance(held, Tensor) else torch.device("cpu")


def check_place(A: Operator, problem: Problem, home: torch.device) -> None:
    """UserError where the operator cannot follow to the device: what it computes with is none of its own tensors."""
    if problem.z0.device == home or (*A.parameters(), *A.buffers()):
        return
    try:
        problem.operator(problem.z0)
    except Exception as error:  # it is the user's
        raise UserError(
            f"operator: it cannot compute on {problem.z0.device} ({error}): give device='{home}', or a class that "
            "extends Operator and has its tensors as buffers."
        ) from error


@contextmanager
def borrowed(A: Operator, home: torch.device) -> Iterator[None]:
    """For moving the user's operator, which is done in place: it is back in the end."""
    try:
        yield
    finally:
        A.to(home)


def check_numbers(noise_std: float | None, ema: float | None) -> None:
    """Raise UserError for numbers that mean nothing."""
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise UserError(f"noise_std={noise_std}: expected a standard deviation, 0 or more; None where it is not known.")
    if ema is not None and not 0 <= ema <= 0.9999:
        raise UserError(f"ema={ema}: expected a decay from 0, no average, to 0.9999.")


def say_idle(part: type[Method[Any]], options: Any, given: Sequence[str]) -> None:
    """Warn of settings that this method does not use, as the command line does."""
    idle = part.idle(options)
    for name in given:
        unused = not part.learns and (name in LEARNING or name.startswith("network"))
        unused = unused or (not part.iterative and name in ("ema", "stop"))
        unused = unused or (name == "references" and part.wants(options) != "references")
        if name in idle or unused:
            log.warning("%s has no effect: %s.", name, idle.get(name, f"method={part.name} does not use it"))


class Given:
    """Settings by name, each taken by whoever has it.

    Args:
        front: the function they were given to.
        operator: whose task may have defaults of its own.
    """

    def __init__(self, settings: dict[str, Any], front: Callable[..., Any], operator: Operator) -> None:
        self.left, self.front = dict(settings), front
        self.task = next((task for kind, task in TASK_OF.items() if isinstance(operator, kind)), "")
        self.known: list[str] = []

    def options(self, cls: type[Any], prefix: str = "") -> Any:
        knobs = [f.name for f in dataclasses.fields(cls) if "help" in f.metadata]
        self.known += [prefix + name for name in knobs]
        values = {name: self.left.pop(prefix + name, None) for name in knobs}
        return make_options(cls, values, prefix, task=self.task)

    def shared(self, network: str, method: type[Method[Any]]) -> Shared:
        part = NETWORKS[network]
        if (name := self.left.get("network_name")) is not None:
            raise UserError(f"network_name={name}: a network is chosen by network={name}.")
        own = self.options(part.Options, "network_")
        defaults = {f"network_{k}": v for k, v in {**part.defaults, "sigmoid": False}.items()}
        defaults |= {name: method.defaults[name] for name in LEARNING if name in method.defaults}
        self.left = {**defaults, **self.left}
        settings = self.options(NetworkSettings, "network_")
        self.known.remove("network_name")
        shared: Shared = self.options(Shared)
        return dataclasses.replace(shared, network=dataclasses.replace(settings, name=network, options=own))

    def refuse_the_rest(self, method: str) -> None:
        if self.left:
            word = next(iter(self.left))
            own = [p for p in inspect.signature(self.front).parameters if p != "settings"]
            close = near(word, [*self.known, *own])
            hint = f"did you mean {close}?" if close else f"expected one of {', '.join(self.known)}."
            raise UserError(f"{word}={self.left[word]}: method={method} has no such setting; {hint}")


def measured(A: Operator, y: Tensor) -> Tensor:
    """y with 0 where nothing is measured, whatever it holds there: rules and weights count what is not 0."""
    if not isinstance(A, Mask) and not (isinstance(A, MultiCoilMRI) and A.mask.dim() == 2):
        return y  # of sampled columns nothing else is stored
    if y.shape[-2:] == A.mask.shape[-2:]:
        return torch.where(A.mask.to(y.device) != 0, y, 0)
    return y


def check_finite(values: Tensor, what: str) -> None:
    """Raise UserError for what no result may be made of."""
    if not torch.isfinite(values).all():
        raise UserError(f"{what} holds values that are NaN or infinite: repair it.")


def direct(A: Operator, y: Tensor) -> Tensor:
    """The operator's one-step reconstruction. Raises UserError where it makes none of y."""
    try:
        found = A.direct(y)
        if not isinstance(found, Tensor):
            raise TypeError(f"it gives {type(found).__name__}")
        return found
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        hint = " A.sample(kspace) makes them of a whole k-space." if isinstance(A, MultiCoilMRI) else ""
        hint += SINGLE if any(t.dtype in FINER for t in (*A.parameters(), *A.buffers())) else ""
        raise UserError(
            f"The operator makes no image of y, {tuple(y.shape)}, {y.dtype}: {in_short(error)}. Give "
            f"measurements as the operator gives them, as tensors, (1, channels or coils, ...).{hint}"
        ) from error


def check_adjoint(A: Operator, z0: Tensor) -> None:
    """Warn where <A x, A x> is not <x, A^H A x>: gradients, and what they lead to, are then those of something else."""
    x = torch.randn(z0.shape, generator=torch.Generator().manual_seed(1)).to(z0.device)
    y = A(x)
    here, there = float(y.abs().square().sum()), float((x * A.adjoint(y)).sum())
    if not abs(here - there) <= 0.01 * here:
        log.warning(
            "The operator's adjoint is not A's: for a random image x, <A x, A x> is %.4g and <x, A^H A x> %.4g. "
            "Methods minimise something else than they say, or nothing.",
            here,
            there,
        )
