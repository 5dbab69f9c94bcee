"""The runner: what it records, what it survives, what it refuses to do twice."""

import dataclasses
import gc
import glob
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from cases import Configure, case_of, iterates, method_of
from PIL import Image

from aseqdip import identity
from aseqdip.config import Config
from aseqdip.errors import UserError
from aseqdip.files import claimed
from aseqdip.identity import run_folder
from aseqdip.methods.aseqdip import ASeqDIP
from aseqdip.methods.base import Iterate, NetworkState
from aseqdip.operators.mri import fft2c
from aseqdip.problem import Problem
from aseqdip.records import COLUMNS, Record, Score, read, read_curve, write
from aseqdip.run import results, runner
from aseqdip.run.checkpoint import Checkpoint
from aseqdip.run.interrupt import Interrupt
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.runner import Summary, run
from aseqdip.words import written


def only(summary: Summary) -> tuple[Record, Path]:
    (record,) = summary.records
    folders = summary.folder.glob(f"{glob.escape(record.image)}{'-??????' if record.content else ''}")
    return record, max(folders, key=lambda folder: folder.stat().st_mtime_ns)  # the newest, of several of its name


@pytest.mark.usefixtures("pictures")
def test_record_is_complete(configure: Configure) -> None:
    record, folder = only(run(configure("steps=6", "lam=2")))
    trace = read(folder)
    assert trace.record == record
    assert {"start", "last", "best", "ema"} == set(record.scores)
    assert 1 <= (record.scores["best"].step or 0) <= 6
    assert record.departures == {"steps": 6, "lr": 1e-3, "lam": 2.0, "network.width": 8, "maps": "simulated"}
    assert (record.settings["lam"], record.problem["accel"]) == (2, 4)
    assert set(record.seconds) == {"start", "method", "scoring", "saving"}
    assert min(record.seconds[what] for what in ("start", "method", "scoring")) > 0
    assert record.versions["torch"] == torch.__version__
    assert record.facts["operator_norm"] == pytest.approx(1, abs=0.05)
    assert (record.titles["method"], record.titles["start"]) == ("aSeqDIP", "zero-filled")
    for name in ("curve.csv", "reconstruction.npz", "preview.png", "curve.png"):
        assert (folder / name).is_file()
    assert not (folder / "checkpoint.pt").exists()


def test_the_record_s_command_computes_an_image_that_is_called_like_an_index(
    configure: Configure, tmp_path: Path
) -> None:
    named = ["1", "2", "3", "null", "True", "nan", "a,b", "[c]", "~q"]
    for number, name in enumerate(named):
        Image.new("L", (24, 24), 20 * number).save(tmp_path / f"{name}.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}", "method=direct")
    records = run(configure(*words, "images=all")).records
    assert sorted(record.image for record in records) == sorted(named)
    for record in records:
        again, _ = only(run(configure(*written([*record.command, f"data_root={tmp_path}", "redo=true"]))))
        assert again.image == record.image


def test_the_record_s_command_computes_the_same_image(configure: Configure, tmp_path: Path) -> None:
    record, folder = only(run(configure("task=denoising", "seeds=[3]", "images=[1]", "steps=4")))
    again, other = only(run(configure(*record.command, f"outputs={tmp_path / 'again'}")))
    assert (again.identity, again.image, again.scores) == (record.identity, record.image, record.scores)
    assert folder != other


