"""Operators of our own: equal to PyTorch's, exact adjoints, second gradients, and what CUDA would do, done by a CPU."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from aseqdip import kernels
from aseqdip.errors import UserError

CHANNELS_LAST = torch.channels_last


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def check_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """First and second derivatives against finite differences."""
    leaves = [x.requires_grad_() for x in inputs]
    with torch.random.fork_rng():  # the checks draw their directions from the global stream
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def check_same(ours: Tensor, exact: Tensor, x: Tensor, layout: torch.memory_format = torch.contiguous_format) -> None:
    """The same values and the same gradient by x, both in this layout."""
    torch.testing.assert_close(ours, exact)
    g = normal(*exact.shape, seed=1, dtype=x.dtype).contiguous(memory_format=layout)
    (back,), (reference,) = torch.autograd.grad(ours, x, g), torch.autograd.grad(exact, x, g)
    torch.testing.assert_close(back, reference)
    assert ours.is_contiguous(memory_format=layout)
    assert back.is_contiguous(memory_format=layout)


@pytest.fixture(params=["cpu", "cuda"])
def branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way of computing, on a CPU."""
    if request.param == "cuda":
        monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    yield request.param


class Operations(TorchDispatchMode):
    """Counts operations, and convolutions whose kernel is larger than any of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.large = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func._overloadpacket.__name__] += 1
        self.large += func._overloadpacket.__name__ == "convolution" and max(args[1].shape[2:]) > 3
        return func(*args, **(kwargs or {}))


# --- convolution ---------------------------------------------------------------------------------------------------

SHAPES = [(3, 1, 1), (3, 1, 0), (3, 2, 0), (3, 2, 1), (1, 1, 0), (1, 2, 0)]  # kernel, stride, padding


@pytest.mark.parametrize(("k", "stride", "padding"), SHAPES)
def test_convolution_is_pytorchs(branch: str, k: int, stride: int, padding: int) -> None:
    x, w = normal(2, 5, 9, 8).requires_grad_(), normal(4, 5, k, k, seed=1).requires_grad_()
    ours, exact = kernels.convolution(x, w, stride, padding), F.conv2d(x, w, None, stride, padding)
    torch.testing.assert_close(ours, exact)
    g = normal(*exact.shape, seed=2)
    for a, b in zip(torch.autograd.grad(ours, (x, w), g), torch.autograd.grad(exact, (x, w), g), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("k", "stride", "padding"), SHAPES)
def test_weight_gradient_by_products(k: int, stride: int, padding: int) -> None:
    for height, width in ((9, 8), (8, 11)):
        x, w = normal(2, 5, height, width), normal(4, 5, k, k, seed=1).requires_grad_()
        y = F.conv2d(x, w, None, stride, padding)
        g = normal(*y.shape, seed=2)
        (exact,) = torch.autograd.grad(y, w, g)
        torch.testing.assert_close(kernels._products(x, g, k, stride, padding), exact)


def test_old_processors_take_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, expected in (("AVX2", True), ("AVX512", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        x = normal(1, 8, 4, 4, dtype=torch.float32)
        assert kernels._prefers_products(x.contiguous(memory_format=CHANNELS_LAST)) is expected
        assert not kernels._prefers_products(x), "oneDNN is good at the plain layout"
        assert not kernels._prefers_products(x.contiguous(memory_format=CHANNELS_LAST).bfloat16())


@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (1, 1, 0)])
@pytest.mark.parametrize("products", [False, True])
def test_derivatives_of_convolution(
    monkeypatch: pytest.MonkeyPatch, k: int, stride: int, padding: int, products: bool
) -> None:
    monkeypatch.setattr(kernels, "_prefers_products", lambda x: products)
    x, w = normal(1, 3, 5, 5), normal(2, 3, k, k, seed=1)
    check_gradients(lambda x, w: kernels.convolution(x, w, stride, padding), x, w)


def test_channels_without_weights_count_for_nothing() -> None:
    x, w = normal(1, 5, 6, 6), normal(2, 3, 3, 3, seed=1)
    torch.testing.assert_close(kernels.convolution(x, w, 1, 1), F.conv2d(x[:, :3], w, None, 1, 1))
    check_gradients(lambda x, w: kernels.convolution(x, w, 1, 1), x, w)


@pytest.mark.parametrize(("channels", "out"), [(3, 16), (12, 4), (1, 1)])
def test_channels_in_eights(monkeypatch: pytest.MonkeyPatch, channels: int, out: int) -> None:
    """bf16 as on CUDA: cuDNN sees multiples of 8; results are what they were, and have the shapes they had."""
    monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    shapes = (1, channels, 8, 8), (out, channels, 3, 3)
    x, w = (normal(*s, dtype=torch.bfloat16).contiguous(memory_format=CHANNELS_LAST).requires_grad_() for s in shapes)
    seen: list[tuple[int, ...]] = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._overloadpacket is torch.ops.aten.convolution:
                seen.append((args[0].shape[1], *args[1].shape[:2]))
            if func._overloadpacket is torch.ops.aten.convolution_backward:
                seen.append((args[0].shape[1], args[1].shape[1], *args[2].shape[:2]))
            return func(*args, **(kwargs or {}))

    with Shapes():  # an operation's inside is not seen from outside
        y = kernels._convolution(x.detach(), w.detach(), 1, 1)
        g = normal(*y.shape, seed=2, dtype=torch.bfloat16)
        found = kernels._by_input(w.detach(), g, x.shape, 1, 1), kernels._by_weight(x.detach(), g, w.shape, 1, 1)
    assert len(seen) == 3
    assert all(c % 8 == 0 for channels in seen for c in channels)
    exact = F.conv2d(x, w, None, 1, 1)
    for ours, reference in zip((y, *found), (exact, *torch.autograd.grad(exact, (x, w), g)), strict=True):
        assert ours.is_contiguous(memory_format=CHANNELS_LAST)
        torch.testing.assert_close(
            ours, reference.detach(), rtol=0.02, atol=0.02 * float(reference.detach().abs().max())
        )


def test_one_channel_keeps_the_layout() -> None:
    """Strides of one channel mean nothing, and PyTorch then takes the other layout for what comes out."""
    x, w = normal(1, 1, 16, 16, dtype=torch.float32), normal(8, 1, 3, 3, dtype=torch.float32)
    assert not F.conv2d(x, w, None, 1, 1).is_contiguous(memory_format=CHANNELS_LAST)
    assert kernels.convolution(x, w, 1, 1).is_contiguous(memory_format=CHANNELS_LAST)


def test_second_derivatives_take_small_kernels() -> None:
    x, w = normal(1, 3, 16, 16).requires_grad_(), normal(4, 3, 3, 3, seed=1).requires_grad_()
    results = []
    for convolution in (F.conv2d, lambda x, w, _, stride, padding: kernels.convolution(x, w, stride, padding)):
        with Operations() as operations:
            y = convolution(x, w, None, 1, 1)
            (along,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
            results.append(torch.autograd.grad((along * x).square().sum() + y.square().sum(), (x, w)))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact)
    assert operations.large == 0


def test_only_gradients_that_are_asked_for_are_computed() -> None:
    x, w = normal(1, 3, 8, 8).requires_grad_(), normal(4, 3, 3, 3, seed=1).requires_grad_()
    y = kernels.convolution(x * 1, w, 1, 1).square().sum()
    with Operations() as operations:
        torch.autograd.grad(y, x, create_graph=True)
    assert operations.seen["by_input"] == 1
    assert operations.seen["by_weight"] == 0


def test_flops_are_those_of_the_convolution(branch: str) -> None:
    """However it is computed: with more channels, or in products."""
    x, w = normal(1, 12, 16, 16, dtype=torch.float32), normal(4, 12, 3, 3, dtype=torch.float32)
    totals = []
    for convolution in (F.conv2d, lambda x, w, _, stride, padding: kernels.convolution(x, w, stride, padding)):
        kind = torch.bfloat16 if branch == "cuda" else torch.float32
        a, b = x.to(kind).requires_grad_(), w.to(kind).requires_grad_()
        with FlopCounterMode(display=False) as counter:
            convolution(a, b, None, 1, 1).sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1] == 3 * 2 * 4 * 12 * 9 * 16 * 16


# --- reflected borders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 5), (8, 3), (9, 12)])
def test_reflection_is_pytorchs(border: int, height: int, width: int) -> None:
    x = normal(2, 3, height, width).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    ours, exact = kernels.reflect(x, border), F.pad(x, (border,) * 4, mode="reflect")
    assert torch.equal(ours, exact)
    check_same(ours, exact, x, CHANNELS_LAST)
    g = normal(*exact.shape, seed=1)
    (back,) = torch.autograd.grad(kernels.reflect(x, border), x, g)
    assert float((ours.detach() * g).sum()) == pytest.approx(float((x.detach() * back).sum()), rel=1e-12), (
        "the adjoint identity"
    )


def test_smallest_side_and_derivatives_of_reflection() -> None:
    assert torch.equal(kernels.reflect(normal(1, 2, 2, 2), 1), F.pad(normal(1, 2, 2, 2), (1,) * 4, mode="reflect"))
    check_gradients(lambda x: kernels.reflect(x, 1), normal(1, 2, 4, 3))
    with pytest.raises(UserError, match=r"1 x 4 pixels.*network\.depth"):
        kernels.reflect(normal(1, 2, 1, 4), 1)


def test_reflection_pads_channels_in_the_same_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    x = normal(1, 5, 6, 6, dtype=torch.bfloat16).requires_grad_()
    padded = kernels.reflect(x, 1)
    assert padded.shape == (1, 8, 8, 8)
    assert torch.equal(padded[:, :5], F.pad(x, (1,) * 4, mode="reflect"))
    assert not padded[:, 5:].detach().any()
    g = normal(*padded.shape, seed=1, dtype=torch.bfloat16)
    (ours,), (exact,) = (
        torch.autograd.grad(padded, x, g),
        torch.autograd.grad(F.pad(x, (1,) * 4, mode="reflect"), x, g[:, :5]),
    )
    torch.testing.assert_close(ours, exact)


# --- up-sampling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampling_is_pytorchs(branch: str, align_corners: bool) -> None:
    x = normal(2, 5, 6, 9).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    ours, exact = kernels.upsample(x, align_corners), F.interpolate(x, None, 2, "bilinear", align_corners)
    assert torch.equal(ours, exact)
    check_same(ours, exact, x, CHANNELS_LAST)


@pytest.mark.parametrize("align_corners", [False, True])
def test_derivatives_of_upsampling(branch: str, align_corners: bool) -> None:
    check_gradients(lambda x: kernels.upsample(x, align_corners), normal(1, 2, 3, 4))


def test_plain_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    x, w = normal(2, 3, 6, 6).requires_grad_(), normal(4, 3, 3, 3, seed=1)
    y = kernels.upsample(kernels.convolution(kernels.reflect(x, 1), w, 1, 0), True)
    exact = F.interpolate(F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), w), None, 2, "bilinear", True)
    check_same(y, exact, x)


# --- recording -----------------------------------------------------------------------------------------------------


class FromTheHost(TorchDispatchMode):
    """Collects operations that a recording could not hold: those that read or make a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) and t.device.type == "cpu" for t in tree_leaves((args, kwargs, result))):
            self.found.append(str(func))
        return result


