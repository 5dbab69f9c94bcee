"""The one-step reconstruction every other method is measured against."""

from collections.abc import Iterator

from aseqdip.methods.base import Iterate, Method, State
from aseqdip.problem import Problem


class Direct(Method[State]):
    """Zero-filled A^H y (MRI), filtered back-projection (CT), or the measurement itself (pictures)."""

    name = "direct"
    title = "Direct"
    group = "classical"
    iterative = learns = False

    def start(self, problem: Problem) -> State:
        return State()

    def iterates(self, problem: Problem, state: State) -> Iterator[Iterate]:
        if state.step < 1:
            x = problem.z0
            data = (problem.operator(x) - problem.y).abs().square().sum()
            state.step = 1
            yield Iterate(1, x, {"loss": data, "data": data})
