"""Samplers of diffusion models: against a Gaussian prior, whose denoiser is known, and the released formulas."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from cases import Configure, begun, case_of, method_of, whole_and_resumed
from torch import Tensor, nn

from aseqdip import priors
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods.base import Shared
from aseqdip.methods.ddnm import pseudo_inverse
from aseqdip.operators import Functions, Identity, Mask, ParallelBeam
from aseqdip.operators.base import Operator, Scaled
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import MultiCoilMRI, fft2c, ifft2c, to_complex
from aseqdip.priors.adm import ADM
from aseqdip.priors.files import Card
from aseqdip.priors.schedules import ALPHA_BARS
from aseqdip.problem import Problem
from aseqdip.run.runner import run

MEAN, SPREAD, SIDE = 0.4, 0.1, 48
#: every second row is known
ROWS = (torch.arange(SIDE) % 2 == 0).float()[:, None].expand(1, 1, SIDE, SIDE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def say(*words: str) -> None:
    """Show with pytest -s."""
    print(*words)  # noqa: T201


class Gaussian(nn.Module):
    """E[x0 | x0 + sigma n = x] for independent pixels of mean MEAN and standard deviation SPREAD."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        noise = sigma.square()[:, None, None, None]
        return (SPREAD**2 * x + noise * MEAN) / (SPREAD**2 + noise)


class Curved(nn.Module):
    """A denoiser that is not linear."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        noise = sigma.square()[:, None, None, None]
        return x - noise / (1 + noise) * (x - (2 * x).sin() / 2)


def given(monkeypatch: pytest.MonkeyPatch, network: nn.Module, **card: Any) -> None:
    facts = {"family": "denoiser", "arguments": {}, "channels": 1, "sigmas": (0.001, 100.0), **card}
    monkeypatch.setattr(priors, "load", lambda *words: (Card(**facts), network))


def problem_of(A: Operator, noise: float, x: Tensor | None = None) -> Problem:
    x = MEAN + SPREAD * draw(1, 1, SIDE, SIDE) if x is None else x
    y = A(x)
    y = y + noise * draw(*y.shape, seed=1) * (y != 0)
    return Problem(y, A, A.direct(y), "image", 0, noise)


def sampled(name: str, problem: Problem, **options: Any) -> list[Tensor]:
    part = METHODS[name]
    method = part(part.Options(**options), Shared(), Engine("cpu", "fp32"), False)
    return [iterate.image for iterate in method.iterates(problem, method.start(problem))]


# --- a Gaussian prior; in units where images are in [-1, 1] its mean is m, its standard deviation s ----------------

m, s = 2 * MEAN - 1, 2 * SPREAD


def estimate(ab: float) -> float:
    """E[x0 | x_t] = m + g (x_t - sqrt(ab) m)."""
    return ab**0.5 * s**2 / (ab * s**2 + 1 - ab)


def hole_of_dps(steps: int) -> tuple[float, float]:
    """Mean and standard deviation that ancestral sampling gives what is not measured, step by step."""
    ab = ALPHA_BARS[np.linspace(0, 999, steps).round().astype(int)]
    mean, variance = 0.0, 1.0
    for k in range(steps - 1, -1, -1):
        now, before = ab[k], ab[k - 1] if k else 1.0
        beta, g = 1 - now / before, estimate(now)
        c1, c2 = beta * before**0.5 / (1 - now), (1 - before) * (1 - beta) ** 0.5 / (1 - now)
        mean = c1 * (m + g * (mean - now**0.5 * m)) + c2 * mean
        variance = (c1 * g + c2) ** 2 * variance + (beta if k else 0)
    return mean, variance**0.5


def hole_of_ddnm(steps: int, eta: float) -> tuple[float, float]:
    """The same of DDIM."""
    ab = ALPHA_BARS[np.floor(np.arange(steps) * 1000 / steps).astype(int)]
    mean, variance = 0.0, 1.0
    for k in range(steps - 1, -1, -1):
        now, before = ab[k], ab[k - 1] if k else 1.0
        g, st = estimate(now), (1 - before) ** 0.5
        back = st * (1 - eta**2) ** 0.5 / (1 - now) ** 0.5  # eps = (x_t - sqrt(ab) x0) / sqrt(1 - ab)
        slope = before**0.5 * g + back * (1 - now**0.5 * g)
        mean = before**0.5 * m + back * (-(now**0.5) * m) + slope * (mean - now**0.5 * m) + back * now**0.5 * m
        variance = slope**2 * variance + (st * eta) ** 2
    return mean, variance**0.5


@pytest.mark.parametrize("name", ["dps", "ddnm"])
def test_what_is_not_measured_is_a_sample_of_the_prior(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Exactly that of the discrete sampler; of the prior with many steps (DDNM: without new noise, which narrows)."""
    given(monkeypatch, Gaussian())
    found = 2 * sampled(name, problem_of(Mask(ROWS), 0.0), iterations=100)[-1][ROWS == 0] - 1
    mean, spread = hole_of_dps(100) if name == "dps" else hole_of_ddnm(100, 0.85)
    n = found.numel()
    say(name, f"mean {found.mean():.4f} of {mean:.4f} ({m:.4f}), sd {found.std():.4f} of {spread:.4f} ({s:.4f})")
    assert float(found.mean()) == pytest.approx(mean, abs=4 * spread / n**0.5)
    assert float(found.std()) == pytest.approx(spread, rel=4 / (2 * n) ** 0.5)
    fine = hole_of_dps(1000) if name == "dps" else hole_of_ddnm(1000, 0.0)
    assert fine == pytest.approx((m, s), abs=0.03)


