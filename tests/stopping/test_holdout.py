"""stop=holdout: what is held out is unknown to the method, the same for all of them, and finds the turning point."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Configure, case_of

from aseqdip.errors import UserError
from aseqdip.identity import run_folder
from aseqdip.methods.tv import TV
from aseqdip.operators.base import Functions, Operator, Scaled
from aseqdip.operators.blur import MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI
from aseqdip.problem import Problem
from aseqdip.records import read_curve
from aseqdip.run.holdout import fitted_case
from aseqdip.run.interrupt import Interrupt
from aseqdip.run.runner import run
from aseqdip.stopping.holdout import Holdout, outer_columns, part_of, split


def normal(*shape: int, seed: int = 0, complex_: bool = False) -> torch.Tensor:
    dtype = torch.complex64 if complex_ else torch.float32
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mri() -> MultiCoilMRI:
    mask = torch.zeros(32, dtype=torch.bool)
    mask[14:18] = mask[1:14:3] = mask[20::3] = True
    return MultiCoilMRI(normal(3, 24, 32, complex_=True) / 3, mask)


def mri_points() -> MultiCoilMRI:
    mask = normal(24, 32, seed=4) > 0.5
    mask[9:15, 13:19] = True
    return MultiCoilMRI(mri().maps, mask)


OPERATORS: dict[str, tuple[Callable[[], Operator], int]] = {
    "mri": (mri, 2),
    "mri, points": (mri_points, 2),
    "ct": (lambda: ParallelBeam(size=32, views=9), 1),
    "denoising": (Identity, 3),
    "inpainting": (lambda: Mask((normal(1, 1, 24, 32, seed=5) > 0).float()), 3),
    "deblurring": (lambda: MotionBlur(torch.ones(5, 5) / 25), 3),
    "scaled": (lambda: Scaled(mri(), 0.5), 2),
}


def problem(kind: str, seed: int = 0) -> Problem:
    make, channels = OPERATORS[kind]
    A = make()
    x = normal(1, channels, 32 if kind == "ct" else 24, 32, seed=1)
    y = A(x)
    return Problem(y, A, A.direct(y), "a", seed)


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_restricted_operator_has_its_exact_adjoint_and_gives_the_kept_values(kind: str) -> None:
    whole = problem(kind)
    part = part_of(whole, 0.2)
    A, x = part.operator, normal(*whole.z0.shape, seed=2)
    r = normal(*part.y.shape, seed=3, complex_=part.y.is_complex())
    forward, back = (A(x).conj() * r).sum().real, (x * A.adjoint(r)).sum()
    assert float(forward) == pytest.approx(float(back), rel=1e-3, abs=1e-3)
    kept, full = split(whole, 0.2), whole.operator(x)
    expected = full[..., kept] if kind in ("mri", "scaled") else full * kept
    assert torch.allclose(A(x), expected, atol=1e-5)
    assert A.norm(tuple(x.shape)) <= 1.001 * whole.operator.norm(tuple(x.shape))
    assert part.z0.shape == whole.z0.shape
    assert 0 < int((~kept).sum()) < kept.numel() / 3


@pytest.mark.parametrize("kind", OPERATORS)
def test_no_held_out_value_enters_what_a_method_is_given(kind: str) -> None:
    whole = problem(kind)
    kept = split(whole, None)
    other = replace(whole, y=torch.where(kept, whole.y, 100 * whole.y), z0=torch.full_like(whole.z0, torch.nan))
    one, two = part_of(whole, None), part_of(other, None)
    assert torch.equal(one.y, two.y)
    assert torch.equal(one.z0, two.z0)


def test_a_transform_is_no_picture() -> None:
    """Measurements shaped like the image: what is held out is 0 in its inverse, not interpolated into the image."""

    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)

    A, y = Functions(turned, turned), normal(1, 1, 24, 32)
    whole = Problem(y, A, turned(y), "a", 0)
    assert not whole.kind().image
    assert torch.equal(part_of(whole, None).z0, turned(y * split(whole, None)))
    assert Problem(y, Functions(torch.clone, torch.clone), y, "a", 0).kind().image


def test_the_split_belongs_to_image_and_seed() -> None:
    assert torch.equal(split(problem("denoising"), None), split(problem("denoising"), None))
    assert not torch.equal(split(problem("denoising"), None), split(problem("denoising", seed=1), None))


def test_a_tenth_of_outer_columns_is_held_out_and_a_twentieth_of_all_else() -> None:
    assert int((~split(problem("mri"), None)).sum()) == 1, "of 9 columns outside the centre"
    assert int((~split(problem("denoising"), None)).sum()) == round(24 * 32 / 20)
    assert int((~split(problem("ct"), None)).sum()) == round(int((problem("ct").y != 0).sum()) / 20)


def test_what_is_held_out_beside_a_hole_is_interpolated_from_known_pixels_alone() -> None:
    make, channels = OPERATORS["inpainting"]
    A = make()
    y = A(torch.ones(1, channels, 24, 32))
    z0 = part_of(Problem(y, A, y, "a", 0), 0.2).z0
    assert torch.allclose(z0, y, atol=1e-5), "white where it is known, and the hole stays what it is"


def test_the_centre_of_k_space_is_never_held_out() -> None:
    outer = outer_columns(mri().mask)
    assert not outer[13:18].any(), "13 is sampled beside the centre, and belongs to the block"
    assert int(outer.sum()) == int(mri().mask.sum()) - 5
    whole = problem("mri, points")
    assert split(whole, 0.5)[9:15, 13:19].all(), "its points neither"
    full = outer_columns(torch.ones(100, dtype=torch.bool))
    assert (~full).nonzero().flatten().tolist() == list(range(46, 54))


def test_it_ends_before_noise_is_fitted(configure: Configure) -> None:
    words = ("task=denoising", "sigma=50", "size=64", "method=vanilla_dip", "network.width=32", "lr=3e-3", "steps=300")
    summary = run(configure(*words, "stop=holdout", "holdout_every=3", "patience=299", "precision=fp32"))
    (record,), scores = summary.records, summary.records[0].scores
    assert scores["stopped"].psnr_db > scores["best"].psnr_db - 1
    assert scores["stopped"].psnr_db > scores["last"].psnr_db + 1
    assert 0 < record.facts["heldout"] < 1
    errors = read_curve(summary.folder / record.image / "curve.csv")["statistic"]
    assert np.isfinite(errors).sum() == 100, "of every third"
    assert (np.nanmin(errors), np.nanargmin(errors) + 1) == (
        pytest.approx(record.facts["heldout"], rel=1e-4),
        scores["stopped"].step,
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("method=es_dip",), "its own rule, stop=wmv"),
        (("method=rethinking_dip",), "its own rule, stop=zero"),
        (("method=nlm",), "computes one image"),
        (("method=direct",), "computes one image"),
        (("method=aseqdip", "input_update=reflection"), "leaves measurements out"),
        (("start=nlm",), "leaves measurements out"),
        (("task=ct", "start=adjoint"), "uses all measurements"),
        (("task=ct", "method=ref_guided_dip", "holdout_refit=true"), "given references"),
    ],
)
def test_what_cannot_go_with_it_is_refused(configure: Configure, words: tuple[str, ...], why: str) -> None:
    task = () if words[0].startswith("task") else ("task=denoising",)
    with pytest.raises(UserError, match=why):
        run(configure(*task, *words, "stop=holdout"))


def test_patience_lasts_until_it_looks_again(configure: Configure) -> None:
    with pytest.raises(UserError, match="holdout_every=60 patience=50: it would stop before it looks again"):
        Holdout(Holdout.Options(patience=50, holdout_every=60)).begin(case_of(configure("task=ct")).problem, True)


def test_held_out_zeros_judge_nothing(configure: Configure) -> None:
    cfg = configure("task=mri", "stop=holdout")
    whole = case_of(cfg).problem
    assert cfg.rule is not None
    rule = cfg.rule.part(cfg.rule.options)
    rule.begin(whole, squared=True)
    empty = replace(whole, y=whole.y * ~rule.held)
    with pytest.raises(UserError, match="held out are zero"):
        cfg.rule.part(cfg.rule.options).begin(empty, squared=True)


@pytest.mark.parametrize(
    ("words", "when"),
    [
        (("method=vanilla_dip",), 5),
        (("method=tv",), 5),
        (("method=vanilla_dip", "holdout_refit=true"), 5),
        (("method=vanilla_dip", "holdout_refit=true"), 11),
        (("method=tv", "iterations=8", "holdout_refit=true"), 11),
    ],
    ids=str,
)
def test_killed_and_continued_gives_the_same_bits(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], when: int
) -> None:
    words = ("task=mri", *words, "stop=holdout", "steps=8")
    whole = run(configure(*words, f"outputs={tmp_path / 'whole'}"))
    cfg = configure(*words, f"outputs={tmp_path / 'parts'}")
    calls = count()
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "due", property(lambda self: next(calls) > when))
        assert run(cfg).records == []
    (checkpoint,) = (tmp_path / "parts").rglob("checkpoint.pt")
    parts = run(cfg)
    assert not checkpoint.exists()
    assert parts.records[0].scores == whole.records[0].scores
    assert parts.records[0].facts["heldout"] == whole.records[0].facts["heldout"]
    assert parts.records[0].seconds != whole.records[0].seconds, "computed, not found"
    files = [next((tmp_path / f).rglob("reconstruction.npz")) for f in ("whole", "parts")]
    with np.load(files[0]) as a, np.load(files[1]) as b:
        assert np.array_equal(a["reconstruction"], b["reconstruction"])


def test_a_run_is_given_the_part_alone_and_scored_on_the_whole(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configure("task=inpainting", "method=tv", "stop=holdout", "iterations=5")
    given: list[Problem] = []
    begin = TV.start
    monkeypatch.setattr(TV, "start", lambda self, problem: (given.append(problem), begin(self, problem))[1])
    (record,) = run(cfg).records
    whole = case_of(cfg)
    kept = split(whole.problem, None)
    assert torch.equal(given[0].y, whole.problem.y * kept)
    assert 0 < given[0].y.count_nonzero() < whole.problem.y.count_nonzero()
    assert record.result == "stopped"
    assert record.settings["holdout_fraction"] is None
    with np.load(next(run_folder(cfg).rglob("reconstruction.npz"))) as saved:
        image, shown = torch.from_numpy(saved["reconstruction"]), torch.from_numpy(saved["shown"])
    assert record.scores["stopped"].extras == pytest.approx(whole.scoring.extras(shown, whole.problem.y))
    held = (~kept * (whole.problem.operator(image) - whole.problem.y)).norm() / (~kept * whole.problem.y).norm()
    assert record.facts["heldout"] == pytest.approx(float(held), rel=1e-4)


def test_the_start_image_of_ct_is_clipped_without_them_too(configure: Configure) -> None:
    cfg = configure("task=ct", "stop=holdout")
    case = case_of(cfg)
    z0 = fitted_case(case, cfg.rule).problem.z0
    assert not torch.equal(z0, case.problem.z0)
    assert (float(z0.min()), float(case.problem.z0.min())) == (0, 0)


def test_before_anything_is_judged_the_latest_iterate_stays(configure: Configure) -> None:
    words = ("task=mri", "method=vanilla_dip", "stop=holdout", "steps=8", "lr=0.01")
    (record,) = run(configure(*words, "holdout_every=50")).records
    assert record.scores["stopped"].step == 8
    (record,) = run(configure(*words, "holdout_every=6")).records
    assert record.scores["stopped"].step == 6


@pytest.mark.parametrize(
    "words",
    [
        ("method=vanilla_dip", "steps=8", "lr=0.01"),
        ("method=aseqdip", "steps=8", "lr=0.01", "N=2"),
        ("method=sgld_dip", "steps=8", "lr=0.01", "burn_in=0.5"),
        ("method=tv", "iterations=20"),
        ("method=cg", "iterations=20"),
        ("method=pnp", "iterations=8"),
    ],
    ids=lambda words: words[0],
)
def test_the_refit_is_a_plain_run_on_all_measurements_ended_where_the_rule_chose(
    configure: Configure, tmp_path: Path, words: tuple[str, ...]
) -> None:
    words = ("task=mri", "noise=0.05", *words)
    (chosen,) = run(configure(*words, "stop=holdout", f"outputs={tmp_path / 'chosen'}")).records
    (refit,) = run(configure(*words, "stop=holdout", "holdout_refit=true", f"outputs={tmp_path / 'refit'}")).records
    (plain,) = run(configure(*words, f"outputs={tmp_path / 'plain'}")).records
    step = chosen.scores["stopped"].step
    assert refit.result == "last" and plain.curve is not None and plain.curve.every == 1 and step is not None
    assert refit.scores["last"].psnr_db == pytest.approx(plain.curve.psnr[step - 1], abs=6e-4)
    assert refit.scores["ema"].psnr_db == pytest.approx(plain.curve.psnr_ema[step - 1], abs=6e-4), "begun anew"
    assert refit.scores["stopped"] == chosen.scores["stopped"]
    assert (refit.steps, refit.facts["refit_from_step"]) == (chosen.steps + step, chosen.steps)
    assert refit.facts["heldout"] == chosen.facts["heldout"], "not the error of an image that was fitted to them"
