"""PSNR and SSIM of every iterate, or of some: the reconstruction is the same."""

from pathlib import Path

import numpy as np
import pytest
from cases import Configure

from aseqdip.config import Config
from aseqdip.records import COLUMNS, Record, read_curve, thin
from aseqdip.run.runner import run


def outcome(cfg: Config) -> tuple[Record, dict[str, np.ndarray], np.ndarray]:
    summary = run(cfg)
    (record,) = summary.records
    folder = summary.folder / record.image
    with np.load(folder / "reconstruction.npz") as arrays:
        return record, read_curve(folder / "curve.csv"), arrays["reconstruction"]


def test_fewer_scores_and_the_same_reconstruction(configure: Configure, tmp_path: Path) -> None:
    all_of_them = outcome(configure("steps=10"))
    some = outcome(configure("steps=10", "score_every=4", f"outputs={tmp_path / 'some'}"))
    assert np.array_equal(all_of_them[2], some[2])
    scored = np.array([0, 3, 7, 9])  # the first, every fourth, and the last
    for name in COLUMNS:
        full, part = all_of_them[1][name], some[1][name]
        if name in ("psnr", "ssim", "psnr_ema"):
            assert np.array_equal(part[scored], full[scored])
            assert np.isnan(part).sum() == 6
        else:
            assert np.array_equal(part, full, equal_nan=True)
    for which in ("last", "ema", "start"):
        assert all_of_them[0].scores[which] == some[0].scores[which]
    best = some[0].scores["best"]
    assert best.step == scored[np.argmax(some[1]["psnr"][scored])] + 1
    assert best.psnr_db == pytest.approx(np.nanmax(some[1]["psnr"]), abs=1e-3)


def test_a_stopped_run_has_its_last_score(configure: Configure) -> None:
    words = "steps=60", "stop=wmv", "window=2", "patience=1", "score_every=1000"
    record, curve, _ = outcome(configure(*words))
    assert record.steps < 60
    assert np.isfinite(curve["psnr"][0])
    assert (record.scores["last"].psnr_db or 0) > 0
    assert record.scores["best"].step == 1


def test_thinned_means_are_of_what_is_scored() -> None:
    rows = np.full((400, len(COLUMNS)), np.nan)
    psnr, ema = COLUMNS.index("psnr"), COLUMNS.index("psnr_ema")
    rows[:, 0] = np.arange(1, 401)
    rows[::4, psnr] = 20 + np.arange(100)
    rows[:, ema] = 30.0
    thinned = thin(rows.tolist())
    assert thinned.every == 4, "a score in each"
    assert thinned.psnr == [20.0 + n for n in range(100)]
    assert thinned.psnr_ema == [30.0] * 100
    assert thin(rows[:15, :].tolist()).psnr == [20.0, 21.0, 22.0, 23.0]
    assert thin(rows[1:16, :].tolist()).psnr[-2:] == [23.0, 23.0], "ended between two scores: the latest"
