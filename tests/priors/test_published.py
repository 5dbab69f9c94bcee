"""Published networks: their sizes and keys, what their parts compute, and their files made ours."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip import priors, weights
from aseqdip.errors import UserError
from aseqdip.priors.adm import ADM
from aseqdip.priors.files import FAMILIES, Card, read
from aseqdip.priors.ncsnpp import NCSNpp, _Pyramid, _resized
from aseqdip.priors.published import PUBLISHED, convert
from aseqdip.priors.schedules import ALPHA_BARS, SIGMAS, time_of

TINY: dict[str, dict[str, Any]] = {
    "ffhq": {**PUBLISHED["ffhq"].card.arguments, "width": 32, "multipliers": [1, 2], "attention": [1]},
    "mcg_aapm": {**PUBLISHED["mcg_aapm"].card.arguments, "width": 16, "multipliers": [1, 2], "blocks": 1},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def empty(name: str) -> Any:
    """A tiny network of that prior's family."""
    with torch.device("meta"):  # draws no random numbers
        return FAMILIES[PUBLISHED[name].card.family](**TINY[name]).requires_grad_(False)


def random_weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """By the published keys."""
    return {key: 0.2 * draw(*v.shape, seed=seed + i) for i, (key, v) in enumerate(empty(name).state_dict().items())}


def loaded(name: str) -> Any:
    network = empty(name)
    network.load_state_dict(random_weights(name), strict=True, assign=True)
    return network


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Published priors that are tiny, in a folder of their own."""
    small = {
        n: dataclasses.replace(it, card=dataclasses.replace(it.card, arguments=TINY[n]))
        for n, it in PUBLISHED.items()
        if n in TINY
    }
    for name, it in small.items():
        monkeypatch.setitem(PUBLISHED, name, it)
    monkeypatch.chdir(tmp_path)


def released(name: str) -> Any:
    """Random weights as the authors' files hold them."""
    if name == "ffhq":
        return random_weights(name)
    model, averages = random_weights(name), random_weights(name, seed=1000)
    averages.pop("all_modules.0.W")
    wrapped = {"module.sigmas": torch.ones(7, dtype=torch.float64), **{f"module.{k}": v for k, v in model.items()}}
    ema = {"decay": 0.999, "num_updates": 3, "shadow_params": list(averages.values())}
    return {"optimizer": {"state": {}}, "model": wrapped, "ema": ema, "step": 3}


@pytest.mark.parametrize(
    ("name", "parameters", "keys", "some"),
    [
        ("varnet_knee", 29_936_966, 324, {"cascades.11.dc_weight": (1,)}),
        ("ffhq", 93_563_910, 362, {"input_blocks.9.1.qkv.weight": (1536, 512, 1), "out.2.bias": (6,)}),
        ("imagenet", 552_814_086, 566, {"output_blocks.2.2.emb_layers.1.weight": (2048, 1024)}),
        ("score_mri_knee", 61_433_601, 521, {"all_modules.27.NIN_3.W": (256, 256), "all_modules.53.bias": (1,)}),
    ],
)
def test_full_size(name: str, parameters: int, keys: int, some: dict[str, tuple[int, ...]]) -> None:
    card = PUBLISHED[name].card
    if card.family == "varnet":
        pytest.importorskip("fastmri", reason="E2E-VarNet is the network of the package fastmri")
    with torch.device("meta"):
        network = FAMILIES[card.family](**card.arguments)
    state = network.state_dict()
    assert (sum(v.numel() for v in state.values()), len(state)) == (parameters, keys)
    assert {key: tuple(state[key].shape) for key in some} == some


@pytest.mark.parametrize("family", [ADM, NCSNpp])
def test_the_structure_follows_from_the_shapes(family: type[ADM] | type[NCSNpp]) -> None:
    for it in (it for it in PUBLISHED.values() if FAMILIES[it.card.family] is family):
        with torch.device("meta"):
            state = family(**it.card.arguments).state_dict()
        assert {**family.arguments(state), "head_width": 64}.items() >= it.card.arguments.items()
    with pytest.raises(KeyError):
        family.arguments({"conv1.weight": torch.ones(3)})


def test_filters_by_their_definition() -> None:
    """Zeros between the pixels, the filter, every second pixel: with the pads of the released networks."""
    x = draw(1, 2, 6, 8)
    kernel = torch.outer(*2 * [torch.tensor([1.0, 3, 3, 1]) / 8])

    def filtered(x: Tensor, before: int, after: int) -> Tensor:
        return F.conv2d(F.pad(x, (before, after, before, after)).transpose(0, 1), kernel[None, None]).transpose(0, 1)

    spread = torch.zeros(1, 2, 12, 16)
    spread[..., ::2, ::2] = x
    torch.testing.assert_close(_resized(x, "up"), 4 * filtered(spread, 2, 1))
    torch.testing.assert_close(_resized(x, "down"), filtered(x, 1, 1)[..., ::2, ::2])
    with torch.random.fork_rng([]):
        part = _Pyramid(2, 3)
    torch.testing.assert_close(part(x), part.Conv2d_0(filtered(x, 2, 2)))


