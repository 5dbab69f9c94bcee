"""Figure 6: Theorem A.1's special cases, its kernel against real networks, the descent, and what a run leaves."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Configure
from torch import Tensor
from torch.nn import functional as F

from aseqdip.engine import Engine
from aseqdip.identity import digest
from aseqdip.records import scan
from aseqdip.run.interrupt import Interrupt
from aseqdip.studies import fig6
from aseqdip.studies.fig6_report import summarise
from aseqdip.studies.fig6_theory import Dynamics, kernels, variances


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(z: Tensor, weights: list[Tensor]) -> Tensor:
    """The network as the paper writes it, from PyTorch's own convolution."""
    h = z[None]
    for layer in range(fig6.LAYERS):
        h = F.conv1d(h, weights[layer], weights[fig6.LAYERS + layer], padding=1)
        h = h if layer == fig6.LAYERS - 1 else h.relu()
    return z + h[0]


@pytest.fixture
def dynamics() -> Callable[[Tensor, Tensor], Dynamics]:
    return lambda z, y: Dynamics(z, y, *kernels(z, 64, fig6.LAYERS, "he"), 1e-5)


def test_theorem_at_its_special_cases(dynamics: Callable[[Tensor, Tensor], Dynamics]) -> None:
    y, z, steps = random(30), random(30, seed=1), torch.tensor([0.0, 1, 7, 1e3, 1e9]).double()
    assert torch.allclose(dynamics(y, y).outputs(steps), y.expand(5, -1)), "input y: no denoising, ever"
    f = dynamics(z, y).outputs(steps)
    assert torch.allclose(f[0], z)
    assert torch.allclose(f[-1], y, atol=1e-6)
    theta = kernels(z, 64, fig6.LAYERS, "he")[0]
    recursion = z
    for _ in range(7):
        recursion = recursion + 1e-5 * theta @ (y - recursion)  # eq. 11
    assert torch.allclose(f[2], recursion)


def test_fit_is_the_first_step_below_the_energy(dynamics: Callable[[Tensor, Tensor], Dynamics]) -> None:
    y, z = random(30), random(30, seed=1)
    theory = dynamics(z, y)
    step = theory.fit(0.3)
    before, after = (theory.outputs(torch.tensor([step - 1.0, step]).double()) - y).square().sum(1)
    assert after < 0.3 <= before
    assert dynamics(y, y).fit(0.3) == 0
    assert theory.fit(0.3, most=step - 1) is None


def test_equal_surroundings_cannot_be_told_apart(dynamics: Callable[[Tensor, Tensor], Dynamics]) -> None:
    """Why the sinusoid's period is not a whole number of samples."""
    periodic = torch.sin(2 * torch.pi * torch.arange(20, dtype=torch.float64) / 20).repeat(2)
    assert dynamics(periodic, periodic + random(40)).fit(0.4) is None
    assert len(torch.unique(fig6.signals(0)[0, 5:-5])) > 80


def test_kernel_of_one_layer_is_exact() -> None:
    """A linear map: three taps and a bias, whose gradients are the shifted input and one."""
    z = random(20)
    padded = F.pad(z, (1, 1))
    jacobian = torch.stack([padded[:20], padded[1:21], padded[2:], torch.ones(20).double()], 1)
    theta, sigma = kernels(z, 64, 1, "he")
    assert torch.allclose(theta, jacobian @ jacobian.T)
    assert torch.allclose(sigma, 2 / 3 * (theta - 1))


@pytest.mark.parametrize("init", ["he", "default"])
def test_kernel_is_that_of_wide_networks(configure: Configure, init: str) -> None:
    cfg = configure("experiment=fig6", "network.width=256", f"network.init={init}")
    z, tangents, squares = random(16), [], []
    for seed in range(8):
        weights = [w.requires_grad_() for w in fig6.initial_weights(cfg.shared(), seed)]
        f = plain(z, weights)
        rows = [torch.autograd.grad(value, weights, retain_graph=True) for value in f]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        tangents.append(jacobian @ jacobian.T)
        squares.append(float((f - z).detach().square().mean()))
    theta, sigma = kernels(z, 256, fig6.LAYERS, init)
    assert (torch.stack(tangents).mean(0) - theta).norm() < 0.1 * theta.norm()
    assert sum(squares) / 8 == pytest.approx(float(sigma.diagonal().mean()), rel=0.5)


@pytest.mark.parametrize("init", ["he", "default", "normal"])
def test_variances_are_those_of_the_weights_drawn(configure: Configure, init: str) -> None:
    weights = fig6.initial_weights(configure("experiment=fig6", f"network.init={init}").shared(), 0)
    for weight, bias in zip(weights[1:4], weights[6:9], strict=True):
        v, u = variances(init, weight[0].numel())
        assert float(weight.var()) == pytest.approx(v, rel=0.1)
        assert float(bias.var()) == pytest.approx(u, rel=0.5, abs=1e-12)


def test_descent_is_plain_gradient_descent(configure: Configure) -> None:
    weights = fig6.initial_weights(configure("experiment=fig6", "network.width=8").shared(), 0)
    xyz = fig6.signals(0)
    networks = fig6.Networks(xyz, weights, 5e-4)
    errors = torch.stack([networks.step() for _ in range(20)])
    for j, z in enumerate(xyz):
        mine = [w.clone().requires_grad_() for w in weights]
        for step in range(20):
            f = plain(z, mine)
            loss = (f - xyz[1]).square().mean()
            assert torch.allclose(errors[step, :, j], torch.stack([(f - xyz[0]).square().mean(), loss]))
            gradients = torch.autograd.grad(loss, mine)
            mine = [(w - 5e-4 * g).detach().requires_grad_() for w, g in zip(mine, gradients, strict=True)]
        assert torch.allclose(networks.outputs()[j, 0], plain(z, mine))


