"""Held-out error in tables: its own column, and what methods are ranked by where there is no truth."""

from pathlib import Path

import report_records as made

from aseqdip.records import Curve, Score
from aseqdip.report import tables
from aseqdip.report.blocks import Block, agreement, build
from aseqdip.report.rows import load

BLIND = {"scores": {"start": Score(), "last": Score()}, "curve": Curve()}


def block(folder: Path, errors: dict[str, float | None], **more: object) -> Block:
    for method, error in errors.items():
        facts = {} if error is None else {"heldout": error}
        made.write(folder, [made.record("mri", "accel4", method, facts=facts, **more)])
    (found,) = build(load([folder]).rows)
    return found


def test_without_a_truth_the_least_error_comes_first(tmp_path: Path) -> None:
    found = block(tmp_path, {"aseqdip": 0.3, "vanilla_dip": 0.1, "tv_dip": None, "sgld_dip": 0.2}, **BLIND)
    assert [cell.method for cell in found.cells] == ["vanilla_dip", "sgld_dip", "aseqdip", "tv_dip"]
    for text in (tables.means([found]), tables.each([found]), tables.document([found])):
        assert "held-out error" in text
        assert "0.1 " in text


def test_with_a_truth_the_order_stays_and_the_column_is_there(tmp_path: Path) -> None:
    found = block(tmp_path, {"aseqdip": 0.1, "vanilla_dip": 0.3})
    assert [cell.method for cell in found.cells] == ["vanilla_dip", "aseqdip"]
    assert "held-out error" in tables.means([found])


def test_without_a_held_out_error_there_is_no_column(tmp_path: Path) -> None:
    assert "held-out" not in tables.means([block(tmp_path, {"aseqdip": None})])


def test_how_often_it_orders_methods_as_the_truth_does_is_said(tmp_path: Path) -> None:
    found = {"aseqdip": (0.1, 30.0), "vanilla_dip": (0.3, 25.0), "tv_dip": (0.2, 20.0), "sgld_dip": (None, 28.0)}
    for method, (error, level) in found.items():
        facts = {} if error is None else {"heldout": error}
        made.write(tmp_path, [made.record("mri", "accel4", method, level=level, facts=facts)])
    (one,) = build(load([tmp_path]).rows)
    assert agreement(one) == (2, 3), "tv_dip's error is less than vanilla_dip's, and so is its PSNR"
    assert "2 of 3 pairs of methods" in tables.document([one])


def test_errors_of_parts_of_other_sizes_rank_nothing(tmp_path: Path) -> None:
    for method, error, part in (("aseqdip", 0.3, 0.02), ("vanilla_dip", 0.1, 0.4)):
        more = {"facts": {"heldout": error}, "settings": {"holdout_fraction": part}}
        made.write(tmp_path / "known", [made.record("mri", "accel4", method, **more)])
        made.write(tmp_path / "blind", [made.record("mri", "accel4", method, **more, **BLIND)])
    for name in ("known", "blind"):
        (one,) = build(load([tmp_path / name]).rows)
        assert agreement(one) == (0, 0)
        assert "Held-out errors are of parts of several sizes" in tables.means([one])
    blind = [cell.method for cell in one.cells]
    (equal,) = build(load([tmp_path / "known"]).rows)
    assert blind == [cell.method for cell in equal.cells], "as if there were none"
