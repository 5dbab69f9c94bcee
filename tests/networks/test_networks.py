"""Networks: the published sizes, any image size, reproducible weights."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aseqdip import kernels
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.networks import NETWORKS, make_network
from aseqdip.networks.base import NetworkSettings
from aseqdip.networks.blocks import Conv, Head, upsample
from aseqdip.networks.s2s import S2S
from aseqdip.networks.skip import Skip
from aseqdip.networks.unet import UNet


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        assert count(UNet(2, 64, 3, False)) == 4_283_842
        assert count(UNet(1, 64, 3, False)) == 4_283_201
        assert count(UNet(3, 64, 2, False)) == 1_036_995
        assert count(Skip(3, 3, 128, 4, 5, "bilinear", True)) == 2_184_307
        assert count(UNet(2, 64, 5, False)) == 69_185_218, "the U-Net of Self-Guided DIP's demonstration"
        assert count(S2S(3, 3, 48, 5, True)) == 1_140_627
        assert count(Skip(32, 3, 128, 4, 5, "bilinear", True)) == 2_217_831


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(64, 64), (50, 71), (33, 40)])
def test_any_image_size(name: str, shape: tuple[int, int]) -> None:
    cfg = NetworkSettings(name=name, width=8, depth=3 if name == "unet" else 5)
    network = make_network(cfg, 2, 2, signed=True, generator=rng())
    assert network(torch.randn(1, 2, *shape, generator=rng(1))).shape == (1, 2, *shape)


def test_weights_depend_on_the_generator_alone() -> None:
    cfg = NetworkSettings(name="unet", width=8, depth=2)
    first, again, other = (make_network(cfg, 1, 1, False, rng(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_added_input_comes_out_first_and_then_changes(name: str) -> None:
    cfg = NetworkSettings(name=name, width=8, depth=2, add_input=True)
    network, image = make_network(cfg, 3, 3, False, rng()), torch.rand(1, 3, 21, 32, generator=rng(1))
    network.eval()  # S2S drops out at random
    assert torch.equal(network(image), image)
    network(image).sum().backward()
    torch.optim.Adam(network.parameters(), lr=1e-2).step()
    assert not torch.equal(network(image), image)


@pytest.mark.parametrize(("channels", "sigmoid"), [((3, 3), True), ((32, 3), None)])
def test_an_input_that_cannot_be_added(channels: tuple[int, int], sigmoid: bool | None) -> None:
    cfg = NetworkSettings(name="skip", width=8, depth=2, add_input=True, sigmoid=sigmoid)
    with pytest.raises(UserError, match=r"add_input=true.*sigmoid=false"):
        make_network(cfg, *channels, False, rng())


def test_normal_initialisation() -> None:
    network = make_network(NetworkSettings(name="unet", width=32, depth=3), 2, 2, True, rng())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.25)
            assert not module.bias.detach().any()
        if isinstance(module, nn.BatchNorm2d):
            assert float(module.weight.detach().mean()) == pytest.approx(1, abs=0.02)
            assert module.running_mean is None, "the statistics of the one image, always"


def test_default_initialisation_is_pytorchs() -> None:
    network = make_network(NetworkSettings(name="unet", width=32, depth=2, init="default"), 3, 3, False, rng())
    conv = network.network.down[0][3]
    bound = 1 / conv.weight[0].numel() ** 0.5
    assert 0.9 * bound < float(conv.weight.detach().abs().max()) <= bound
    assert 0 < float(conv.bias.detach().abs().max()) <= bound


def test_sigmoid_only_where_images_are_in_0_1() -> None:
    cfg = NetworkSettings(name="skip", width=8, depth=3)
    x = 10 * torch.randn(1, 2, 32, 32, generator=rng())
    unsigned = make_network(cfg, 2, 2, signed=False, generator=rng())(x)
    assert float(unsigned.detach().min()) > 0
    assert float(unsigned.detach().max()) < 1
    assert make_network(cfg, 2, 2, signed=True, generator=rng()).network.head.sigmoid is False
    cfg.sigmoid = True
    with pytest.raises(UserError, match=r"network\.sigmoid=false"):
        make_network(cfg, 2, 2, signed=True, generator=rng())


def test_output_layer_stays_in_fp32_under_bf16() -> None:
    network = make_network(NetworkSettings(name="unet", width=8, depth=2), 1, 1, False, rng())
    x = torch.rand(1, 1, 32, 32, generator=rng(1))
    exact = Engine("cpu", "fp32").prepare(network)(x)
    rounded = Engine("cpu", "bf16").prepare(network)(x)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).detach().norm() / exact.detach().norm()) < 0.05
    bf16_values = rounded.to(torch.bfloat16).float()
    assert not torch.equal(rounded, bf16_values), "the image itself is not rounded to bf16"


def test_second_gradients_of_the_output_layer_under_bf16() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Head(4, 3, sigmoid=True)
    features = torch.randn(1, 4, 6, 5, generator=rng()).bfloat16()
    direction = torch.randn(1, 3, 6, 5, generator=rng(1))
    found = []
    for wide in (False, True):  # the same numbers in fp32 take PyTorch's own way
        leaf = (features.float() if wide else features.clone()).requires_grad_()
        (first,) = torch.autograd.grad((head(leaf) * direction).sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.float().square().sum(), [leaf, *head.parameters()]))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradient_of_upsampling_in_bf16(align_corners: bool) -> None:
    x = torch.randn(2, 5, 6, 9, generator=rng(), dtype=torch.float64)
    outer = torch.randn(2, 5, 12, 18, generator=rng(1), dtype=torch.float64)
    gradients = []
    for up in (upsample, lambda f, mode, align: F.interpolate(f, None, 2, mode, align)):
        kind = torch.bfloat16 if up is upsample else torch.float64
        leaf = x.to(kind).requires_grad_()
        up(leaf, "bilinear", align_corners).backward(outer.to(kind))
        gradients.append(leaf.grad.double())
    ours, exact = gradients
    assert float((ours - exact).norm() / exact.norm()) < 0.01


def plain(network: nn.Module) -> nn.Module:
    """A copy of a network with PyTorch's convolutions, by its saved state: what it computed before ours."""
    copy = deepcopy(network)
    for module in copy.modules():
        if isinstance(module, Conv):
            module.__class__ = nn.Conv2d
    copy.load_state_dict(network.state_dict())
    return copy


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_what_they_were(name: str, precision: str, cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases before batch norm left out, channels padded, operators of our own: the same up to rounding."""
    cfg = NetworkSettings(name=name, width=12, depth=2, init="default")
    network = make_network(cfg, 3, 3, signed=False, generator=rng())
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):  # biases that would show, were they not to be normalised away
            p.add_(0.1 * torch.randn(p.shape, generator=rng(i)))
    x, outer = (torch.randn(1, 3, 32, 32, generator=rng(i)) for i in (1, 2))
    reference = plain(network)
    exact = Engine("cpu", "fp32").prepare(reference)(x)
    (exact * outer).sum().backward()
    if cuda:
        monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    result = Engine("cpu", precision).prepare(network)(x)
    (result * outer).sum().backward()
    tolerance = 2e-5 if precision == "fp32" else 0.2
    assert float((result - exact).detach().norm() / exact.detach().norm()) < tolerance
    scale = float(exact.detach().norm())
    for (key, ours), other in zip(network.named_parameters(), reference.parameters(), strict=True):
        if ours.grad is None:
            assert key.endswith("bias"), key
            assert float(other.grad.norm()) < 1e-5 * scale, "rounding, where it was computed"
        elif precision == "fp32":
            assert float((ours.grad - other.grad).norm()) < 1e-3 * float(other.grad.norm()) + 1e-5 * scale, key


@pytest.mark.parametrize("switch", sorted(vars(kernels.switches)))
def test_what_a_measurement_switches_off(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """computes the same, the way PyTorch does."""
    monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    network = make_network(NetworkSettings(name="skip", width=12, depth=2), 3, 3, False, rng())
    x, found = torch.rand(1, 3, 32, 32, generator=rng(1)), []
    for on in (True, False):
        monkeypatch.setattr(kernels.switches, switch, on)
        with Kernels() as seen:
            y = network(x)
            found.append(
                (y.detach(), *torch.autograd.grad(y.square().sum(), [p for p in network.parameters() if p.ndim == 4]))
            )
        assert switch != "convolution" or bool(seen.ours) is on
    for ours, exact in zip(*found, strict=True):
        assert float((ours - exact).norm() / exact.norm()) < 1e-3


def test_biases_before_batch_norm_stay_as_they_are() -> None:
    network = make_network(NetworkSettings(name="unet", width=8, depth=2, init="default"), 1, 1, False, rng())
    idle = {f"{name}.bias" for name, m in network.named_modules() if isinstance(m, Conv) and not m.shifted}
    assert len(idle) == 10
    engine = Engine("cpu", "fp32")
    prepared = engine.prepare(network)
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    adam = engine.adam([{"params": list(prepared.parameters()), "lr": 0.1}])
    prepared(torch.rand(1, 1, 32, 32, generator=rng(1))).square().sum().backward()
    adam.step()
    unchanged = {key for key, p in network.named_parameters() if torch.equal(p, before[key])}
    assert unchanged == idle
    assert idle < set(network.state_dict()), "files of weights keep their form"


@pytest.mark.parametrize("name", NETWORKS)
def test_second_gradients_by_convolutions_of_the_same_size(name: str) -> None:
    """As SURE needs them: equal to PyTorch's, which takes kernels as large as the image."""
    cfg = NetworkSettings(name=name, width=8, depth=2)
    network = make_network(cfg, 3, 3, signed=False, generator=rng())
    found, direction = [], torch.randn(1, 3, 32, 32, generator=rng(2))
    for f in (plain(network), network):
        u = torch.rand(1, 3, 32, 32, generator=rng(1)).requires_grad_()
        with Kernels() as seen:
            x = f(u)
            (along,) = torch.autograd.grad((direction * x).sum(), u, create_graph=True)
            loss = x.square().mean() + (direction * along).sum() / 100
            found.append(torch.autograd.grad(loss, [p for p in f.parameters() if p.ndim == 4]))
    assert seen.largest == 3
    whole = [torch.cat([g.flatten() for g in gradients]) for gradients in found]
    assert float((whole[0] - whole[1]).norm() / whole[0].norm()) < 1e-5


class Kernels(TorchDispatchMode):
    """The largest kernel of PyTorch's and our convolutions, and how many are ours."""

    largest = ours = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket.__name__ == "convolution":
            self.largest = max(self.largest, *args[1].shape[2:])
            self.ours += func.namespace == "aseqdip"
        return func(*args, **(kwargs or {}))


def test_output_layer_is_a_convolution() -> None:
    with torch.random.fork_rng():
        head = Head(4, 3, sigmoid=False)
    x = torch.randn(1, 4, 5, 6, generator=rng())
    torch.testing.assert_close(head(x), F.conv2d(x, head.conv.weight, head.conv.bias))
