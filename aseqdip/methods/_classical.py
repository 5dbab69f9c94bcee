"""What methods without a network share: their budget, how they converge, their weight, proximal gradient steps."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods.base import Iterate, Method, Shared, State
from aseqdip.operators.base import Operator, Scaled
from aseqdip.operators.mask import Mask
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem

Tensors = dict[str, Tensor]


class Classical(Method[State]):
    """A method without a network. Its budget is its own knob ``iterations``: the preset's ``steps`` is for networks."""

    group = "classical"
    learns = False
    #: what it begins from instead of the start image; "" where it takes that
    instead: ClassVar[str] = ""

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        return {"start": cls.instead} if cls.instead else {}

    def __init__(self, options: Any, shared: Shared, engine: Engine, signed: bool) -> None:
        steps = getattr(options, "iterations", 1)
        super().__init__(options, Shared(steps=steps, residual="squared"), engine, signed)


class OneStep(Classical):
    """A method that computes its image at once."""

    iterative = False

    @abstractmethod
    def solve(self, problem: Problem) -> Tensor:
        """The reconstruction, shaped like z0."""

    def start(self, problem: Problem) -> State:
        return State()

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        if state.step < 1:
            x = self.solve(problem).to(problem.z0)
            data = squared(problem.operator(x) - problem.y)
            state.step = 1
            yield Iterate(1, x, {"loss": data, "data": data})


