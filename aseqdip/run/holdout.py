"""What ``stop=holdout`` asks of a run: which choices it goes with, and the case without its held-out values."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from aseqdip.case import Case
from aseqdip.errors import UserError
from aseqdip.methods import start_methods
from aseqdip.methods._classical import check_image_by
from aseqdip.methods.base import Method, Shared
from aseqdip.methods.direct import Direct
from aseqdip.operators.ct import ParallelBeam
from aseqdip.parts import Chosen
from aseqdip.problem import Kind, Problem
from aseqdip.stopping.base import StoppingRule
from aseqdip.stopping.holdout import Holdout, kind_of_part, part_of

log = logging.getLogger(__name__)

Rule = Chosen[StoppingRule] | None


def holds_out(rule: Rule) -> bool:
    """Whether the rule keeps measurements from the method."""
    return rule is not None and issubclass(rule.part, Holdout)


def refits(rule: Rule) -> bool:
    """Whether all measurements are used in the end."""
    return rule is not None and holds_out(rule) and bool(rule.options.holdout_refit)


def to_be_fitted(case: Case, rule: Rule) -> list[Problem]:
    """What a method will be given of a case, one after the other."""
    return [case.problem, case.whole] if case.whole is not None and refits(rule) else [case.problem]


def check_method(rule: Rule, method: type[Method[Any]], options: Any, shared: Shared, kind: Kind) -> None:
    """Raise UserError unless method and rule go with a problem of this kind, and with each other; say what is poor."""
    method.check(options, shared, kind)
    if poor := method.caution(options):
        log.warning("%s", poor)
    if holds_out(rule):
        _check_holdout(method, options, shared, kind)
        if refits(rule) and (wanted := method.wants(options)):
            raise UserError(f"holdout_refit=true does not go with a method that is given {wanted}: leave it out.")
    if method.iterative and rule is not None:
        rule.part.check(method.name, method.offers, kind)


def _check_holdout(method: type[Method[Any]], options: Any, shared: Shared, kind: Kind) -> None:
    if not method.iterative:
        raise UserError(
            f"stop=holdout chooses among iterates, and method={method.name} computes one image, from all measurements: "
            "leave stop out for it."
        )
    if own := method.defaults.get("stop"):
        raise UserError(
            f"method={method.name} is what it is by its own rule, stop={own}: use stop=holdout with another method, "
            "as vanilla_dip."
        )
    with _without_them():
        method.check(options, shared, kind_of_part(kind))


def check_start(rule: Rule, name: str, own: Sequence[str], method: type[Method[Any]], kind: Kind) -> None:
    """Raise UserError unless the method of this name can make the start image of another, for a problem of this kind.

    Args:
        own: what might be said in its place.
    """
    others = start_methods()
    if name not in others:
        raise UserError(f"start={name}: expected {', '.join((*own, *others))}.")
    if method is Direct:
        raise UserError(f"method=direct is the start image itself: leave start out, or use method={name}.")
    check_image_by("start", name, kind)
    if holds_out(rule):
        with _without_them():
            check_image_by("start", name, kind_of_part(kind))


@contextmanager
def _without_them() -> Iterator[None]:
    """What cannot be done once measurements are held out, said to come from that."""
    try:
        yield
    except UserError as error:
        raise UserError(f"stop=holdout leaves measurements out, and without them: {error}") from error


def fitted_case(case: Case, rule: Rule) -> Case:
    """The case that a method is given; ``whole`` then has all measurements, for the rule.

    To be called before anything is computed from the measurements, and on the CPU. UserError where there are too few.
    """
    if rule is None or not holds_out(rule):
        return case
    problem = part_of(case.problem, rule.options.holdout_fraction)
    if isinstance(problem.operator, ParallelBeam) and float(case.problem.z0.min()) >= 0:
        # as its start image is clipped
        problem.z0 = problem.z0.clamp(0, 1 if case.bounded else None)
    return replace(case, problem=problem, whole=case.problem)
