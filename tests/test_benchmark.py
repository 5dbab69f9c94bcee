"""The benchmark: its plain loop solves the same problem as ours, its table holds what it measured."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cases import Configure
from conftest import ROOT, load_script

from aseqdip.engine import Graph

emulation = load_script("emulation")
gpu_check = load_script("gpu_check")
TINY = (*gpu_check.TINY, "precision=fp32")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmark")


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_plain_operator_is_ours(configure: Configure, benchmark: ModuleType, task: str) -> None:
    cfg = configure(f"task={task}")
    case = benchmark.load(cfg)
    A, x = case.problem.operator, case.problem.z0
    ours, plain = A(x), benchmark.naive_operator(case, getattr(cfg.task.options, "views", 0))(x)
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
    steps = benchmark.naive_steps(cfg, benchmark.load(cfg))
    next(steps), next(steps)


def test_each_loop_has_its_own_switches(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain one those of a process without an engine; and both are timed after the first recordings."""
    seen: dict[str, list[tuple[bool, str]]] = {"naive_steps": [], "our_steps": []}

    def watch(name: str) -> None:
        real = getattr(benchmark, name)

        def steps(*args: object) -> Iterator[object]:
            for value in real(*args):
                seen[name].append((torch.backends.cudnn.benchmark, torch.backends.cudnn.conv.fp32_precision))
                yield value

        monkeypatch.setattr(benchmark, name, steps)

    watch("naive_steps"), watch("our_steps")
    monkeypatch.setitem(benchmark.CASES, "mri", ("task=mri", *TINY))
    monkeypatch.setattr(benchmark, "alone", lambda *args: {"peak_mb": 0.0, "first_cycle_s": 0.0})
    monkeypatch.setattr(benchmark, "ceilings", lambda *args: (1e9, 1e9))
    row = benchmark.measure("mri", "cpu", 2)
    assert set(seen["naive_steps"]) == {(False, "tf32")}
    assert set(seen["our_steps"]) == {(True, "ieee")}
    assert row["ours_step_s"] > 0
    assert row["network_step_s"] > 0


def test_a_gpu_is_warm_before_the_first_timed_cycle(benchmark: ModuleType) -> None:
    """The input's update runs once a cycle: three times, and then it is recorded."""
    assert benchmark.warm_up(torch.device("cuda")) > Graph.warm_up + 1


def test_ceilings_are_of_random_numbers(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    monkeypatch.setattr(benchmark, "median_seconds", lambda work, device, repeats: results.append(work()) or 1.0)
    flops, copied = benchmark.ceilings(torch.device("cpu"), "bf16", 64)
    assert flops == 2 * 64**3
    assert copied == 2 * 64**2 * 4
    assert results[0].dtype == torch.bfloat16
    assert all(float(result.float().std()) > 0.5 for result in results)


def test_the_network_is_timed_from_a_recording(benchmark: ModuleType, tmp_path: Path) -> None:
    """Not the launches of its kernels."""
    cfg = benchmark.configure("mri", "cpu", *TINY)
    with emulation.emulated():
        run = benchmark.prepared(cfg, benchmark.load(cfg))
        run.advance()
        with gpu_check.watched() as graphs:
            assert benchmark.network_seconds(run, 1) > 0
    assert len(graphs) == 2
    assert all(graph.graph is not None for graph in graphs)


@pytest.mark.slow
def test_gpu_bench_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/gpu_bench.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu-bench.jsonl").read_text().splitlines()]
    by_name = {line["name"]: line for line in lines}
    assert by_name["steps task=ct"]["of ceiling"] > 0
    assert len(by_name["kernels task=mri"]["of them"]) == 10
    assert by_name["levers task=mri"]["other layout"] > 0
    assert by_name["images task=mri parallel=8"]["images/h"] > 0


def test_a_recording_that_failed_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    load_script("benchmark")
    gpu_bench = load_script("gpu_bench")
    setup = gpu_check.Setup("cpu", tiny=True)
    monkeypatch.setattr(gpu_check.Setup, "cuda", True)
    with emulation.emulated(), pytest.raises(gpu_check.Wrong, match="not recorded"):
        monkeypatch.setattr(torch.cuda, "graph", lambda *args, **options: 1 / 0)
        with gpu_bench.warmed(setup, "task=mri"):
            pass


def test_table(benchmark: ModuleType) -> None:
    row = {key: 2e9 for _, key, _ in benchmark.COLUMNS} | {"case": "mri", "device": "cpu x2"}
    lines = benchmark.table([row]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| mri | cpu x2 | 2e+09 |")
    assert benchmark.peak_resident_mb() > 50