class Converging(Classical):
    """A method that iterates until the image no longer changes, or for ``iterations``.

    Everything that must survive a kill is in ``state.extra``: tensors on the device, which nothing waits for but a
    check after every ``every`` iterations.
    """

    every: ClassVar[int] = 10

    @dataclass
    class Options:
        iterations: int = knob("iterations at most (steps is for networks and has no effect here)", 300, low=1)
        tolerance: float = knob("relative change of the image in 10 iterations at which it ends", 1e-3, low=0)

    @abstractmethod
    def begin(self, problem: Problem) -> Tensors:
        """The tensors before the first iteration; "x" is the image."""

    @abstractmethod
    def advance(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        """One iteration: renews ``s``, returns the image and the terms of the objective."""

    def ended(self, problem: Problem, s: Tensors, terms: Tensors, change: Tensor) -> Tensor:
        """Whether this iterate is the last, as a 0-d tensor; asked at each check, where it may also adapt ``s``.

        Args:
            change: of the image since the last check, relative.
        """
        return change < self.options.tolerance

    def note(self, s: Tensors) -> None:
        """Put into ``facts`` what the record should say."""

    def start(self, problem: Problem) -> State:
        with torch.no_grad():
            s = self.begin(problem)
        checked = {"checked": s["x"].clone(), "done": torch.zeros((), dtype=torch.bool, device=s["x"].device)}
        return State(extra={**s, **checked})

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        s = state.extra
        done = bool(s["done"])
        self.note(s)
        while state.step < self.steps and not done:
            x, terms = self._step(problem, s, state.step + 1)
            state.step += 1
            if state.step % self.every == 0:
                done = bool(s["done"])
                self.note(s)
            yield Iterate(state.step, x, terms)

    @torch.no_grad()
    def _step(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        x, terms = self.advance(problem, s, step)
        if step % self.every == 0:
            change = (x - s["checked"]).norm() / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
            s["done"] = self.ended(problem, s, terms, change)
            s["checked"] = x.clone()
        return x, terms


class Weighted(Converging):
    """min 1/2 ||A x - y||^2 + w R(x), with w = rho times the largest |A^H y|.

    Without a given ``rho`` the discrepancy principle chooses it where there is noise of known level: w is adapted along
    the way until ||A x - y||^2 is the energy that the noise has left once a part of it is fitted. Else it is
    calibrated.

    Attributes:
        rhos: rho by the kind of operator, for data without noise, and for data with noise of a level not known.
    """

    rhos: ClassVar[dict[type[Operator], tuple[float, float]]] = {}
    usual_rhos: ClassVar[tuple[float, float]] = (1e-4, 1e-3)
    #: the part of the noise that a good image fits, of that in as many values as are measured or as the image has,
    #: whichever is less; calibrated, and much the same for all operators
    fitted: ClassVar[float] = 0.35
    #: bounds of w in units of the noise: where few of the image's values are determined, no image fits that part
    least: ClassVar[float] = 0.03
    most: ClassVar[float] = 3.0

    @dataclass
    class Options(Converging.Options):
        rho: float | None = knob(
            "weight of the regulariser, relative to the largest |A^H y|; default: by the discrepancy principle "
            "where there is noise of known level, else one calibrated for the operator",
            None,
            above=0,
        )

    @abstractmethod
    def regulariser(self, x: Tensor) -> Tensor:
        """R(x)."""

    def terms(self, residual: Tensor, x: Tensor, weight: Tensor) -> Tensors:
        """Twice the objective, so that the data term is the squared norm that all methods give."""
        data, penalty = squared(residual), 2 * weight * self.regulariser(x)
        return {"loss": data + penalty, "data": data, "regulariser": penalty}

    def weights(self, problem: Problem) -> Tensors:
        """The weight w to begin with, the scale it is relative to, and what its adaption keeps."""
        A, rho, noise = problem.operator, self.options.rho, problem.noise_std
        back = A.adjoint(problem.y) if A.linear else problem.z0
        scale = back.square().sum(1).amax().sqrt()
        if rho is None and noise:
            begin = {"weight": scale.new_tensor(0.2 * noise), "slope": scale.new_tensor(-0.3)}
            return {"scale": scale, **begin, "before": torch.stack((scale, scale)) * torch.nan}
        if rho is None:
            rho = self.rhos.get(type(bare(A)), self.usual_rhos)[noise is None]
        return {"scale": scale, "weight": rho * scale}

    def ended(self, problem: Problem, s: Tensors, terms: Tensors, change: Tensor) -> Tensor:
        """Image and weight must both have settled."""
        still = super().ended(problem, s, terms, change)
        return still & self.adapt(problem, s, terms["data"]) if "slope" in s else still

    def adapt(self, problem: Problem, s: Tensors, data: Tensor) -> Tensor:
        """Change the weight so that the fitted part of the noise comes nearer to what it should be; whether it is
        there.

        A secant step on the logarithm of the weight. The slope is held in bounds: the image is still on its way.
        """
        assert problem.noise_std is not None
        part = noise_fitted(problem, problem.noise_std, data)
        now = torch.stack((s["weight"].log(), part))
        moved, gained = now - s["before"]
        slope = torch.where(moved.abs() > 0.02, gained / moved, s["slope"]).nan_to_num(-0.3).clamp(-1.5, -0.1)
        missing = self.fitted - part
        s["slope"], s["before"] = slope, now
        wanted = s["weight"] * (missing / slope).clamp(-0.7, 0.7).exp()
        s["weight"] = wanted.clamp(self.least * problem.noise_std, self.most * problem.noise_std)
        return (missing.abs() < 0.01) | (s["weight"].log() == now[0])

    def note(self, s: Tensors) -> None:
        self.facts["rho"] = float(f"{float(s['weight'] / s['scale']):.4g}")


def image_by(name: str, problem: Problem, engine: Engine, signed: bool) -> Tensor:
    """The image of another method, with its default options."""
    part = classical(name)
    method = part(part.Options(), Shared(), engine, signed)
    image = problem.z0
    for iterate in method.iterates(problem, method.start(problem)):
        image = iterate.image
    return image.clone()


def check_image_by(word: str, name: str, kind: Kind) -> None:
    """Raise UserError unless a problem of this kind has an image by that method; ``word``: what a user chose
    it with.
    """
    part = classical(name)
    try:
        part.check(part.Options(), Shared(), kind)
    except UserError as error:
        raise UserError(f"{word}={name}: {error}") from error


def classical(name: str) -> type[Method[Any]]:
    """A classical method by its name."""
    from aseqdip.methods import METHODS  # which imports methods, one of which this may be called by

    return METHODS[name]


def bare(A: Operator) -> Operator:
    """The operator without a factor around it."""
    return A.operator if isinstance(A, Scaled) else A


def first_image(problem: Problem) -> Tensor:
    """Where iterations begin: z0, its holes filled: a minimum may be far from black."""
    A = bare(problem.operator)
    return filled(problem.z0, A.mask) if isinstance(A, Mask) else problem.z0.clone()


def filled(x: Tensor, mask: Tensor) -> Tensor:
    """An image with its unknown pixels (mask 0) interpolated from the next coarser scale that knows them."""
    if bool(mask.all()) or min(x.shape[-2:]) < 2:
        return x.clone()
    known = avg_pool2d(mask, 2, ceil_mode=True)
    coarse = avg_pool2d(mask * x, 2, ceil_mode=True) / known.clamp_min(1e-6)
    smooth = interpolate(filled(coarse, (known > 0).to(x)), size=x.shape[-2:], mode="bilinear")
    return torch.where(mask > 0, x, smooth)


def squared(residual: Tensor) -> Tensor:
    """``||r||_2^2``; real and imaginary parts count separately."""
    return (torch.view_as_real(residual) if residual.is_complex() else residual).square().sum()


def measured_values(y: Tensor) -> int:
    """How many real values were measured; what is not measured is exactly 0 in y."""
    return int((y != 0).sum()) * (2 if y.is_complex() else 1)


def noise_fitted(problem: Problem, noise: float, data: Tensor | float) -> Any:
    """The part of the noise that an image fits whose ||A x - y||^2 is ``data``.

    Of the noise in as many values as are measured or as the image has, whichever is less: no image can fit more.
    """
    measured = measured_values(problem.y)
    return (measured - data / noise**2) / min(measured, problem.z0.numel())


def bound(problem: Problem) -> float:
    """An upper bound of ``||A||^2``."""
    return 1.05 * problem.operator.norm(tuple(problem.z0.shape), iterations=20) ** 2


#: ``prox(b, w)`` = argmin_x 1/2 ||x - b||^2 + w R(x)
Prox = Callable[[Tensor, Tensor], Tensor]


def begin_descent(problem: Problem) -> Tensors:
    """What :func:`descend` needs: image x and its A x, the same of the extrapolated v, momentum, Lipschitz constant."""
    A, x = problem.operator, first_image(problem)
    lipschitz = bound(problem) if A.linear else 1.0
    Ax = A(x)
    return {"x": x, "Ax": Ax, "v": x, "Av": Ax, "t": x.new_ones(()), "lipschitz": x.new_tensor(lipschitz)}


def descend(problem: Problem, s: Tensors, prox: Prox) -> None:
    """One step of FISTA (Beck and Teboulle, 2009), begun anew where it goes uphill (O'Donoghue and Candes, 2015).

    With a non-linear A the gradient is autograd's, and a step that its quadratic bound does not cover is not taken: the
    constant doubles instead.
    """
    A, y, x, v, L = problem.operator, problem.y, s["x"], s["v"], s["lipschitz"]
    if A.linear:
        gradient = A.adjoint(s["Av"] - y)
    else:
        gradient, s["Av"] = gradient_at(problem, v)
    new = prox(v - gradient / L, s["weight"] / L)
    image = A(new)
    if not A.linear:
        here, there = squared(s["Av"] - y) / 2, squared(image - y) / 2
        step = new - v
        covered = there <= here * (1 + 1e-6) + (gradient * step).sum() + L / 2 * step.square().sum()
        new, image = torch.where(covered, new, x), torch.where(covered, image, s["Ax"])
        s["lipschitz"] = torch.where(covered, L, 2 * L)
    uphill = ((v - new) * (new - x)).sum() > 0
    t = torch.where(uphill, 1.0, s["t"])
    s["t"] = (1 + (1 + 4 * t**2).sqrt()) / 2
    momentum = (t - 1) / s["t"]
    s["v"], s["Av"] = new + momentum * (new - x), image + momentum * (image - s["Ax"])
    s["x"], s["Ax"] = new, image


def gradient_at(problem: Problem, v: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of 1/2 ||A v - y||^2, and A v."""
    with torch.enable_grad():
        v = v.detach().requires_grad_()
        image = problem.operator(v)
        (gradient,) = torch.autograd.grad(squared(image - problem.y) / 2, v)
    return gradient, image.detach()


def begin_cgls(A: Operator, y: Tensor) -> Tensors:
    """What :func:`cgls` needs: image x = 0, residual r, direction d, and ||A^H r||^2."""
    back = A.adjoint(y)
    return {"x": torch.zeros_like(back), "r": y.clone(), "d": back, "gamma": back.square().sum()}


def cgls(A: Operator, s: Tensors, least: Tensor | float = 0.0) -> None:
    """One step of conjugate gradients on ||A x - y||^2; x stays where ||A^H r||^2 is no more than ``least``."""
    tiny = torch.finfo(s["x"].dtype).tiny
    Ad = A(s["d"])
    alpha = torch.where(s["gamma"] <= least, 0.0, s["gamma"] / squared(Ad).clamp_min(tiny))
    s["x"], s["r"] = s["x"] + alpha * s["d"], s["r"] - alpha * Ad
    back = A.adjoint(s["r"])
    gamma = back.square().sum()
    s["d"], s["gamma"] = back + gamma / s["gamma"].clamp_min(tiny) * s["d"], gamma


def momentum(t: float) -> tuple[float, float]:
    """The next t of Nesterov's sequence, and how far to extrapolate."""
    following = (1 + math.sqrt(1 + 4 * t * t)) / 2
    return following, (t - 1) / following
