"""A start image or an input that a classical method makes: the same as that method's own result, and counted."""

from pathlib import Path

import pytest
import torch
from cases import Configure, case_of, iterates, method_of

import aseqdip
from aseqdip import identity
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods._classical import image_by
from aseqdip.operators import Identity
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.runner import run

MRI = ("task=mri", "noise=0.03", "size=64")


@pytest.mark.parametrize("name", ["tv", "cg", "wavelet"])
def test_a_start_is_what_the_method_gives(configure: Configure, name: str) -> None:
    (alone,) = run(configure(*MRI, f"method={name}")).records
    (plain,) = run(configure(*MRI)).records
    (started,) = run(configure(*MRI, f"start={name}")).records
    assert started.scores["start"].psnr_db == pytest.approx(alone.scores["last"].psnr_db, abs=1e-4)
    assert plain.scores["start"].psnr_db != started.scores["start"].psnr_db
    assert (plain.titles["start"], started.titles["start"]) == ("zero-filled", alone.titles["method"])
    assert started.departures["start"] == name
    # it is a choice of the method's, not of what was measured: both stand in one block of a table
    assert (started.problem, started.settings["start"]) == (plain.problem, name)
    assert started.identity != plain.identity
    assert started.input != plain.input


def test_the_time_of_a_start_counts(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for word in ("start=tv", "input=tv"):
        with monkeypatch.context() as patch:

            def slow(*given: object) -> torch.Tensor:
                time.sleep(0.5)
                return image_by(*given)

            patch.setattr("aseqdip.run.runner.image_by", slow)
            patch.setattr("aseqdip.methods.vanilla_dip.image_by", slow)
            (record,) = run(configure(*MRI, "method=vanilla_dip", word)).records
        assert record.seconds["start"] > 0.5


@pytest.mark.parametrize("method", ["vanilla_dip", "es_dip", "tv_dip", "sgld_dip"])
def test_an_input_is_what_the_method_gives(configure: Configure, method: str) -> None:
    cfg = configure(*MRI, f"method={method}", "input=tv")
    case = case_of(cfg)
    *_, tv = iterates(configure(*MRI, "method=tv"), case)
    assert torch.equal(method_of(cfg, case).start(case.problem).z, tv.image)


def test_the_code_of_that_method_counts(configure: Configure) -> None:
    plain, start = identity.sources(configure(*MRI)), identity.sources(configure(*MRI, "start=tv"))
    assert plain != start
    given = [identity.sources(configure(*MRI, "method=vanilla_dip", f"input={i}")) for i in ("noise", "tv", "wavelet")]
    assert len(set(given)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=denoising", "start=cg"), "start=cg: .*would give back the measurement"),
        (("task=denoising", "method=vanilla_dip", "input=cg"), "input=cg: .*would give back the measurement"),
        (("task=ct", "start=mean"), "start=mean: expected paper, adjoint, .*tv"),
        (("task=mri", "start=vanilla_dip"), "start=vanilla_dip: expected paper, "),
        (("task=mri", "start=direct"), "start=direct: expected paper, "),
        (("task=mri", "method=direct", "start=tv"), "method=direct is the start image itself: .* use method=tv"),
        (("task=denoising", "method=rethinking_dip", "residual=norm"), "residual=norm has no effect"),
        (("task=mri", "start=nlm"), "start=nlm: method=nlm takes noise off a picture"),
    ],
)
def test_refused_before_data_are_read(configure: Configure, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(configure(*words))


@pytest.mark.parametrize("words", [("start=tv",), ("method=vanilla_dip", "input=tv")])
def test_a_killed_run_makes_the_same_start_again(configure: Configure, tmp_path: Path, words: tuple[str, ...]) -> None:
    cfg = configure(*MRI, *words, "steps=6")

    def begun(folder: Path) -> Reconstruction:
        case = case_of(cfg)
        if "start=tv" in words:
            case.problem.z0 = image_by("tv", case.problem, Engine("cpu", "fp32"), case.signed)
        return Reconstruction(case, method_of(cfg, case), folder=folder)

    whole = begun(tmp_path / "a")
    assert whole.run()
    first = begun(tmp_path / "b")
    for _ in range(3):
        first.advance()
    first.flush()
    assert first.save()
    second = begun(tmp_path / "b")
    assert second.state.step == 3
    assert second.run()
    assert torch.equal(second.result(), whole.result())


def test_a_start_in_python() -> None:
    noisy = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    tv = aseqdip.reconstruct(noisy, Identity(), "tv", noise_std=0.1)
    few = {"steps": 2, "N": 1, "network_width": 4, "network_depth": 2}
    started = aseqdip.reconstruct(noisy, Identity(), start="tv", noise_std=0.1, device="cpu", **few)
    assert torch.equal(started.start, tv.image)
    assert started.seconds["start"] > 0
    with pytest.raises(UserError, match="start=cg"):
        aseqdip.reconstruct(noisy, Identity(), start="cg")
    with pytest.raises(UserError, match="method=direct is the start image itself: leave start out, or use method=tv"):
        aseqdip.reconstruct(noisy, Identity(), "direct", start="tv")