def test_curve_has_every_iteration_and_agrees_with_the_scores(configure: Configure) -> None:
    record, folder = only(run(configure("steps=6")))
    curve = read_curve(folder / "curve.csv")
    assert tuple(curve) == COLUMNS
    assert curve["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.allclose(curve["loss"], curve["data"] + curve["autoencoding"], rtol=1e-5)
    scores = record.scores
    assert curve["psnr"][-1] == pytest.approx(scores["last"].psnr_db, abs=1e-3)
    assert curve["ssim"][-1] == pytest.approx(scores["last"].ssim, abs=1e-4)
    assert curve["psnr_ema"][-1] == pytest.approx(scores["ema"].psnr_db, abs=1e-3)
    assert curve["psnr"].max() == pytest.approx(scores["best"].psnr_db, abs=1e-3)
    assert int(curve["psnr"].argmax()) + 1 == scores["best"].step


def test_saved_reconstruction_is_the_last_iterate(configure: Configure) -> None:
    cfg = configure("task=denoising")
    _, folder = only(run(cfg))
    last = iterates(cfg, case_of(cfg))[-1]
    with np.load(folder / "reconstruction.npz", allow_pickle=False) as saved:
        assert np.array_equal(saved["reconstruction"], last.image.numpy())
        assert set(saved.files) == {"reconstruction", "shown", "start", "truth"}


@pytest.mark.usefixtures("pictures")
def test_without_truth_there_are_no_scores(configure: Configure, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 20, 200)).save(tmp_path / "a.png")
    record, folder = only(run(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}", "truth=none")))
    assert record.scores["last"] == Score()
    assert np.isnan(read_curve(folder / "curve.csv")["psnr"]).all()
    assert (folder / "preview.png").is_file()
    assert "no truth" in results.describe(record)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The folder of a scan that was undersampled on the scanner."""
    kspace = torch.randn((1, 3, 64, 72), generator=torch.Generator().manual_seed(0), dtype=torch.complex64).numpy()
    mask = np.arange(72) % 4 == 0
    mask[24:48] = True
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"], file["mask"] = kspace * mask, mask
    return tmp_path


def test_prospective_scan_runs_without_scores(
    configure: Configure, scan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        record, folder = only(run(configure("dataset=kspace", f"data_root={scan}", "size=48")))
    assert f"As it was measured: mri accel2-own -> {folder.parent}" in caplog.text
    assert "accel4" not in caplog.text, "the command's own accel has no effect on it"
    assert record.scores["last"].psnr_db is None
    assert record.facts["prospective"] is True
    with np.load(folder / "reconstruction.npz") as saved:
        assert saved["reconstruction"].shape == (1, 2, 48, 72), "only the fully sampled readout is cropped"


def test_slices_at_work_at_once_come_to_one_volume(
    configure: Configure, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(scan / "scan.h5", "r+") as file:
        kspace = file["kspace"][...].repeat(2, axis=0)
        del file["kspace"]
        file["kspace"] = kspace
    digest = identity.digest
    monkeypatch.setattr(identity, "digest", lambda what: [digest(what), time.sleep(0.2)][0])
    words = ("dataset=kspace", f"data_root={scan}", "images=all", "parallel=2", "method=direct", "size=48")
    summary = run(configure(*words))
    assert len(summary.records) == 2
    assert len(list(summary.folder.glob("volume-*/reconstruction.h5"))) == 1


def test_the_setting_is_said_once_it_is_known(
    configure: Configure, scan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File(scan / "whole.h5", "w") as file, h5py.File(scan / "scan.h5") as other:
        file["kspace"] = other["kspace"][...] + 1
    with caplog.at_level("INFO"):
        run(configure("dataset=kspace", f"data_root={scan}", "size=48", "images=all"))
        run(configure())
    said = [line.partition(" -> ")[0] for line in caplog.messages]
    begin = ", aseqdip on cpu (fp32), preset=smoke, seed 0, "
    assert said[0] == f"mri{begin}2 image(s)", "nothing has been read yet"
    assert said.count("As it was measured: mri accel2-own") == said.count("Undersampled here: mri accel4") == 1
    assert f"mri accel4{begin}1 image(s)" in said, "of an image nothing can come that overrules the words"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("stop=discrepancy", "noise=2"),
            r"\(step 1, the first: from there on the data are fitted closer .*\); no truth",
        ),
        (("stop=discrepancy", "noise=1e-6"), r"\(step 4, the last: discrepancy found no end\); no truth"),
        (("stop=holdout",), r"\(step \d, .*holdout.*\); no truth"),
        (("stop=holdout", "holdout_every=5"), r"too few steps for holdout to judge any\); no truth"),
        (("stop=wmv",), r"too few steps for wmv to judge any\); no truth"),
        (("stop=emv",), r"too few steps for emv to judge any\); no truth"),
    ],
)
def test_where_a_rule_stopped_a_prospective_scan(
    configure: Configure, scan: Path, caplog: pytest.LogCaptureFixture, words: tuple[str, ...], said: str
) -> None:
    with caplog.at_level("INFO"):
        run(configure("dataset=kspace", f"data_root={scan}", "size=48", "method=vanilla_dip", *words))
    assert re.search(said, caplog.text), "without a truth nothing else says so"


@pytest.mark.parametrize("package", ["tqdm", "wandb", "pydicom", "fastmri"])
def test_optional_packages_may_be_missing(configure: Configure, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    monkeypatch.setitem(sys.modules, package, None)
    assert len(run(configure()).records) == 1


def test_finished_images_are_skipped(configure: Configure) -> None:
    cfg = configure("images=0:2")
    first = run(cfg)
    again = run(configure("images=0:3"))
    assert len(first.records) == 2
    assert (again.skipped, [r.image for r in again.records]) == (["brain00", "brain01"], ["brain02"])


def test_report_of_a_folder(configure: Configure, tmp_path: Path) -> None:
    record, folder = only(run(configure("ema=0.5")))
    words = [sys.executable, "-m", "aseqdip.report", str(folder.parent), "--mean"]
    words += ["--figure", str(tmp_path / "a.png")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    names, values = ([cell.strip() for cell in printed[n].strip("|").split("|")] for n in (2, 4))
    cells, ema = dict(zip(names, values, strict=True)), record.scores["ema"]
    psnr = f"{ema.psnr_db:.2f}"
    assert (cells["ours"], cells["SSIM"]) == (f"{psnr} (ema)", f"{ema.ssim:.3f}")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_several_seeds(configure: Configure) -> None:
    summary = run(configure("seeds=[0,1]"))
    assert [r.seed for r in summary.records] == [0, 1]
    assert summary.folder == run_folder(configure()).parent
    assert summary.records[0].scores["last"] != summary.records[1].scores["last"]
    assert run(configure("seed=1")).skipped == ["brain00"], "the same folders as one seed at a time"


def test_averaged_iterates_can_be_the_result(configure: Configure) -> None:
    record, folder = only(run(configure("ema=0.5")))
    assert (record.result, record.settings["ema"]) == ("ema", 0.5)
    with np.load(folder / "reconstruction.npz", allow_pickle=False) as saved:
        mse = ((saved["shown"] - saved["truth"]) ** 2).mean()
        psnr = 10 * np.log10(saved["truth"].max() ** 2 / mse)
    assert psnr == pytest.approx(record.scores["ema"].psnr_db, abs=1e-3)
    assert record.scores["ema"].psnr_db != record.scores["last"].psnr_db


class StopsAt:
    """Stands in for a signal that arrives during a given step of the first image."""

    late, signal = False, None

    def __init__(self, step: int) -> None:
        self.calls, self.step = -2, step  # the runner asks twice before the first step

    @property
    def due(self) -> bool:
        self.calls += 1
        return self.calls >= self.step

    def __enter__(self) -> "StopsAt":
        return self

    def __exit__(self, *exception: object) -> None: ...


@pytest.mark.parametrize("task", ["mri", "ct", "inpainting"])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_killed_and_continued_gives_the_same_bits(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, stop: int
) -> None:
    words = (f"task={task}", "steps=8")
    whole, whole_folder = only(run(configure(*words, f"outputs={tmp_path / 'whole'}")))
    cfg = configure(*words, f"outputs={tmp_path / 'parts'}")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Interrupt", lambda deadline: StopsAt(stop))
        assert run(cfg).records == []
    folder = run_folder(cfg) / whole.image
    assert (folder / "checkpoint.pt").exists()
    parts, _ = only(run(cfg))
    assert parts.scores == whole.scores
    assert (folder / "curve.csv").read_text() == (whole_folder / "curve.csv").read_text()
    with np.load(folder / "reconstruction.npz") as a, np.load(whole_folder / "reconstruction.npz") as b:
        assert np.array_equal(a["reconstruction"], b["reconstruction"])


def test_choices_and_seconds_outlive_a_kill(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a fit that was at its last step, too; a start image's seconds count once."""
    words = ("method=tv", "noise=0.05", "iterations=8", "stop=holdout", "holdout_refit=true", "start=wavelet")
    image_by = runner.image_by
    monkeypatch.setattr(runner, "image_by", lambda *args: [image_by(*args), time.sleep(1)][0])
    whole, folder = only(run(configure(*words)))
    cfg, last = configure(*words, f"outputs={tmp_path / 'parts'}"), len(read_curve(folder / "curve.csv")["iteration"])
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Interrupt", lambda deadline: StopsAt(last))
        assert run(cfg).records == []
    parts, _ = only(run(cfg))
    assert "rho" in whole.facts
    assert parts.facts == whole.facts
    assert parts.seconds["start"] < whole.seconds["start"] + 1


def test_how_often_it_was_scored_is_kept(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, _ = only(run(configure("score_every=3")))
    assert record.facts["score_every"] == 3
    run(configure())
    assert "only every 3. iterate was scored" in caplog.text
    assert "score_every" not in only(run(configure("redo=true")))[0].facts
    interrupted(configure("score_every=2", "redo=true"), monkeypatch)
    assert only(run(configure("redo=true")))[0].facts["score_every"] == 2, "those before are not scored any more"


def test_out_of_time_is_a_clean_stop(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "late", property(lambda self: next(checks) > 6))  # during the first image
        stopped = run(configure("steps=30", "images=0:2", "budget_minutes=1"))
    assert (stopped.late, stopped.interrupted, stopped.records) == (True, None, [])
    assert (stopped.folder / "brain00" / "checkpoint.pt").is_file()
    assert not (stopped.folder / "brain01").exists()
    assert len(run(configure("steps=30", "images=0:2", "budget_minutes=1000")).records) == 2


def test_budget_counts_from_the_start_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASEQDIP_STARTED", "1000.5")
    assert runner.command_start() == 1000.5
    assert Interrupt(deadline=time.time() - 1).due
    assert not Interrupt(deadline=time.time() + 100).due
    assert not Interrupt().due


def test_an_image_whose_folder_cannot_be_made_fails_alone(configure: Configure) -> None:
    cfg = configure("images=0:2")
    run_folder(cfg).mkdir(parents=True)
    (run_folder(cfg) / "brain00").write_text("in the way")
    summary = run(cfg)
    assert list(summary.failed) == ["brain00"]
    assert [r.image for r in summary.records] == ["brain01"]


def test_two_processes_do_not_collide(configure: Configure) -> None:
    cfg = configure("images=0:2")
    with claimed(run_folder(cfg) / "brain00") as free:
        assert free
        summary = run(cfg)
    assert (summary.elsewhere, [r.image for r in summary.records]) == (["brain00"], ["brain01"])
    assert [r.image for r in run(cfg).records] == ["brain00"], "released with its holder"


def test_without_the_locks_of_unix(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where filelock knows others."""
    pytest.importorskip("filelock")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    test_two_processes_do_not_collide(configure)


def test_how_far_it_is_is_said(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(configure("images=0:3", "method=direct"))
    said = [line for line in caplog.messages if " images, about" in line]
    assert [line.partition(", about ")[0] for line in said] == ["1 of 3 images", "2 of 3 images"]
    assert all(re.fullmatch(r".*, about (\d+ (s|min)|[\d.]+ h) left\.", line) for line in said)


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    half, other = tmp_path / ".checkpoint.pt.a1b2c3d4", tmp_path / ".notes"
    for file in (half, other):
        file.write_text("x")
    with claimed(tmp_path) as free:
        assert free
    assert not half.exists()
    assert other.exists()


def test_periodic_checkpoints(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []
    monkeypatch.setattr(Reconstruction, "save", lambda self: bool(saves.append(self.state.step)))
    run(configure("checkpoint_minutes=1e-9"))
    assert saves == [1, 2, 3, 4]


def interrupted(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a config's first image, ended during its second step."""
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Interrupt", lambda deadline: StopsAt(2))
        run(cfg)
    (checkpoint,) = run_folder(cfg).rglob("checkpoint.pt")
    return checkpoint


def test_a_checkpoint_of_other_data_is_not_continued(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file's digest is in the folder's name; a file of the same digest cannot be made, so the measurements are."""
    cfg = configure("task=denoising")
    interrupted(cfg, monkeypatch)
    whole, _ = only(run(configure("task=denoising", f"outputs={tmp_path / 'whole'}")))
    with monkeypatch.context() as patch:
        patch.setattr("aseqdip.run.reconstruction.fingerprint", lambda *tensors: "0")
        record, folder = only(run(cfg))
    assert "was begun with another input" in caplog.text
    assert record.scores == whole.scores
    assert not (folder / "checkpoint-unused.pt").exists(), "cleared at the end"


@pytest.mark.parametrize("what", ["device", "precision", "number of threads", "version of results", "code"])
def test_a_checkpoint_of_another_machine_or_version_is_not_continued(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    cfg, save = configure(), Checkpoint.save

    def other(self: Checkpoint, image: str, content: dict[str, Any]) -> bool:
        self.facts[what] = 99 if what.startswith(("number", "version")) else "other"
        return save(self, image, content)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", other)
        interrupted(cfg, monkeypatch)
    assert only(run(cfg))[0].steps == 4
    said = f"another {what}" if what == "code" else f"{what} {99 if 'of' in what else 'other'} instead of"
    assert f"was begun with {said}" in caplog.text


@pytest.mark.parametrize(("kept", "why"), [(None, "is damaged"), (11, "is damaged, or of an older version")])
def test_a_damaged_checkpoint_is_noticed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: int | None, why: str
) -> None:
    """Whole with one flipped bit, or cut off."""
    cfg = configure()
    checkpoint = interrupted(cfg, monkeypatch)
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data[:kept])
    assert only(run(cfg))[0].steps == 4
    assert f"its checkpoint {why}; kept as checkpoint-unused.pt, starting from the beginning" in caplog.text


def test_a_checkpoint_that_cannot_be_written_is_no_end(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aseqdip.run.checkpoint.write_atomically", full)
    assert only(run(configure("checkpoint_minutes=1e-9")))[0].steps == 4
    assert caplog.text.count("no checkpoint could be written") == 1, "said once"


def test_a_full_device_costs_no_checkpoint(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cfg = configure()
    checkpoint = interrupted(cfg, monkeypatch)
    monkeypatch.setattr(torch, "load", load)
    assert "out of memory" in run(cfg).failed["brain00"]
    assert checkpoint.exists()


def test_a_damaged_record_is_not_a_finished_one(configure: Configure) -> None:
    cfg = configure()
    _, folder = only(run(cfg))
    (folder / "record.json").write_text("")
    assert len(run(cfg).records) == 1


def test_what_cannot_be_drawn_is_no_loss(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ValueError("no such font")

    monkeypatch.setattr("aseqdip.figures.preview", fail)
    _, folder = only(run(configure()))
    assert (folder / "reconstruction.npz").exists()
    assert "could not be drawn: no such font" in caplog.text


@pytest.mark.usefixtures("pictures")
def test_dollars_in_a_name_are_no_formula(configure: Configure, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 90).save(tmp_path / "price_$5_to_$6.png")
    record, folder = only(run(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}")))
    assert record.image == "price_$5_to_$6"
    assert (folder / "preview.png").exists()


def test_more_files_of_a_list_leave_the_finished_alone(configure: Configure, tmp_path: Path) -> None:
    for name in ("x", "y"):
        Image.new("L", (64, 64), 90).save(tmp_path / f"{name}.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}", "method=direct", "images=all")
    assert len(run(configure(*words, "dataset.files=[x.png]")).records) == 1
    grown = run(configure(*words, "dataset.files=[x.png,y.png]"))
    assert (grown.skipped, [r.image for r in grown.records]) == (["x"], ["y"])


def test_what_is_in_a_file_counts_not_its_name(configure: Configure, tmp_path: Path) -> None:
    """Two patients in two folders are two results; a file replaced is computed again; a moved folder is not."""
    words = ("task=denoising", "dataset=folder", "method=direct")
    for name, grey in (("a", 50), ("b", 150)):
        (tmp_path / name).mkdir()
        Image.new("L", (64, 64), grey).save(tmp_path / name / "x.png")
    folders = {only(run(configure(*words, f"data_root={tmp_path / name}")))[1] for name in "ab"}
    assert len(folders) == 2
    Image.new("L", (64, 64), 90).save(tmp_path / "a" / "x.png")
    assert only(run(configure(*words, f"data_root={tmp_path / 'a'}")))[1] not in folders
    (tmp_path / "a").rename(tmp_path / "c")
    assert run(configure(*words, f"data_root={tmp_path / 'c'}")).skipped == ["x"]


@pytest.mark.usefixtures("pictures")
def test_redo_computes_again(configure: Configure) -> None:
    first, folder = only(run(configure()))
    (folder / "preview.png").unlink()
    again, _ = only(run(configure("redo=true")))
    assert again.scores == first.scores
    assert (folder / "preview.png").exists()


def test_a_redo_that_fails_leaves_the_earlier_result_whole(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, folder = only(run(configure()))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(self: Reconstruction, sinks: Any = ()) -> bool:
        if self.state.step == 2:
            raise RuntimeError("the card fell off")
        return advance(self, sinks)

    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    advance = Reconstruction.advance
    with monkeypatch.context() as patch:
        patch.setattr(Reconstruction, "advance", broken)
        assert run(configure("redo=true")).failed == {"brain00": "RuntimeError: the card fell off"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "brain00: its earlier result is kept" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(results.records, "write_arrays", full)
        run(configure("redo=true"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "on a full disk, too"
    monkeypatch.setattr(results.export, "beside", broken)  # of what is half written no record says that it is whole
    run(configure("redo=true"))
    assert not (folder / "record.json").exists()


def test_results_whose_arrays_are_damaged_or_gone_are_noticed(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = only(run(configure()))
    arrays = folder / "reconstruction.npz"
    arrays.write_bytes(arrays.read_bytes()[:-30])
    assert len(run(configure()).records) == 1
    assert "its reconstruction.npz is damaged; it is computed again" in caplog.text
    arrays.unlink()
    assert run(configure()).skipped == [record.image]
    assert "its reconstruction.npz is gone; redo=true" in caplog.text


def test_a_finished_result_of_other_operators_is_said(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    record, folder = only(run(configure()))
    run(configure())
    assert "of other code of operators" not in caplog.text
    write(folder, dataclasses.replace(record, code=record.code.partition(":")[0]))
    run(configure())
    assert "of other code of operators" not in caplog.text, "older records do not say"
    write(folder, dataclasses.replace(record, code=f"{record.code[:-4]}0000"))
    assert run(configure()).skipped
    assert "finished, but of other code of operators or engine, and so may others be: redo=true" in caplog.text


def test_a_file_that_is_replaced_while_it_is_used_fails_the_image(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = tmp_path / "mask.png"

    def drawn(side: int) -> None:
        hole = np.zeros((64, 64), np.uint8)
        hole[:side, :side] = 255
        Image.fromarray(hole).save(mask)

    fitted = []

    def replaced(self: Reconstruction, *given: Any) -> bool:
        fitted.append(self.name)
        drawn(20)
        return whole(self, *given)

    whole = Reconstruction.run
    drawn(10)
    cfg = configure("task=inpainting", f"mask={mask}", "images=0:2", "seeds=[0,1]")
    with monkeypatch.context() as patch:
        patch.setattr(Reconstruction, "run", replaced)
        failed = run(cfg).failed
    assert all(why.startswith(f"{mask} changed while this ran") for why in failed.values())
    assert (len(failed), len(fitted)) == (2, 1), "no other is computed in vain, of no other seed either"
    assert len(run(cfg).records) == 4


def test_long_names_keep_runs_of_the_tracker_apart() -> None:
    ids = {runner.run_id(Path(f"o/{method}/{'scan' * 40}-abc123")) for method in ("aseqdip-1", "tv-2")}
    assert len(ids) == 2 and max(map(len, ids)) <= 120
    assert runner.run_id(Path("o/aseqdip-1/a b")) == "aseqdip-1-a-b"


@pytest.mark.parametrize("name", ["results_version", "identity", "content"])
def test_a_record_that_says_otherwise_is_not_this_run_s(configure: Configure, name: str) -> None:
    record, folder = only(run(configure()))
    write(folder, dataclasses.replace(record, **{name: 1 if name == "results_version" else "0"}))
    assert len(run(configure()).records) == 1


def test_an_image_s_tensors_are_given_back_at_its_end(configure: Configure) -> None:
    cfg = configure("task=denoising", "stop=wmv", "window=2")
    case = case_of(cfg)
    reconstruction = Reconstruction(case, method_of(cfg, case), cfg.rule)
    gc.disable()
    try:
        reconstruction.run([], Interrupt())
        held = weakref.ref(reconstruction.scores)
        del reconstruction
        assert held() is None, "without waiting for the collector of circles"
    finally:
        gc.enable()


def test_rethinking_dip_s_average_begins_anew(configure: Configure) -> None:
    record, _ = only(run(configure("task=denoising", "method=rethinking_dip", "steps=10", "stop=none")))
    assert record.scores["ema"].psnr_db == record.scores["last"].psnr_db


class Diverges(ASeqDIP):
    """NaN from the third step on, for one image only."""

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        for iterate in super().iterates(problem, state):
            if problem.image == "brain00" and iterate.step >= 3:
                iterate.terms["loss"] = iterate.terms["loss"] * float("nan")
                iterate.image = iterate.image * float("nan")
            yield iterate


def test_non_finite_loss_stops_that_image_only(configure: Configure) -> None:
    cfg = configure("images=0:2", "steps=6")
    summary = run(dataclasses.replace(cfg, method=dataclasses.replace(cfg.method, part=Diverges)))
    assert [r.image for r in summary.records] == ["brain01"]
    assert "not finite at step 3" in summary.failed["brain00"]
    folder = summary.folder / "brain00"
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["after_step"] == 2
    assert "NonFiniteError" in failure["traceback"]
    assert read_curve(folder / "curve.csv")["iteration"].tolist() == [1, 2]
    with np.load(folder / "reconstruction.npz") as saved:
        assert np.isfinite(saved["reconstruction"]).all(), "the last finite iterate"
    assert not (folder / "record.json").exists()


class Breaks(ASeqDIP):
    """An error of its own before the fourth step ends."""

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        for iterate in super().iterates(problem, state):
            if iterate.step == 4:
                raise RuntimeError("a bug")
            yield iterate


def test_what_was_reached_before_an_error_is_kept(configure: Configure) -> None:
    cfg = configure("images=0", "steps=6")
    summary = run(dataclasses.replace(cfg, method=dataclasses.replace(cfg.method, part=Breaks)))
    folder = summary.folder / "brain00"
    assert json.loads((folder / "failure.json").read_text())["after_step"] == 3
    assert read_curve(folder / "curve.csv")["iteration"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("parallel", ["1", "auto"])
def test_one_bad_file_does_not_stop_the_others(configure: Configure, tmp_path: Path, parallel: str) -> None:
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}", "images=all", f"parallel={parallel}")
    (tmp_path / "a.png").write_bytes(b"broken")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    summary = run(configure(*words))
    assert [r.image for r in summary.records] == ["b"]
    assert "could not be read" in summary.failed["a"]
    failure = json.loads((summary.folder / "a" / "failure.json").read_text())
    assert (failure["image"], failure["after_step"]) == ("a", 0)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    again = run(configure(*words))
    assert ([r.image for r in again.records], again.skipped) == (["a"], ["b"]), "a failed image is tried again"
    assert not (summary.folder / "a" / "failure.json").exists()


def test_unwritable_outputs_are_found_before_computing(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Results cannot be written to .*set outputs="):
        run(configure(f"outputs={tmp_path / 'file' / 'below'}"))


def test_a_range_beyond_the_end_is_nothing_to_do(configure: Configure) -> None:
    summary = run(configure("images=30:40"))
    assert (summary.records, summary.skipped, summary.failed) == ([], [], {})


def test_jobs_of_a_sweep_take_cuda_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not torch.cuda.is_available() or runner.sweep_device(0) == "cuda:0"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [runner.sweep_device(job) for job in range(5)] == [f"cuda:{n}" for n in (0, 1, 2, 0, 1)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runner.sweep_device(2) == "auto"


def test_cuda_without_cuda(configure: Configure) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UserError, match="device=cuda: PyTorch sees 0 CUDA devices.*Use device=cpu"):
        run(configure("device=cuda"))


def test_first_signal_is_noted_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)
        assert interrupt.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_several_images_at_once_are_each_as_alone(configure: Configure, tmp_path: Path) -> None:
    words = ("images=0:3", "steps=8")
    alone = run(configure(*words, f"outputs={tmp_path / 'alone'}"))
    together = run(configure(*words, "parallel=2", f"outputs={tmp_path / 'together'}"))
    assert {r.image for r in together.records} == {r.image for r in alone.records}
    for record in alone.records:
        results = []
        for summary in (alone, together):
            with np.load(summary.folder / record.image / "reconstruction.npz") as saved:
                results.append(saved["reconstruction"])
        assert np.array_equal(*results)


def test_a_pool_has_folders_of_its_own_and_data_that_are_gone_lose_nothing(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, level in (("data/mine", 90), ("pool/mine", 150), ("pool", 120)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("L", (24, 24), level).save(tmp_path / folder / f"{level}.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path / 'data'}", "method=ref_guided_dip")
    summary = run(configure(*words, "dataset.folder=mine", f"pool={tmp_path / 'pool'}"))
    assert not summary.failed and summary.records[0].facts["reference"] == "120"
    (tmp_path / "data" / "mine" / "91.png").write_bytes((tmp_path / "data" / "mine" / "90.png").read_bytes())
    advance = Reconstruction.run

    def run_and_lose(self: Reconstruction, *given: Any) -> Any:
        done = advance(self, *given)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        return done

    monkeypatch.setattr(Reconstruction, "run", run_and_lose)
    assert len(run(configure(*words, "dataset.folder=mine", "images=0")).records) == 1


@pytest.mark.parametrize("folder", ["x" * 300, "nothing"])
def test_a_folder_that_cannot_be_is_said(configure: Configure, tmp_path: Path, folder: str) -> None:
    Image.new("L", (24, 24), 90).save(tmp_path / "a.png")
    with pytest.raises(UserError):
        run(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}", f"dataset.folder={folder}"))
    assert run(configure("task=denoising", "method=direct", "dataset=photos", f"dataset.folder={folder}")).records


@pytest.mark.parametrize("dataset", ["complex", "kspace"])
def test_images_that_are_cropped_or_scaled_are_told_once(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture, dataset: str
) -> None:
    image = np.random.default_rng(0).random((1, 400, 420)) + 1j
    for name in "ab":
        if dataset == "complex":
            np.savez(tmp_path / f"{name}.npz", image=image[0])
        else:
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                file["kspace"] = fft2c(torch.from_numpy(image[None]))
    words = (f"dataset={dataset}", f"data_root={tmp_path}", "images=all", "method=direct", "preset=quick")
    run(configure(*words))
    assert caplog.text.count("its 400 x 420 become 320 x 320 pixels; size=native") == 1
    caplog.clear()
    for asked in ("size=320", "size=native"):
        run(configure(*words, asked))
    assert "size=native keeps" not in caplog.text
