"""A slot's records: packed small, merged once, nothing else let in."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, load_script

campaign = load_script("campaign")

PASSED = json.dumps({"status": "PASS", "name": "gpu-check", "figure": "all passed", "seconds": 1.0})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for image in ("a", "b"):
        folder = tmp_path / "results/mri/accel4/aseqdip-1/" / image
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"image": image}))
        (folder / "preview.png").write_bytes(b"a picture")
        (folder / "reconstruction.npz").write_bytes(b"large arrays")
    return tmp_path / "results"


def test_records_travel_and_arrays_stay(results: Path, tmp_path: Path) -> None:
    archive = tmp_path / "slot/records.zip"
    archive.parent.mkdir()
    campaign.pack(campaign.small_files(results), results, archive)
    (archive.parent / "gpu-check.jsonl").write_text(PASSED)
    merged = tmp_path / "merged"
    assert campaign.merge(archive, merged) == 3
    assert campaign.merge(archive, merged) == 0, "what is there stays as it is"
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("mri/accel4/aseqdip-1/a/shown.jpg", "of an earlier version")
    assert campaign.merge(archive, merged) == 0
    assert {f.name for f in merged.rglob("a/*")} == {"record.json", "preview.png"}
    assert {f.name for f in merged.rglob("b/*")} == {"record.json"}, "one image of a method is shown"
    assert campaign.passed(merged / "gpu-check.jsonl")


@pytest.mark.parametrize("name", ["../record.json", "/etc/record.json", "a/run.py"])
def test_an_archive_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "records.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(name, "x")
    with pytest.raises(SystemExit, match="not a slot's records"):
        campaign.merge(archive, tmp_path / "merged")
    assert not (tmp_path / "record.json").exists()


@pytest.mark.slow
def test_a_slot_leaves_its_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--minutes", "3", "--out", str(tmp_path / "slot"), "--results", str(tmp_path / "results")]
    settings = ["preset=smoke", "cell=denoising-sigma15-direct"]
    sys.argv = ["campaign.py", *words, "--experiment", "table1", *settings]
    campaign.main()
    assert "new files" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "slot/records.zip") as packed:
        assert sum(name.endswith("record.json") for name in packed.namelist()) == 1


@pytest.mark.parametrize(
    "left",
    [
        None,
        "",
        PASSED.replace("PASS", "FAIL"),
        PASSED.replace("gpu-check", "recorded task=mri"),  # cut short after it
        PASSED + "\n" + PASSED.replace("PASS", "FAIL"),
    ],
)
def test_checks_that_failed_or_were_cut_short_are_repeated(
    left: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, out, done = tmp_path / "results", tmp_path / "out", []
    results.mkdir()
    (results / "gpu-bench.jsonl").write_text(PASSED.replace("gpu-check", "gpu-bench"))
    if left is not None:
        (results / "gpu-check.jsonl").write_text(left)
    monkeypatch.setattr(campaign, "execute", lambda command, deadline: done.append(command[0]))
    campaign.checks(time.time() + 100, out, results)
    assert done == ["scripts/gpu_check.py"]
    (results / "gpu-check.jsonl").write_text(PASSED)
    campaign.checks(time.time() + 100, out, results)
    assert len(done) == 1


def test_a_later_failure_does_not_take_the_place_of_a_good_end(tmp_path: Path) -> None:
    (tmp_path / "slot").mkdir()
    with zipfile.ZipFile(tmp_path / "slot/records.zip", "w"):
        pass
    for text in (PASSED, PASSED.replace("PASS", "FAIL")):
        (tmp_path / "slot/gpu-check.jsonl").write_text(text)
        campaign.merge(tmp_path / "slot/records.zip", tmp_path / "merged")
    assert campaign.passed(tmp_path / "merged/gpu-check.jsonl")


def test_scans_come_first_and_slow_methods_last() -> None:
    scans, pictures, slow = campaign.parts("table2", [])
    assert scans[0].startswith("cell=mri-accel4-score_mri,mri-accel4-direct,")
    assert "ct-views18-aseqdip" in scans[0]
    assert all(name not in scans[0] for name in ("denoising", "inpainting", "deblurring", "rethinking"))
    assert "deblurring-nonlinear-aseqdip" in pictures[0]
    assert slow == ["cell=denoising-sigma15-rethinking_dip,denoising-sigma30-rethinking_dip"]
    assert sum(part[0].count(",") + 1 for part in (scans, pictures, slow)) == 62
    assert campaign.parts("table2", ["cell=ct-views18-aseqdip"]) == [[]]
    assert campaign.parts("fig1", []) == [[]]


def test_a_command_is_stopped_at_its_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys, time; print('begun', flush=True); time.sleep(60)"
    begin = time.time()
    status = campaign.execute(["-c", code], begin + 3)
    assert status != 0
    assert time.time() - begin < 30
    assert "begun" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["benchmark", "gpu_check", "gpu_bench", "campaign"])
def test_scripts_run_from_anywhere_without_an_installation(script: str, tmp_path: Path) -> None:
    """Their own folder comes first on the path, not the checkout."""
    command = [sys.executable, str(ROOT / f"scripts/{script}.py"), "--help"]
    hidden = "import os, sys; sys.path[:] = [p for p in sys.path if not os.path.exists(p + '/aseqdip/__init__.py')]"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
