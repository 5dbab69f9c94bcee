"""Methods without a network: against other implementations of the same minimum, the weight from the noise, resuming."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from cases import Configure, case_of, iterates, method_of, solved
from scipy.optimize import minimize
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

import aseqdip
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods._classical import filled, noise_fitted, squared
from aseqdip.methods.base import Shared
from aseqdip.methods.tv import gradient, gradient_adjoint, lengths
from aseqdip.methods.wavelet import FILTER, coarse, inverse, split, transform
from aseqdip.operators import Functions, Identity, MotionBlur, MultiCoilMRI, Operator, ParallelBeam
from aseqdip.operators.base import Scaled
from aseqdip.operators.mri import to_channels
from aseqdip.problem import Problem
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.runner import run

ITERATIVE = ("tv", "cg", "wavelet")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def phantom(side: int, channels: int = 1) -> Tensor:
    """Blocks of different brightness."""
    x = torch.full((1, channels, side, side), 0.2)
    x[..., side // 4 : side // 2, side // 5 : side // 2] = 0.9
    x[..., side // 2 :, side // 2 : -2] = 0.5
    return x


def problem_of(A: Operator, x: Tensor, noise: float = 0.0, start: Tensor | None = None) -> Problem:
    y = A(x)
    drawn = draw(*torch.view_as_real(y).shape) if y.is_complex() else draw(*y.shape)
    y = y + noise * (torch.view_as_complex(drawn) if y.is_complex() else drawn)
    return Problem(y, A, A.direct(y) if start is None else start, "image", 0, noise)


def mri(side: int = 16) -> tuple[MultiCoilMRI, Tensor]:
    maps = torch.complex(draw(3, side, side), draw(3, side, side, seed=1))
    mask = torch.arange(side) % 2 == 0
    mask[side // 2 - 2 : side // 2 + 2] = True
    x = phantom(side)[:, 0] * torch.exp(0.8j * torch.linspace(0, 1, side))
    return MultiCoilMRI(maps / maps.abs().square().sum(0).sqrt(), mask), to_channels(x[None])


def small_problem(kind: str) -> Problem:
    if kind == "mri":
        A, x = mri()
        return problem_of(A, x, 0.02)
    if kind == "ct":
        return problem_of(ParallelBeam(size=16, views=7), phantom(16), 0.003)
    if kind == "blur":
        kernel = torch.zeros(5, 5)
        kernel[2, 1:4] = kernel[1, 2] = 0.25
        return problem_of(MotionBlur(kernel), phantom(12, 3), 0.01)
    return problem_of(Identity(), phantom(20), 0.1)


def solve(name: str, problem: Problem, **options: Any) -> tuple[Tensor, dict[str, float], Any]:
    """The last image of a method, the terms there, and the method."""
    part = METHODS[name]
    method = part(part.Options(**options), Shared(), Engine("cpu", "fp32"), False)
    *_, last = method.iterates(problem, method.start(problem))
    return last.image, {k: float(v) for k, v in last.terms.items()}, method


def scale(problem: Problem) -> float:
    return float(problem.operator.adjoint(problem.y).square().sum(1).sqrt().max())


def objective(problem: Problem, x: Tensor, weight: float, regulariser: Callable[[Tensor], Tensor]) -> float:
    x = x.double()
    residual = problem.operator(x.to(problem.z0)) - problem.y
    return float(squared(residual).double() / 2 + weight * regulariser(x))


def differences(x: Tensor) -> Tensor:
    """The members of each pixel's group, (members, height, width): both differences of all channels."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    right[..., :-1] = x[..., 1:] - x[..., :-1]
    return torch.cat((down, right), dim=1)[0]


def total_variation(x: Tensor) -> Tensor:
    """Isotropic, all channels together, written out."""
    return differences(x).square().sum(0).sqrt().sum()


