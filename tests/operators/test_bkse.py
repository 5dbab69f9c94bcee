"""The learned blur: its published size and keys, one blur an image, and its file."""

import dataclasses
from pathlib import Path

import pytest
import torch
from cases import Configure, case_of
from torch import Tensor

from aseqdip import identity, weights
from aseqdip.errors import UserError
from aseqdip.operators.bkse import BlurNetwork, EncodedBlur
from aseqdip.priors.published import PUBLISHED
from aseqdip.run.runner import run

TINY = {"width": 4, "front": 1, "back": 1, "latent": 8}


def released() -> dict[str, Tensor]:
    """Random weights as the authors' file holds them, with a part that is not needed."""
    with torch.device("meta"):
        state = BlurNetwork(**TINY).state_dict()
    rng = torch.Generator().manual_seed(0)
    values = {key: 0.2 * torch.randn(value.shape, generator=rng) for key, value in state.items()}
    return {**values, "kernel_extractor.model.0.weight": torch.ones(3)}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A converted network that is tiny, in a folder of its own."""
    it = PUBLISHED["bkse"]
    card = dataclasses.replace(it.card, arguments=TINY)
    monkeypatch.setitem(PUBLISHED, "bkse", dataclasses.replace(it, card=card))
    monkeypatch.chdir(tmp_path)
    torch.save(released(), it.file)
    weights.main(["convert", it.file])


def test_full_size() -> None:
    with torch.device("meta"):
        state = BlurNetwork().state_dict()
    assert (sum(v.numel() for v in state.values()), len(state)) == (23_662_531, 145)
    deepest = "adapter.model.submodule.submodule.submodule.submodule"
    assert state[f"{deepest}.up.1.weight"].shape == (1024, 512, 4, 4)
    assert state["recon_trunk.28.weight"].shape == (3, 64, 3, 3) and "feature_extractor.15.conv2.bias" in state


def test_one_blur_an_image_the_same_for_every_method(tiny: None, configure: Configure) -> None:
    words = ("task=deblurring", "kernel=bkse", "size=128")
    problem = case_of(configure(*words)).problem
    again = case_of(configure(*words, "method=dps")).problem
    A, x = problem.operator, torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    assert isinstance(A, EncodedBlur) and A.latent.shape == (1, 8, 1, 1) and not A.linear
    assert torch.equal(A(x), A(x)) and torch.equal(problem.y, again.y)
    other = case_of(configure(*words, "seed=1")).problem
    assert not torch.equal(A.latent, other.operator.latent)
    x.requires_grad_()
    A(x).square().sum().backward()
    assert bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().max()) > 0
    assert 0 <= float(problem.y.min()) <= float(problem.y.max()) <= 1


def test_its_file_is_in_the_identity(tiny: None, configure: Configure) -> None:
    cfg = configure("task=deblurring", "kernel=bkse", "size=128", "method=dps")
    before = identity.identity(cfg)
    torch.save({**released(), "recon_trunk.4.bias": torch.ones(16)}, PUBLISHED["bkse"].file)
    weights.main(["convert", PUBLISHED["bkse"].file])
    assert identity.identity(cfg) != before
    (record,) = run(cfg).records
    assert record.setting == "bkse" and record.problem["task.read"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("size=64",), "sides are multiples of 128 pixels; found 64 x 64"),
        (("size=128", "kernel_file=x.png"), "draws its blur itself"),
        (("size=128", "method=ddnm"), "needs a linear operator"),
    ],
)
def test_what_cannot_work_is_refused(tiny: None, configure: Configure, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        case_of(configure("task=deblurring", "kernel=bkse", *words))


def test_without_weights_it_is_said(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"kernel=bkse: expected weights/bkse.safetensors.*GOPRO_wVAE.pth"):
        case_of(configure("task=deblurring", "kernel=bkse", "size=128"))
