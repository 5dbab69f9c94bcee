"""From folders to one flat table, to files, and to the command that makes a record again."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import report_records as made

from aseqdip.config import Config
from aseqdip.errors import UserError
from aseqdip.records import identity, run_folder, scan
from aseqdip.report import __main__ as report
from aseqdip.report.cells import build
from aseqdip.report.command import command, composed, word
from aseqdip.report.listing import each, means
from aseqdip.report.rows import export, load


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Four records, one failure, one unfinished image, and two files that are no records."""
    made.write(tmp_path / "outputs", made.campaign([("mri", "accel4", m) for m in ("aseqdip", "es_dip")], 2, 1))
    (first, *_) = sorted((tmp_path / "outputs").rglob("record.json"))
    for name, content in (("broken", '{"schema": 1, "ima'), ("other", '{"a": 1}'), ("list", "[1]")):
        (first.parent.parent / name).mkdir()
        (first.parent.parent / name / "record.json").write_text(content)
    (first.parent.parent / "failed").mkdir()
    failure = {"error": "NonFiniteError: not finite", "after_step": 7, "traceback": "..."}
    (first.parent.parent / "failed" / "failure.json").write_text(json.dumps(failure))
    (first.parent.parent / "begun").mkdir()
    (first.parent.parent / "begun" / ".claim").touch()
    return tmp_path / "outputs"


