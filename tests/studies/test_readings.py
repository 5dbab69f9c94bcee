"""The study of readings: what it tries, what it keeps, and the document made of its records."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest

from aseqdip import figures, identity
from aseqdip.compose import compose
from aseqdip.config import Config
from aseqdip.report.compact import compact
from aseqdip.studies import readings, readings_report
from aseqdip.studies.readings import FIRST, SECOND, Study, label

WORDS = ("experiment=calibration", "preset=smoke", "task=denoising", "steps=4")


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Study]]:
    """Makes the study of one task with a few readings, 4 steps each, on the built-in pictures; always in one folder."""
    words = [*WORDS, f"outputs={tmp_path_factory.mktemp('study')}"]
    with pytest.MonkeyPatch.context() as patch:
        for picture in ("preview", "curve"):  # half of the time, and tested elsewhere
            patch.setattr(figures, picture, lambda *_: None)
        patch.setattr(readings, "RATES", ("1e-4", "1e-3"))
        patch.setitem(readings.NETWORKS, "denoising", ("skip", "shallow"))
        patch.setattr(readings, "CHANGES", readings.QUESTIONS)
        patch.setattr(readings, "VANILLA_CHANGES", ({"input": "normal"},))
        patch.setattr(readings, "GUIDED_CHANGES", ())
        patch.setattr(readings, "SIZES", (64,))
        yield lambda: Study(compose(words), words)


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
    units = [*FIRST, *SECOND, *readings.AGAIN]
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
    pool = [{"x": name} for name in scores]
    kept = made.screen("m", "s", pool, (FIRST, SECOND), asked=[{"x": "d"}])
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
    readings_report.main([str(finished.file.parent), str(document)])
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
    mean = finished.mean("aseqdip", best, [*FIRST, *SECOND, *readings.AGAIN])
    assert f"| `{label('aseqdip', best)}` | 4 | {mean:.2f} |" in text
    assert "nan" not in text
    assert "{{" not in text


def test_the_compact_form_tells_the_same_and_a_missing_record_is_named(finished: Study, tmp_path: Path) -> None:
    whole, small = finished.file.parent, tmp_path / "small"
    (lines,) = compact([whole], small)
    (small / finished.file.name).write_text(finished.file.read_text())
    texts = []
    for folder in (whole, small):
        readings_report.main([str(folder), str(tmp_path / "out.md")])
        texts.append((tmp_path / "out.md").read_text().replace(str(folder), ""))
    assert texts[0] == texts[1]
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(SystemExit, match="is missing"):
        readings_report.main([str(small), str(tmp_path / "out.md")])


STUDIES = sorted((Path(__file__).parents[2] / "results" / "calibration").glob("*.json"))


def _not_chosen_since(file: Path, method: str) -> bool:
    recipe = Path(__file__).parents[2] / "configs" / "recipe_task" / f"best_{method}_{file.stem}.yaml"
    return "aseqdip.studies.claims" not in recipe.read_text()


@pytest.mark.parametrize(
    ("file", "method"),
    [(f, m) for f in STUDIES for m in ("aseqdip", "vanilla_dip", "self_guided_dip") if _not_chosen_since(f, m)],
    ids=lambda it: getattr(it, "stem", it),
)
def test_the_best_recipe_is_what_the_committed_study_found(
    configure: Callable[..., Config], file: Path, method: str
) -> None:
    study = json.loads(file.read_text())
    found = study["best"]["recipe" if method == "aseqdip" else method]
    words = [f"task={file.stem}", f"method={method}", "preset=quick", "precision=auto"]
    assert identity.identity(configure(*words, "recipe=best")) == identity.identity(
        configure(*words, "recipe=matched", "N=2", *(f"{name}={value}" for name, value in found.items()))
    )


def test_the_paper_recipe_is_the_text_whatever_the_preset(configure: Callable[..., Config]) -> None:
    for task in ("mri", "ct", "denoising"):
        cfg = configure(f"task={task}", "preset=quick", "recipe=paper")
        network = "network" if task == "denoising" else "network.width"  # which the preset sets
        assert set(identity.departures(cfg)) == {"steps", network}
        assert cfg.recipe == "paper"
