"""The study of readings: what it tries, what it keeps, and the document made of its records."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from aseqdip import calibration
from aseqdip.calibration import FIRST, SECOND, Study, label
from aseqdip.cli import config_folder
from aseqdip.config import Config
from aseqdip.report import reproduction

WORDS = ("experiment=calibration", "preset=smoke", "task=denoising", "steps=8")


@pytest.fixture
def study(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[], Study]:
    """Makes the study of one task with a few readings, 8 steps each, on the built-in pictures."""
    monkeypatch.setattr(calibration, "RATES", ("1e-4", "1e-3", "3e-3"))
    monkeypatch.setattr(calibration, "PICTURE_NETWORKS", ("skip", "shallow"))
    monkeypatch.setattr(calibration, "CHANGES", calibration.QUESTIONS)
    monkeypatch.setattr(calibration, "VANILLA_CHANGES", ({"input": "normal"},))
    monkeypatch.setattr(calibration, "GUIDED_CHANGES", ({"method.alpha": "0.1"},))
    monkeypatch.setattr(calibration, "SIZES", (64,))
    words = [*WORDS, f"outputs={tmp_path}"]
    cfg = configure(*words)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield lambda: Study(cfg, words)


def test_a_study_finishes_says_what_was_best_and_a_second_one_finds_everything_done(
    study: Callable[[], Study], tmp_path: Path
) -> None:
    first = study()
    first.run()
    assert set(first.best) == {"aseqdip", "vanilla_dip", "self_guided_dip", "recipe"}
    assert not first.summary.failed
    file = tmp_path / "denoising.json"
    content = file.read_text()
    again = study()
    again.run()
    assert not again.summary.records  # nothing was computed anew
    assert file.read_text() == content


def test_the_best_reading_is_ahead_of_all_that_were_tried_as_often(study: Callable[[], Study]) -> None:
    found = study()
    found.run()
    units = [*FIRST, *SECOND, *calibration.AGAIN]
    best = found.mean("aseqdip", found.best["aseqdip"], units)
    rivals = [
        name
        for name, unit in found.last
        if unit == (1, 1) and name.startswith("aseqdip") and name != label("aseqdip", found.best["aseqdip"])
    ]
    assert rivals  # the questions were carried along, at least
    assert all(best >= sum(found.last[name, u] for u in units) / len(units) for name in rivals)


def test_a_screen_keeps_the_best_third_and_what_is_asked_for(
    study: Callable[[], Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study()
    scores = {"a": 9.0, "b": 5.0, "c": 7.0, "d": 1.0, "e": 3.0, "f": 2.0}
    tried = []

    def pretend(
        method: str, stage: str, readings: list[dict[str, str]], units: list[tuple[int, int]]
    ) -> None:
        for reading in readings:
            for unit in units:
                tried.append((reading["x"], unit))
                made.last[label(method, reading), unit] = scores[reading["x"]]

    monkeypatch.setattr(made, "try_all", pretend)
    readings = [{"x": name} for name in scores]
    kept = made.screen("m", "s", readings, (FIRST, SECOND), asked=[{"x": "d"}])
    assert kept == [{"x": "a"}, {"x": "c"}, {"x": "d"}]
    assert [name for name, unit in tried if unit == (1, 0)] == ["a", "c", "d"]


def test_changes_that_gained_are_tried_together(study: Callable[[], Study]) -> None:
    made = study()
    anchor = {"lr": "1e-3"}
    changes = [
        {**anchor, "lam": "0"},
        {**anchor, "lam": "10"},
        {**anchor, "N": "10"},
        {**anchor, "residual": "norm"},
    ]
    gains = (0.0, 0.5, 0.3, 0.2, 0.05)
    for reading, gain in zip([anchor, *changes], gains, strict=True):
        made.last[label("aseqdip", reading), (0, 0)] = 20 + gain
    assert made.together(anchor, changes) == {"lr": "1e-3", "lam": "0", "N": "10"}


def test_the_document_has_a_number_for_every_question(
    study: Callable[[], Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study().run()
    document = tmp_path / "reproduction.md"
    reproduction.main([str(tmp_path), str(document)])
    text = document.read_text()
    assert (tmp_path / "reproduction.png").stat().st_size > 10_000
    for question in (
        "lambda = 1 beat lambda = 0",
        "Squared norms",
        "peak beat",
        "decays?",
        "size and network",
        "cost?",
    ):
        assert question in text
    content = json.loads((tmp_path / "denoising.json").read_text())
    record = json.loads((tmp_path / content["tried"][0]["folder"] / "record.json").read_text())
    assert f"{record['scores']['last']['psnr']:.2f}" in text or len(content["tried"]) > 20
    assert "nan" not in text
    assert "{{" not in text


def test_a_missing_record_is_named(study: Callable[[], Study], tmp_path: Path) -> None:
    study().run()
    content = json.loads((tmp_path / "denoising.json").read_text())
    gone = tmp_path / content["tried"][3]["folder"] / "record.json"
    gone.unlink()
    with pytest.raises(SystemExit, match="is missing"):
        reproduction.main([str(tmp_path), str(tmp_path / "out.md")])
