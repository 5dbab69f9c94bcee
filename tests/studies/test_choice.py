"""One rule of choice for every method: each way to break it is found, and no committed study breaks it unsaid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aseqdip.errors import UserError
from aseqdip.records import Record, Score, scan
from aseqdip.studies.choice import Budget, broken, budgets, chosen, main, patient, reading

RESULTS = Path(__file__).parents[2] / "results"
#: made before there was the rule, or smaller than it asks for; the page says so, and how they break it
SAID = {"calibration": "reproduction.md", "quality": "quality.md"}


def record(
    method: str, lr: float, image: str, psnr: float, recipe: str = "matched", dataset: str = "tuning_mri"
) -> Record:
    scores = {"last": Score(psnr, 0.8), "best": Score(60.0 - psnr, 0.9)}
    settings = {"lr": lr, "steps": 4000, "pool": None}
    return Record(
        image=image, task="mri", setting="accel4", method=method, dataset=dataset, recipe=recipe, content=f"c{image}",
        scores=scores, settings=settings, steps=4000, network_parameters=10,
    )  # fmt: skip


def fair() -> list[Record]:
    found = []
    for method in ("aseqdip", "vanilla_dip"):
        for lr, psnr, recipe in ((1e-4, 28.0, "original"), (1e-3, 29.0, "matched")):
            found += [record(method, lr, image, psnr, recipe) for image in "ab"]
        found += [record(method, 1e-3, image, 28.0, "best", "public_mri") for image in "xy"]
        found += [record(method, 1e-4, "x", 27.0, "original", "public_mri")]
    return [*found, record("direct", 0, "x", 20.0, dataset="public_mri")]


def test_a_fair_study_breaks_no_rule() -> None:
    assert broken(fair()) == []
    assert budgets(fair())["mri", "accel4", "aseqdip"] == Budget(2, 4, (4000,), 2, 2)
    assert len(budgets(fair())) == 2


def test_what_has_no_truth_chooses_nothing() -> None:
    with pytest.raises(UserError, match="chosen where there is a truth"):
        chosen([replace(record("tv", 1, "a", 30.0), scores={"last": Score(None)})])


def test_slices_of_one_ct_patient_are_one_object() -> None:
    first, again, other = ("12_TCGA-17-Z034.npz", "ct/93_TCGA-17-Z034.npz", "12_TCGA-17-Z035.npz")
    assert patient(first) == patient(again) != patient(other)
    made = [replace(record("tv", 1, "a", 30.0), task="ct", source=name, image=name) for name in (first, again)]
    made[1] = replace(made[1], dataset="public_ct")
    assert any("chosen and reported on the same" in line for line in broken(made))


def without(*gone: Callable[[Record], bool]) -> list[Record]:
    return [r for r in fair() if not any(test(r) for test in gone)]


def best(r: Record) -> bool:
    return r.recipe == "best" and r.method == "vanilla_dip"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (without(lambda r: r.dataset == "public_mri"), "in-sample"),
        ([*fair(), record("aseqdip", 1e-3, "x", 1.0)], "chosen and reported on the same: cx"),
        ([*fair(), record("aseqdip", 1e-2, "a", 1.0)], "unequal readings: aseqdip 3, vanilla_dip 2"),
        ([*fair(), record("aseqdip", 1e-3, "c", 1.0)], "unequal reconstructions: aseqdip 5, vanilla_dip 4"),
        ([replace(r, settings={**r.settings, "steps": 1000}) if best(r) else r for r in fair()], "steps: 1000, 4000"),
        ([replace(r, recipe="matched") if r.recipe == "original" else r for r in fair()], "recipe=original"),
        (
            [replace(r, settings={**r.settings, "lr": 1e-4}) if best(r) else r for r in fair()],
            "vanilla_dip: what",
        ),
        (without(lambda r: r.method == "vanilla_dip" and r.dataset == "tuning_mri"), "settings were not chosen"),
    ],
)
def test_each_way_to_break_a_rule_is_found(records: list[Record], said: str) -> None:
    assert any(said in line and line.startswith("mri accel4: ") for line in broken(records)), broken(records)


@pytest.mark.parametrize("folder", sorted(RESULTS.iterdir()), ids=lambda folder: folder.name)
def test_no_committed_study_of_choice_breaks_a_rule_unsaid(folder: Path) -> None:
    # what is varied says with which reading it begins, and is none that was chosen; a check chooses nothing, and what
    # was begun nothing yet
    traces = [t for t in scan([folder]) if not {"varied", "checks", "begun"} & set(t.folder.parts)]
    records = [t.record for t in traces if t.record is not None]
    if not list(folder.glob("*.json")) and not any(r.recipe == "best" for r in records):
        return  # it chose nothing, and reports nothing as chosen
    found = broken(records)
    if folder.name not in SAID:
        assert found == []
        return
    page = (RESULTS.parent / "docs" / SAID[folder.name]).read_text()
    assert found and [line for line in found if line not in page] == []


@pytest.mark.parametrize(
    ("words", "said"), [(["--help"], "One rule of choice"), (["FOLDER"], "There is no record below")]
)
def test_a_folder_without_records_is_not_a_fair_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        main([word.replace("FOLDER", str(tmp_path)) for word in words])
    assert not capsys.readouterr().out


def test_seeds_of_one_image_count_each() -> None:
    low, high = (record("aseqdip", lr, "a", psnr) for lr, psnr in ((1e-4, 20.0), (1e-3, 28.0)))
    other = record("aseqdip", 1e-4, "b", 30.0)
    assert chosen([replace(low, seed=1), high, other, replace(high, image="b", content="cb"), low]) == reading(low)


def test_a_reconstruction_made_twice_counts_once() -> None:
    good = [record("tv_dip", 1e-3, image, 30.0, "matched", "tuning_mri") for image in "ab"]
    twice = [record("tv_dip", 1e-4, image, 20.0, "matched", "tuning_mri") for image in "aab"]
    assert chosen([*twice, *good]) == reading(good[0])
