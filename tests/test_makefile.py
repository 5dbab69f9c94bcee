"""make setup: the PyTorch that was asked for is the one that stays."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

FAKE = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *importlib.metadata*) echo torch==2.11.0+cu130;; esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_setup_keeps_the_torch_it_was_given(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / ".venv/bin/python"
    fake.parent.mkdir(parents=True)
    fake.write_text(FAKE)
    fake.chmod(0o755)
    log = tmp_path / "log"
    words = ["make", "setup", f"PYTHON={fake}", "TORCH=torch==2.11.0 --index-url https://example.org/cu130"]
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "LOG": str(log)}, check=True, capture_output=True)
    installs = [line for line in log.read_text().splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert "torch==2.11.0 --index-url https://example.org/cu130" in installs[0]
    constraints = [(tmp_path / name).read_text() for name in re.findall(r"--constraint (\S+)", installs[1])]
    assert "torch==2.11.0+cu130\n" in constraints, "what is installed, to the letter"
    pinned = [line for text in constraints for line in text.splitlines() if re.match(r"torch(vision|audio)?=", line)]
    assert pinned == ["torch==2.11.0+cu130"], "a pinned torchvision would bring its own torch"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("target", ["gpu-check", "gpu-bench", "campaign"])
def test_gpu_targets_need_no_setup(target: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    words = ["make", "--no-print-directory", "-n", target, "PYTHON=python9", "DEVICE=cpu", "TINY=1", "OUT=slot"]
    printed = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed.startswith(f"python9 scripts/{target.replace('-', '_')}.py")
    assert "pip" not in printed
    assert (ROOT / printed.split()[1]).is_file()
