"""Shared by all tests: composed configs, real data if there is any, and the three checks of a linear operator."""

import copy
import gc
import importlib.util
import os
import re
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads cost more than they bring

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import omegaconf._utils
import pytest
import torch
import yaml
from fuzz import summary
from omegaconf import DictConfig

from aseqdip import compose as compose_module
from aseqdip import figures
from aseqdip.compose import compose
from aseqdip.config import Config

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ASEQDIP_TEST_DATA", ROOT.parent / "shared" / "data"))

# Thousands of configs are composed here, half of the time of small runs. What reads their YAML is made anew for every
# file and of Python; made once and in C it reads the same. Commands, in processes of their own, have the usual one.
omegaconf._utils.get_yaml_loader = cache(omegaconf._utils.get_yaml_loader)
with mock.patch.object(yaml, "SafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    omegaconf._utils.get_yaml_loader()
gc.freeze()  # what was imported stays: no looking for garbage among it


def _remembering(work: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Composes the same words once, wherever their outputs go: they differ from test to test."""
    known: dict[tuple[str, ...], DictConfig] = {}

    def composed(words: Sequence[str], with_hydra: bool = False) -> DictConfig:
        outputs = [word.partition("=")[2] for word in words if word.startswith("outputs=")]
        others = [word for word in words if not word.startswith("outputs=")]
        plain = len(outputs) == 1 and re.fullmatch(r"/[\w/.-]+", outputs[0])
        if not plain or with_hydra or any(word.startswith("hydra") for word in words):
            return work(words, with_hydra)
        key = (str(compose_module.config_folder()), *others)
        if key not in known:
            known[key] = work(words)
        found = copy.deepcopy(known[key])
        found.outputs = outputs[0]
        return found

    return composed


compose_module._composed = _remembering(compose_module._composed)


def load_script(name: str) -> ModuleType:
    """A module of ``scripts/``, which is no package; the same one for all who ask, since they import each other."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of fast tests first; last where several processes share them, so that none ends with a slow file alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in slow) == ("PYTEST_XDIST_WORKER" not in os.environ))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases the tests with random damage tried."""
    reports = [r for stats in terminalreporter.stats.values() for r in stats if getattr(r, "when", "") == "call"]
    for line in summary([value for report in reports for name, value in report.user_properties if name == "fuzz"]):
        terminalreporter.write_line(line)


@pytest.fixture
def data() -> Path:
    """The folder of real test data; skips where there is none."""
    if not DATA.is_dir():
        pytest.skip(f"no real test data in {DATA} (set ASEQDIP_TEST_DATA)")
    return DATA


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone() -> Iterator[None]:
    """Every random number must come from a generator of its own."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state()), "torch's global random state was used"
    assert (before[1] == np.random.get_state()[1]).all(), "NumPy's global random state was used"  # noqa: NPY002


@pytest.fixture
def pictures() -> None:
    """For tests that look at a run's pictures."""


@pytest.fixture(autouse=True)
def nothing_is_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run in this process spends half of its time on pictures; only tests that ask for ``pictures`` get any."""
    if "pictures" not in request.fixturenames:
        for picture in ("preview", "curve"):
            monkeypatch.setattr(figures, picture, lambda *args: None)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """``configure("task=ct", "views=18")``: the typed config of a smoke run into a temporary folder."""

    def make(*overrides: str) -> Config:
        given = {o.split("=")[0] for o in overrides}
        defaults = ["preset=smoke", "device=cpu", "precision=fp32", f"outputs={tmp_path / 'outputs'}"]
        words = [d for d in defaults if d.split("=")[0] not in given] + list(overrides)
        return compose(words)

    return make
