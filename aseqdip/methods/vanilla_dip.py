"""Deep image prior with a fixed input (Ulyanov et al., CVPR 2018), and what differs from it by a penalty."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import check_image_by, image_by
from aseqdip.methods.base import Iterate, NetworkMethod, NetworkState, Shared
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem

#: methods whose image may be the input
BY_METHOD = ("tv", "cg", "wavelet")


class VanillaDIP(NetworkMethod):
    """min_phi ||A f_phi(z) - y||^2 with a fixed input z (paper, eq. 1).

    z ~ U(0, 0.1) (``input=noise``, as the original), N(0, s^2) (``normal``; s: ``input_noise``), the start image z0
    (``measurement``), the image of a classical method (``tv``, ``cg``, ``wavelet``), or the nearest image of a pool
    (``reference``: Ref-Guided DIP, Zhao et al., Sensors 2020).
    ``oracle`` is the truth + N(0, s^2): not a method but the diagnostic of the paper's Fig. 1.
    ``perturb`` adds fresh N(0, perturb^2) noise to z at each step (the original's regularisation, 1/30), but for the
    last output. ``backtrack`` takes back steps that lose the fit to the data, as the original does (5 dB), which then
    still makes the lost step, from the weights it went back to.
    """

    name = "vanilla_dip"
    title = "Vanilla DIP"
    paper = "Ulyanov, Vedaldi, Lempitsky: Deep image prior, CVPR 2018"

    @dataclass
    class Options:
        input: str = knob(
            "fixed input: U(0, 0.1), N(0, s^2), the start image, the nearest image of a pool, or (oracle) the truth: "
            "no method, a diagnostic of the paper's Fig. 1",
            "noise",
            choices=("noise", "normal", "measurement", "reference", "oracle", *BY_METHOD),
        )
        input_noise: float = knob(
            "input=normal, oracle: standard deviation s of its Gaussian noise, drawn once; images are about 1 at their "
            "brightest",
            1.0,
            low=0,
        )
        input_channels: int | None = knob(
            "channels of a random input (original DIP: 32, which needs network=skip); default: as many as the image",
            None,
            low=1,
        )
        pool: str | None = knob(
            "input=reference: folder of fully sampled images, in the data set's format; default: the data set's "
            "other images",
            None,
            file=True,
        )
        perturb: float = knob(
            "standard deviation of fresh noise on that input at each step (original DIP: 0.033)", 0.0, low=0
        )
        backtrack: float = knob(
            "dB by which the fit to the data may fall in one step before the weights go back (original DIP: 5); 0: any",
            0.0,
            low=0,
        )

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if options.input in BY_METHOD:
            check_image_by("input", options.input, kind)

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        takes = {
            "start": ("measurement", *BY_METHOD),
            "input_noise": ("normal", "oracle"),
            "input_channels": ("noise", "normal"),
            "pool": ("reference",),
        }
        this = f"and this is input={options.input}"
        return {k: f"it belongs to input={by[0]}, {this}" for k, by in takes.items() if options.input not in by}

    @classmethod
    def uses(cls, options: Any) -> tuple[str, ...]:
        return (options.input,) if options.input in BY_METHOD else ()

    @classmethod
    def wants(cls, options: Any) -> str:
        return {"reference": "references", "oracle": "truth"}.get(options.input, "")

    @property
    def pool(self) -> str | None:  # type: ignore[override]
        return self.options.pool

    @property
    def carries(self) -> bool:  # type: ignore[override]
        return self.options.input in ("noise", "normal")  # weights belong to the noise that they were fitted for

    def initial_input(self, problem: Problem) -> Tensor:
        z, rng = problem.z0, problem.generator("input")
        if self.options.input == "measurement":
            return z.clone()
        if self.options.input in BY_METHOD:
            return image_by(self.options.input, problem, self.engine, self.signed)
        if self.options.input == "reference":
            self.facts["reference"], image = nearest_reference(problem, self.signed)
            return image
        if self.options.input == "oracle":
            ((_, truth),) = problem.references  # handed over because this method wants it
            self.facts["oracle_input"] = True
            return truth + (self.options.input_noise * torch.randn(z.shape, generator=rng)).to(z.device)
        shape = (1, self.options.input_channels or z.shape[1], *z.shape[2:])
        if self.options.input == "normal":
            return self.options.input_noise * torch.randn(shape, generator=rng)
        return 0.1 * torch.rand(shape, generator=rng)

    def penalty(self, x: Tensor) -> Tensor | None:
        """What a relative of this method adds to the data term."""
        return None

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        A, y, f, z, s = problem.operator, problem.y, state.network, state.z, self.options.perturb

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = f(z + s * torch.randn(z.shape, generator=state.rng, device=z.device) if s else z)
            data, penalty = self.distance(A(x) - y), self.penalty(x)
            if penalty is None:
                return x, {"loss": data, "data": data}
            return x, {"loss": data + penalty, "data": data, "regulariser": penalty}

        for iterate in self.guarded(self.descend(state, objective, lambda: f(z)), state, lambda: f(z)):
            yield replace(iterate, image=self.estimate(iterate.image, state))

    def guarded(self, steps: Iterator[Iterate], state: NetworkState, output: Callable[[], Tensor]) -> Iterator[Iterate]:
        """The steps; the weights go back to those of the last good fit after one that lost ``backtrack`` dB of it."""
        if not self.options.backtrack:
            yield from steps
            return
        weights, kept = list(state.network.parameters()), state.extra
        limit = 10 ** (self.options.backtrack / (10 if self.shared.residual == "squared" else 20))
        before = flat(weights)  # a step's data term is that of the weights before it
        for iterate in steps:
            data, now = iterate.terms["data"], flat(weights)
            lost = data > limit * kept.get("data", data)
            kept["weights"] = torch.where(lost, kept.get("weights", before), before)
            kept["data"] = torch.where(lost, kept.get("data", data), data)
            pieces = torch.where(lost, kept["weights"], now).split([w.numel() for w in weights])
            with torch.no_grad():
                for weight, piece in zip(weights, pieces, strict=True):
                    weight.copy_(piece.view_as(weight))
                if iterate.step == self.shared.steps:  # the last is of the final weights, which may be older ones
                    iterate = replace(iterate, image=output())
            yield iterate
            before = flat(weights)

    def estimate(self, x: Tensor, state: NetworkState) -> Tensor:
        """The reconstruction after a step whose output is x: x itself."""
        return x


def flat(weights: Sequence[Tensor]) -> Tensor:
    """A copy of all weights in one row, whatever their layout."""
    return torch.cat([weight.detach().reshape(-1) for weight in weights])


def nearest_reference(problem: Problem, signed: bool) -> tuple[str, Tensor]:
    """Name and image of the reference whose measurements look most like y, scaled to y.

    Like is compared with like: the start image of y with that of A x, for each reference x; both as displayed
    (magnitude for MRI) and at unit energy, by Euclidean distance. Raises UserError without a reference.
    """
    A = problem.operator

    def seen(image: Tensor) -> tuple[Tensor, Tensor]:
        shown = torch.hypot(image[:, 0], image[:, 1]) if signed else image
        return shown / shown.norm(), shown.norm()

    target, energy = seen(A.direct(problem.y))
    best: tuple[float, str, Tensor] | None = None
    for name, image in problem.references:
        image = image.to(problem.z0)
        start, size = seen(A.direct(A(image)))
        distance = float((start - target).norm())
        if math.isfinite(distance) and (best is None or distance < best[0]):  # a black image is like none
            best = distance, name, image * (energy / size)
    if best is None:
        raise UserError(
            "input=reference found no other object to refer to: images of the same size and of another patient are "
            "needed; set pool=... to a folder of them."
        )
    return best[1], best[2]
