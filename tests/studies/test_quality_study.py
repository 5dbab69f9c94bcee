"""The study of quality: as many tries for each method, chosen by tuning images alone, and words that compose."""

from collections import Counter
from pathlib import Path

import pytest

from aseqdip import records
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.records import Record, Score
from aseqdip.studies import quality
from aseqdip.words import rehearse


def test_each_network_method_has_as_many_tries_and_steps_on_every_task() -> None:
    tried = Counter((task, method) for task, method, *_ in quality.tries() if METHODS[method].learns)
    assert set(tried.values()) == {3}
    assert all(f"steps={quality.STEPS[task]}" in words for task, m, _, words in quality.tries() if METHODS[m].learns)
    assert {m for _, m in tried} == {
        name for name in METHODS if METHODS[name].group == "untrained network" and METHODS[name].learns
    }


@pytest.mark.parametrize("words", [w for task, *_, w in quality.tries() if task in ("mri", "denoising")], ids=" ".join)
def test_tries_compose(words: list[str]) -> None:
    rehearse([*words, "data=tuning", "images=0:2"])


def made(folder: Path, psnr: dict[str, tuple[float, float]]) -> None:
    """A record of each try: its last iterate's PSNR by the words of a try of Vanilla DIP, else 20 dB."""
    for task, method, number, words in quality.tries():
        for image in ("a", "b")[: quality.TUNED_ON[task]]:
            last, ema = psnr.get(f"{task} {method} {number}", (20.0, 19.0))
            scores = {"last": Score(last), "ema": Score(ema), "stopped": Score(last)}
            result = "stopped" if method in ("es_dip", "rethinking_dip") else "last"
            known = {"image": image, "task": task, "setting": "s", "method": method, "recipe": "matched"}
            one = Record(**known, scores=scores, result=result, command=words)
            records.write(folder / task / method / str(number) / image, one)


def test_the_best_try_is_chosen_be_it_an_average(tmp_path: Path) -> None:
    made(tmp_path, {"mri vanilla_dip 1": (21.0, 22.0), "ct aseqdip 0": (25.0, 24.0)})
    chosen = quality.choose(tmp_path)
    assert {"input=tv", "ema=0.99"} <= set(chosen["mri vanilla_dip"]["words"])
    assert chosen["ct aseqdip"]["psnr_db"] == 25.0
    assert "start=tv" not in chosen["ct aseqdip"]["words"]
    assert len(chosen["mri vanilla_dip"]["tries"]) == 6


def test_a_missing_try_is_said(tmp_path: Path) -> None:
    made(tmp_path, {})
    (tmp_path / "mri" / "tv_dip" / "1" / "b" / "record.json").unlink()
    with pytest.raises(UserError, match="mri tv_dip, try 1: 1 of 2 records"):
        quality.choose(tmp_path)


def test_what_stopping_by_held_out_measurements_lost_and_gained(tmp_path: Path) -> None:
    for method, stopped, error in (("vanilla_dip", 25.0, 0.2), ("tv", 27.0, 0.1)):
        scores = {"best": Score(27.5), "last": Score(24.0), "stopped": Score(stopped)}
        known = {"image": "a", "task": "ct", "setting": "views30", "method": method, "result": "stopped"}
        one = Record(**known, scores=scores, facts={"heldout": error}, titles={"task": "CT", "setting": "30 views"})
        records.write(tmp_path / "ct" / "views30" / method / "a", one)
    assert quality.heldout(tmp_path)[1:] == [["CT, 30 views", "2", "2", "+1.50", "+2.50", "-2.00", "1 of 1"]]
