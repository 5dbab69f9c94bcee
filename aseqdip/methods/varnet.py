"""Reconstruction networks for MRI, trained end to end: E2E-VarNet, and a small one of our own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import bare, squared
from aseqdip.methods._learned import Learned, TrainedState
from aseqdip.methods.base import Iterate, Shared, State
from aseqdip.operators.mri import MultiCoilMRI, center_width
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class VarNet(Learned):
    """One pass of a network that was trained on pairs of measurements and images.

    E2E-VarNet gets the sampled k-space, estimates the sensitivities itself, and gives the root sum of squares of coil
    images: a magnitude, which here gets the phase of the zero-filled image. ``unrolled``, ours, gets the sensitivities
    and gives the complex image; records and tables call it what it is.
    """

    name = "varnet"
    title = "E2E-VarNet"
    paper = (
        "Sriram, Zbontar, Murrell, Defazio, Zitnick, Yakubova, Knoll, Johnson: End-to-end variational networks for "
        "accelerated MRI reconstruction, MICCAI 2020"
    )
    iterative = False
    families = ("unrolled", "varnet")
    usual = "unrolled"

    @dataclass
    class Options:
        prior: str | None = knob(
            "network: unrolled (ours, shipped; not E2E-VarNet), varnet_knee or varnet_brain (E2E-VarNet, published), "
            "or a file; default: unrolled",
            None,
            file=True,
        )

    @property
    def label(self) -> str:
        return self.title if self.facts.get("prior_family") == "varnet" else "Unrolled network"

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if kind.task not in ("mri", "operator"):
            raise UserError(f"method=varnet is for task=mri; found task={kind.task}: use method=pnp.")
        super().check(options, shared, kind)

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        return {"start": "it takes the measurement"}

    def start(self, problem: Problem) -> TrainedState:
        A = bare(problem.operator)
        if not isinstance(A, MultiCoilMRI):
            raise UserError("method=varnet needs the operator of multi-coil MRI: use method=pnp.")
        card, network = self.loaded(self.options.prior or self.usual, 2)
        if card.family == "varnet" and A.mask.dim() == 2:
            raise UserError(
                "E2E-VarNet takes k-space sampled in columns; found points: use prior=unrolled, or method=pnp."
            )
        self.end_to_end = card.family == "varnet"
        return TrainedState(network=network)

    @torch.no_grad()
    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        assert isinstance(state, TrainedState)
        if state.step < 1:
            A, start = problem.operator, problem.operator.adjoint(problem.y)
            with state.network.counting():
                x = self.magnitude(problem, state) if self.end_to_end else state.network(start, A, problem.y)
            if self.end_to_end:
                x = x * start / start.norm(dim=1, keepdim=True).clamp_min(1e-12)
            data = squared(A(x) - problem.y)
            state.step = 1
            yield Iterate(1, x, {"loss": data, "data": data})

    def magnitude(self, problem: Problem, state: TrainedState) -> Tensor:
        """What E2E-VarNet gives, (1, 1, height, width)."""
        A = bare(problem.operator)
        assert isinstance(A, MultiCoilMRI)
        kspace = problem.y.new_zeros(1, *A.maps.shape)
        kspace[..., A.mask] = problem.y
        mask = A.mask[None, None, None, :, None]
        return state.network(torch.view_as_real(kspace), mask, center_width(A.mask))[:, None]