def test_ddnm_without_noise_agrees_with_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian())
    problem = problem_of(Mask(ROWS), 0.0)
    for image in sampled("ddnm", problem, iterations=5)[1:]:
        torch.testing.assert_close(ROWS * image, problem.y, rtol=0, atol=1e-4)


@pytest.mark.parametrize("A", [Identity(), Mask(ROWS)], ids=["identity", "mask"])
def test_ddnm_with_noise_is_around_the_posterior_mean(monkeypatch: pytest.MonkeyPatch, A: Operator) -> None:
    given(monkeypatch, Gaussian())
    noise = 0.1
    problem = problem_of(A, noise)
    known = ROWS.bool() if isinstance(A, Mask) else torch.ones_like(ROWS).bool()
    exact = (SPREAD**2 * problem.y + noise**2 * MEAN) / (SPREAD**2 + noise**2)
    off = (sampled("ddnm", problem, iterations=100)[-1] - exact)[known]
    spread = SPREAD * noise / (SPREAD**2 + noise**2) ** 0.5
    say(f"off the posterior mean {off.mean():.4f}, sd {off.std():.4f} of {spread:.4f}")
    assert abs(float(off.mean())) < 0.005
    assert 0.3 * spread < float(off.std()) < 0.7 * spread, "its last steps add little noise: too narrow"


def test_dps_comes_nearer_the_measurements_with_a_larger_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian())
    problem = problem_of(Mask(ROWS), 0.05)
    last = [sampled("dps", problem, iterations=50, zeta=zeta)[-1] for zeta in (0, 0.5, 2)]
    off = [float((ROWS * image - problem.y).norm() / problem.y.norm()) for image in last]
    say("relative residuals at zeta 0, 0.5, 2:", *(f"{x:.3f}" for x in off))
    assert off[0] > off[1] > off[2]


# --- the released formulas -----------------------------------------------------------------------------------------


def tiny_adm(out_channels: int) -> ADM:
    with torch.device("meta"):
        network = ADM(3, out_channels, 32, (1, 1), 1, (1,), 32)
    values = {k: 0.1 * draw(*v.shape, seed=i) for i, (k, v) in enumerate(network.state_dict().items())}
    network.load_state_dict(values, assign=True)
    return network.requires_grad_(False)


