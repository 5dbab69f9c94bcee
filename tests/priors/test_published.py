"""Published networks: their sizes and keys, what their parts compute, and their files made ours."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Configure, solved
from torch import Tensor
from torch.nn import functional as F

from aseqdip import priors, weights
from aseqdip.errors import UserError
from aseqdip.priors.adm import ADM
from aseqdip.priors.edm import EDM
from aseqdip.priors.files import FAMILIES, Card, read, write
from aseqdip.priors.ncsnpp import NCSNpp, _Pyramid, _resized
from aseqdip.priors.published import PUBLISHED, convert
from aseqdip.priors.schedules import ALPHA_BARS, SIGMAS, time_of

TINY: dict[str, dict[str, Any]] = {
    "ffhq": {**PUBLISHED["ffhq"].card.arguments, "width": 32, "multipliers": [1, 2], "attention": [1]},
    "inversebench_knee": {
        **PUBLISHED["inversebench_knee"].card.arguments,
        "size": 16,
        "width": 32,
        "multipliers": [1, 4],
        "attention": [1],
    },
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
    if name == "inversebench_knee":  # as their training saves it: Adam and a schedule beside
        part = torch.nn.Parameter(torch.ones(2))
        adam = torch.optim.Adam([part])
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
        part.grad = torch.ones(2)
        adam.step()
        weights = {"ema": random_weights(name), "net": random_weights(name, seed=1000)}
        return {**weights, "optimizer": adam.state_dict(), "scheduler": schedule.state_dict()}
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
        # 26,002,050 parameters, as the published configuration implies, and 16 filters of 4 numbers
        (
            "inversebench_knee",
            26_002_050 + 64,
            304,
            {
                "model.enc.320x320_block0.conv0.weight": (128, 128, 3, 3),
                "model.dec.20x20_in0.qkv.weight": (768, 256, 1, 1),
                "model.dec.40x40_up.skip.resample_filter": (1, 1, 2, 2),
            },
        ),
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


@pytest.mark.parametrize("family", [ADM, NCSNpp, EDM])
def test_the_structure_follows_from_the_shapes(family: type[ADM] | type[NCSNpp] | type[EDM]) -> None:
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
    content = content.get("ema", {}) if name == "inversebench_knee" else content
    by_key = name != "mcg_aapm"
    expected = content if by_key else {k: v for k, v in content["model"].items() if k != "module.sigmas"}
    values = iter(expected.values() if by_key else content["ema"]["shadow_params"])
    for key, value in expected.items():
        kept = value if key.endswith("all_modules.0.W") else next(values)
        assert torch.equal(network.state_dict()[key.removeprefix("module.")], kept), key
    assert (card.name, card.sigmas) == (name, list(PUBLISHED[name].card.sigmas))
    assert card.size == PUBLISHED[name].card.size >= 256
    assert PUBLISHED[name].file in card.source and "sha256" in card.source
    x = draw(1, card.channels, 8, 8).clamp(0, 1)
    image, v = priors.Prior(card, network, card.channels, card.complex).predict(x, 0.3)
    assert image.shape == x.shape and (v is not None) == (name == "ffhq")


def test_a_file_with_the_name_of_another_is_not_taken_for_one_of_the_same_structure() -> None:
    with pytest.raises(UserError, match="--as inversebench_knee: mri-brain.pt is the file of inversebench_brain"):
        convert(Path("mri-brain.pt"), "inversebench_knee", None)


def test_edm_is_its_formula_around_the_network_of_its_keys() -> None:
    """F written out by the published keys: resampling before the convolution, heads of 64, skips from the last back."""
    w, network = random_weights("inversebench_knee"), loaded("inversebench_knee")
    for key in [key for key in w if key.endswith("resample_filter")]:  # which no network trains
        w[key] = torch.full((1, 1, 2, 2), 0.25)
    network.load_state_dict(w)

    def norm(x: Tensor, key: str) -> Tensor:
        return F.group_norm(x, min(32, x.shape[1] // 4), w[f"{key}.weight"], w[f"{key}.bias"])

    def conv(x: Tensor, key: str) -> Tensor:
        return F.conv2d(x, w[f"{key}.weight"], w[f"{key}.bias"], padding=w[f"{key}.weight"].shape[-1] // 2)

    def resized(x: Tensor, name: str) -> Tensor:
        if name.endswith("_down"):
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if name.endswith("_up") else x

    def block(x: Tensor, name: str, time: Tensor) -> Tensor:
        scale, shift = F.linear(time, w[f"{name}.affine.weight"], w[f"{name}.affine.bias"])[..., None, None].chunk(2, 1)
        h = conv(resized(F.silu(norm(x, f"{name}.norm0")), name), f"{name}.conv0")
        h = conv(F.silu(norm(h, f"{name}.norm1") * (1 + scale) + shift), f"{name}.conv1")
        h = h + (conv(x, f"{name}.skip") if f"{name}.skip.weight" in w else resized(x, name))
        if f"{name}.qkv.weight" not in w:
            return h
        qkv, mixed = conv(norm(h, f"{name}.norm2"), f"{name}.qkv").flatten(2), torch.zeros_like(h.flatten(2))
        for head in range(h.shape[1] // 64):
            q, k, v = (qkv[:, 192 * head + part : 192 * (head + 1) : 3] for part in range(3))
            weight = (q.transpose(1, 2) @ k / 8).softmax(2)
            mixed[:, 64 * head : 64 * (head + 1)] = v @ weight.transpose(1, 2)
        return h + conv(mixed.reshape(h.shape), f"{name}.proj")

    def inner(x: Tensor, level: Tensor) -> Tensor:
        angles = level[:, None] * 10000 ** (-torch.arange(16) / 16)
        time = torch.cat((angles.cos(), angles.sin()), 1)
        for name in ("model.map_layer0", "model.map_layer1"):
            time = F.silu(F.linear(time, w[f"{name}.weight"], w[f"{name}.bias"]))
        kept = [h := conv(x, "model.enc.16x16_conv")]
        for name in ("16x16_block0", "8x8_down", "8x8_block0"):
            kept.append(h := block(h, f"model.enc.{name}", time))
        for name in ("8x8_in0", "8x8_in1", "8x8_block0", "8x8_block1", "16x16_up", "16x16_block0", "16x16_block1"):
            h = block(torch.cat((h, kept.pop()), 1) if "block" in name else h, f"model.dec.{name}", time)
        return conv(F.silu(norm(h, "model.out_norm")), "model.out_conv")

    x, s = draw(2, 2, 16, 8), torch.tensor([0.02, 3.0])
    found = inner(x, s)
    torch.testing.assert_close(network.predict(x, s), found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
    for one, sigma in zip(x.split(1), s.tolist(), strict=True):
        total, level = sigma**2 + 0.5**2, torch.tensor(sigma).log()[None] / 4
        expected = 0.25 / total * one + 0.5 * sigma / total**0.5 * network.predict(one / total**0.5, level)
        torch.testing.assert_close(network(one, torch.tensor([sigma])), expected)


def test_an_edm_prior_in_our_units() -> None:
    """As released, real and imaginary part go in as they are; for another range, values and sigma are scaled alike."""
    network, x = loaded("inversebench_knee"), draw(1, 2, 16, 16)
    card = PUBLISHED["inversebench_knee"].card
    for high in (1.0, 1.5):
        prior = priors.Prior(dataclasses.replace(card, low=-high, high=high), network, 2, True)
        torch.testing.assert_close(prior.denoise(x, 0.2), network(high * x, torch.tensor([high * 0.2])) / high)
        assert prior.sigmas == pytest.approx((0.01 / high, 152 / high))
    assert (card.low, card.high) == (-1, 1)


@pytest.mark.parametrize("words", ["dps", "ddnm", "pnp", "score_mri", "score_mri coil_images=each"])
def test_methods_take_an_edm_prior(configure: Configure, tmp_path: Path, words: str) -> None:
    path, card = tmp_path / "tiny.safetensors", PUBLISHED["inversebench_knee"].card
    write(path, dataclasses.replace(card, arguments=TINY["inversebench_knee"]), random_weights("inversebench_knee"))
    cfg = configure(
        "task=mri", "size=16", "noise=0.03", "coils=3", "iterations=4", f"prior={path}", *f"method={words}".split()
    )
    _, found = solved(cfg)
    assert len(found) == 4 and all(bool(torch.isfinite(it.image).all()) for it in found)


def test_the_weights_without_averages_will_do(tiny: None) -> None:
    content = released("inversebench_knee")
    torch.save({"net": content["net"]}, "mine.pt")
    path = convert(Path("mine.pt"), "inversebench_knee", None)
    assert all(torch.equal(v, content["net"][k]) for k, v in read(path)[1].state_dict().items())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_modules_are_not_read(tiny: None) -> None:
    path = Path("mri-knee.pt")
    torch.save({"ema": loaded("inversebench_knee")}, path)
    with pytest.raises(UserError, match="found objects, such as a pickled module, and to read them is to run"):
        convert(path, None, None)
    path.write_bytes(pickle.dumps({"ema": loaded("inversebench_knee")}))
    with pytest.raises(UserError, match="found objects, such as a pickled module"):
        convert(path, None, None)


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
