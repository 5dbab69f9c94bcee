"""warm=slice: what a slice hands to the next one, and that neither kills nor other data change a result unsaid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Configure, begun

from aseqdip import records
from aseqdip.config import Config
from aseqdip.data.brain import brain
from aseqdip.errors import UserError
from aseqdip.records import Record
from aseqdip.run import runner, warm
from aseqdip.run.runner import Summary, run

TINY = ("tracker=none", "size=32", "coils=2", "network.width=4", "network.depth=2", "steps=6")


class StopsAt:
    """Stands in for a signal that arrives when the runner asks for the so-manieth time."""

    late, signal = False, None

    def __init__(self, asked: int) -> None:
        self.left = asked

    @property
    def due(self) -> bool:
        self.left -= 1
        return self.left < 0

    def __enter__(self) -> "StopsAt":
        return self

    def __exit__(self, *exception: object) -> None: ...


def write_volume(folder: Path, *factors: float) -> None:
    folder.mkdir(exist_ok=True)
    image = brain(32).abs().numpy()
    np.save(folder / "head.npy", np.stack([(image * factor).astype(np.float32) for factor in factors]))


@pytest.fixture
def volume(configure: Configure, tmp_path: Path) -> Callable[..., Config]:
    """``volume("steps=4")``: reconstructions of a volume of three slices."""
    write_volume(tmp_path / "data", 1, 0.9, 0.8)

    def make(*words: str) -> Config:
        return configure(*TINY, "dataset=complex", f"data_root={tmp_path / 'data'}", "images=all", *words)

    return make


def images(summary: Summary) -> dict[str, bytes]:
    """The reconstructions below a run's folder, by image."""
    found = {}
    for path in sorted(summary.folder.glob("head*/reconstruction.npz")):
        with np.load(path) as saved:
            found[path.parent.name[:9]] = saved["reconstruction"].tobytes()
    return found


def chain(records: list[Record]) -> list[str | None]:
    """The slice that each began from."""
    return [str(r.facts["warm_from"]).split()[0] if "warm_from" in r.facts else None for r in records]


def test_each_slice_begins_from_the_one_before(volume: Callable[..., Config]) -> None:
    cold = run(volume())
    first = run(volume("warm=slice", "warm_steps=2"))
    assert [r.steps for r in cold.records] == [6, 6, 6] and [r.steps for r in first.records] == [6, 2, 2]
    assert chain(first.records) == [None, "head_s000", "head_s001"]
    assert first.records[1].departures["warm"] == "slice"
    assert images(first)["head_s000"] == images(cold)["head_s000"], "the first slice begins as ever"
    assert first.records[1].curve.psnr[0] > cold.records[1].curve.psnr[0] + 0.5
    assert not list(first.folder.rglob(warm.FILE)), "nothing is kept that nobody needs"
    assert len(list(first.folder.glob("volume-head-??????/preview.png"))) == 1
    again = run(volume("warm=slice", "warm_steps=2"))
    assert (len(again.records), len(again.skipped)) == (0, 3)
    assert "images=all" in first.records[1].command and "warm=slice" in first.records[1].command


