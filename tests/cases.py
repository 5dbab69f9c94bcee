"""What many tests make of a config: its first image's case, its method, all iterates."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from aseqdip.case import Case
from aseqdip.config import Config, make_task
from aseqdip.data import open_dataset
from aseqdip.data.base import Sample
from aseqdip.engine import Engine
from aseqdip.methods.base import Iterate, Method
from aseqdip.run.runner import check_combination

#: the fixture ``configure`` of conftest.py
Configure = Callable[..., Config]


def case_of(cfg: Config) -> Case:
    """The case of a config's first image, checked as a run would."""
    check_combination(cfg)
    return sampled(cfg)[2]


def sampled(cfg: Config) -> tuple[str, Sample, Case]:
    """The name of a config's first image, what was read of it, and its case."""
    name, load = next(iter(open_dataset(cfg).items()))
    sample = load()
    return name, sample, make_task(cfg).make(name, sample)


def method_of(cfg: Config, case: Case, cls: type[Method] | None = None) -> Method:
    """The config's method for a case, in fp32 on the CPU; or another class, with its own defaults."""
    options = cfg.method.options if cls is None else cls.Options()
    return (cls or cfg.method.part)(options, cfg.shared(), Engine("cpu", "fp32"), case.signed)


def iterates(cfg: Config, case: Case, cls: type[Method] | None = None) -> list[Iterate]:
    """All iterates, each with an image of its own."""
    method = method_of(cfg, case, cls)
    found = method.iterates(case.problem, method.start(case.problem))
    return [dataclasses.replace(i, image=i.image.clone()) for i in found]


def begun(cfg: Config) -> tuple[Case, Method, Any]:
    """The case of a config's first image, the method for it, and the state it begins with."""
    case = case_of(cfg)
    method = method_of(cfg, case)
    return case, method, method.start(case.problem)


def whole_and_resumed(cfg: Config) -> tuple[list[Tensor], list[Tensor]]:
    """All iterates' images; and those after the second of a run that went on from what was saved there."""
    case, method, state = begun(cfg)
    images = [iterate.image.clone() for iterate in method.iterates(case.problem, state)]
    half = method.start(case.problem)
    steps = method.iterates(case.problem, half)
    next(steps), next(steps)
    saved, again = half.state_dict(), method.start(case.problem)
    again.load_state_dict(saved)
    return images, [iterate.image for iterate in method.iterates(case.problem, again)]


def solved(cfg: Config) -> tuple[Case, list[Iterate]]:
    """The case of a config's first image, and all iterates for it."""
    case = case_of(cfg)
    return case, iterates(cfg, case)