def test_vp_and_ve_are_put_into_our_language() -> None:
    assert pytest.approx(SIGMAS[[0, -1]], rel=1e-3) == [0.01, 157.4]
    assert [time_of(s) for s in (SIGMAS[500], SIGMAS[0] / 2, 1e4)] == [500, 0, 999]
    assert 500 < time_of(float(SIGMAS[500:502].mean())) < 501
    x, t = draw(2, 3, 8, 8), torch.tensor([20, 700])
    adm, score = loaded("ffhq"), loaded("mcg_aapm")
    s, ab = (torch.tensor(table[t], dtype=torch.float32)[:, None, None, None] for table in (SIGMAS, ALPHA_BARS))
    found = adm.predict(ab.sqrt() * x, t.float())
    expected = torch.cat((x - s * found[:, :3], found[:, 3:]), 1)
    torch.testing.assert_close(adm(x, s.flatten()), expected, rtol=1e-3, atol=1e-3)
    x, s = draw(2, 1, 8, 8), torch.tensor([0.1, 20])
    torch.testing.assert_close(score(x, s), x + s[:, None, None, None] * score.predict(x, s.log()))


def test_sides_that_cannot_be_halved() -> None:
    with pytest.raises(UserError, match="multiples of 2; found 7 x 8"):
        loaded("mcg_aapm")(draw(1, 1, 7, 8), torch.ones(1))


@pytest.mark.parametrize("name", list(TINY))
def test_a_published_file_becomes_one_of_ours(tiny: None, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content := released(name), PUBLISHED[name].file)
    weights.main(["convert", PUBLISHED[name].file])
    assert capsys.readouterr().out.strip() == f"weights/{name}.safetensors" == str(priors.file_of(name))
    card, network = read(priors.file_of(name))
    expected = content if name == "ffhq" else {k: v for k, v in content["model"].items() if k != "module.sigmas"}
    values = iter(expected.values() if name == "ffhq" else content["ema"]["shadow_params"])
    for key, value in expected.items():
        kept = value if key.endswith("all_modules.0.W") else next(values)
        assert torch.equal(network.state_dict()[key.removeprefix("module.")], kept), key
    assert (card.name, card.sigmas, card.size) == (name, list(PUBLISHED[name].card.sigmas), 256)
    assert PUBLISHED[name].file in card.source and "sha256" in card.source
    x = draw(1, card.channels, 8, 8).clamp(0, 1)
    image, v = priors.Prior(card, network, card.channels, False).predict(x, 0.3)
    assert image.shape == x.shape and (v is not None) == (name == "ffhq")


def _page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>Quota exceeded</title>")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def _another(path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(3)}, path)


def _lacks_one(path: Path) -> None:
    torch.save({k: v for k, v in random_weights("ffhq").items() if k != "out.2.bias"}, path)


def _wider(path: Path) -> None:
    torch.save({**random_weights("ffhq"), "out.2.bias": torch.ones(7)}, path)


def _code(path: Path) -> None:
    torch.save(Card("adm", {}, 3), path)


def _numbers(path: Path) -> None:
    torch.save({"step": 3}, path)


def _short_average(path: Path) -> None:
    content = released("mcg_aapm")
    del content["ema"]["shadow_params"][-1]
    torch.save(content, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_page, "web page"), (_cut, "tensors alone; found"), (_another, r"missing \(.*1 unexpected \(conv1.weight\)"),
        (_lacks_one, r"found 1 missing \(out.2.bias\)"), (_wider, r"1 of another shape \(out.2.bias\)"),
        (_code, "tensors alone; found"), (_numbers, "found step"), (_short_average, "averages"),
    ],
)  # fmt: skip
def test_a_wrong_checkpoint_is_refused(tiny: None, damage: Any, said: str) -> None:
    path = Path("ffhq_10m.pt")
    torch.save(released("ffhq"), path)
    damage(path)
    with pytest.raises(UserError, match=said):
        convert(path, None, None)


def test_what_is_missing_is_said(tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r"expected weights/ffhq.safetensors.*get ffhq_10m.pt from .*convert.*prior=natural"
    ):
        priors.file_of("ffhq")
    torch.save(released("mcg_aapm"), "mine.pt")
    assert convert(Path("mine.pt"), None, None).name == "mcg_aapm.safetensors", "by its structure"
    with pytest.raises(UserError, match="of ffhq; found .*It has the structure of mcg_aapm. Get"):
        convert(Path("mine.pt"), "ffhq", None)
    torch.save({"conv1.weight": torch.ones(3)}, "other.pt")
    with pytest.raises(UserError, match="other.pt: say which"):
        convert(Path("other.pt"), None, None)
    with pytest.raises(SystemExit, match="No such file"):
        weights.main(["convert", "ffhq_10m.pt"])
    weights.main([])
    listed = capsys.readouterr().out
    assert all(
        f"{name}: {it.file}" in listed and it.where in listed and it.terms in listed for name, it in PUBLISHED.items()
    )