@pytest.mark.parametrize("out_channels", [3, 6])
def test_dps_is_the_released_sampler(monkeypatch: pytest.MonkeyPatch, out_channels: int) -> None:
    """eps, learned variance, clipping, the gradient of a norm, one noise a step: in eps' language, written out."""
    network, steps, A = tiny_adm(out_channels), 5, Mask((draw(1, 1, 8, 8) > 0).float())
    given(monkeypatch, network, channels=3, low=-1, sigmas=(0.01, 157.4))
    problem = problem_of(A, 0.05, draw(1, 3, 8, 8, seed=3).sigmoid())
    found = sampled("dps", problem, iterations=steps, zeta=0.5)
    zeta = 0.5 * 5 * (8 * 8 / 256**2) ** 0.5
    times = [round(i * 999 / (steps - 1)) for i in range(steps)]
    kept = ALPHA_BARS[times]
    betas = 1 - kept / np.append(1.0, kept[:-1])
    y, rng = 2 * problem.y - A(torch.ones(1, 3, 8, 8)), problem.generator("sampling")
    x = torch.randn(1, 3, 8, 8, generator=rng)
    for k in range(steps - 1, -1, -1):
        ab, before, beta = float(kept[k]), float(kept[k - 1]) if k else 1.0, float(betas[k])
        x.requires_grad_()
        out = network.predict(x, torch.tensor([float(times[k])]))
        x0 = (math.sqrt(1 / ab) * x - math.sqrt(1 / ab - 1) * out[:, :3]).clamp(-1, 1)
        (gradient,) = torch.autograd.grad((y - A(x0)).norm(), x)
        x = x.detach()
        mean = beta * before**0.5 / (1 - ab) * x0.detach() + (1 - before) * (1 - beta) ** 0.5 / (1 - ab) * x
        noise = torch.randn(x.shape, generator=rng)
        if k:
            small, large = math.log(beta * (1 - before) / (1 - ab)), math.log(beta)
            share = (out[:, 3:].detach() + 1) / 2 if out_channels == 6 else torch.ones(())
            mean = mean + (0.5 * (share * large + (1 - share) * small)).exp() * noise
        x = mean - zeta * gradient
    torch.testing.assert_close(found[-1], (x + 1) / 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_ddnm_is_the_released_sampler(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """By the rule for each singular value: that of a known pixel is 1, of another 0."""
    network, steps, eta, mask = tiny_adm(6), 5, 0.85, (draw(1, 1, 8, 8) > 0).float()
    given(monkeypatch, network, channels=3, low=-1, sigmas=(0.01, 157.4))
    problem = problem_of(Mask(mask), noise, draw(1, 3, 8, 8, seed=3).sigmoid())
    found = sampled("ddnm", problem, iterations=steps)
    times, sy = range(800, -1, -200), 2 * noise
    y, rng = mask * (2 * problem.y - 1), problem.generator("sampling")
    x = torch.randn(1, 3, 8, 8, generator=rng)
    for i in times:
        ab, before = float(ALPHA_BARS[i]), float(ALPHA_BARS[i - 200]) if i else 1.0
        eps = network.predict(x, torch.tensor([float(i)]))[:, :3]
        x0 = (x - (1 - ab) ** 0.5 * eps) / ab**0.5
        a, st, n = before**0.5, (1 - before) ** 0.5, torch.randn(x.shape, generator=rng)
        free = st * (eta * n + (1 - eta**2) ** 0.5 * eps)
        factor, added = 1.0, free
        if sy and st >= a * sy:
            added = torch.where(mask > 0, (st**2 - (a * sy) ** 2) ** 0.5 * n, free)
        elif sy:
            factor, added = st * (1 - eta**2) ** 0.5 / (a * sy), torch.where(mask > 0, st * eta * n, free)
        x = a * (x0 + factor * (y - mask * x0)) + added
    torch.testing.assert_close(found[-1], (x + 1) / 2, rtol=1e-3, atol=1e-3)


def test_score_mri_is_a_sample_of_the_prior_where_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With signed images, two channels; the corrector's steps, which are not small, narrow it a little."""
    given(monkeypatch, Gaussian(), low=-1, sigmas=(0.001, 378.0))
    problem = problem_of(Mask(ROWS), 0.0, MEAN + SPREAD * draw(1, 2, SIDE, SIDE))
    part = METHODS["score_mri"]
    method = part(part.Options(iterations=300), Shared(), Engine("cpu", "fp32"), True)
    state = method.start(problem)
    *_, last = method.iterates(problem, state)
    torch.testing.assert_close(ROWS * last.image, problem.y, rtol=0, atol=1e-5)
    hole = last.image[(ROWS == 0).expand_as(last.image)]
    say(f"score_mri: mean {hole.mean():.4f} of {MEAN}, sd {hole.std():.4f} of {SPREAD}")
    assert float(hole.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(hole.std()) == pytest.approx(SPREAD, rel=0.2)
    assert method.facts["begins"] == "noise" and state.cost.passes == 2


def test_score_mri_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian(), low=-1)
    problem = problem_of(Mask(ROWS), 0.0, MEAN + SPREAD * draw(1, 2, SIDE, SIDE))
    part = METHODS["score_mri"]
    method = part(part.Options(iterations=5, sigma_max=1.0), Shared(), Engine("cpu", "fp32"), True)
    state = method.start(problem)
    assert state.levels.tolist() == pytest.approx(np.geomspace(0.01, 1, 5).tolist())
    rng, x, sigma, before = torch.Generator(), state.extra["x"], float(state.levels[4]), float(state.levels[3])
    rng.set_state(state.rng.get_state())

    def score(x: Tensor) -> Tensor:
        return (Gaussian()(x, torch.tensor([sigma])) - x) / sigma**2

    def consistent(x: Tensor) -> Tensor:
        return problem.y + (1 - ROWS) * x

    n, m = torch.randn(x.shape, generator=rng), torch.randn(x.shape, generator=rng)
    e = 2 * (0.16 * n.norm() / score(x).norm()) ** 2
    x = consistent(x + e * score(x) + (2 * e).sqrt() * n)
    gap = sigma**2 - before**2
    found = method.advance(problem, state, 4)
    torch.testing.assert_close(found[0], consistent(x + gap * score(x) + gap**0.5 * m), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], consistent(x + sigma**2 * score(x)), rtol=1e-4, atol=1e-4)


COILS = 3
#: of SIDE columns a few in the middle, and one in four
COLUMNS = (torch.arange(SIDE) % 4 == 0) | ((torch.arange(SIDE) - SIDE // 2).abs() < 3)


def coils_problem(side: int = SIDE, factor: float = 1.0) -> tuple[Problem, Tensor, Tensor]:
    """Coil images, (coils, 2, side, side), of the prior, each independent of the others; the problem and its maps."""
    maps = simulated_coils(COILS, (side, side), torch.Generator().manual_seed(0))
    images = MEAN + SPREAD * draw(COILS, 2, side, side)
    mask = COLUMNS[:side]
    inner = MultiCoilMRI(maps, mask)
    y = inner.sample(fft2c(to_complex(images).transpose(0, 1)))
    A = inner if factor == 1 else Scaled(inner, factor)
    return Problem(factor * y, A, inner.adjoint(y), "image", 0, 0.0), maps, images


def each_coil(problem: Problem, **options: Any) -> tuple[Any, list[Tensor], Any]:
    """The method, all images and the state it ends with."""
    part = METHODS["score_mri"]
    method = part(part.Options(coil_images="each", **options), Shared(), Engine("cpu", "fp32"), True)
    state = method.start(problem)
    return method, [iterate.image for iterate in method.iterates(problem, state)], state


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_score_mri_of_each_coil_is_consistent_coil_by_coil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Whatever the prior says, and also where the operator has a factor."""
    given(monkeypatch, Gaussian(), low=-1, sigmas=(0.001, 378.0))
    problem, _, images = coils_problem(factor=factor)
    _, _, state = each_coil(problem, iterations=3)
    found, true = (fft2c(to_complex(x))[..., COLUMNS] for x in (state.extra["x"], images))
    torch.testing.assert_close(found, true, rtol=0, atol=2e-5)
    assert state.cost.passes == 2 * COILS


@pytest.mark.parametrize("snr", [0.0, 0.16])
def test_score_mri_of_each_coil_against_a_gaussian(monkeypatch: pytest.MonkeyPatch, snr: float) -> None:
    """What no column has measured of each coil: without a corrector exactly what the predictor's recursion says.

    Predictors alone in 300 levels: x <- x + g (MEAN - x) + sqrt(gap) n, g = gap / (SPREAD^2 + s_i^2), and k-space,
    orthonormal, has the image's variance. The corrector brings it to the prior's.
    """
    given(monkeypatch, Gaussian(), low=-1, sigmas=(0.001, 378.0))
    problem, _, _ = coils_problem()
    _, _, state = each_coil(problem, iterations=300, snr=snr)
    free = fft2c(to_complex(state.extra["x"]))[..., ~COLUMNS]
    values = torch.view_as_real(free).flatten()
    levels, variance = 0.01 * 37800 ** np.linspace(0, 1, 300), 378.0**2
    for k in range(299, -1, -1):
        gap = levels[k] ** 2 - (levels[k - 1] ** 2 if k else 0)
        variance = (1 - gap / (SPREAD**2 + levels[k] ** 2)) ** 2 * variance + gap
    spread = variance**0.5 if snr == 0 else SPREAD
    say(f"each coil, snr {snr}: mean {values.mean():.4f}, sd {values.std():.4f} of {spread:.4f} ({SPREAD})")
    assert abs(float(values.mean())) < 4 * spread / len(values) ** 0.5, "the mean image is in the middle column"
    assert float(values.std()) == pytest.approx(spread, rel=4 / (2 * len(values)) ** 0.5 if snr == 0 else 0.2)
    assert spread == pytest.approx(SPREAD, rel=0.2)


def test_score_mri_of_each_coil_is_the_released_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSOS written out with complex images: real and imaginary part one by one, in the released order of draws."""
    network, steps, side = Curved(), 4, 16
    given(monkeypatch, network, low=-1, sigmas=(0.01, 378.0))
    problem, maps, _ = coils_problem(side)
    _, images, state = each_coil(problem, iterations=steps)
    mask, rng = COLUMNS[:side], problem.generator("sampling")
    levels = 0.01 * 37800 ** np.linspace(0, 1, steps)
    full = torch.zeros(COILS, side, side, dtype=torch.complex64)
    full[..., mask] = problem.y[0]

    def parts(x: Tensor, level: float, corrects: bool, gap: float) -> tuple[Tensor, Tensor, Tensor]:
        """x, its mean before the noise, and the estimate, each part on its own."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in (x.real, x.imag):
            score = (network(part[None, None], torch.tensor([level]))[0, 0] - part) / level**2
            n = torch.randn(side, side, generator=rng)
            step = 2 * (0.16 * n.norm() / score.norm()) ** 2 if corrects else torch.tensor(gap)
            mean = part + step * score
            found.append((mean + ((2 if corrects else 1) * step).sqrt() * n, mean, part + level**2 * score))
        one, two, three = (torch.complex(*pair) for pair in zip(*found, strict=True))
        return one, two, three

    def kept(x: Tensor, c: int) -> Tensor:
        return ifft2c(fft2c(x) * ~mask + full[c])

    x = 378 * torch.complex(*torch.randn(2, COILS, side, side, generator=rng))
    for i, k in enumerate(range(steps - 1, -1, -1)):
        level, gap = float(levels[k]), float(levels[k] ** 2 - (levels[k - 1] ** 2 if k else 0))
        estimates = torch.zeros_like(x)
        for c in range(COILS):
            moved, _, estimate = parts(x[c], level, corrects=False, gap=gap)
            moved, mean, _ = parts(kept(moved, c), level, corrects=True, gap=gap)
            x[c], estimates[c] = kept(moved if k else mean, c), kept(estimate, c)
        shown = estimates if k else x
        combined = (maps.conj() * shown).sum(0)
        expected = shown.abs().square().sum(0).sqrt() * torch.exp(1j * combined.angle())
        torch.testing.assert_close(
            to_complex(images[i])[0, 0], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )
    torch.testing.assert_close(to_complex(state.extra["x"])[:, 0], x, rtol=1e-3, atol=1e-3)


def test_score_mri_of_each_coil_takes_maps_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is measured, the image is x, not x times the maps' root sum of squares."""
    given(monkeypatch, Gaussian(), low=-1, sigmas=(0.001, 378.0))
    uneven = 5 * simulated_coils(COILS, (SIDE, SIDE), torch.Generator().manual_seed(0)) * torch.linspace(0.2, 1, SIDE)
    A, x = MultiCoilMRI(uneven, torch.ones(SIDE, dtype=torch.bool)), MEAN + SPREAD * draw(1, 2, SIDE, SIDE)
    _, images, state = each_coil(Problem(0.2 * A(x), Scaled(A, 0.2), x, "image", 0, 0.0), iterations=3)
    torch.testing.assert_close(images[-1], x, rtol=1e-3, atol=1e-3)
    assert float(state.extra["x"].abs().max()) < 2, "as the prior knows images"


def test_coils_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian(), low=-1, sigmas=(0.001, 378.0))
    with pytest.raises(UserError, match="samples the image of every coil, and the operator, Mask, has no coils"):
        each_coil(problem_of(Mask(ROWS), 0.0, MEAN + SPREAD * draw(1, 2, SIDE, SIDE)))


# --- MCG: small images, whose operator is a matrix -----------------------------------------------------------------

PIXELS = 16


def ct_problem() -> tuple[Problem, Tensor]:
    """5 views of 16 x 16 pixels, and R as a matrix."""
    A = ParallelBeam(size=PIXELS, views=5)
    columns = A(torch.eye(PIXELS**2).reshape(-1, 1, PIXELS, PIXELS)).flatten(1)
    return problem_of(A, 0.0, MEAN + SPREAD * draw(1, 1, PIXELS, PIXELS)), columns.T


def test_mcg_against_the_posterior_of_a_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not measured is a sample of the prior, what is measured best is near the data; the gradient adds little.

    The steps of ART are few: what is measured weakly stays a sample of the prior, too.
    """
    given(monkeypatch, Gaussian(), sigmas=(0.001, 378.0))
    problem, matrix = ct_problem()
    _, values, parts = torch.linalg.svd(matrix)
    rank = int((values > 1e-3 * values[0]).sum())
    exact = torch.linalg.pinv(matrix, rtol=1e-3) @ problem.y.flatten()
    for alpha in (0.0, 0.1):
        image = sampled("mcg", problem, iterations=300, alpha=alpha)[-1].flatten()
        best, free = parts[:15] @ (image - exact), parts[rank:] @ (image - MEAN)  # along singular vectors
        off = float(best.square().mean().sqrt())
        say(f"mcg, alpha {alpha}: measured parts off {off:.4f}; others mean {free.mean():.4f}, sd {free.std():.4f}")
        assert off < 0.5 * SPREAD and abs(float(free.mean())) < 4 * SPREAD / free.numel() ** 0.5
        assert float(free.std()) == pytest.approx(SPREAD, rel=0.2)


def test_mcg_is_the_released_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictor, corrector at the same level, gradient kept off the measured angles, back-projection: written out."""
    network, steps = Curved(), 4
    given(monkeypatch, network, sigmas=(0.01, 378.0))
    problem, _ = ct_problem()
    found = sampled("mcg", problem, iterations=steps)
    R, whole = problem.operator, ParallelBeam(size=PIXELS, views=180, normalise=False)
    mask = (torch.arange(180) % 36 == 0).float()
    levels, rng = 0.01 * 37800 ** np.linspace(0, 1, steps), problem.generator("sampling")
    x = 378 * torch.randn(1, 1, PIXELS, PIXELS, generator=rng)

    def score(x: Tensor, level: float) -> Tensor:
        return (network(x, torch.tensor([level])) - x) / level**2

    for i, k in enumerate(range(steps - 1, 0, -1)):
        level, gap = float(levels[k]), float(levels[k] ** 2 - levels[k - 1] ** 2)
        n = torch.randn(x.shape, generator=rng)
        x = (x + gap * score(x, level) + gap**0.5 * n).requires_grad_()
        x0 = x + level**2 * score(x, level)
        (g,) = torch.autograd.grad(R.direct(problem.y - R(x0)).norm(), x)
        x, g = x.detach(), 0.1 * PIXELS / 256 * g
        n, f = torch.randn(x.shape, generator=rng), score(x, level)
        e = 2 * (0.16 * n.norm() / f.norm()) ** 2
        x = x + e * f + (2 * e).sqrt() * n
        back = R.adjoint(problem.y - R(x)) / R.adjoint(R(torch.ones_like(x)))
        x = x + (1 - 0.4 * i / 2000) * back - whole.direct((1 - mask) * whole(g))
        torch.testing.assert_close(x0.detach(), found[i], rtol=1e-3, atol=1e-3)


# --- everything else -----------------------------------------------------------------------------------------------


def test_pseudo_inverse_is_that_of_a_matrix() -> None:
    matrix = draw(4, 9)
    A = Functions(lambda x: matrix @ x.reshape(-1), lambda y: (y @ matrix).reshape(1, 1, 3, 3))
    r = draw(4, seed=1)
    torch.testing.assert_close(
        pseudo_inverse(A, r, 10).reshape(-1), torch.linalg.pinv(matrix) @ r, rtol=1e-3, atol=1e-4
    )
    assert torch.equal(pseudo_inverse(A, 0 * r, 10), torch.zeros(1, 1, 3, 3))


def test_a_prior_of_small_noise_begins_from_the_start_image(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian(), sigmas=(0.003, 1.0))
    problem = problem_of(Identity(), 0.1)
    for words, level, begins in (({}, 1.0, "start image"), ({"sigma_max": 0.2}, 0.2, "start image")):
        method = METHODS["dps"](METHODS["dps"].Options(**words), Shared(), Engine("cpu", "fp32"), False)
        state = method.start(problem)
        assert method.facts["begins"] == begins and method.facts["sigma_max"] == pytest.approx(level, rel=0.02)
        ab, noise = float(state.levels[-1]), torch.randn(problem.z0.shape, generator=problem.generator("sampling"))
        assert ((1 - ab) / ab) ** 0.5 == pytest.approx(2 * level, rel=0.02)
        expected = ab**0.5 * (2 * problem.z0 - 1) + (1 - ab) ** 0.5 * noise
        torch.testing.assert_close(state.extra["x"], expected)
    with pytest.raises(UserError, match="sigma_max=2: expected more than 0.003 and at most 1"):
        sampled("dps", problem, sigma_max=2.0)


def test_the_step_of_dps_is_the_released_one_of_its_operator() -> None:
    kernel = torch.ones(3, 3) / 9
    for A, zeta in ((Identity(), 0.5), (MotionBlur(kernel), 0.3), (CameraBlur(kernel, 2.2), 0.3)):
        problem = Problem(torch.ones(1, 3, 64, 64), A, torch.ones(1, 3, 64, 64), "image", 0, 0.0)
        for words, step in (({}, zeta), ({"zeta": 1.0}, 1.0)):
            method = METHODS["dps"](METHODS["dps"].Options(**words), Shared(), Engine("cpu", "fp32"), False)
            assert method.zeta(problem) == pytest.approx(step / 4), "of an image with a sixteenth of the pixels"


def test_ct_is_guided_by_filtered_back_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Gaussian())
    A = ParallelBeam(size=16, views=9)
    problem = problem_of(A, 0.0, MEAN + SPREAD * draw(1, 1, 16, 16))
    method = METHODS["dps"](METHODS["dps"].Options(), Shared(), Engine("cpu", "fp32"), False)
    u = draw(1, 1, 16, 16)
    expected = 2 * A.direct(problem.y - A((u + 1) / 2)).norm()
    torch.testing.assert_close(method.norm(problem, u), expected)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *itertools.product(
            ["dps", "ddnm"], ["mri noise=0.03", "ct", "denoising sigma=25", "inpainting", "deblurring kernel=motion"]
        ),
        ("mcg", "ct"),
        ("score_mri", "mri noise=0.03"),
        ("score_mri", "mri noise=0.03 coil_images=each"),
        ("score_mri", "mri noise=0.03 coil_images=each stop=holdout"),
    ],
)
def test_it_goes_on_to_the_same_bits(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, task: str
) -> None:
    given(monkeypatch, Gaussian())
    images, rest = whole_and_resumed(configure(*f"method={name} task={task} size=16 iterations=5".split()))
    assert len(images) == 5 and all(map(torch.equal, images[2:], rest))
    assert all(bool(torch.isfinite(image).all()) for image in images)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=ddnm task=deblurring", "needs a linear operator"),
        ("method=score_mri task=ct", "is for task=mri; found task=ct"),
        ("method=mcg task=mri", "is for task=ct; found task=mri"),
        ("method=dps task=ct prior=nosuch", "prior=nosuch: expected one of"),
        ("method=dps task=ct prior=ffhq", "convert ffhq_10m.pt"),
    ],
)
def test_what_cannot_work_is_refused(configure: Configure, words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        case_of(configure(*words.split()))


@pytest.mark.parametrize(("words", "times"), [("iterations=50 stop=holdout", 1), ("iterations=200", 0)])
def test_few_steps_of_dps_are_said_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: str, times: int
) -> None:
    given(monkeypatch, Gaussian())
    cfg = configure(*f"method=dps task=inpainting size=16 images=0:2 {words}".split())
    assert len(run(cfg).records) == 2
    assert caplog.text.count("50 steps guide the image poorly") == times
    assert caplog.text.count("Set iterations=200 or more, or a zeta 4 times as large") == times


@pytest.mark.parametrize("method", ["ddnm", "pnp"])
def test_another_size_than_the_prior_s_is_said(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    given(monkeypatch, Gaussian(), size=256)
    begun(configure(f"method={method}", "task=ct", "size=16"))
    assert "was trained on 256 x 256 pixels; found 16 x 16: set size=256" in caplog.text


def test_dps_clips_only_what_is_known_to_be_bounded(configure: Configure) -> None:
    cfg = configure("task=ct", "method=dps", "iterations=2", "size=32", "prior=ct")
    case = case_of(cfg)
    case.problem.z0 = 3 * case.problem.z0
    found = []
    for bounded in (True, False):
        method = method_of(cfg, case)
        method.bounded = bounded
        method.estimate = lambda s, x, ab: (3 * x / x.abs().max() + 0 * x, None)
        found.append([float(i.image.max()) for i in method.iterates(case.problem, method.start(case.problem))][0])
    assert found[0] == 1 and found[1] > 1.5