def test_wide_networks_follow_the_theory_from_their_own_start(configure: Configure) -> None:
    """Eq. 15 with the kernel of infinite width, the loss's factor 2/n in it."""
    cfg = configure("experiment=fig6", "network.width=256", "lr=1e-4")
    xyz = fig6.signals(0)
    networks = fig6.Networks(xyz, fig6.initial_weights(cfg.shared(), cfg.seed), cfg.lr)
    start = networks.outputs()[:, 0].detach()
    measured = torch.stack([networks.step() for _ in range(51)])[-1, 1]
    for j, theory in enumerate(fig6.predict(cfg, xyz)):
        theory.start = theory.basis.T @ (xyz[1] - start[j])
        predicted = (theory.outputs(torch.tensor([50.0]).double()) - xyz[1]).square().mean()
        assert float(predicted) == pytest.approx(float(measured[j]), rel=0.2)


def found(folder: Path) -> dict[str, Any]:
    """What a study found, as it lies in its folder."""
    return json.loads((folder / "record.json").read_text())


def test_record_has_the_figures(configure: Configure) -> None:
    summary = fig6.run(configure("experiment=fig6", "steps=120", "lr=1e-3"))
    assert [r.image for r in summary.records] == ["seed 0"]
    (folder,) = (p for p in summary.folder.iterdir())
    record = found(folder)
    assert {"curves.npz", "fig6.png", "record.json"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "checkpoint.pt").exists()
    assert set(record["deviations_from_paper"]) == {"loss", "lr"}
    with np.load(folder / "curves.npz", allow_pickle=False) as saved:
        xyz, error, steps = saved["signals"], saved["error"], saved["steps"]
        assert np.allclose(saved["theory"][0], ((xyz - xyz[0]) ** 2).mean(1)), "f^(0) = z"
    assert record["noise_level"] == pytest.approx(((xyz[1] - xyz[0]) ** 2).mean())
    assert (steps[0], steps[-1]) == (0, 120)
    for j, name in enumerate(fig6.INPUTS):
        one = record["inputs"][name]
        assert (one["start"], one["end"]) == pytest.approx((error[0, j], error[-1, j]))
        assert one["lowest"] <= error[:, j].min()
    assert record["inputs"]["measurement y"]["theory_fitted_at"] == 0
    assert record["theory_ratio"] > 10
    assert not list(scan([summary.folder])), "no image: not in the tables of reconstructions"


def test_figures_of_a_known_curve() -> None:
    curve = torch.tensor([2.0, 0.5, 0.7, 1.05, 1.0]).double()[:, None, None].expand(5, 2, 3).clone()
    curve[:, 1] = torch.tensor([3.0, 1.0, 0.5, 0.009, 0.005]).double()[:, None]
    assert summarise(curve.numpy(), 1.0, 0.01)[0] == {
        "start": 2.0,
        "lowest": 0.5,
        "lowest_at": 1,
        "end": 1.0,
        "unfitted_at_end": pytest.approx(0.005),
        "fitted_at": 3,
        "at_noise_level_from": 3,
    }
    assert summarise(curve[3:].numpy(), 1.0, 0.01)[0]["at_noise_level_from"] == 0
    assert summarise(curve[:3].numpy(), 1.0, 0.01)[0]["at_noise_level_from"] is None


def test_interrupted_resumed_and_then_left_alone(configure: Configure, tmp_path: Path) -> None:
    words = ("experiment=fig6", "steps=150", "network.width=8")
    whole = fig6.run(configure(*words, f"outputs={tmp_path / 'whole'}"))
    cfg = configure(*words)
    folder = Path(cfg.outputs) / "fig6" / next(whole.folder.iterdir()).name
    with Interrupt() as interrupt:
        interrupt.signal = signal.SIGTERM
        assert not fig6.Study(cfg, Engine("cpu"), folder).run(interrupt)
    assert (folder / "checkpoint.pt").is_file() and not (folder / "record.json").exists()
    assert len(fig6.run(cfg).records) == 1
    assert not (folder / "checkpoint.pt").exists()
    assert found(folder)["inputs"] == found(next(whole.folder.iterdir()))["inputs"]
    before = (folder / "record.json").stat().st_mtime_ns
    again = fig6.run(cfg)
    assert (again.records, again.skipped) == ([], ["seed 0"])
    assert (folder / "record.json").stat().st_mtime_ns == before


def test_damaged_checkpoint_starts_over(configure: Configure) -> None:
    cfg = configure("experiment=fig6", "steps=5", "network.width=8")
    folder = Path(cfg.outputs) / "fig6" / digest(fig6.identity(cfg))[:8]
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"broken")
    assert len(fig6.run(cfg).records) == 1


def test_divergence_is_named(configure: Configure) -> None:
    summary = fig6.run(configure("experiment=fig6", "lr=0.025"))
    assert "Gradient descent diverged" in summary.failed["seed 0"]
    assert "network.init=default" in summary.failed["seed 0"]


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path) -> None:
    """As a sweep over seeds, then once more for one of them."""
    words = ("experiment=fig6", "preset=smoke", "device=cpu", "steps=20")

    def call(*more: str) -> str:
        command = [sys.executable, str(Path(__file__).parents[2] / "run.py"), *words, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
        return done.stdout

    first = call("-m", "seed=0,1")
    assert first.count("1 done, 0 skipped, 0 failed") == 2
    assert "error" in first and "noise z" in first
    assert len(list((tmp_path / "outputs" / "fig6").glob("*/record.json"))) == 2
    assert "Nothing to do" in call("seed=1")
