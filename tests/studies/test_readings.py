"""The study of readings: what it tries, what it keeps, and the document made of its records."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from aseqdip import calibration, records
from aseqdip.calibration import FIRST, SECOND, Study, label
from aseqdip.config import Config, config_folder, typed_config
from aseqdip.report import reproduction

WORDS = ("experiment=calibration", "preset=smoke", "task=denoising", "steps=4")


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Study]]:
    """Makes the study of one task with a few readings, 4 steps each, on the built-in pictures; always in one folder."""
    words = [*WORDS, f"outputs={tmp_path_factory.mktemp('study')}"]
    GlobalHydra.instance().clear()
    with (
        pytest.MonkeyPatch.context() as patch,
        initialize_config_dir(str(config_folder()), version_base="1.3"),
    ):
        patch.setattr(calibration, "RATES", ("1e-4", "1e-3", "3e-3"))
        patch.setitem(calibration.NETWORKS, "denoising", ("skip", "shallow"))
        patch.setattr(calibration, "CHANGES", calibration.QUESTIONS)
        patch.setattr(calibration, "VANILLA_CHANGES", ({"input": "normal"},))
        patch.setattr(calibration, "GUIDED_CHANGES", ())
        patch.setattr(calibration, "SIZES", (64,))
        composed = compose("config", words)
        yield lambda: Study(typed_config(OmegaConf.to_container(composed, resolve=True)), words)
    GlobalHydra.instance().clear()


@pytest.fixture(scope="module")
def finished(begin: Callable[[], Study]) -> Study:
    study = begin()
    study.run()
    return study


def test_a_study_finishes_says_what_was_best_and_a_second_one_finds_everything_done(
    begin: Callable[[], Study], finished: Study
) -> None:
    assert set(finished.best) == {"aseqdip", "vanilla_dip", "self_guided_dip", "recipe"}
    assert not finished.summary.failed
    content = finished.file.read_text()
    again = begin()
    again.run()
    assert not again.summary.records  # nothing was computed anew
    assert finished.file.read_text() == content


def test_the_best_reading_is_ahead_of_all_that_were_tried_as_often(finished: Study) -> None:
    units = [*FIRST, *SECOND, *calibration.AGAIN]
    best = label("aseqdip", finished.best["aseqdip"])
    tried = [name for name, unit in finished.scores if unit == (1, 1) and name.startswith("aseqdip ")]
    rivals = [name for name in tried if "precision" not in name]  # that one repeats the best
    assert len(rivals) > 2  # the questions were carried along, at least
    means = {name: fmean(finished.scores[name, unit]["last"] for unit in units) for name in rivals}
    assert max(means, key=lambda name: means[name]) == best


def test_a_screen_keeps_the_best_third_and_what_is_asked_for(
    begin: Callable[[], Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin()
    scores = {"a": 9.0, "b": 5.0, "c": 7.0, "d": 1.0, "e": 3.0, "f": 2.0}
    tried = []

    def pretend(method: str, stage: str, readings: list[dict[str, str]], units: list[tuple[int, int]]) -> None:
        for reading in readings:
            for unit in units:
                tried.append((reading["x"], unit))
                made.scores[label(method, reading), unit] = {"last": scores[reading["x"]]}

    monkeypatch.setattr(made, "try_all", pretend)
    readings = [{"x": name} for name in scores]
    kept = made.screen("m", "s", readings, (FIRST, SECOND), asked=[{"x": "d"}])
    assert kept == [{"x": "a"}, {"x": "c"}, {"x": "d"}]
    assert [name for name, unit in tried if unit == (1, 0)] == ["a", "c", "d"]


def test_changes_that_gained_are_tried_together(begin: Callable[[], Study]) -> None:
    made = begin()
    anchor = {"lr": "1e-3"}
    changes = [
        {**anchor, "lam": "0"},
        {**anchor, "lam": "10"},
        {**anchor, "N": "10"},
        {**anchor, "residual": "norm"},
    ]
    gains = (0.0, 0.5, 0.3, 0.2, 0.05)
    for reading, gain in zip([anchor, *changes], gains, strict=True):
        made.scores[label("aseqdip", reading), (0, 0)] = {"last": 20 + gain}
    assert made.together(anchor, changes) == {"lr": "1e-3", "lam": "0", "N": "10"}


def test_the_document_has_a_number_for_every_question(finished: Study, tmp_path: Path) -> None:
    document = tmp_path / "reproduction.md"
    reproduction.main([str(finished.file.parent), str(document)])
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
    best = finished.best["aseqdip"]
    mean = finished.mean("aseqdip", best, [*FIRST, *SECOND, *calibration.AGAIN])
    assert f"| `{label('aseqdip', best)}` | 4 | {mean:.2f} |" in text
    assert "nan" not in text
    assert "{{" not in text


def test_a_missing_record_is_named(finished: Study, tmp_path: Path) -> None:
    shutil.copytree(finished.file.parent, tmp_path / "copy")
    tried = json.loads(finished.file.read_text())["tried"]
    (tmp_path / "copy" / tried[3]["folder"] / "record.json").unlink()
    with pytest.raises(SystemExit, match="is missing"):
        reproduction.main([str(tmp_path / "copy"), str(tmp_path / "out.md")])


STUDIES = sorted((Path(__file__).parent.parent / "results" / "calibration").glob("*.json"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
@pytest.mark.parametrize("method", ["aseqdip", "vanilla_dip", "self_guided_dip"])
def test_the_best_recipe_is_what_the_committed_study_found(
    configure: Callable[..., Config], file: Path, method: str
) -> None:
    study = json.loads(file.read_text())
    found = study["best"]["recipe" if method == "aseqdip" else method]
    words = [f"task={file.stem}", f"method={method}", "preset=quick", "precision=auto"]
    assert records.identity(configure(*words, "recipe=best")) == records.identity(
        configure(*words, "N=2", *(f"{name}={value}" for name, value in found.items()))
    )


def test_the_paper_recipe_is_the_text_whatever_the_preset(configure: Callable[..., Config]) -> None:
    for task in ("mri", "ct", "denoising"):
        cfg = configure(f"task={task}", "preset=quick", "recipe=paper")
        assert set(records.deviations(cfg)) == {"steps"}
        assert cfg.recipe.name == "paper"
