"""A trained autoencoder as a reconstructor (the paper's Appendix B)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from aseqdip.errors import UserError
from aseqdip.methods._classical import squared
from aseqdip.methods._learned import Learned, TrainedState
from aseqdip.methods.base import Iterate, Shared, State
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class TrainedAutoencoder(Learned):
    """min_z ||A g(z) - y||^2 + lam ||g(z) - z||^2 (eq. 18), g an autoencoder that was trained on images; g(z) is it.

    By Adam from the start image. The paper says neither how z is found nor where it begins.
    """

    name = "autoencoder"
    title = "Trained autoencoder"
    paper = "Alkhouri, Liang, Bell, Qu, Wang, Ravishankar: aSeqDIP, NeurIPS 2024, Appendix B"
    families = ("autoencoder",)
    usual = "autoencoder"

    @dataclass
    class Options:
        prior: str | None = knob("network, a file; default: the one that is shipped", None, file=True)
        lam: float = knob("lambda_a, weight of the autoencoding term", 1.0, low=0)
        rate: float = knob("learning rate of z", 0.01, above=0)
        iterations: int = knob(
            "updates of z (steps is for networks and has no effect here)", 2000, low=1,
            by_preset={"smoke": 4, "quick": 300},
        )  # fmt: skip

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if kind.task not in ("mri", "operator"):
            raise UserError(f"method=autoencoder is for task=mri; found task={kind.task}: use method=pnp.")
        super().check(options, shared, kind)

    def start(self, problem: Problem) -> TrainedState:
        if problem.z0.shape[1] != 2 or not self.signed:
            raise UserError("method=autoencoder needs complex images of MRI: use method=pnp.")
        _, network = self.loaded(self.options.prior or self.usual, 2)
        z = problem.z0.clone()
        extra = {"z": z, "mean": torch.zeros_like(z), "square": torch.zeros_like(z)}
        return TrainedState(network=network, extra=extra)

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        assert isinstance(state, TrainedState)
        A, y, g, s = problem.operator, problem.y, state.network, state.extra
        while state.step < self.steps:
            with torch.enable_grad(), g.counting():
                z = s["z"].detach().requires_grad_()
                x = g(z)
                data, encoding = squared(A(x) - y), squared(x - z)
                loss = data + self.options.lam * encoding
                (gradient,) = torch.autograd.grad(loss, z)
            state.step += 1
            t = state.step  # Adam's update, in tensors that are saved
            s["mean"] = 0.9 * s["mean"] + 0.1 * gradient
            s["square"] = 0.999 * s["square"] + 0.001 * gradient.square()
            size = (s["square"] / (1 - 0.999**t)).sqrt() + 1e-8
            s["z"] = z.detach() - self.options.rate * s["mean"] / (1 - 0.9**t) / size
            terms = {"loss": loss, "data": data, "autoencoding": encoding}
            if t == self.steps:  # the last is of the final z
                with torch.no_grad(), g.counting():
                    x = g(s["z"])
            yield Iterate(t, x.detach(), {name: term.detach() for name, term in terms.items()})
