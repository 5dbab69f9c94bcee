"""The one-step reconstruction every other method is measured against."""

from collections.abc import Iterator

from aseqdip.methods.base import Iterate, Method, State
from aseqdip.problem import Problem


class Direct(Method):
    """Zero-filled A^H y (MRI), filtered back-projection (CT), or the measurement itself (pictures)."""

    knobs = ()

    def start(self, problem: Problem) -> State | None:
        return None

    def iterates(self, problem: Problem, state: State | None) -> Iterator[Iterate]:
        x = problem.z0
        data = (problem.operator(x) - problem.y).abs().square().sum()
        yield Iterate(1, x, {"loss": data, "data": data})