def test_damaged_records_are_reported_and_skipped(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load([outputs])
    assert len(found.rows) == 4
    assert sorted(trace.folder.name for trace in found.damaged) == ["broken", "list", "other"]
    assert all(trace.error for trace in found.damaged)
    assert [trace.content["after_step"] for trace in found.failed] == [7]
    assert [trace.folder.name for trace in found.unfinished] == ["begun"]


def test_overlapping_folders_count_once(outputs: Path) -> None:
    assert len(load([outputs, outputs / "mri"]).rows) == 4
    assert [t.folder for t in scan([outputs])] == sorted(t.folder for t in scan([outputs]))


def test_csv_holds_one_line_a_reconstruction(outputs: Path, tmp_path: Path) -> None:
    found = load([outputs])
    export(tmp_path / "table.csv", found.rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    for line, row in zip(lines, found.rows, strict=True):
        record = json.loads((row.folder / "record.json").read_text())
        assert line["method"] == record["method"]
        assert float(line["psnr_result"]) == record["scores"][record["result"]]["psnr"]
        assert float(line["best_step"]) == record["scores"]["best"]["step"]
        assert float(line["tflop"]) == pytest.approx(record["flops_per_step"] * record["steps"] / 1e12)
        assert (line["psnr_stopped"] == "") == ("stopped" not in record["scores"])
        assert line["command"] == command(record)


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
    assert [line["psnr_last"] for line in table] == [row.numbers["psnr_last"] for row in rows]


@pytest.mark.parametrize(
    "overrides",
    [
        ("task=mri", "method=aseqdip", "preset=paper", "accel=8", "seed=3"),
        ("task=ct", "method=ref_guided_dip", "preset=quick", "data=public", "data_root=/d", "pool=/d/p"),
        (
            "task=ct",
            "method=ref_guided_dip",
            "preset=quick",
            "dataset=ct",
            "data_root='/a folder/it\\'s'",
            "pool='/b,c'",
        ),
        (
            "task=denoising",
            "method=rethinking_dip",
            "recipe=original",
            "sigma=30",
            "dataset=folder",
            "dataset.folder=x",
        ),
        (
            "task=inpainting",
            "method=tv_dip",
            "mask=random",
            "operator.missing=0.9",
            "method.rho=0.2",
            "size=native",
        ),
        ("task=deblurring", "method=self_guided_dip", "network=medium", "ema=0.99", "kernel=motion"),
    ],
    ids=lambda words: words[1],
)
def test_the_command_composes_to_the_records_settings(
    configure: Callable[..., Config], overrides: tuple[str, ...]
) -> None:
    cfg = configure(*overrides)
    record = {
        **{"image": 'a "b" <script>, 007', "preset": cfg.preset.name, "recipe": cfg.recipe.name},
        **{"identity": identity(cfg), "config": json.loads(json.dumps(dataclasses.asdict(cfg)))},
    }
    line = command(json.loads(json.dumps(record)))
    program, script, *words = shlex.split(line)
    again = composed(words)
    assert (program, script) == ("python", "run.py")
    assert identity(again) == identity(cfg)
    assert run_folder(again).name == run_folder(cfg).name, "the same hash: the same folder is found again"
    assert again.images == record["image"]
    assert again.dataset == cfg.dataset, "the same folder and list of files"
    assert (again.dataset.folder, again.pool if cfg.input == "reference" else None) == (
        cfg.dataset.folder,
        cfg.pool,
    )
    given = {w.split("=")[0] for w in overrides}
    assert {w.split("=")[0] for w in words} - given <= {
        "images",
        "precision",
        "preset",
        "data_root",
        "network.name",
        "network.depth",
        "network.width",
    }


def test_a_record_without_its_settings_has_no_command() -> None:
    assert command({"image": "a", "preset": "paper", "recipe": "matched"}) == ""


@pytest.mark.parametrize("name", ["a b", "null", "1,2", "[x]", 'say "a"', "back\\slash", 'both\\"', "a=b", "é", "~/x"])
def test_any_name_survives_the_command_line(name: str) -> None:
    assert composed([word("images", name)]).images == name


def test_the_command_line_writes_what_is_asked_for(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("html", "markdown", "latex")} | {
        "export": tmp_path / "t.csv"
    }
    words = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    monkeypatch.setattr(sys, "argv", ["report", str(outputs), *words])
    report.main()
    assert capsys.readouterr().out.split() == [str(path) for path in files.values()]
    assert all(path.stat().st_size > 500 for path in files.values())
    page = files["html"].read_text()
    assert "NonFiniteError: not finite" in page and "mri/accel4" in page


def test_without_files_it_prints_its_table_as_before(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(outputs), "--mean"])
    report.main()
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("| task | setting | method |") and len(out) == 4


def split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_means_are_compared_with_aseqdip_on_the_images_both_have(tmp_path: Path) -> None:
    records = list(made.campaign([("mri", "accel4", m) for m in ("aseqdip", "vanilla_dip")], 3, 1))
    for number, (found, _) in enumerate(records):
        found["scores"]["last"]["psnr"] = 30.0 + number % 3 - (found["method"] == "vanilla_dip")
    made.write(tmp_path, records[:-1])
    header, _, *lines = (split(line) for line in means(build(load([tmp_path]).rows)).splitlines())
    cells = [dict(zip(header, line, strict=True)) for line in lines]
    assert [(c["method"], c["n"], c["last"].split(" / ")[0]) for c in cells] == [
        ("Vanilla DIP", "2", "29.50"),
        ("aSeqDIP", "3", "31.00"),
    ]
    assert [c["paper, Fig. 4"] for c in cells] == ["500", "not before 4000"]
    assert all(c["falls from step"] for c in cells)
    assert [c["- aSeqDIP [95 %], ahead"] for c in cells] == ["-1.00 [-1.00, -1.00], 0 of 2", ""]


def test_every_reconstruction_has_a_line(outputs: Path) -> None:
    header, _, *lines = (split(line) for line in each(build(load([outputs]).rows)).splitlines())
    assert len(lines) == 4
    assert {dict(zip(header, line, strict=True))["image"] for line in lines} == {"image000", "image001"}


def test_an_empty_folder_is_an_error_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, message in ((tmp_path, "run something first"), (tmp_path / "none", "There is no folder")):
        monkeypatch.setattr(sys, "argv", ["report", str(folder), "--html", str(tmp_path / "r.html")])
        with pytest.raises(SystemExit, match=message):
            report.main()
