"""The study of the paper's claims: as many readings for each method, halved, chosen, written down and answered."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aseqdip import records
from aseqdip.compose import compose
from aseqdip.errors import UserError
from aseqdip.identity import settings
from aseqdip.methods import METHODS
from aseqdip.records import Curve, Record, Score
from aseqdip.report.blocks import Cell, build
from aseqdip.report.rows import load
from aseqdip.run.interrupt import DONE, FAILED, UNFINISHED
from aseqdip.studies import choice, claims, quality


def test_each_method_with_settings_is_tried_equally_often_its_authors_settings_among_them() -> None:
    tried = Counter((task, method) for task in claims.SETTINGS for method in claims.cells(task))
    assert {m for _, m in tried} >= {
        m for m, part in METHODS.items() if part.learns and part.group == "untrained network"
    }
    for task, method in tried:
        tries = [claims.words(task, method, said) for said in claims.cells(task)[method]]
        assert len(set(map(tuple, tries))) == 3
        if METHODS[method].learns:
            own = "recipe=paper" if method == "aseqdip" else "recipe=original"
            assert own in tries[0]


@pytest.mark.parametrize("method", [m for m in claims.cells("mri") if METHODS[m].learns])
def test_readings_differ_and_have_the_same_steps(method: str) -> None:
    found = [settings(compose(claims.words("mri", method, said))) for said in claims.cells("mri")[method]]
    assert len(set(map(str, found))) == 3
    assert {one["steps"] for one in found} == {claims.STEPS}


def made(folder: Path, method: str, said: str, psnr_db: float, image: str = "a", seed: int = 0, **more: Any) -> None:
    words = claims.words("ct", method, said)
    cfg = compose(words)
    chosen, learns = settings(cfg), METHODS[method].learns
    gains = {"start": -5.0, "last": 0.0, "best": 0.5, "ema": -1.0}
    scores = {k: Score(psnr_db + gain, 0.9, 2000 if k == "best" else None) for k, gain in gains.items()}
    rule = chosen.get("stop", "none") != "none"
    scores |= {"stopped": Score(psnr_db)} if rule else {}
    record = Record(
        image=image, task="ct", setting="views30", method=method, content=f"c{image}", source=f"{image}.dcm",
        dataset=more.pop("dataset", "tuning_ct"), preset="paper", recipe=more.pop("recipe", cfg.recipe),
        scores=scores, steps=4000,
        result="ema" if chosen.get("ema") else "stopped" if rule else "last", settings=chosen, seed=seed,
        network_parameters=9 * learns, curve=Curve(40, [psnr_db] * 100, [psnr_db] * 100, [0.9] * 100),
        titles={"task": "CT", "setting": "30 views", "method": METHODS[method].title, "group": METHODS[method].group},
        command=[*words, "data_root=.../data", "images=a", f"seed={seed}"], facts={},
    )  # fmt: skip
    records.write(folder / "ct" / "views30" / f"{method}-{hash(said) % 10**6}" / f"{image}-{seed}", record)


def test_the_better_readings_go_on_and_a_missing_one_is_said(tmp_path: Path) -> None:
    first, second, third = claims.cells("ct")["tv_dip"]
    made(tmp_path, "tv_dip", first, 30.0)
    made(tmp_path, "tv_dip", second, 32.0)
    with pytest.raises(UserError, match="ct tv_dip: 1 of its tries"):
        claims.ranked(choice.records_below(tmp_path), "ct", "tv_dip")
    made(tmp_path, "tv_dip", third, 31.0)
    assert claims.ranked(choice.records_below(tmp_path), "ct", "tv_dip") == [second, third, first]
    made(tmp_path, "tv_dip", third, 99.0, "0")  # the next image says nothing of the first
    assert claims.ranked(choice.records_below(tmp_path), "ct", "tv_dip") == [second, third, first]


def test_a_try_of_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, log = ("lr=1e-3", "lr=1e-4"), list[str]()

    def run(command: list[str], more: list[str]) -> int:
        said, image = next(t for t in tries if t in command), more[1]
        log.append(f"{said} {image}")
        if log.count(log[-1]) == 1 and log[-1] == "lr=1e-4 images=0:1":
            return UNFINISHED  # another process has it
        made(tmp_path, "tv_dip", said, 30.0 + len(log), image)
        return 0

    monkeypatch.setattr(claims, "run", run)
    monkeypatch.setattr(claims, "WAIT", 0.0)
    monkeypatch.setattr(claims, "cells", lambda task: {"tv_dip": tries})
    claims.tune("ct", ["x=1", f"outputs={tmp_path}"])
    first = ["lr=1e-3 images=0:1", "lr=1e-4 images=0:1"]
    assert log == [*first, first[1], "lr=1e-4 images=1:2", "lr=1e-3 images=1:2"]


@pytest.fixture
def tuning(tmp_path: Path) -> Path:
    for method in ("aseqdip", "vanilla_dip", "sgld_dip"):
        tries = claims.cells("ct")[method]
        gain, worst = (1, 0) if method == "vanilla_dip" else (-1, 2)
        for number, said in enumerate(tries):
            psnr_db = 30.0 + gain * number
            for image in "ab" if number != worst else "a":
                made(tmp_path / "tuning", method, said, psnr_db, image)
    return tmp_path / "tuning"


def test_what_is_chosen_is_a_recipe_that_composes_to_it(tuning: Path, tmp_path: Path) -> None:
    claims.choose(tuning, tmp_path)
    written = (tmp_path / "best_vanilla_dip_ct.yaml").read_text()
    assert "input: measurement" in written and "stop: wmv" in written and "width" not in written
    assert "name: skip" in (tmp_path / "best_sgld_dip_ct.yaml").read_text()


def test_what_was_not_tried_to_the_end_is_not_chosen(
    tuning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tuning, "tv_dip", claims.cells("ct")["tv_dip"][0], 30.0)
    claims.choose(tuning, tmp_path)
    assert "ct tv_dip: not tried to the end" in capsys.readouterr().err
    assert not (tmp_path / "best_tv_dip_ct.yaml").exists()


def test_the_committed_recipes_are_what_the_committed_study_found(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    claims.choose(root / "results" / "claims" / "tuning", tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_text() == (root / "configs" / "recipe_task" / file.name).read_text(), "run claims choose"


def test_what_is_reported_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(claims, "run", lambda words, more: ran.append(words) or DONE)
    command, more = claims.words("ct", "tv", ""), [f"outputs={tmp_path}"]
    for image in "uvwxyz":
        assert claims.on_reported("ct", command, 0, more)
        made(tmp_path, "tv", "", 30.0, image)
    assert ran == [command] * 6
    claims.on_reported("ct", command, 0, more)
    assert len(ran) == 6
    claims.on_reported("ct", command, 1, more)
    claims.on_reported("ct", claims.words("ct", "tv", "rho=1e-3"), 0, more)
    assert len(ran) == 8, "another seed, another reading"
    with pytest.raises(UserError, match="outputs="):
        claims.report("ct", [])


def test_an_average_is_a_reading_of_its_own() -> None:
    known = {"scores": {"last": Score(30.0), "ema": Score(31.0)}, "settings": {"ema": 0.0}, "network_parameters": 1}
    record = Record(image="a", task="ct", setting="s", method="aseqdip", **known)
    assert dict(choice.judged(record)) == {'{"ema": 0.0}': 30.0, '{"ema": 0.99}': 31.0}
    assert choice.chosen([record]) == '{"ema": 0.99}'


def test_the_page_answers_each_claim(tuning: Path, tmp_path: Path) -> None:
    known: dict[str, Any] = {"dataset": "public_ct"}
    for image in "uvwxyz":
        made(tmp_path / "reported", "sgld_dip", claims.cells("ct")["sgld_dip"][0], 28.0, image, **known)
        known["recipe"] = "best"
        for method, psnr_db in (("direct", 20.0), ("aseqdip", 31.0), ("vanilla_dip", 30.0)):
            made(tmp_path / "reported", method, "", psnr_db, image, **known)
        made(tmp_path / "varied", "aseqdip", "lam=0", 29.0, image, **known)
        del known["recipe"]
    claims.page(tmp_path, tmp_path / "claims.md")
    text = " ".join((tmp_path / "claims.md").read_text().split())
    assert "ahead: none; behind: Vanilla DIP -1.00 [-1.00, -1.00] (0 of 6); not told apart: none; not run on 6" in text
    level = "0 of 6 (median 0.00 dB)"
    assert f"fall: aSeqDIP {level}, aSeqDIP (lam=0.0) {level}, Vanilla DIP {level} |" in text
    assert "lam=0: -2.00 [-2.00, -2.00] (0 of 6), median -2.00: behind" in text
    assert "Fig. 10) | not run yet" in text
    assert "tasks: mri, denoising, inpainting, deblurring." in text
    assert "recipe original, paper" in text
    assert "6 of 12 by Direct, Vanilla DIP, aSeqDIP." in text and "0 of 12 by TV, l1-wavelet, PnP-HQS, TV-DIP," in text
    assert "| ct | views30 | aseqdip | 3 | 5 | 4000 | 2 | 5 |" in text, "a rule makes no run, an average a candidate"
    assert "| CT, 30 views | aSeqDIP | 9 | |" in text


def test_who_is_ahead_is_told_by_intervals_from_all_images(tmp_path: Path) -> None:
    known: dict[str, Any] = {"dataset": "public_ct", "recipe": "best"}
    for number, image in enumerate("uvwxyz"):
        made(tmp_path, "aseqdip", "", 31.0, image, **known)
        made(tmp_path, "tv_dip", "", 31.1 + (number % 2), image, **known)
        made(tmp_path, "es_dip", "", 31.0 + (number - 2.4), image, **known)
        made(tmp_path, "vanilla_dip", "", 29.0 + number / 9, image, **known)
        if number:
            made(tmp_path, "sgld_dip", "", 40.0, image, **known)
    (block,) = build(load([tmp_path]).rows)
    own, *rivals = sorted(block.cells, key=lambda cell: cell.method)
    said = claims.first("ct", own, rivals)
    told = dict(part.split(": ", 1) for part in said.split("; "))
    assert "TV-DIP +0.60" in told["ahead"] and "ES-DIP +0.10" in told["not told apart"]
    assert "Vanilla DIP -1.72" in told["behind"]
    assert set(told["not run on 6 images"].split(", ")) == {"Ref-Guided DIP", "Self-Guided DIP", "SGLD-DIP"}


def test_a_run_that_loses_half_a_db_falls_and_one_that_a_rule_ends_is_said_apart(tmp_path: Path) -> None:
    for image in "uvwxyz":
        made(tmp_path, "aseqdip", "", 31.0, image)
        made(tmp_path, "tv_dip", "stop=wmv", 31.0, image)
    (block,) = build(load([tmp_path]).rows)
    own, rival = sorted(block.cells, key=lambda cell: cell.method)
    for row, drop in ((own.rows[0], 0.6), (own.rows[1], 0.6), (own.rows[2], 0.4), (rival.rows[5], 0.9)):
        row.curve[-len(row.curve) // 10 :] -= drop
    seen = "before a rule ended them: TV-DIP 1 of 6 (median 0.00 dB)"
    assert claims.overfitting([own, rival]) == f"fall: aSeqDIP 2 of 6 (median 0.20 dB); {seen}"
    assert claims.overfitting([rival]) == f"fall: none went to its end; {seen}"


def test_a_method_on_few_images_is_behind_nobody(tmp_path: Path) -> None:
    for image in "uvwxyz":
        made(tmp_path, "tv_dip", "", 31.0, image)
    made(tmp_path, "aseqdip", "", 31.0, "u")
    (block,) = build(load([tmp_path]).rows)
    own, rival = sorted(block.cells, key=lambda cell: cell.method)
    assert claims.first("ct", own, [rival]) == "aSeqDIP was not run on 6 images yet"


def test_the_committed_page_is_what_the_records_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    path = Path("docs/claims.md")
    assert claims.document(Path("results/claims"), path)[0] == path.read_text("utf-8"), "run make report"


def test_many_curves_that_fall_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for image in "uvwxyz":
        made(tmp_path, "vanilla_dip", "", 30.0, image, dataset="public_ct")
    (block,) = build(load([tmp_path]).rows)
    block.cells *= 12  # more than there are colours
    monkeypatch.setattr(Cell, "falls", 2000)
    claims.draw(tmp_path / "many.png", [block])
    assert (tmp_path / "many.png").stat().st_size > 1000
    assert "too little has been run" in claims.answers(block, None)


@pytest.mark.parametrize("words", [[], ["tune"], ["tune", "music"], ["page", "one"], ["sing", "mri"]], ids=" ".join)
def test_other_words_are_answered_with_the_usage(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["claims", *words])
    with pytest.raises(SystemExit, match="aseqdip.studies.claims tune"):
        claims.main()


@pytest.mark.parametrize(("study", "words"), [(claims, ["vary", "ct"]), (quality, ["tune"])])
def test_commands_that_fail_are_counted(
    study: Any, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = iter([FAILED, DONE, FAILED])
    monkeypatch.setattr(study, "run", lambda *_: next(status, DONE))
    monkeypatch.setattr("sys.argv", ["study", *words, f"outputs={tmp_path}"])
    with pytest.raises(SystemExit, match="Not finished: 2 "):
        study.main()


def test_a_page_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run report first"):
        claims.page(tmp_path, tmp_path / "claims.md")
