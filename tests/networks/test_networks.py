"""Networks: the published sizes, any image size, reproducible weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.networks import NETWORKS, make_network
from aseqdip.networks.base import NetworkSettings
from aseqdip.networks.blocks import Head, upsample
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


def test_normal_initialisation() -> None:
    network = make_network(NetworkSettings(name="unet", width=32, depth=3), 2, 2, True, rng())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.25)
            assert module.bias is not None
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
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.01)])
def test_gradient_of_upsampling_is_pytorchs(align_corners: bool, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(2, 5, 6, 9, generator=rng(), dtype=torch.float64)
    outer = torch.randn(2, 5, 12, 18, generator=rng(1), dtype=torch.float64)
    gradients = []
    for up in (upsample, lambda f, mode, align: F.interpolate(f, None, 2, mode, align)):
        kind = dtype if up is upsample else torch.float64
        leaf = x.to(kind).requires_grad_()
        up(leaf, "bilinear", align_corners).backward(outer.to(kind))
        assert leaf.grad is not None
        gradients.append(leaf.grad.double())
    ours, exact = gradients
    assert float((ours - exact).norm() / exact.norm()) < tolerance
    with torch.random.fork_rng():  # the check draws its directions from the global stream
        assert torch.autograd.gradgradcheck(
            lambda f: upsample(f, "bilinear", align_corners), (x[:1, :1].clone().requires_grad_(),)
        )


def test_output_layer_is_a_convolution() -> None:
    with torch.random.fork_rng():
        head = Head(4, 3, sigmoid=False)
    x = torch.randn(1, 4, 5, 6, generator=rng())
    torch.testing.assert_close(head(x), F.conv2d(x, head.conv.weight, head.conv.bias))
