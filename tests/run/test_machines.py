"""Machines that fail: a full disk, no home folder, no UTF-8, nobody who reads. What is finished stays; each command
ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WORDS = (
    *("preset=smoke", "device=cpu", "precision=fp32", "network.width=4", "network.depth=2", "size=32", "coils=4"),
    *("images=0:2", "checkpoint_minutes=1e-4"),
)


def command(folder: Path, *words: str, ending: str = "", **variables: str | None) -> "subprocess.CompletedProcess[str]":
    """The command in a shell, with an ending of its line; a variable of None is taken away."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
    line = f'"{sys.executable}" "{ROOT / "run.py"}" {" ".join((*WORDS, *words))} {ending}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )


def done(folder: Path) -> int:
    return len(list(folder.rglob("record.json")))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["| head -1", "2>&1 | head -1", "2>&-", ">&- 2>&- <&-", "> /dev/full 2>&1"])
def test_nobody_who_reads_costs_no_image(tmp_path: Path, ending: str) -> None:
    result = command(tmp_path, "method=tv", "iterations=9", ending=ending)
    assert (result.returncode, done(tmp_path)) == (0, 2), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": None, "USER": None, "LOGNAME": None},
        {"HOME": "/dev/null/nowhere"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_poor_environment_costs_nothing(tmp_path: Path, variables: dict[str, str | None]) -> None:
    result = command(tmp_path, "method=tv", "iterations=9", "tracker=wandb", **variables)
    assert (result.returncode, done(tmp_path)) == (0, 2), result.stderr
    assert "Traceback" not in result.stderr
    late = "W&B did not finish within 5 s" in result.stderr  # on a busy machine
    assert len(list(tmp_path.rglob("*.wandb"))) in ([1, 2] if late else [2]), "W&B, too"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root can make a small disk here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, small_disk: Path) -> None:
    words = (f"outputs={small_disk / 'outputs'}",)
    assert command(tmp_path, *words, "images=0").returncode == 0
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "other").write_bytes(b"0" * (free - 20_000))
    result = command(tmp_path, *words)
    assert (result.returncode, done(small_disk)) == (1, 1), result.stdout
    said = result.stdout + result.stderr
    assert "brain01: no checkpoint could be written" in said
    assert "brain01 failed: No space left on device" in said
    assert "free some space, or set outputs=..." in said
    assert "Traceback" not in said
    assert "enforce fail" not in said
    (small_disk / "other").unlink()
    again = command(tmp_path, *words)
    assert (again.returncode, done(small_disk)) == (0, 2), again.stdout


@pytest.mark.slow
def test_a_read_only_folder_is_bad_input(tmp_path: Path) -> None:
    result = command(tmp_path, "outputs=/proc/nowhere")
    assert result.returncode == 2
    assert "Results cannot be written to /proc/nowhere" in result.stderr
    assert "Traceback" not in result.stderr
