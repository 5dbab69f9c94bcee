"""Plug-and-play: a reconstruction by a denoiser that was trained, and by the measurements."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import first_image, gradient_at, squared
from aseqdip.methods._learned import Learned, LearnedState
from aseqdip.methods.base import Iterate, State
from aseqdip.parts import knob
from aseqdip.problem import Problem

#: iterations of the proximal map, begun where the last ended
INNER = 10
#: standard deviation taken for noise of a level not known, images being of order 1
UNKNOWN = 0.01


class PnP(Learned):
    """min_x 1/2 ||A x - y||^2 + noise^2 R(x) by half-quadratic splitting, R known by its denoiser alone.

    With sigma_k from ``sigma_max`` down to the noise, or the least the prior was trained on, in equal ratios, and
    rho_k = weight noise^2 / sigma_k^2,

        x_k = argmin_x ||A x - y||^2 + rho_k ||x - z_{k-1}||^2       (conjugate gradients, or gradient steps)
        z_k = denoise(x_k, sigma_k)

    and z_k is the k-th iterate. Where there is no noise, ``least`` stands for it; where it is not known, ``UNKNOWN``.
    The authors' code for deblurring takes 8 iterations, 0.001 for no noise, and turns or mirrors the image from one
    denoising to the next.
    """

    name = "pnp"
    title = "PnP-HQS"
    paper = (
        "Zhang, Li, Zuo, Zhang, Van Gool, Timofte: Plug-and-play image restoration with deep denoiser prior, TPAMI 2021"
    )

    @dataclass
    class Options:
        prior: str | None = knob(
            "denoiser: mr, ct, natural, grey, ffdnet, or a file; default: the one for the task's images",
            None,
            file=True,
        )
        weight: float = knob("lambda, the weight of the denoised image against the measurements", 0.23, above=0)
        sigma_max: float = knob("noise level of the first denoising, images being in [0, 1]", 49 / 255, above=0)
        least: float = knob("noise level that stands for none", 0.0005, above=0)
        iterations: int = knob("of data and prior (steps is for networks and has no effect here)", 20, low=1)

    def start(self, problem: Problem) -> LearnedState:
        o = self.options
        name, prior, network = self.opened(problem)
        noise = problem.noise_std or 0.0
        if max(o.sigma_max, noise) > 1.01 * prior.sigmas[1]:
            raise UserError(
                f"prior={name} was trained up to sigma {prior.sigmas[1]:.3g}; found sigma_max={o.sigma_max:g} and "
                f"noise of {noise:.3g}: lower sigma_max, or use another prior."
            )
        extra = {"z": first_image(problem), "lipschitz": problem.z0.new_ones(())}
        return LearnedState(prior=prior, network=network, extra=extra)

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        assert isinstance(state, LearnedState)
        o, noise = self.options, problem.noise_std
        noise = UNKNOWN if noise is None else max(noise, self.options.least)
        last = max(noise, state.prior.sigmas[0])
        levels = schedule(max(o.sigma_max, last), last, self.steps)
        while state.step < self.steps:
            sigma = levels[state.step]
            with torch.no_grad():
                x = proximal(problem, state.extra, o.weight * noise**2 / sigma**2)
                with state.network.counting():
                    z = state.prior.denoise(x, sigma)
                data = squared(problem.operator(z) - problem.y)
            state.extra["z"] = z
            state.step += 1
            yield Iterate(state.step, z, {"loss": data, "data": data})


def schedule(first: float, last: float, count: int) -> list[float]:
    """Noise levels from the first to the last in equal ratios."""
    return [first * (last / first) ** (k / max(1, count - 1)) for k in range(count)]


def proximal(problem: Problem, s: dict[str, Tensor], rho: float) -> Tensor:
    """argmin_x ||A x - y||^2 + rho ||x - z||^2, nearly, from z = s["z"]."""
    A, z = problem.operator, s["z"]
    if not A.linear:
        return descend(problem, s, rho)
    return z + conjugate_gradients(lambda d: A.adjoint(A(d)) + rho * d, A.adjoint(problem.y - A(z)))


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """The solution of ``apply(x) = b``, symmetric and positive, after ``INNER`` iterations from 0."""
    x, r, d, gamma = torch.zeros_like(b), b, b, b.square().sum()
    tiny = torch.finfo(b.dtype).tiny
    for _ in range(INNER):
        Ad = apply(d)
        alpha = gamma / (d * Ad).sum().clamp_min(tiny)
        x, r = x + alpha * d, r - alpha * Ad
        before, gamma = gamma, r.square().sum()
        d = r + gamma / before.clamp_min(tiny) * d
    return x


def descend(problem: Problem, s: dict[str, Tensor], rho: float) -> Tensor:
    """The same by gradient steps for an A that is not linear; one that goes uphill is not taken: the bound doubles."""
    z = x = s["z"]
    for _ in range(INNER):
        gradient, Ax = gradient_at(problem, x)
        new = x - (gradient + rho * (x - z)) / (s["lipschitz"] + rho)
        here = squared(Ax - problem.y) + rho * squared(x - z)
        downhill = squared(problem.operator(new) - problem.y) + rho * squared(new - z) <= here
        x = torch.where(downhill, new, x)
        s["lipschitz"] = torch.where(downhill, s["lipschitz"], 2 * s["lipschitz"])
    return x
