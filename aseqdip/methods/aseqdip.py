"""Autoencoding sequential deep image prior (Alkhouri, Liang et al., NeurIPS 2024)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods.base import Iterate, NetworkMethod, NetworkState, Shared
from aseqdip.methods.tv_dip import total_variation
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem


class ASeqDIP(NetworkMethod):
    """Algorithm 1: for k = 1..K,

        phi_k = argmin_phi ||A f_phi(z_{k-1}) - y||^2 + lam ||f_phi(z_{k-1}) - z_{k-1}||^2   (N Adam steps)
        z_k   = f_{phi_k}(z_{k-1})

    from z_0 = y or A^H y; the result is z_K. steps = N K. One Adam lives through all k.
    """

    name = "aseqdip"
    title = "aSeqDIP"
    paper = "Alkhouri, Liang et al.: Image reconstruction via autoencoding sequential deep image prior, NeurIPS 2024"

    @dataclass
    class Options:
        N: int = knob("parameter updates per input update; steps must be a multiple", 2, low=1)
        lam: float = knob("weight lambda of the autoencoding term", 1.0, low=0)
        tv_weight: float = knob("weight of total variation of the output, which the paper has not", 0.0, low=0)
        input_update: str = knob(
            "next input z is the network's output (paper), that made consistent with the data, or 2y - f(z)",
            "network",
            choices=("network", "data_consistent", "reflection"),
        )

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if shared.steps % options.N:
            raise UserError(
                f"steps={shared.steps} is not a multiple of N={options.N}: each input update follows N parameter "
                f"updates; use steps={shared.steps // options.N * options.N or options.N} or another N."
            )
        if options.input_update == "reflection" and not kind.image:
            raise UserError(
                f"input_update=reflection (2y - f) needs measurements that are an image; task={kind.task} has none."
            )
        if options.input_update == "data_consistent" and not kind.linear:
            raise UserError(
                "input_update=data_consistent needs a linear operator: use input_update=network, or for deblurring "
                "kernel=motion."
            )

    @property
    def extra_passes(self) -> float:  # type: ignore[override]
        return 1 / self.options.N

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        A, y, N, lam = problem.operator, problem.y, self.options.N, self.options.lam
        f, z = state.network, state.z

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = f(z)
            data, autoencoding = self.distance(A(x) - y), self.distance(x - z)
            loss, terms = data + lam * autoencoding, {"data": data, "autoencoding": autoencoding}
            if weight := self.options.tv_weight:
                terms["regulariser"] = weight * total_variation(x, isotropic=True)
                loss = loss + terms["regulariser"]
            return x, {"loss": loss, **terms}

        @torch.no_grad()
        def update_input() -> Tensor:
            x: Tensor = f(z)  # one more pass, with the weights after the N-th step
            z.copy_(self.next_input(x, problem))
            return x

        descend = self.engine.descend(objective, state.optimiser, f, state.rng)
        update_input = self.engine.repeat(update_input)
        for step in range(state.step + 1, self.shared.steps + 1):
            x, terms = descend()  # line 4
            if step % N == 0:
                x = update_input()  # line 5
            state.step = step
            yield Iterate(step, x, terms)

    def next_input(self, x: Tensor, problem: Problem) -> Tensor:
        """z_k from x = f(z_{k-1}): x itself (paper), or a variant found in the authors' released scripts."""
        A, y = problem.operator, problem.y
        if self.options.input_update == "network":
            return x
        if self.options.input_update == "data_consistent":
            return x + A.correction(y - A(x))
        return 2 * y - x
