"""The benchmark: its plain loop solves the same problem as ours, its table holds what it measured."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import load_script

from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.tasks import make_case

Configure = Callable[..., Config]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmark")


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_plain_operator_is_ours(configure: Configure, benchmark: ModuleType, task: str) -> None:
    cfg = configure(f"task={task}")
    name, load = next(iter(open_dataset(cfg).items()))
    case = make_case(cfg, name, load())
    A, x = case.problem.operator, case.problem.z0
    ours, plain = A(x), benchmark.naive_operator(case, cfg.views)(x)
    if task == "mri":
        full = torch.zeros_like(plain)
        full[..., A.mask] = ours
        torch.testing.assert_close(plain, full, rtol=1e-4, atol=1e-5)
    elif task == "ct":  # rotation samples other points, and may turn the other way
        energy = [float(sinogram.square().sum()) for sinogram in (ours, plain)]
        assert energy[1] == pytest.approx(energy[0], rel=0.05)
    else:
        assert torch.equal(ours, plain)


def test_plain_loop_runs(configure: Configure, benchmark: ModuleType) -> None:
    cfg = configure("task=ct")
    name, load = next(iter(open_dataset(cfg).items()))
    steps = benchmark.naive_steps(cfg, make_case(cfg, name, load()))
    next(steps), next(steps)


def test_table(benchmark: ModuleType) -> None:
    row = {key: 2e9 for _, key, _ in benchmark.COLUMNS} | {"case": "mri", "device": "cpu x2"}
    lines = benchmark.table([row]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| mri | cpu x2 | 2e+09 |")
    assert benchmark.peak_resident_mb() > 50