def by_newton(problem: Problem, weight: float, columns: Callable[[Tensor], Tensor]) -> float:
    """min 1/2 ||A x - y||^2 + w sum_i ||group_i||, by SciPy's L-BFGS on matrices, rounded at 1e-5, from far to near."""
    shape, n = problem.z0.shape, problem.z0.numel()

    def measured(x: Tensor) -> Tensor:
        y = problem.operator(x)
        return (torch.view_as_real(y) if y.is_complex() else y).flatten()

    eye = torch.eye(n).reshape(n, *shape[1:])[:, None]
    A = torch.stack([measured(e) for e in eye], dim=1).double().numpy()
    K = torch.stack([columns(e).flatten() for e in eye], dim=1).double().numpy()
    groups = columns(problem.z0).shape  # (members, groups ...)
    b = (torch.view_as_real(problem.y) if problem.y.is_complex() else problem.y).flatten().double().numpy()
    x = problem.z0.flatten().double().numpy()
    for rounding in (1e-2, 1e-3, 1e-4, 1e-5):

        def value(x: np.ndarray, rounding: float = rounding) -> tuple[float, np.ndarray]:
            r, g = A @ x - b, (K @ x).reshape(groups[0], -1)
            size = np.sqrt((g**2).sum(0) + rounding**2)
            return r @ r / 2 + weight * size.sum(), A.T @ r + weight * K.T @ (g / size).ravel()

        limits = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-13}
        x = minimize(value, x, jac=True, method="L-BFGS-B", options=limits).x
    size = np.sqrt(((K @ x).reshape(groups[0], -1) ** 2).sum(0))
    return float(((A @ x - b) ** 2).sum() / 2 + weight * size.sum())


# --- total variation ---------------------------------------------------------------------------------------------


def test_adjoint_of_the_gradient() -> None:
    x, q = draw(1, 2, 7, 5), draw(2, 1, 2, 7, 5, seed=1)
    assert float((gradient(x) * q).sum()) == pytest.approx(float((x * gradient_adjoint(q)).sum()), rel=1e-4)
    assert float(lengths(gradient(x)).sum()) == pytest.approx(float(total_variation(x)), rel=1e-5)


def test_tv_denoises_like_scikit_image() -> None:
    problem = small_problem("denoising")
    rho = 0.1 / scale(problem)
    ours, terms, _ = solve("tv", problem, rho=rho, tolerance=0, iterations=300)
    theirs = denoise_tv_chambolle(problem.y[0, 0].double().numpy(), weight=0.1, eps=1e-10, max_num_iter=5000)
    other = torch.from_numpy(theirs)[None, None]
    mine, reference = (objective(problem, x, 0.1, total_variation) for x in (ours, other))
    assert mine == pytest.approx(reference, rel=1e-3)
    assert float((ours - other).abs().max()) < 5e-3
    assert terms["loss"] == pytest.approx(2 * mine, rel=1e-4)


@pytest.mark.parametrize("kind", ["mri", "ct", "blur"])
@pytest.mark.parametrize("rho", [3e-3, 0.05])
def test_tv_reaches_the_minimum(kind: str, rho: float) -> None:
    problem = small_problem(kind)
    ours, _, _ = solve("tv", problem, rho=rho, tolerance=0, iterations=800)
    weight = rho * scale(problem)
    mine = objective(problem, ours, weight, total_variation)
    best = by_newton(problem, weight, differences)
    assert mine == pytest.approx(best, rel=2e-3)
    far = objective(problem, problem.z0, weight, total_variation)
    assert far > 1.1 * best  # the start is no minimum, so that the comparison says something


def test_tv_of_a_nonlinear_blur_reaches_the_linear_minimum() -> None:
    """The proximal gradient form, told that a linear blur is not linear, against the primal-dual one."""
    problem = small_problem("blur")
    weight = 0.01

    class Pretends(MotionBlur):
        linear = False

    assert isinstance(problem.operator, MotionBlur)
    other = Problem(problem.y, Pretends(problem.operator.kernel), problem.z0, "image", 0, 0.01)
    ours, _, _ = solve("tv", problem, rho=weight / scale(problem), tolerance=0, iterations=800)
    theirs, _, _ = solve("tv", other, rho=weight / float(problem.z0.square().sum(1).sqrt().max()), tolerance=0)
    mine, reference = (objective(problem, x, weight, total_variation) for x in (ours, theirs))
    assert mine == pytest.approx(reference, rel=1e-3)


