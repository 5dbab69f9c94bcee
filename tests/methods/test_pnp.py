"""Plug-and-play against the posterior of a Gaussian prior, whose denoiser is known; resuming; what is refused."""

from dataclasses import replace

import pytest
import torch
from cases import Configure, begun, case_of, method_of, whole_and_resumed
from torch import Tensor, nn

from aseqdip import identity, priors
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods.base import Shared
from aseqdip.methods.pnp import PnP, conjugate_gradients, descend, schedule
from aseqdip.operators import Functions, Identity
from aseqdip.operators.base import Operator
from aseqdip.priors.files import Card
from aseqdip.problem import Problem
from aseqdip.run.runner import run

MEAN, SPREAD, NOISE = 0.4, 0.15, 0.05
SIDE = 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Gaussian(nn.Module):
    """E[x0 | x0 + sigma n = x] for independent pixels of mean MEAN and standard deviation SPREAD."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        noise = sigma.square()[:, None, None, None]
        return (SPREAD**2 * x + noise * MEAN) / (SPREAD**2 + noise)


@pytest.fixture
def gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "load", lambda *given: (Card("denoiser", {}, 1), Gaussian()))


def small_problem(A: Operator | None, noise: float = NOISE) -> tuple[Problem, Tensor]:
    """A problem with fewer measurements than pixels, and A as a matrix."""
    matrix = draw(SIDE * SIDE // 2, SIDE * SIDE)
    matrix /= torch.linalg.matrix_norm(matrix, 2)
    if A is None:
        A = Functions(
            lambda x: (matrix @ x.reshape(-1, 1)).reshape(-1), lambda y: (y @ matrix).reshape(1, 1, SIDE, SIDE)
        )
    else:
        matrix = torch.eye(SIDE * SIDE)
    x = MEAN + SPREAD * draw(1, 1, SIDE, SIDE, seed=1)
    y = A(x)
    y = y + noise * draw(*y.shape, seed=2)
    return Problem(y, A, A.adjoint(y), "image", 0, noise), matrix


def posterior_mean(problem: Problem, matrix: Tensor, spread: float) -> Tensor:
    """Of pixels of that standard deviation and the mean MEAN."""
    precision = matrix.T @ matrix + NOISE**2 / spread**2 * torch.eye(SIDE * SIDE)
    off = torch.linalg.solve(precision, matrix.T @ (problem.y.reshape(-1) - MEAN * matrix.sum(1)))
    return (MEAN + off).reshape(1, 1, SIDE, SIDE)


def solve(problem: Problem, **options: float) -> Tensor:
    method = PnP(PnP.Options(**options), Shared(), Engine("cpu", "fp32"), False)
    return [iterate.image for iterate in method.iterates(problem, method.start(problem))][-1]


@pytest.mark.parametrize("A", [None, Identity()], ids=["matrix", "identity"])
def test_at_one_noise_level_it_is_the_posterior_mean_of_a_wider_prior(gaussian: None, A: Operator | None) -> None:
    """Where z = denoise(x): A^H (A x - y) + weight noise^2 / (spread^2 + sigma^2) (x - mean) = 0."""
    problem, matrix = small_problem(A)
    sigma = NOISE
    z = solve(problem, weight=1, sigma_max=sigma, iterations=120)
    x = posterior_mean(problem, matrix, (SPREAD**2 + sigma**2) ** 0.5)
    expected = Gaussian()(x, torch.tensor([sigma]))
    torch.testing.assert_close(z, expected, rtol=0, atol=2e-4)
    exact = posterior_mean(problem, matrix, SPREAD)
    assert 1e-3 < float((z - exact).abs().max()) < 0.05, "the bias that a finite sigma leaves"


def test_the_schedule_comes_near_the_posterior_mean_in_a_few_iterations(gaussian: None) -> None:
    problem, matrix = small_problem(None)
    exact = posterior_mean(problem, matrix, SPREAD)
    start, found = (float((x - exact).norm()) for x in (problem.z0, solve(problem, weight=1, sigma_max=1.0)))
    assert found < 0.12 * start


def test_schedule() -> None:
    assert schedule(0.2, 0.05, 3) == pytest.approx([0.2, 0.1, 0.05])
    assert schedule(0.2, 0.05, 1) == [0.2]


@pytest.mark.parametrize(("noise", "stands_for"), [(0.05, 0.05), (0.001, 0.001), (0.0, 0.0005), (None, 0.01)])
def test_the_image_before_denoising_has_the_weight_of_its_noise(
    gaussian: None, monkeypatch: pytest.MonkeyPatch, noise: float | None, stands_for: float
) -> None:
    weights: list[float] = []
    monkeypatch.setattr("aseqdip.methods.pnp.proximal", lambda problem, s, rho: (weights.append(rho), s["z"])[1])
    problem, _ = small_problem(None)
    solve(replace(problem, noise_std=noise), weight=0.5, sigma_max=0.2, iterations=3)
    levels = schedule(0.2, max(stands_for, 0.003), 3)  # the least that the prior knows
    assert weights == pytest.approx([0.5 * stands_for**2 / sigma**2 for sigma in levels])


def test_conjugate_gradients_solve() -> None:
    matrix = draw(8, 8)
    matrix = matrix @ matrix.T / 8 + torch.eye(8)
    b = draw(8)
    torch.testing.assert_close(conjugate_gradients(lambda d: matrix @ d, b), torch.linalg.solve(matrix, b))


def test_gradient_steps_never_go_uphill(configure: Configure) -> None:
    problem = case_of(configure("task=deblurring")).problem
    z, rho = problem.z0, 0.01
    s = {"z": z, "lipschitz": torch.tensor(1e-3)}  # far too bold to begin with

    def objective(x: Tensor) -> float:
        return float((problem.operator(x) - problem.y).square().sum() + rho * (x - z).square().sum())

    assert objective(descend(problem, s, rho)) < objective(z)
    assert float(s["lipschitz"]) > 1e-3


@pytest.mark.parametrize(
    "task", ["mri", "ct", "denoising sigma=25", "inpainting", "deblurring", "deblurring kernel=motion"]
)
def test_it_goes_on_to_the_same_bits(configure: Configure, task: str) -> None:
    images, rest = whole_and_resumed(configure(*f"method=pnp task={task} iterations=4".split()))
    assert len(images) == 4 and all(map(torch.equal, images[2:], rest))


@pytest.mark.parametrize("task", ["mri noise=0.03", "ct", "denoising sigma=25"])
def test_it_improves_the_start(configure: Configure, task: str) -> None:
    cfg = configure(*f"method=pnp task={task} size=64 iterations=10 tracker=none".split())
    (record,) = run(cfg).records
    assert record.scores[record.result].psnr_db > record.scores["start"].psnr_db + 3
    assert record.titles["group"] == "learned" and record.flops_per_step > 1e6 and record.passes_per_step == 1
    assert record.facts["prior_name"] in priors.shipped()


def test_the_prior_s_content_is_in_the_identity(configure: Configure, tmp_path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(priors.shipped()["ct"].read_bytes())
    cfg = configure("task=ct", "method=pnp", f"prior={mine}")
    before = identity.identity(cfg)
    assert before["read"] == identity.identity(configure("task=ct", "method=pnp", "prior=ct"))["read"]
    mine.write_bytes(priors.shipped()["grey"].read_bytes())
    assert identity.identity(cfg) != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prior=nosuch",), "prior=nosuch: expected one of"),
        (("prior=natural",), "prior=natural was trained on images of 3 channels"),
        (("sigma_max=1.5",), "was trained up to sigma 1"),
    ],
)
def test_what_cannot_work_is_refused(configure: Configure, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        begun(configure("task=ct", "method=pnp", *words))


def test_the_usual_prior_follows_from_the_images(configure: Configure) -> None:
    for task, expected in (("mri", "mr"), ("ct", "ct"), ("denoising", "natural")):
        cfg = configure(f"task={task}", "method=pnp")
        case = case_of(cfg)
        method = method_of(cfg, case)
        method.start(case.problem)
        assert method.facts["prior_name"] == expected
