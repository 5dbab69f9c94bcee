"""Morozov's discrepancy principle."""

from aseqdip.errors import UserError
from aseqdip.problem import Kind, Problem
from aseqdip.stopping.base import Crossing

UNKNOWN = (
    "stop=discrepancy stops once the data fit to within the noise, so its level must be known; that of {} is not: "
)
GIVE = "give a level (sigma for pictures, noise for MRI) above 0, or use stop=wmv."
NOTHING = "no setting tells it. Use stop=wmv."
PYTHON = "give noise_std=..., its standard deviation per real number, above 0, or use stop='wmv'."


class Discrepancy(Crossing):
    """The last iterate before the data are fitted better than the noise in them allows.

    It is told by the objective's data term, which is that of the iterate's step: an image from after an update of the
    input (aSeqDIP), or without the noise on the input (``perturb``, at the last step), may fit a bit better than that.
    """

    name = "discrepancy"
    title = "discrepancy principle"
    paper = "Morozov: On the solution of functional equations by the method of regularization, 1966"
    watches = "data"
    needs = ("residual", "compares ||A x - y||^2 with the noise")

    @classmethod
    def check(cls, method: str, offers: frozenset[str], kind: Kind) -> None:
        super().check(method, offers, kind)
        if kind.noise:
            return
        if kind.task == "operator":
            raise UserError(UNKNOWN.format("y") + PYTHON)
        raise UserError(UNKNOWN.format(f"task={kind.task}") + (NOTHING if kind.noise is None else GIVE))

    def ending(self, steps: int) -> str:
        if self.step == 1 < steps:
            return "the first: from there on the data are fitted closer than their noise"
        return super().ending(steps)

    def begin(self, problem: Problem, squared: bool) -> None:
        energy = noise_energy(problem)
        self.threshold = energy if squared else energy**0.5


def noise_energy(problem: Problem) -> float:
    """E ||n||^2 of the noise n in y: its variance times the number of real values measured.

    What is not measured is exactly 0 in y. Raises UserError where the noise level is not known.
    """
    if not problem.noise_std:
        raise UserError(UNKNOWN.format(problem.image) + (NOTHING if problem.noise_std is None else GIVE))
    values = int((problem.y != 0).sum()) * (2 if problem.y.is_complex() else 1)
    return problem.noise_std**2 * values
