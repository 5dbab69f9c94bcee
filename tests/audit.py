"""Notes every knob that code reads while a run computes, and compares with what the run's identity holds."""

import dataclasses
import sys
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from aseqdip import identity
from aseqdip.config import ITERATING, LEARNING, Config, catalogue
from aseqdip.parts import Chosen

T = TypeVar("T")

#: these read every knob there is, without using any
BOOKKEEPERS = ("aseqdip.identity", "aseqdip.config", "dataclasses")


def noting(thing: T, prefix: str, seen: set[str]) -> T:
    """The same dataclass instance, whose knobs are noted in ``seen`` when they are read."""
    names = {f.name for f in dataclasses.fields(thing) if "help" in f.metadata}

    class Noting(type(thing)):
        def __getattribute__(self, name: str) -> Any:
            if name in names and sys._getframe(1).f_globals["__name__"] not in BOOKKEEPERS:
                seen.add(prefix + name)
            return super().__getattribute__(name)

    copy: T = object.__new__(Noting)
    copy.__dict__.update(thing.__dict__)
    return copy


def audited(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, set[str], set[str]]:
    """The config for a run, and two sets that its run fills: knobs read by parts, and by whatever runs them."""
    by_parts: set[str] = set()
    by_runner: set[str] = set()
    shared = Config.shared
    monkeypatch.setattr(Config, "shared", lambda self: noting(shared(self), "", by_parts))

    def noted(chosen: Chosen[Any], prefix: str = "") -> Chosen[Any]:
        return replace(chosen, options=noting(chosen.options, prefix, by_parts))

    network = noting(cfg.network, "network.", by_parts)
    network.options = noting(cfg.network.options, "network.", by_parts)
    dataset = replace(cfg.dataset, reader=noted(cfg.dataset.reader, "dataset."))
    rule = None if cfg.rule is None else noted(cfg.rule)
    parts = replace(cfg, task=noted(cfg.task), method=noted(cfg.method), rule=rule, network=network, dataset=dataset)
    return noting(parts, "", by_runner), by_parts, by_runner


def forgotten(cfg: Config, by_parts: set[str], by_runner: set[str]) -> set[str]:
    """What was read and is not in the identity. Of the runner alone, a declaration that it changes no result is
    believed.
    """
    known = {*identity.identity(cfg), *(["network.name"] if cfg.learns else [])}  # it is said as "network"
    harmless = {name for name, all_ in catalogue().items() if not any(k.field.metadata["result"] for k in all_)}
    if not cfg.learns:
        harmless |= {*LEARNING}
    if not cfg.method.part.iterative:
        harmless |= {*ITERATING}
    files = {name for name in harmless if name.startswith("dataset.")}  # a reader's: what they hold counts, as content
    return by_parts - known - files | by_runner - known - harmless
