"""Launchers: wherever a sweep's jobs run, their results are the same; killed and restarted, it ends the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
WORDS = ("-m", "preset=smoke", "device=cpu", "precision=fp32", "lam=0.5,2", "steps=6")


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *words]


def sweep(folder: Path, *words: str) -> Path:
    """Run a sweep in a folder of its own; returns where its results are."""
    folder.mkdir(exist_ok=True)
    # one thread: the order of summation, and so the last bit, is the number of threads'
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command(*words), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "outputs"


def results(outputs: Path) -> dict[str, tuple[Any, ...]]:
    """Folder -> scores, curve and arrays of everything finished below a folder."""
    found = {}
    for path in sorted(outputs.rglob("record.json")):
        with np.load(path.parent / "reconstruction.npz", allow_pickle=False) as saved:
            arrays = {name: saved[name].tobytes() for name in saved.files}
        scores = json.loads(path.read_text())["scores"]
        found[str(path.parent.relative_to(outputs))] = (
            scores,
            (path.parent / "curve.csv").read_text(),
            arrays,
        )
    return found


@pytest.mark.slow
def test_every_launcher_gives_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    expected = results(sweep(tmp_path / "basic", *WORDS))
    assert len(expected) == 2
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert results(sweep(tmp_path / "joblib", *WORDS, *joblib)) == expected
    assert results(sweep(tmp_path / "submitit", *WORDS, "hydra/launcher=submitit_local")) == expected


@pytest.mark.slurm
def test_slurm_gives_the_same_bits(tmp_path: Path) -> None:
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm is running here: tests/slurm.sh starts one on this machine")
    expected = results(sweep(tmp_path / "basic", *WORDS))
    slurm = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=null", "hydra.launcher.gpus_per_node=null")
    assert results(sweep(tmp_path / "slurm", *WORDS, *slurm, "hydra.launcher.cpus_per_task=1")) == expected


@pytest.mark.slow
def test_a_campaign_killed_three_times_ends_the_same(tmp_path: Path) -> None:
    """At random moments, once with the chance to save and twice without, and started again each time."""
    words = ("-m", "preset=smoke", "device=cpu", "precision=fp32", "steps=100", "lam=0.5,2", "images=0:2")
    words = (*words, "checkpoint_minutes=0.005", "size=32", "network.width=4", "network.depth=2", "coils=4")
    expected = results(sweep(tmp_path / "whole", *words))
    assert len(expected) == 4
    moments, folder = random.Random(time.time_ns()), tmp_path / "parts"
    folder.mkdir()
    for kill in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        log = tmp_path / "log"
        with log.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command(*words), cwd=folder, env=environment, stdout=file, stderr=file)
            deadline = time.monotonic() + 120
            while "preset=smoke, seed" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            wait = moments.uniform(0.1, 1)
            time.sleep(wait)
            process.send_signal(kill)
            process.wait(timeout=60)
        assert process.returncode in (-kill, 128 + kill), f"killed after {wait:.2f} s: {log.read_text()}"
    assert results(sweep(folder, *words)) == expected
    assert not list(folder.rglob("checkpoint.pt"))
