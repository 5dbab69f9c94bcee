"""The command line as a user meets it: real processes, real sweeps, a real kill, a real wheel."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aseqdip import __version__, usage
from aseqdip.cli import importing, main
from aseqdip.compose import choices
from aseqdip.config import PREFIX, knobs_of, parts, shared_knobs

ROOT = Path(__file__).parent.parent


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "device=cpu", "precision=fp32", *words]


def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``refused("lam=abc")``: what a command in this process says, in an empty folder, that ends with status 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    for name in ("ASEQDIP_STARTED", "ASEQDIP_JOBS", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "0")  # so that it is as before afterwards

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["device=cpu", "precision=fp32", *words])
        assert ended.value.code == 2
        assert not list(tmp_path.iterdir()), "nothing is left behind"
        return capfd.readouterr().err

    return said


def test_a_refused_command_is_a_line_and_a_status(tmp_path: Path) -> None:
    """As in a process of its own, so here."""
    result = call("stepz=10", cwd=tmp_path)
    assert result.returncode == 2
    assert "Did you mean steps" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lam=abc",), "lam=abc: expected a number"),
        (("stepz=10",), "Did you mean steps"),
        (("accel=0",), "expected more than 1"),
        (("-m", "lam=1,-1"), "expected at least 0"),
        (("seeds=0,-1",), "seeds=-1: expected at least 0"),
        (("outputs=~nobody-of-that-name/x",), "there is no user nobody-of-that-name"),
        (("steps=${nope}",), "steps: Interpolation key 'nope' not found"),
        (("--cfg", "job", "--resolve", "lam=${nope}"), "lam: Interpolation key 'nope' not found"),
        (("-m", "experiment=table2", "--cfg", "job"), "--cfg shows the settings of one run"),
        (("experiment=table2",), "This is a sweep over images and cell: add -m"),
        (("--resolve",), "--resolve says how --cfg shows the settings"),
        (("--cfg", "job", "--info"), "--cfg and --info each say what to do"),
        (("-cn", "nope"), "-cn: the configuration is the package's own"),
        (("--help", "nothing"), "expected settings, or one of ct"),
    ],
)
def test_wrong_words_exit_with_two_and_one_line(
    refused: Callable[..., str], words: tuple[str, ...], message: str
) -> None:
    said = refused(*words)
    assert message in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


def test_help_comes_in_layers() -> None:
    short = usage.text([])
    assert len(short.splitlines()) <= 45
    assert max(map(len, short.splitlines())) <= 120
    assert all(choice in short for group in usage.GROUPS for choice in choices(group))
    every = usage.text(["settings"])
    assert all(f"  {known.name} " in every for known in shared_knobs())
    for kind, name, part in parts():
        page = usage.text([f"{kind}={name}"])
        assert part.title in page
        assert all(f"  {known.name} " in page for known in knobs_of(part.Options, PREFIX[kind]))
    assert "weight lambda of the autoencoding term (at least 0) [1]" in usage.text(["aseqdip"])
    assert "[512; mri 320]" in short and "[512; mri 320]" in " ".join(every.split()), "not native, the knob's own"
    assert "[0; rethinking_dip 0.99]" in short
    assert "[64; s2s 48, skip 128]" in every
    assert "[1; mri 2]" in usage.text(["self_guided_dip"])
    assert "[0.01; ct 0.001, deblurring 0.001]" in " ".join(usage.text(["tv_dip"]).split())
    assert "[2000; smoke 4, quick 100]" in usage.text(["mcg"])
    assert "[false; dataset=folder true]" in usage.text(["picture"])
    ct = usage.text(["ct"])
    assert "task=ct " in ct and "dataset.reader=ct " in ct, "both are called ct"


@pytest.mark.slow
def test_what_is_shown_instead_of_run(tmp_path: Path) -> None:
    assert call("--help", cwd=tmp_path).stdout.startswith("aseqdip: image reconstruction without training data")
    assert call("--version", cwd=tmp_path).stdout == f"aseqdip {__version__}\n"
    shown = call("lam=3", "task=ct", "--cfg", "job", cwd=tmp_path).stdout
    assert "lam: 3" in shown and "views: 30" in shown
    environment = {**os.environ, "COMP_LINE": "run.py method=tv_", "COMP_POINT": "17"}
    query = [sys.executable, str(ROOT / "run.py"), "-sc", "query=bash"]
    assert subprocess.check_output(query, env=environment, text=True).strip() == "method=tv_dip"
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.slow
def test_words_without_effect_and_names_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "my data (1) é"
    folder.mkdir()
    Image.new("RGB", (80, 70), (200, 90, 20)).save(folder / "[a] b.png")
    words = ("task=denoising", "method=tv", "preset=smoke", "dataset=folder", f"data_root={folder}", "images=[a] b")
    result = call(*words, "outputs=my results", "accel=8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("accel has no effect: it belongs to task=mri, and this is task=denoising.") == 1
    assert len(list((tmp_path / "my results").rglob("record.json"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "my results"}


@pytest.mark.slow
def test_a_users_own_configs(tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nlam: 7\n")
    result = call("preset=smoke", "experiment=own", "--config-dir", "mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (record,) = (tmp_path / "outputs").rglob("record.json")
    assert json.loads(record.read_text())["settings"]["lam"] == 7


@pytest.mark.slow
def test_a_user_error_has_no_traceback(tmp_path: Path) -> None:
    result = call("preset=smoke", "dataset=kspace", "data_root=nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "The data folder nowhere does not exist" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_failed_image_is_reported_and_the_exit_is_not_zero(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    Image.new("RGB", (80, 70), (200, 90, 20)).save(tmp_path / "b.png")
    words = ("task=denoising", "method=tv", "preset=smoke", "dataset=folder", "data_root=.", "images=all")
    result = call(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert "a failed: a.png could not be read" in result.stdout
    assert "1 done, 0 skipped, 1 failed" in result.stdout
    assert len(list((tmp_path / "outputs").rglob("record.json"))) == 1


@pytest.mark.slow
def test_a_sweep_twice(tmp_path: Path) -> None:
    words = ("-m", "experiment=lambda_ablation", "preset=smoke", "images=0")
    first, second = call(*words, cwd=tmp_path), call(*words, cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    records = sorted((tmp_path / "outputs").rglob("record.json"))
    assert sorted(json.loads(r.read_text())["settings"]["lam"] for r in records) == [0.5, 1, 2]
    assert second.stdout.count("Nothing to do: all 1 image(s) were finished before.") == 3


@pytest.mark.slow
def test_a_sweep_survives_a_bad_job(tmp_path: Path) -> None:
    result = call("-m", "preset=smoke", "method=tv", "iterations=9", "images=0,99,30:40,1", cwd=tmp_path)
    assert result.returncode == 2, "bad input"
    assert len(list((tmp_path / "outputs").rglob("record.json"))) == 2
    assert "images=99: there is no such image" in result.stdout + result.stderr
    assert "Nothing to do: dataset=brain ends before images=30:40." in result.stdout


INTERRUPTED = f"""
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "aseqdip":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_path({str(ROOT / "run.py")!r})
"""


def test_the_wrong_python_is_told_the_right_one() -> None:
    bare = subprocess.run([sys.executable, "-S", str(ROOT / "run.py")], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert "`make setup`, then `source .venv/bin/activate`" in bare.stderr
    assert len(bare.stderr.strip().splitlines()) == 1


def test_interrupted_while_importing() -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_garbage_is_looked_for_again_after_imports() -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(ImportError), importing():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen, "what is garbage later must not stay"


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path) -> None:
    words = ("preset=smoke", "steps=150", "task=denoising", "size=32", "network.width=4", "network.depth=2")
    assert call(*words, "outputs=whole", cwd=tmp_path).returncode == 0
    for sent in (signal.SIGINT, signal.SIGTERM):
        parts, log = tmp_path / sent.name, tmp_path / f"log-{sent.name}"
        with log.open("w") as file:
            process = subprocess.Popen(command(*words, f"outputs={parts}"), cwd=tmp_path, stderr=file)
            deadline = time.monotonic() + 120
            while "/150" not in log.read_text() and time.monotonic() < deadline:  # the progress bar: steps have begun
                time.sleep(0.02)
            time.sleep(0.3)
            process.send_signal(sent)
            process.wait(timeout=60)
        assert process.returncode == 128 + sent
        assert list(parts.rglob("checkpoint.pt"))
        again = call(*words, f"outputs={parts}", cwd=tmp_path)
        assert again.returncode == 0
        assert "resumed at step" in again.stdout
        whole, resumed = (next(folder.rglob("reconstruction.npz")) for folder in (tmp_path / "whole", parts))
        with np.load(whole) as a, np.load(resumed) as b:
            assert np.array_equal(a["reconstruction"], b["reconstruction"]), "bit for bit"


def test_a_worker_that_was_killed_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class TerminatedWorkerError(Exception):  # joblib's, of that name
        pass

    def killed(*given: Any, **named: Any) -> Any:
        raise TerminatedWorkerError("a page of words")

    monkeypatch.setattr("hydra.main", lambda **named: lambda job: killed)
    with pytest.raises(SystemExit) as left:
        main(["-m", "task=denoising", "preset=smoke", "method=tv,direct", f"outputs={tmp_path}"])
    assert left.value.code == 3
    assert "A worker process was killed (memory that ran out?). The same command goes on" in capsys.readouterr().err


def test_a_sweep_says_at_its_end_that_a_job_could_not_run(tmp_path: Path) -> None:
    words = ("-m", "preset=smoke", "images=0", "method=tv,mcg", "task=mri", "iterations=4", "tracker=none")
    result = call(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert "method=mcg is for task=ct" in result.stdout + result.stderr
    assert result.stderr.rstrip().endswith("Some jobs could not run: what is wrong with each stands above.")


@pytest.mark.slow
def test_installed_wheel_works_from_any_folder(tmp_path: Path) -> None:
    """Built, unpacked as pip would, and run by its entry point from an empty folder."""
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    code = (
        "import aseqdip, sys; assert 'site' in aseqdip.__file__, aseqdip.__file__; from aseqdip.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "task=ct", "method=aseqdip", "preset=smoke", "device=cpu"],
        cwd=empty, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert list(empty.rglob("record.json"))