def test_nonlinear_blur_gets_better(configure: Configure) -> None:
    case, (*_, last) = solved(configure("task=deblurring", "method=tv", "kernel_size=5", "iterations=60"))
    assert case.scoring.psnr(case.show(last.image)) > case.scoring.psnr(case.show(case.problem.z0)) + 3


def test_tv_of_a_scaled_projection_is_as_fast() -> None:
    """Its dual is preconditioned, too: the iterates are the same."""
    whole, plain = ParallelBeam(size=24, views=9), ParallelBeam(size=24, views=9, normalise=False)
    found = []
    for A in (whole, Scaled(plain, whole.scale)):
        y = A(torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)))
        found.append(solve("tv", Problem(y, A, A.direct(y), "a", 0), iterations=20)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_scaled_operators_are_what_they_scale() -> None:
    """aseqdip.reconstruct puts a factor around a user's operator: the same image must come out."""
    problem = small_problem("ct")
    scaled = Problem(2 * problem.y, Scaled(problem.operator, 2.0), problem.z0, "image", 0, 2 * 0.003)
    plain, _, one = solve("tv", problem, iterations=300)
    twice, _, two = solve("tv", scaled, iterations=300)
    assert two.facts["rho"] == pytest.approx(one.facts["rho"], rel=0.05)
    assert float((plain - twice).norm() / plain.norm()) < 0.01


def test_a_hole_is_filled_before_iterations_begin() -> None:
    """A slope seen at a tenth of its pixels, a corner missing: what is known stays, the rest is near the slope."""
    x = torch.linspace(0, 1, 31).expand(1, 2, 29, 31)
    mask = (torch.rand(1, 1, 29, 31, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    mask[..., :8, :8] = 0
    found = filled(mask * x, mask)
    assert torch.equal(found[(mask > 0).expand_as(x)], x[(mask > 0).expand_as(x)])
    assert float((found - x).abs().mean()) < 0.05
    assert torch.allclose(filled(mask, mask), torch.ones(1), atol=1e-4)


# --- the weight --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tv", "wavelet"])
@pytest.mark.parametrize("kind", ["mri", "blur", "denoising"])
def test_weight_by_discrepancy(name: str, kind: str) -> None:
    """The residual is what the noise leaves when the fixed part of it is fitted; a given rho is left alone."""
    problem = small_problem(kind)
    options = {"shifts": 0} if name == "wavelet" else {}
    _, terms, method = solve(name, problem, iterations=400, **options)
    assert problem.noise_std
    assert noise_fitted(problem, problem.noise_std, terms["data"]) == pytest.approx(method.fitted, abs=0.02)
    _, _, given = solve(name, problem, rho=0.123, iterations=20, **options)
    assert given.facts["rho"] == pytest.approx(0.123)


def test_part_of_the_noise_that_is_fitted() -> None:
    """None where the residual is the noise's energy; all where the image has fitted as much as it can."""
    A, x = mri()
    problem = problem_of(A, x, 0.02)
    measured = 2 * problem.y.numel()
    assert noise_fitted(problem, 0.02, 0.02**2 * measured) == pytest.approx(0)
    assert noise_fitted(problem, 0.02, 0.02**2 * (measured - x.numel())) == pytest.approx(1)


def test_data_without_noise_are_fitted() -> None:
    A, x = mri(32)
    problem = problem_of(A, x)
    image, terms, _ = solve("tv", problem)
    assert terms["data"] < 1e-4 * float(squared(problem.y))
    assert float((image - x).norm() / x.norm()) < 0.05 < float((problem.z0 - x).norm() / x.norm())


# --- conjugate gradients -----------------------------------------------------------------------------------------


def test_cg_is_least_squares() -> None:
    A, x = mri()
    problem = problem_of(A, x)
    image, _, _ = solve("cg", problem, iterations=100, tolerance=0)
    eye = torch.eye(x.numel()).reshape(-1, *x.shape)
    matrix = torch.stack([torch.view_as_real(A(e)).flatten() for e in eye], dim=1).double()
    best = torch.linalg.lstsq(matrix, torch.view_as_real(problem.y).flatten().double()[:, None]).solution
    assert float((image.flatten() - best[:, 0]).norm() / best.norm()) < 1e-3


def test_cg_stops_at_the_noise() -> None:
    problem = small_problem("mri")
    part = METHODS["cg"]
    method = part(part.Options(), Shared(), Engine("cpu", "fp32"), True)
    fits = [
        noise_fitted(problem, 0.02, float(i.terms["data"])) for i in method.iterates(problem, method.start(problem))
    ]
    assert 1 < len(fits) < 30
    assert fits[-1] >= 0.35 > fits[-2]


# --- wavelets ----------------------------------------------------------------------------------------------------


def test_wavelet_transform_is_orthogonal() -> None:
    for side in (4, 8, 32):
        matrix = split(side, torch.device("cpu"))
        assert torch.allclose(matrix @ matrix.T, torch.eye(side), atol=1e-5)
    x = draw(1, 2, 32, 48)
    found = transform(x, 3)
    assert torch.allclose(inverse(found, 3), x, atol=1e-5)
    assert float(found.norm()) == pytest.approx(float(x.norm()), rel=1e-5)


def test_wavelet_transform_is_that_of_pywavelets() -> None:
    assert pywt.Wavelet("db4").rec_lo == pytest.approx(FILTER, abs=1e-12)
    x = draw(1, 1, 32, 32)
    ours = transform(x, 1)[0, 0].numpy()
    # its first sample is elsewhere on the circle
    theirs = [pywt.dwt2(np.roll(x[0, 0].numpy(), (s, s), (0, 1)), "db4", mode="periodization") for s in range(2)]
    for quarter, (rows, columns) in {0: (16, 0), 1: (0, 16), 2: (16, 16)}.items():
        mine = np.sort(np.abs(ours[rows : rows + 16, columns : columns + 16]).ravel())
        assert any(np.allclose(mine, np.sort(np.abs(t[1][quarter]).ravel()), atol=1e-5) for t in theirs)


@pytest.mark.parametrize("kind", ["mri", "blur"])
def test_wavelets_reach_the_minimum(kind: str) -> None:
    """With one transform: the objective, its l1-norm in PyWavelets' coefficients, minimised by another algorithm."""
    problem = small_problem(kind)
    ours, terms, _ = solve("wavelet", problem, rho=0.02, shifts=0, levels=2, tolerance=0, iterations=500)
    weight = 0.02 * scale(problem)

    def details(x: Tensor) -> Tensor:
        found = transform(x, 2).clone()
        coarse(found, 2).zero_()  # is free
        return found[0]

    best = by_newton(problem, weight, details)
    mine = objective(problem, ours, weight, lambda x: details(x.float()).square().sum(0).sqrt().sum())
    assert mine == pytest.approx(best, rel=2e-3)
    assert terms["loss"] == pytest.approx(2 * mine, rel=1e-4)


def test_random_shifts_are_better_than_none(configure: Configure) -> None:
    cfg = configure("task=mri", "noise=0.03", "method=wavelet", "size=96")
    case = case_of(cfg)
    *_, shifted = iterates(cfg, case)
    *_, fixed = iterates(configure("task=mri", "noise=0.03", "method=wavelet", "size=96", "shifts=0"), case)
    assert case.scoring.psnr(case.show(shifted.image)) > case.scoring.psnr(case.show(fixed.image)) + 0.3


def test_sides_that_do_not_halve(configure: Configure) -> None:
    """A side of 71 pixels, odd: the image is continued for the transform, and comes back in its own shape."""
    case, (*_, last) = solved(
        configure("task=deblurring", "kernel=motion", "kernel_size=5", "method=wavelet", "size=71", "iterations=40")
    )
    assert last.image.shape == case.problem.z0.shape
    assert case.scoring.psnr(case.show(last.image)) > case.scoring.psnr(case.show(case.problem.z0)) + 3


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "words", "gain"),
    [
        ("nlm", ("task=denoising", "sigma=25"), 3),
        ("wavelet_shrinkage", ("task=denoising", "sigma=25"), 3),
        ("tv", ("task=denoising", "sigma=25"), 3),
        ("biharmonic", ("task=inpainting",), 3),
        ("tv", ("task=inpainting",), 3),
        ("wiener", ("task=deblurring", "kernel=motion", "kernel_size=5", "sigma=1"), 1),
        ("tv", ("task=ct",), 3),
        ("tv", ("task=mri", "noise=0.03"), 3),
        ("wavelet", ("task=mri", "noise=0.03"), 1),
        ("cg", ("task=mri", "noise=0.03"), 1),
    ],
)
def test_each_makes_its_task_better(configure: Configure, method: str, words: tuple[str, ...], gain: float) -> None:
    (record,) = run(configure(*words, f"method={method}", "size=96")).records
    last, start = record.scores["last"].psnr_db, record.scores["start"].psnr_db
    assert last > start + gain
    assert (record.titles["group"], record.network_parameters) == ("classical", 0)


@pytest.mark.parametrize("method", ["nlm", "wavelet_shrinkage", "bm3d"])
def test_grey_pictures_lose_their_noise_too(method: str) -> None:
    if method == "bm3d":
        pytest.importorskip("bm3d")
    noisy = 0.5 + 0.1 * torch.randn((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    found = aseqdip.reconstruct(noisy, Identity(), method, noise_std=0.1)
    assert found.image.shape == noisy.shape
    assert found.image.std() < 0.5 * noisy.std()


def test_noise_of_a_picture_is_estimated_where_it_is_not_given() -> None:
    noisy = phantom(64, 3) + 0.1 * draw(1, 3, 64, 64)
    problem = Problem(noisy, Identity(), noisy, "image", 0, None)
    _, _, method = solve("nlm", problem)
    assert method.facts["sigma_used"] == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("method", ["nlm", "wavelet_shrinkage", "bm3d"])
def test_a_picture_without_noise_stays(method: str) -> None:
    flat = torch.full((1, 3, 32, 32), 0.25)
    found = aseqdip.reconstruct(flat, Identity(), method)
    assert torch.equal(found.image, flat) and found.facts["sigma_used"] == 0


def test_surroundings_have_a_middle() -> None:
    noisy = phantom(32) + 0.1 * draw(1, 1, 32, 32)
    with pytest.raises(UserError, match="patch=4: expected an odd number of pixels, such as 5"):
        aseqdip.reconstruct(noisy, Identity(), "nlm", patch=4)


def test_biharmonic_keeps_what_is_known(configure: Configure) -> None:
    case, (last,) = solved(configure("task=inpainting", "method=biharmonic"))
    known = case.problem.operator(torch.ones_like(case.problem.z0)) > 0
    assert torch.allclose(last.image[known], case.problem.y[known], atol=1e-6)


def test_bm3d_without_its_package(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aseqdip.methods.bm3d.find_spec", lambda name: None)
    cfg = configure("task=denoising", "method=bm3d")
    with pytest.raises(UserError, match=r"non-commercial.*pip install"):
        iterates(cfg, case_of(cfg))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("cg", ("task=denoising",)),
        ("cg", ("task=inpainting",)),
        ("cg", ("task=deblurring", "kernel=nonlinear")),
        ("biharmonic", ("task=mri",)),
        ("wiener", ("task=deblurring", "kernel=nonlinear")),
        ("wiener", ("task=denoising",)),
        ("wiener", ("task=ct",)),
        ("nlm", ("task=deblurring",)),
        ("wavelet_shrinkage", ("task=inpainting",)),
        ("bm3d", ("task=ct",)),
    ],
)
def test_refused_where_they_make_no_sense(configure: Configure, method: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"method={method}"):
        run(configure(*words, f"method={method}"))


def test_operators_given_in_python() -> None:
    """kind() knows what an operator is, whatever is around it."""
    y = phantom(16)
    assert Problem(y, Scaled(Identity(), 2.0), y, "image", 0).kind().identity
    assert not Problem(y, Functions(lambda x: x, lambda x: x), y, "image", 0).kind().hole


# --- running -----------------------------------------------------------------------------------------------------


def test_the_presets_steps_are_not_theirs(configure: Configure) -> None:
    (record,) = run(
        configure("task=ct", "method=tv", "preset=paper", "tracker=none", "size=32", "iterations=30", "tolerance=0")
    ).records
    assert record.steps == 30
    assert "steps" not in record.settings
    assert "lr" not in record.settings
    assert record.settings["iterations"] == 30


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_killed_run_resumes_to_the_same_bits(configure: Configure, method: str) -> None:
    """Saved in the middle and loaded into a new state, as a checkpoint is: every later iterate is the same."""
    own = {"tv": ("iterations=40",), "cg": ("iterations=12",), "wavelet": ("iterations=24",)}[method]
    cfg = configure("task=mri", "noise=0.03", f"method={method}", *own)
    case = case_of(cfg)
    whole = iterates(cfg, case)
    middle = len(whole) // 2
    assert middle > 2
    first = method_of(cfg, case)
    state = first.start(case.problem)
    stream = first.iterates(case.problem, state)
    for _ in range(middle):
        next(stream)
    saved = copy.deepcopy(state.state_dict())
    second = method_of(cfg, case)
    fresh = second.start(case.problem)
    fresh.load_state_dict(saved)
    rest = list(second.iterates(case.problem, fresh))
    assert [i.step for i in rest] == [i.step for i in whole[middle:]]
    assert all(torch.equal(a.image, b.image) for a, b in zip(rest[-1:], whole[-1:], strict=True))
    assert all(torch.equal(a.terms["loss"], b.terms["loss"]) for a, b in zip(rest, whole[middle:], strict=True))


def test_what_had_converged_does_not_go_on(configure: Configure, tmp_path: Any) -> None:
    """A kill after the last iterate: the checkpoint's continuation adds none, and has the same result."""
    cfg = configure("task=denoising", "method=tv")
    case = case_of(cfg)
    done = Reconstruction(case, method_of(cfg, case), folder=tmp_path)
    assert done.run()
    assert done.state.step < 300
    done.save()
    again = Reconstruction(case, method_of(cfg, case), folder=tmp_path)
    assert again.run()
    assert again.state.step == done.state.step
    assert torch.equal(again.result(), done.result())
    assert again.method.facts == done.method.facts


def test_terms_add_up(configure: Configure) -> None:
    for words in (("task=ct", "method=tv"), ("task=deblurring", "method=tv"), ("task=mri", "method=wavelet")):
        cfg = configure(*words, "iterations=3")
        case = case_of(cfg)
        for iterate in iterates(cfg, case):
            terms = iterate.terms
            assert float(terms["loss"]) == pytest.approx(float(terms["data"] + terms["regulariser"]), rel=1e-5)
            data = squared(case.problem.operator(iterate.image) - case.problem.y)
            assert float(terms["data"]) == pytest.approx(float(data), rel=2e-3, abs=1e-5)


def test_a_stopping_rule_picks_among_their_iterates(configure: Configure) -> None:
    (record,) = run(configure("task=mri", "noise=0.03", "method=cg", "stop=discrepancy")).records
    assert record.result == "stopped"
    assert record.scores["stopped"].step is not None


@pytest.mark.parametrize("method", ["nlm", "wavelet_shrinkage"])
def test_a_picture_without_noise_is_left_as_it_is(configure: Configure, method: str) -> None:
    case, (only,) = solved(configure("task=denoising", "sigma=0", f"method={method}"))
    assert torch.equal(only.image, case.problem.y)