@pytest.mark.parametrize("stop", [11, 18])  # in the second and in the third slice, of 6 steps each
def test_killed_and_continued_gives_the_same_bits(
    volume: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = run(volume("warm=slice", f"outputs={tmp_path / 'whole'}"))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Interrupt", lambda deadline: StopsAt(stop))
        assert 0 < len(run(volume("warm=slice")).records) < 3
    rest = run(volume("warm=slice"))
    assert rest.skipped
    assert images(rest) == images(whole)


def test_a_slice_that_is_gone_is_not_begun_from_nothing(volume: Callable[..., Config]) -> None:
    summary = run(volume("warm=slice"))
    (folder,) = summary.folder.glob("head_s002*")
    (folder / "record.json").unlink()
    without = run(volume("warm=slice"))
    assert "weights of head_s001, which are no longer there" in without.failed["head_s002"]
    again = run(volume("warm=slice", "redo=true"))
    assert chain(again.records) == [None, "head_s000", "head_s001"]
    assert run(volume("warm=slice")).skipped == ["head_s000", "head_s001", "head_s002"]


def test_after_a_slice_that_failed_it_begins_cold_and_says_so(volume: Callable[..., Config], tmp_path: Path) -> None:
    write_volume(tmp_path / "data", 1, np.nan, 0.8)
    broken = run(volume("warm=slice"))
    assert list(broken.failed) == ["head_s001"]
    assert chain(broken.records) == [None, None]
    assert "it begins cold" in broken.records[1].facts["notes"][0]
    write_volume(tmp_path / "data", 1, 0.9, 0.8)
    mended = run(volume("warm=slice"))
    assert not mended.skipped, "it is another file"
    assert chain(mended.records) == [None, "head_s000", "head_s001"]


def test_a_slice_waits_for_another_process(volume: Callable[..., Config]) -> None:
    summary = run(volume("warm=slice"))
    for path in summary.folder.glob("head_s00[12]*"):
        (path / "record.json").unlink()
    with runner.claimed(next(summary.folder.glob("head_s001*"))):
        waiting = run(volume("warm=slice"))
    assert (waiting.skipped, waiting.elsewhere) == (["head_s000"], ["head_s001", "head_s002"])


@pytest.mark.parametrize(
    "words",
    [
        *(("method=vanilla_dip",), ("method=vanilla_dip", "input=measurement"), ("method=self_guided_dip",)),
        *(("method=sgld_dip",), ("method=tv_dip", "stop=holdout", "holdout_refit=true")),
        ("method=aseqdip", "start=tv"),
    ],
)  # fmt: skip
def test_methods_that_fit_a_network(volume: Callable[..., Config], words: tuple[str, ...]) -> None:
    summary = run(volume("warm=slice", *words))
    assert chain(summary.records) == [None, "head_s000", "head_s001"]
    assert not summary.failed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("warm_steps=3",), "warm_steps=3 is for warm=slice: give both"),
        (("warm=slice", "method=tv"), "method=tv fits none"),
        (("warm=slice", "images=0"), "needs images=all"),
        (("warm=slice", "dataset=brain"), "needs images=all"),
        (("warm=slice", "parallel=2"), "leave out parallel=2"),
        (("warm=slice", "warm_steps=3"), "warm_steps=3: steps=3 is not a multiple of N=2"),
    ],
)
def test_what_does_not_go_together(volume: Callable[..., Config], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(volume(*words))


@pytest.mark.parametrize(("method", "carried"), [("aseqdip", False), ("vanilla_dip", True), ("self_guided_dip", True)])
def test_weights_and_input_are_those_of_before(configure: Configure, method: str, carried: bool) -> None:
    words = (*TINY[2:], "task=denoising", "size=32", f"method={method}")
    _, _, before = begun(configure(*words, "seed=1"))
    case, made, own = begun(configure(*words))
    made.before = {"network": before.network.state_dict(), "z": before.z.detach()}
    state = made.start(case.problem)
    pairs = [*zip(state.network.parameters(), before.network.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(state.z, before.z if carried else own.z)
    assert not torch.equal(own.z, before.z)
    assert state.z.data_ptr() != before.z.data_ptr()


def test_slices_of_another_size_are_refused(configure: Configure) -> None:
    case, method, state = begun(configure(*TINY, "method=vanilla_dip"))
    method.before = {"network": state.network.state_dict(), "z": state.z[..., 2:]}
    with pytest.raises(UserError, match=r"the slice before it \(1, 2, 32, 30\)"):
        method.start(case.problem)


def test_the_page_has_what_its_records_say() -> None:
    root = Path(__file__).parents[2]
    scores: dict[tuple[Any, ...], list[float]] = {}
    for trace in records.scan([root / "results" / "warm"]):
        r = trace.record
        if r is not None and r.origin["slice"]:
            start = "warm" if r.settings["warm"] else "cold"
            scores.setdefault((start, r.steps, r.method), []).append(r.score.psnr_db or 0)
    assert len(scores) == 8
    page = (root / "docs" / "data.md").read_text()
    for start, steps in {key[:2] for key in scores}:
        vanilla, own = (np.mean(scores[start, steps, method]) for method in ("vanilla_dip", "aseqdip"))
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {start} | {steps} |")]
        assert f"| {vanilla:.2f} |" in line and f"| {own:.2f} |" in line
