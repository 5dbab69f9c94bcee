"""From folders to one flat table, to files, and back from the compact form."""

import base64
import csv
import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_records as made

from aseqdip import records
from aseqdip.errors import UserError
from aseqdip.export import main as export_main
from aseqdip.records import Failure, Score
from aseqdip.report import __main__ as report
from aseqdip.report.compact import compact
from aseqdip.report.gallery import pictures
from aseqdip.report.rows import Row, export, load


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Four records, one failure, one unfinished image, and a file that is no record."""
    outputs = tmp_path / "outputs"
    made.write(outputs, made.campaign([("mri", "accel4", m) for m in ("aseqdip", "es_dip")], 2))
    records.write_failure(outputs / "failed", Failure("x", "NonFiniteError: not finite", 7))
    for name in ("broken/record.json", "begun/.claim"):
        (outputs / name).parent.mkdir()
        (outputs / name).touch()
    return outputs


def test_everything_below_is_found(outputs: Path) -> None:
    found = load([outputs])
    assert len(found.rows) == 4
    others = (*found.damaged, *found.failed, *found.unfinished)
    assert [trace.folder.name for trace in others] == ["broken", "failed", "begun"]
    curve = found.rows[0].curve
    assert len(curve) == 200 and found.rows[0].every == 2
    assert found.rows[0].record.settings is found.rows[1].record.settings, "what is alike is kept once"


def test_failures_are_told_beside_the_tables(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(outputs, "--mean")
    assert "failed failed: NonFiniteError: not finite" in caplog.text


def test_a_curve_with_holes_is_not_drawn(tmp_path: Path) -> None:
    one = made.record("mri", "accel4", "aseqdip")
    one.curve.psnr[3] = math.nan
    made.write(tmp_path, [one])
    assert not len(load([tmp_path]).rows[0].curve)


def test_csv_holds_one_line_a_reconstruction(outputs: Path, tmp_path: Path) -> None:
    found = load([outputs])
    export(tmp_path / "table.csv", found.rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    for line, row in zip(lines, found.rows, strict=True):
        trace = records.read(row.folder)
        assert trace is not None and trace.record is not None
        record = trace.record
        assert line["method"] == record.method
        assert float(line["result_psnr_db"]) == record.score.psnr_db
        assert float(line["best_step"]) == record.scores["best"].step
        assert float(line["tflop"]) == pytest.approx(record.flops_per_step * record.steps / 1e12)
        assert [float(line[f"{name}_seconds"]) for name in record.seconds] == [*record.seconds.values()]
        assert (line["stopped_psnr_db"] == "") == ("stopped" not in record.scores)
        assert line["command"] == "python run.py " + " ".join(record.command)


def test_a_curve_is_of_what_is_the_result_and_whole(tmp_path: Path) -> None:
    last = made.record("mri", "accel4", "aseqdip", "x", steps=100)
    psnr = last.curve.psnr
    averaged = replace(last, image="y", result="ema", curve=replace(last.curve, psnr_ema=[v + 1 for v in psnr]))
    short = replace(last, image="z", curve=replace(last.curve, psnr=psnr[:-1]))
    made.write(tmp_path, [last, averaged, short])
    rows = {row.label: row for row in load([tmp_path]).rows}
    assert rows["x"].reached == pytest.approx(psnr, rel=1e-6)
    assert rows["y"].reached == pytest.approx([v + 1 for v in psnr], rel=1e-6), "the average, which is the result"
    assert rows["y"].curve == pytest.approx(psnr, rel=1e-6) and not len(rows["y"].ssim)
    assert not len(rows["z"].curve), "one of another length than its steps is none"


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, start: str) -> None:
    one = made.record("mri", "accel4", "aseqdip", f"{start}|x", level=-5.0, command=[])
    export(tmp_path / "t.csv", load_one(tmp_path / "o", one))
    with (tmp_path / "t.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["image"] == f"'{start}|x"
    assert float(line["result_psnr_db"]) < 0, "a negative number stays one"


def load_one(folder: Path, record: records.Record) -> list[Row]:
    made.write(folder, [record])
    return load([folder]).rows


def test_infinite_scores_and_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    exact = Score(math.inf, 1.0)
    scores = dict.fromkeys(("start", "last", "best"), exact)
    one = made.record("mri", "accel4", "aseqdip", os.fsdecode(b"caf\xe9"), scores=scores)
    made.write(tmp_path / "o", [one])
    files = {name: tmp_path / f"x.{name}" for name in ("html", "markdown", "latex")} | {"export": tmp_path / "x.csv"}
    run(tmp_path / "o", *(word for name, path in files.items() for word in (f"--{name}", str(path))))
    for path in files.values():
        text = path.read_bytes().decode()
        assert "inf" in text, path
        assert path.suffix in (".markdown", ".latex") or "caf\\udce9" in text, path


def run(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report", *map(str, words)])
        report.main()


def test_parquet_needs_pyarrow_and_says_so(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        export(tmp_path / "table.parquet", load([outputs]).rows)
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        export(tmp_path / "table.xlsx", load([outputs]).rows)


def test_parquet_holds_the_same_table(outputs: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: Parquet is not written")
    rows = load([outputs]).rows
    export(tmp_path / "table.parquet", rows)
    table = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert [line["last_psnr_db"] for line in table] == [row.number("last_psnr_db") for row in rows]


def test_the_command_line_writes_what_is_asked_for(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("html", "markdown", "latex")}
    files["export"] = tmp_path / "t.csv"
    run(outputs, *(part for name, path in files.items() for part in (f"--{name}", path)))
    assert capsys.readouterr().out.split() == [str(path) for path in files.values()]
    assert all(path.stat().st_size > 500 for path in files.values())
    page = files["html"].read_text()
    assert "NonFiniteError: not finite" in page and "expected an object" not in page
    assert "not a record" in page, "why a record cannot be read"


def test_without_files_it_prints_its_table(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(outputs, "--mean", "--method", "aseqdip")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("MRI, accel4") and out[2].startswith("| method ") and len(out) == 7
    assert "--export" in out[-1], "where the columns are that a terminal has no room for"


@pytest.mark.parametrize("mean", [True, False])
def test_tables_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], mean: bool) -> None:
    knobs = {f"knob{i}": i for i in range(9)}
    wide = {"facts": {"heldout": 0.0123}, "problem": {"size": "320", **{f"of_the_task{i}": 1 for i in range(9)}}}
    cells = [("mri", "accel4", method) for method in ("vanilla_dip", "aseqdip")]
    for more in ({"settings": {"lr": 1e-4, **knobs}}, {"settings": {"lr": 1e-3}}):
        made.write(tmp_path, made.campaign(cells, 7, 2, **wide, **more))
    patient = "a_patient's_name_that_says_everything_there_is_to_say_of_the_scan_s003"
    made.write(tmp_path, [made.record("mri", "accel4", "aseqdip", patient, seed=17, level=100.25, **wide)])
    made.write(tmp_path, [made.record("mri", "accel4", "direct")])
    run(tmp_path, *(["--mean"] if mean else []))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    names = " ".join(out.split())
    assert "knob7=7, knob8=8, lr=0.0001)" in names, "what is cut is said in full below"
    assert mean or f"{patient}, seed 17" in names
    assert "EMA" not in out


def test_an_empty_folder_is_an_error_with_advice(tmp_path: Path) -> None:
    for folder, message in ((tmp_path, "run something first"), (tmp_path / "none", "There is no folder")):
        with pytest.raises(SystemExit, match=message):
            run(folder, "--html", tmp_path / "r.html")


def test_only_damaged_records_still_make_a_page(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "record.json").write_text("{}")
    run(tmp_path, "--html", tmp_path / "r.html")
    assert "expected 2, found None" in (tmp_path / "r.html").read_text()


# --- the compact form --------------------------------------------------------------------------------------------


def test_the_compact_form_is_read_as_the_folders_were(tmp_path: Path) -> None:
    cells = [("mri", "accel4", "aseqdip"), ("mri", "accel4", "direct"), ("ct", "views30", "direct")]
    folders = made.write(tmp_path / "full", made.campaign(cells, 2))
    rng = np.random.default_rng(0)
    arrays = {name: rng.random((1, 1, 48, 64), dtype=np.float32) for name in ("truth", "start", "shown")}
    for folder in folders[:3]:
        np.savez(folder / "reconstruction.npz", **arrays)
    files = compact([tmp_path / "full"], tmp_path / "small")
    assert [str(f.relative_to(tmp_path / "small")) for f in files] == ["ct/views30.jsonl", "mri/accel4.jsonl"]
    whole, small = load([tmp_path / "full"]).rows, load([tmp_path / "small"]).rows
    by_place = {row.folder.relative_to(tmp_path / "small"): row for row in small}
    assert len(small) == len(whole)
    for row in whole:
        other = by_place[row.folder.relative_to(tmp_path / "full")]
        assert other.record == row.record and np.array_equal(other.curve, row.curve)
    pictured = [row for row in small if row.pictured]
    kinds = sorted((row.record.image, *sorted(pictures(row))) for row in pictured)
    assert kinds == [
        ("image000", "result"),
        ("image000", "result", "start", "truth"),
        ("image001", "result", "start", "truth"),
    ], "the start and the truth of an image are kept once"
    kept = [data for row in pictured for data in pictures(row).values()]
    assert all(base64.b64decode(data)[8:12] == b"WEBP" and len(data) < 8000 for data in kept)


def test_a_later_campaign_adds_to_the_compact_form(tmp_path: Path) -> None:
    made.write(tmp_path / "a", [made.record("mri", "accel4", "aseqdip", "one")])
    made.write(tmp_path / "b", [made.record("mri", "accel4", "aseqdip", "two")])
    compact([tmp_path / "a"], tmp_path / "small")
    (file,) = compact([tmp_path / "b"], tmp_path / "small")
    assert [json.loads(line)["record"]["image"] for line in file.read_text().splitlines()] == ["one", "two"]
    before = file.read_text()
    compact([tmp_path / "small"], tmp_path / "small")
    assert file.read_text() == before


def test_pictures_that_the_compact_form_has_stay(tmp_path: Path) -> None:
    (folder,) = made.write(tmp_path / "a", [made.record("mri", "accel4", "aseqdip", "one")])
    (file,) = compact([tmp_path / "a"], tmp_path / "small")
    assert '"pictures": {}' in file.read_text()
    np.savez(folder / "reconstruction.npz", shown=np.random.default_rng(0).random((1, 1, 48, 64), dtype=np.float32))
    compact([tmp_path / "a"], tmp_path / "small")
    pictured = file.read_text()
    assert '"pictures": {}' not in pictured, "which are drawn once there are any"
    (folder / "reconstruction.npz").unlink()
    compact([tmp_path / "a"], tmp_path / "small")
    assert file.read_text() == pictured


def test_any_folder_of_results_is_made_compact_under_task_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [("mri", "accel4", "aseqdip"), ("mri", "accel4", "tv_dip")]
    run = made.write(tmp_path / "full", made.campaign(cells, 1))[0].parent
    compact([tmp_path / "full"], tmp_path / "all")
    for number, root in enumerate((run, run.parent, run.parent.parent, tmp_path / "all" / "mri" / "accel4.jsonl")):
        (file,) = compact([root], tmp_path / str(number))
        assert file == tmp_path / str(number) / "mri" / "accel4.jsonl"
        assert len(file.read_text().splitlines()) == (1 if root == run else 2)
    words = ["report", str(tmp_path / "full"), "--method", "tv_dip", "--compact", str(tmp_path / "one")]
    monkeypatch.setattr(sys, "argv", words)
    report.main()
    (line,) = (tmp_path / "one" / "mri" / "accel4.jsonl").read_text().splitlines()
    assert json.loads(line)["record"]["method"] == "tv_dip"


def test_nothing_is_made_compact_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "record.json").write_text("{}")
    with pytest.raises(UserError, match="Mend or delete it first"):
        compact([tmp_path], tmp_path / "small")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_arrays_that_cannot_be_read_are_not_left_out_without_a_word(tmp_path: Path, content: bytes) -> None:
    (folder,) = made.write(tmp_path / "a", [made.record("mri", "accel4", "aseqdip")])
    (folder / "reconstruction.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"its reconstruction\.npz cannot be read .*redo=true"):
        compact([tmp_path / "a"], tmp_path / "small")
    with pytest.raises(UserError) as refused:
        export_main([str(tmp_path / "a"), "--to", "h5"])
    assert str(refused.value).count(str(folder)) == 1


def test_a_target_that_holds_something_else_is_not_written(tmp_path: Path) -> None:
    made.write(tmp_path / "a", [made.record("mri", "accel4", "aseqdip")])
    (tmp_path / "mri").mkdir()
    for line in ('{"seconds": 3}', '{"folder": "run/x", "record": null}'):
        (tmp_path / "mri" / "accel4.jsonl").write_text(f"{line}\n")
        with pytest.raises(UserError, match=r"accel4\.jsonl: line 1 is no record"):
            compact([tmp_path / "a"], tmp_path)


def test_the_compact_form_of_a_linked_folder_is_called_as_the_link(tmp_path: Path) -> None:
    made.write(tmp_path / "disk" / "of" / "results", [made.record("mri", "accel4", "aseqdip")])
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mri").symlink_to(tmp_path / "disk" / "of" / "results" / "mri")
    (file,) = compact([tmp_path / "outputs"], tmp_path / "small")
    assert file == tmp_path / "small" / "mri" / "accel4.jsonl"


def test_some_methods_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made.write(tmp_path, made.campaign([("mri", "accel4", "aseqdip"), ("mri", "accel4", "tv_dip")], 2))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "checkpoint.pt").touch()
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--mean", "--method", "tv_dip"])
    report.main()
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| TV-DIP")]
    assert re.search(r"\| [+-]\d\.\d\d ", row), "they are still measured against aSeqDIP"
    assert "1 more were begun and are not finished" in caplog.text
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--method", "foo"])
    with pytest.raises(SystemExit, match="--method foo: there are results of aseqdip, tv_dip"):
        report.main()
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--method", "pnp", "tv_dip"])
    report.main()
    assert "There is no result of pnp." in caplog.text


@pytest.mark.parametrize("line", ["", "[]", '{"folder": "../x", "record": {}}', '{"folder": 3}', '{"folder": "a"}'])
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: str) -> None:
    good = records.dumps({"folder": "run/a", "record": replace(made.record("mri", "accel4", "aseqdip"))})
    (tmp_path / "accel4.jsonl").write_text(f"{line}\n{good}\n")
    (tmp_path / "benchmark.jsonl").write_text('{"seconds": 1}\n')
    found = load([tmp_path])
    assert len(found.rows) == 1 and found.rows[0].folder == tmp_path / "accel4" / "run" / "a"
    assert len(found.damaged) == 1 and "not a record" in found.damaged[0].error
