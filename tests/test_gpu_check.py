"""The checks for a GPU, on a CPU with emulated recordings: they pass, on a bare machine too, and they can fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT, load_script

from aseqdip.run.reconstruction import Reconstruction

emulation = load_script("emulation")
gpu_check = load_script("gpu_check")
SETUP = gpu_check.Setup("cpu", tiny=True)

#: what a machine with PyTorch, NumPy, SciPy, scikit-image, h5py and matplotlib need not have
ABSENT = "pydicom wandb tqdm jinja2 pytest fastmri requests joblib submitit hydra_plugins pandas torchvision"
BARE = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
absent = "{ABSENT}".split()
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in absent else find(name, *rest)
"""


@pytest.fixture
def emulated() -> Iterator[None]:
    with emulation.emulated():
        yield


@pytest.mark.slow
def test_all_stages_pass_on_a_bare_machine(tmp_path: Path) -> None:
    """Run as a script, from elsewhere, with nothing installed but what it says it needs."""
    (tmp_path / "sitecustomize.py").write_text(BARE)
    command = [sys.executable, str(ROOT / "scripts/gpu_check.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu-check.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines[1:]} == {"PASS"}
    assert {line["name"].split()[0] for line in lines} == {*gpu_check.STAGES, "device", "gpu-check"} - {"paper"}
    assert len(done.stdout.splitlines()) == len(lines)


def test_every_method_and_every_task_is_recorded_in_both_precisions() -> None:
    from aseqdip.methods import METHODS

    words = list(gpu_check.combinations(gpu_check.Setup("cuda", tiny=False)))
    for precision in ("bf16", "fp32"):
        said = {word for case in words if f"precision={precision}" in case for word in case}
        assert {f"method={name}" for name, method in METHODS.items() if method.learns} <= said  # others record nothing
        assert {f"task={task}" for task in gpu_check.TASKS} <= said
        assert {"stop=wmv", "stop=emv", "stop=discrepancy", "input_update=data_consistent", "network=s2s"} <= said
    tiny = {word for case in (*gpu_check.combinations(SETUP), *gpu_check.comparisons(SETUP)) for word in case}
    assert {f"method={method}" for method in METHODS} - tiny == {"method=bm3d"}


# --- each check fails where what it checks is broken ------------------------------------------------------------------


def test_a_replay_without_its_optimiser_is_seen(emulated: None) -> None:
    def replay(self: Any, real: Callable[[Any], None] = emulation.Graph.replay) -> None:
        self.calls = [call for call in self.calls if "_fused_adam_" not in str(call[0].func)]
        real(self)

    with mock.patch.object(emulation.Graph, "replay", replay), pytest.raises(gpu_check.Wrong, match="dB apart"):
        gpu_check.compare(SETUP, "task=mri")


def test_steps_that_are_not_recorded_are_seen(emulated: None) -> None:
    with (
        mock.patch.object(torch.cuda, "graph", side_effect=RuntimeError("no memory")),
        pytest.raises(gpu_check.Wrong, match="0 of 3 functions were recorded: no memory"),
    ):
        gpu_check.compare(SETUP, "task=mri")


def test_a_record_says_what_was_not_recorded(emulated: None, tmp_path: Path) -> None:
    """Each image's its own."""
    cfg = SETUP.config("task=mri", "images=0:2", outputs=str(tmp_path))
    with mock.patch.object(torch.cuda, "graph", side_effect=RuntimeError("no memory")):
        outcome = gpu_check.reconstruct(cfg)
    assert [record.facts["not_recorded"] for record in outcome.records] == [["no memory"] * 3] * 2


def test_a_random_stream_that_stays_broken_is_seen(emulated: None) -> None:
    with (
        mock.patch.object(emulation.Generator, "graphsafe_set_state", lambda self, state: self),
        pytest.raises(RuntimeError, match="Offset increment"),
    ):
        gpu_check.fallback(SETUP)


def test_resuming_from_zero_is_seen(emulated: None) -> None:
    with (
        mock.patch.object(Reconstruction, "_resume", lambda self: None),
        pytest.raises(gpu_check.Wrong, match="20 steps more after 7"),
    ):
        gpu_check.resume(SETUP)


def test_resuming_with_other_rows_is_seen() -> None:
    curves = {"a": {name: np.arange(20.0) for name in ("psnr", "psnr_ema")}}
    outcome = gpu_check.Outcome(curves, [], [])
    assert "13 steps more" in gpu_check.resumed_rightly(7, np.arange(7.0), 13, outcome, outcome)
    with pytest.raises(gpu_check.Wrong, match="not the checkpoint's"):
        gpu_check.resumed_rightly(7, np.arange(7.0) + 0.01, 13, outcome, outcome)


def test_a_step_that_waits_is_seen(emulated: None) -> None:
    def settle(self: Any) -> None:
        float(self.state.z.sum())

    advance = Reconstruction.advance
    with (
        mock.patch.object(Reconstruction, "advance", lambda self, *t: (settle(self), advance(self, *t))[1]),
        pytest.raises(RuntimeError, match="waits for the device"),
    ):
        gpu_check.no_waiting(SETUP, "task=mri", "steps=20")


def test_no_score_in_one_and_a_score_in_the_other_is_no_agreement() -> None:
    one, other = (
        gpu_check.Outcome({"a": {name: np.array(v) for name in ("psnr", "psnr_ema")}}, [], [])
        for v in ([1.0, np.nan], [1.0, 2.0])
    )
    with pytest.raises(gpu_check.Wrong, match="not the same iterates"):
        gpu_check.gap(one, other)
    assert gpu_check.gap(one, one) == 0
    with pytest.raises(gpu_check.Wrong):
        gpu_check.agree(float("nan"), "")


def test_a_failure_is_one_line_and_an_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu_check.Report(tmp_path / "out" / "a.jsonl")
    report.check("good", lambda: "1.5 dB")
    report.check("bad", lambda: str(1 / 0))
    assert report.end("all", 0.0) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in printed[:2]] == [
        "PASS  good: 1.5 dB",
        "FAIL  bad: ZeroDivisionError: division by zero",
    ]
    assert [json.loads(line)["status"] for line in (tmp_path / "out" / "a.jsonl").open()] == ["PASS", "FAIL", "FAIL"]
