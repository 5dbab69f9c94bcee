"""Networks that were trained for MRI: E2E-VarNet, the unrolled one, and an autoencoder whose input is fitted."""

import sys
from pathlib import Path

import pytest
import torch
from cases import Configure, begun, case_of, iterates, solved, whole_and_resumed
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators.mri import center_width
from aseqdip.priors.files import Card, e2e_varnet, write
from aseqdip.priors.trained import Autoencoder, Unrolled
from aseqdip.run.runner import run

TINY = {"num_cascades": 2, "pools": 2, "chans": 4, "sens_pools": 2, "sens_chans": 2}


def random_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {k: 0.3 * torch.randn(v.shape, generator=rng) for k, v in network.state_dict().items()}


def test_e2e_varnet_is_the_packages_own(configure: Configure, tmp_path: Path) -> None:
    pytest.importorskip("fastmri", reason="E2E-VarNet is the network of the package fastmri")
    with torch.device("meta"):
        network = e2e_varnet(**TINY)
    values = random_weights(network)
    network.load_state_dict(values, assign=True)
    path = tmp_path / "tiny.safetensors"
    write(path, Card("varnet", TINY, 2, -1, 1, True, name="tiny", source="tiny.pt"), values, torch.float32)
    cfg = configure("task=mri", "method=varnet", f"prior={path}", "size=48")
    assert begun(cfg)[1].label == "E2E-VarNet"
    case, (found,) = solved(cfg)
    A, y = case.problem.operator, case.problem.y
    kspace = torch.zeros(1, *A.maps.shape, dtype=torch.complex64)
    kspace[..., A.mask] = y
    with torch.no_grad():
        expected = network(torch.view_as_real(kspace), A.mask[None, None, None, :, None], center_width(A.mask))
    torch.testing.assert_close(found.image.norm(dim=1), expected)
    start = A.adjoint(y)
    same = (found.image * start).sum(1) - found.image.norm(dim=1) * start.norm(dim=1)
    assert float(same.abs().max()) < 1e-3 * float(expected.max() * start.max()), "the phase of the zero-filled image"


def test_without_the_package_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastmri.models", None)
    with pytest.raises(UserError, match=r"pip install 'aseqdip\[fastmri\]', or use prior=unrolled"):
        e2e_varnet(**TINY)


def test_the_unrolled_network_is_ahead_of_its_start(configure: Configure) -> None:
    (record,) = run(configure("task=mri", "method=varnet", "size=128", "noise=0.02")).records
    assert record.scores["last"].psnr_db > record.scores["start"].psnr_db + 2
    assert record.titles["method"] == "Unrolled network", "and not E2E-VarNet"
    assert record.facts["prior_name"] == "unrolled" and record.facts["prior_images"] > 400
    assert (record.steps, record.passes_per_step) == (1, 1) and record.flops_per_step > 1e6


def test_unrolled_by_its_formula(configure: Configure) -> None:
    problem = case_of(configure("task=mri", "size=32")).problem
    with torch.device("meta"):
        network = Unrolled(2, (4, 4, 4), 2)
    values = {k: v / 3 for k, v in random_weights(network).items()}
    values |= {"levels": torch.tensor([0.1, 0.05]).log(), "steps": torch.tensor([1, 0.5])}
    network.load_state_dict(values, assign=True)
    x = start = problem.operator.adjoint(problem.y)
    for level, step in ((0.1, 1.0), (0.05, 0.5)):
        x = network.denoiser(x + step * problem.operator.adjoint(problem.y - problem.operator(x)), torch.tensor(level))
    torch.testing.assert_close(network(start, problem.operator, problem.y), x)


def test_the_autoencoders_input_is_fitted_by_adam(configure: Configure) -> None:
    """Eq. (18) and torch's own Adam, from the start image; what is shown is g(z) before each update, then after it."""
    cfg = configure("task=mri", "method=autoencoder", "size=32", "lam=0.3")
    case, method, state = begun(cfg)
    A, y, g = case.problem.operator, case.problem.y, state.network.network
    assert isinstance(g, Autoencoder)
    z = case.problem.z0.clone().requires_grad_()
    optimiser = torch.optim.Adam([z], 0.01)
    for found in iterates(cfg, case):
        x = g(z)
        loss = torch.view_as_real(A(x) - y).square().sum() + 0.3 * (x - z).square().sum()
        torch.testing.assert_close(found.terms["loss"], loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        shown = x if found.step < method.steps else g(z)
        torch.testing.assert_close(found.image, shown.detach(), rtol=1e-4, atol=1e-5)


def test_the_autoencoder_goes_on_to_the_same_bits(configure: Configure) -> None:
    images, rest = whole_and_resumed(configure("task=mri", "method=autoencoder", "size=32"))
    assert len(images) == 4 and all(map(torch.equal, images[2:], rest))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=varnet task=ct", "is for task=mri; found task=ct"),
        ("method=autoencoder task=ct", "is for task=mri; found task=ct"),
        ("method=varnet task=mri prior=mr", "prior=mr is a network of the family denoiser; method=varnet takes"),
        ("method=pnp task=mri prior=unrolled", "of the family unrolled; method=pnp takes denoiser"),
        ("method=varnet task=mri prior=varnet_knee", "convert knee_leaderboard_state_dict.pt --as varnet_knee"),
    ],
)
def test_what_cannot_work_is_refused(configure: Configure, words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        begun(configure(*words.split()))


def test_what_a_pass_costs_survives_a_kill(configure: Configure) -> None:
    case, method, state = begun(configure("task=mri", "method=varnet"))
    next(method.iterates(case.problem, state))
    again = method.start(case.problem)
    again.load_state_dict(state.state_dict())
    assert again.cost == state.cost
    assert again.cost.passes > 0
