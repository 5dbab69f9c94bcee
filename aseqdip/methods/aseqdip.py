"""Autoencoding sequential deep image prior (Alkhouri, Liang et al., NeurIPS 2024)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aseqdip.methods.base import Iterate, Method, State
from aseqdip.problem import Problem


class ASeqDIP(Method):
    """Algorithm 1: for k = 1..K,

        phi_k = argmin_phi ||A f_phi(z_{k-1}) - y||^2 + lam ||f_phi(z_{k-1}) - z_{k-1}||^2   (N Adam steps)
        z_k   = f_{phi_k}(z_{k-1})

    from z_0 = y or A^H y; the result is z_K. steps = N K. One Adam lives through all k.
    """

    knobs = (*Method.knobs, "N", "lam", "input_update")

    @property
    def extra_passes(self) -> float:  # type: ignore[override]
        return 1 / self.cfg.N

    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        assert state is not None
        A, y, N, lam = problem.operator, problem.y, self.cfg.N, self.cfg.lam
        f, z = state.network, state.z

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = f(z)
            data, autoencoding = self.distance(A(x) - y), self.distance(x - z)
            return x, {"loss": data + lam * autoencoding, "data": data, "autoencoding": autoencoding}

        @torch.no_grad()
        def update_input() -> Tensor:
            x: Tensor = f(z)  # one more pass, with the weights after the N-th step
            z.copy_(self.next_input(x, problem))
            return x

        descend = self.engine.descend(objective, state.optimiser, f, state.rng)
        update_input = self.engine.repeat(update_input)
        for step in range(state.step + 1, self.cfg.steps + 1):
            x, terms = descend()  # line 4
            if step % N == 0:
                x = update_input()  # line 5
            state.step = step
            yield Iterate(step, x, terms)

    def next_input(self, x: Tensor, problem: Problem) -> Tensor:
        """z_k from x = f(z_{k-1}): x itself (paper), or a variant found in the authors' released scripts."""
        A, y = problem.operator, problem.y
        if self.cfg.input_update == "network":
            return x
        if self.cfg.input_update == "data_consistent":
            return x + A.direct(y - A(x))  # linear A: tasks.check_combination
        return 2 * y - x