@pytest.fixture
def no_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "constants", {})


@pytest.mark.usefixtures("no_constants")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_nothing_comes_from_the_host_after_the_first_call(dtype: torch.dtype) -> None:
    """On the device without values, which is not the host, so that the branches of CUDA are taken."""
    with torch.device("meta"):
        x = torch.empty(1, 12, 16, 16, dtype=dtype).contiguous(memory_format=CHANNELS_LAST)
        w, g = torch.empty(4, 12, 3, 3, dtype=dtype), torch.empty(1, 4, 16, 16, dtype=dtype)

    def everything() -> list[Tensor]:
        return [
            kernels._convolution(x, w, 1, 1),
            kernels._by_input(w, g, x.shape, 1, 1),
            kernels._by_weight(x, g, w.shape, 1, 1),
            kernels._reflect(x, 1, kernels.whole(12, x)),
            kernels._fold(x, 1, 12),
            *(kernels._by_upsampled(x, align) for align in (False, True)),
        ]

    with FromTheHost() as host:
        everything()
    assert host.found, "the constants"
    with FromTheHost() as host:
        results = everything()
    assert host.found == []
    assert all(r.dtype == dtype for r in results)
    assert results[3].shape[1] == (16 if dtype == torch.bfloat16 else 12)
    assert [tuple(r.shape) for r in results[:3]] == [g.shape, x.shape, w.shape]


@pytest.mark.usefixtures("no_constants")
def test_constants_are_made_once() -> None:
    calls = []

    def make(value: float) -> Tensor:
        calls.append(value)
        return torch.tensor(value)

    device = torch.device("cpu")
    assert kernels.kept(device, make, 1.0) is kernels.kept(device, make, 1.0)
    assert float(kernels.kept(device, make, 2.0)) == 2
    assert calls == [1.0, 2.0]


def test_output_layer_is_the_same_in_rows() -> None:
    pixels, weight, bias = (
        normal(2, 50, 40, 6, dtype=torch.bfloat16),
        *(normal(*s, dtype=torch.float32) for s in ((3, 6), (3,))),
    )
    torch.testing.assert_close(kernels.linear(pixels, weight, bias), F.linear(pixels.float(), weight, bias))
