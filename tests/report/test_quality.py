"""Quality against seconds: what a run has at a moment, its clock, and what the document says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_records as made
from PIL import Image

from aseqdip.errors import UserError
from aseqdip.records import Curve, Record, Score
from aseqdip.report import quality
from aseqdip.report.blocks import build
from aseqdip.report.rows import load


def record(method: str = "aseqdip", image: str = "a", shift: float = 0.0, **more: object) -> Record:
    """Four steps of 2 s each after a start of 1 s, two steps a value of the curve."""
    psnr, ema, ssim = [20.0 + shift, 26.0 + shift], [10.0 + shift, 18.0 + shift], [0.5, 0.7]
    scores = {w: Score(v + shift, s) for w, v, s in (("start", 15, 0.3), ("last", 27, 0.8), ("ema", 19, 0.6))}
    scores["best"] = Score(30 + shift, 0.9, 4)
    group = "classical" if method == "tv" else "untrained network"
    known: dict[str, Any] = {
        "method": method,
        "curve": Curve(2, psnr, ema, ssim), "scores": scores, "steps": 4, "seconds": {"start": 1.0, "method": 8.0},
        "titles": {"task": "MRI", "setting": "4x", "method": method.upper(), "group": group}, "threads": 1,
        "versions": {"processor": "Z80"},
    }  # fmt: skip
    return replace(made.record("mri", "accel4", "aseqdip", image), **{**known, **more})


def timed(folder: Path, *records: Record) -> list[quality.Timed]:
    made.write(folder, records)
    (block,) = build(load([folder]).rows)
    return [quality.Timed(cell) for cell in block.cells]


def test_what_a_run_has_at_a_moment_is_the_last_whole_block_and_then_its_result(tmp_path: Path) -> None:
    (run,) = timed(tmp_path, record())
    at = np.array([0.5, 4.9, 5.1, 8.9, 9.1, 600])
    assert run.ends == [9.0]
    assert np.array_equal(run.reached("psnr_db", at), [np.nan, np.nan, 20, 20, 27, 27], equal_nan=True)
    assert np.allclose(run.reached("ssim", at), [np.nan, np.nan, 0.5, 0.5, 0.8, 0.8], equal_nan=True)


def test_where_the_average_is_the_result_it_counts_all_along(tmp_path: Path) -> None:
    (run,) = timed(tmp_path, record(result="ema"))
    assert np.allclose(run.reached("psnr_db", np.array([5.1, 9.1])), [10, 19])
    assert np.allclose(run.reached("ssim", np.array([5.1, 9.1])), [np.nan, 0.6], equal_nan=True)  # not known before


def test_a_mean_begins_where_every_image_has_something(tmp_path: Path) -> None:
    (run,) = timed(tmp_path, record(), record(image="b", shift=2, seconds={"start": 5.0, "method": 8.0}))
    assert np.allclose(run.reached("psnr_db", np.array([6.0, 9.5, 20.0])), [np.nan, 24.5, 28.0], equal_nan=True)


def test_the_document_ranks_and_compares_image_by_image(tmp_path: Path) -> None:
    made.write(tmp_path / "in", [record(), record("tv", shift=1), record("tv", "b", 1), record("vanilla_dip", shift=2)])
    files = quality.document(build(load([tmp_path / "in"]).rows), tmp_path / "q.md", "the command")
    text = (tmp_path / "q.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == [
        "method",
        "n",
        "10 s",
        "1 min",
        "10 min",
        "at its end",
        "SSIM",
        "seconds",
        "- classical",
        "- network",
    ]
    assert [line[0] for line in lines[2:]] == ["VANILLA_DIP", "TV", "ASEQDIP"]
    assert lines[2][8:] == ["+1.00 (1 of 1)", "–"]
    assert lines[4][8:] == ["-1.00 (0 of 1)", "-2.00 (0 of 1)"]
    assert "1 thread of Z80." in text and "several machines" not in text and "`the command`" in text
    assert [path.name for path in files] == ["q.md", "q-mri-accel4.png"]
    with Image.open(files[1]) as picture:
        assert picture.width > 500 and files[1].stat().st_size < 150_000


def test_seconds_of_two_machines_are_not_compared_in_silence(tmp_path: Path) -> None:
    made.write(tmp_path / "in", [record(), record("tv", versions={"processor": "6502"})])
    quality.document(build(load([tmp_path / "in"]).rows), tmp_path / "q.md", "")
    assert "several machines" in (tmp_path / "q.md").read_text()


def test_without_a_truth_there_is_no_quality(tmp_path: Path) -> None:
    blind = {"scores": {"start": Score(), "last": Score()}, "curve": Curve(2, [], [], [], [1.0, 0.5])}
    made.write(tmp_path, [record(**blind)])
    with pytest.raises(UserError, match="scored against a truth"):
        quality.document(build(load([tmp_path]).rows), tmp_path / "q.md", "")
