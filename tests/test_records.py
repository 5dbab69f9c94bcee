"""A record on disk: one writer, one reader that refuses what is none."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aseqdip import records
from aseqdip.records import COLUMNS, Curve, Failure, Record, Score, scan, thin

MADE = Record(
    image="knee ±", task="mri", setting="accel4", method="aseqdip", content="ab12", seed=3, steps=5,
    scores={"last": Score(math.inf, 1.0, None, {"hole_psnr_db": None}), "best": Score(30.5, 0.9, 4)},
    curve=Curve(1, [1.0, math.inf, 3.0, 4.0, 5.0]), problem={"accel": 4.0, "mask": None, "list": [1, "a"]},
    settings={"lr": 1e-4, "stop": "none", "sigmoid": True}, command=["task=mri", "images=knee ±"],
    noise_std=None, seconds={"method": 2.5},
)  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    records.write(tmp_path / "a", MADE)
    trace = records.read(tmp_path / "a")
    assert trace is not None and (trace.state, trace.record) == ("done", MADE)
    assert records.finished(tmp_path / "a")
    text = (tmp_path / "a" / "record.json").read_text()
    assert json.loads(text)["scores"]["last"]["psnr_db"] == "inf", "apart from null, which is no truth"


def test_an_infinite_score_is_known_and_none_is_not() -> None:
    assert MADE.known and MADE.score.psnr_db == math.inf
    assert not replace(MADE, scores={"last": Score()}).known


def test_a_failure_and_what_was_only_begun(tmp_path: Path) -> None:
    records.write_failure(tmp_path / "failed", Failure("x", "no memory", 7))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".claim").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    found = {trace.folder.name: trace for trace in scan([tmp_path])}
    assert {name: trace.state for name, trace in found.items()} == {"failed": "failed", "begun": "unfinished"}
    assert found["failed"].failure == Failure("x", "no memory", 7)


def content(**changed: Any) -> bytes:
    plain = json.loads(records.dumps(MADE))
    for name, value in changed.items():
        *place, last = name.split("__")
        inner = plain
        for part in place:
            inner = inner[part]
        inner[last] = value
    return json.dumps(plain).encode()


BAD = {
    "cut short": (content()[:100], "not a record"),
    "a list": (b"[1]", "expected an object, found list"),
    "of another kind": (b'{"a": 1}', "schema: expected 2, found None"),
    "of the past": (content(schema=1), "schema: 1 was written by an older version"),
    "of the future": (content(schema=3), "schema: expected 2, found 3"),
    "without an image": (content().replace(b'"image"', b'"imag"'), "image is missing"),
    "a bare infinity": (content().replace(b"0.9", b"Infinity"), "Infinity is no JSON"),
    "an infinite number": (content().replace(b"0.9", b"1e999"), "scores.best.ssim: expected a finite number"),
    "a number as text": (content(scores__best__psnr_db="30.5"), "scores.best.psnr_db: expected a finite number"),
    "an endless integer": (content().replace(b"0.9", b"9" * 5000), "not a record"),
    "an integer past all floats": (content().replace(b"0.9", b"9" * 400), "not a record"),
    "text as a count": (content(steps="5"), "steps: expected int, found '5'"),
    "true as a count": (content(steps=True), "steps: expected int, found True"),
    "nested": (content(settings__lr={"a": {}}), "settings.lr: expected a plain value"),
    "deeply nested": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "a curve of text": (content(curve__psnr=["a"]), "curve.psnr: expected a finite number"),
    "a curve of nothing": (content(curve__every=0), "curve.every: expected at least 1"),
    "no score for its result": (content(result="stopped"), "scores: hold no 'stopped'"),
    "not UTF-8": (b"\xff\xfe" + content(), "not a record"),
    "empty": (b"", "not a record"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_record_is_named_with_its_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "record.json").write_bytes(BAD[name][0])
    records.write(tmp_path / "y", MADE)
    damaged, good = sorted(scan([tmp_path]), key=lambda trace: trace.folder)
    assert damaged.state == "damaged" and BAD[name][1] in damaged.error
    assert good.record == MADE, "the others are read"


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    for name in ("record.json", "lines.jsonl"):
        os.mkfifo(tmp_path / name)
    assert [(trace.state, trace.error) for trace in scan([tmp_path])] == [
        ("damaged", "not a record: expected a regular file")
    ] * 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may list any folder")
def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0)
    try:
        (trace,) = scan([tmp_path])
    finally:
        (tmp_path / "x").chmod(0o700)
    assert (trace.folder.name, trace.state) == ("x", "damaged") and "Permission denied" in trace.error


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert [trace.state for trace in scan([tmp_path / "none"])] == ["damaged"]


def test_overlapping_folders_count_once(tmp_path: Path) -> None:
    for name in ("b/c", "a", "b/d"):
        records.write(tmp_path / name, MADE)
    found = [trace.folder.relative_to(tmp_path).as_posix() for trace in scan([tmp_path, tmp_path / "b"])]
    assert found == ["a", "b/c", "b/d"]


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    records.write(tmp_path / "elsewhere" / "b", MADE)
    records.write(tmp_path / "outputs" / "a", MADE)
    (tmp_path / "outputs" / "mri").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "outputs")
    assert [trace.folder.name for trace in scan([tmp_path / "outputs"])] == ["a", "b"]


def rows(psnr: list[float], loss: float = 0.0) -> list[list[float]]:
    values = {"psnr": psnr, "loss": [loss] * len(psnr)}
    zeros = [0.0] * len(psnr)
    return [
        list(row) for row in zip(range(1, len(psnr) + 1), *(values.get(c, zeros) for c in COLUMNS[1:]), strict=True)
    ]


def test_a_short_curve_is_kept_whole() -> None:
    assert thin(rows([20, 21.5, 21])) == Curve(1, [20, 21.5, 21], [0.0] * 3, [0.0] * 3)
    assert thin([]) == Curve()


def test_without_a_truth_the_loss_is_kept() -> None:
    assert thin(rows([math.nan] * 3, loss=123.4567)) == Curve(1, loss=[123.457] * 3)


@pytest.mark.parametrize(("steps", "every"), [(200, 1), (201, 2), (4000, 20), (4001, 21)])
def test_a_long_curve_is_averaged_in_at_most_200_blocks(steps: int, every: int) -> None:
    kept = thin(rows([float(i) for i in range(steps)]))
    assert kept.every == every
    assert len(kept.psnr) == -(-steps // every) <= 200
    assert kept.psnr[0] == pytest.approx((every - 1) / 2)
    last = range((len(kept.psnr) - 1) * every, steps)
    assert kept.psnr[-1] == pytest.approx(sum(last) / len(last))


def test_a_whole_curve_comes_back(tmp_path: Path) -> None:
    records.write_curve(tmp_path / "curve.csv", rows([20.5, math.nan, math.inf]))
    found = records.read_curve(tmp_path / "curve.csv")
    assert list(found) == list(COLUMNS)
    assert found["psnr"][0] == 20.5 and math.isnan(found["psnr"][1]) and math.isinf(found["psnr"][2])
