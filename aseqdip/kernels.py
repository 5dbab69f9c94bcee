"""Operators of our own with exact adjoints: convolution, reflected borders, bilinear up-sampling, output layer.

Their gradients, of any order, are such operators again. They keep the network's memory layout, add in a fixed order (no
atomics of ours), and make nothing on the host once :func:`kept` has it, so that a step can be recorded into a
CUDA graph.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from aseqdip.errors import UserError
from aseqdip.operators.base import linear_map

#: constants by what they are and where
constants: dict[tuple[Any, ...], Tensor] = {}


def kept(device: torch.device, make: Callable[..., Tensor], *args: Any) -> Tensor:
    """``make(*args)``, made on the host at its first use and kept on ``device`` for good.

    The copy is waited for, and the first of two threads wins: streams and recorded graphs may all read that one tensor.
    """
    key = (make, device, *args)
    if key not in constants:
        constants.setdefault(key, make(*args).to(device))
    return constants[key]


#: what a measurement may switch off: each on its own, read at every call
switches = SimpleNamespace(
    convolution=True,  # off: PyTorch's module, so without the next four as well
    reflect=True,
    channel_padding=True,
    skip_bias=True,
    products=True,
    upsample=True,
)


def layout(*tensors: Tensor) -> torch.memory_format:
    """Channels last, or plain: that of the first tensor (of four axes) whose strides tell.

    With one channel or one pixel none do; then as the engine: channels last, as tensor cores and oneDNN want it, but
    plain for fp32 on CUDA.
    """
    for x in tensors:
        if x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1 and 1 in (x.stride(1), x.stride(3)):
            return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
    plain = tensors[0].is_cuda and tensors[0].dtype == torch.float32
    return torch.contiguous_format if plain else torch.channels_last


def on_cpu(x: Tensor) -> bool:
    """Whether to compute as CPUs like it; a test says no, and has a CPU do what CUDA would."""
    return x.device.type == "cpu"


def whole(channels: int, like: Tensor) -> int:
    """Channels to compute with instead: tensor cores take half-precision channels in eights."""
    if on_cpu(like) or like.dtype.itemsize > 2 or not switches.channel_padding:
        return channels
    return channels + -channels % 8


# --- operations ----------------------------------------------------------------------------------------------------

_Function = TypeVar("_Function", bound=Callable[..., Tensor])
_library = torch.library.Library("aseqdip", "DEF")


def _operation(schema: str, flops: Callable[..., int] | None = None) -> Callable[[_Function], _Function]:
    """Makes a function one operation for profilers and counters: of ``flops`` by its shapes, however it is computed."""
    name = schema.split("(")[0]

    def define(function: _Function) -> _Function:
        _library.define(schema)
        for device in ("CPU", "CUDA", "Meta"):
            _library.impl(name, function, device)
        if flops is not None:
            register_flop_formula(getattr(torch.ops.aseqdip, name))(flops)
        return function

    return define


def _flops(output: Sequence[int], weight: Sequence[int]) -> int:
    """Of a convolution, and of either gradient: a product and a sum for each value of the output and of a kernel."""
    return 2 * torch.Size(output).numel() * torch.Size(weight[1:]).numel()


# --- convolution ---------------------------------------------------------------------------------------------------


def convolution(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """``x * weight``, differentiable as often as one likes by convolutions of the same size.

    PyTorch writes second derivatives, which SURE needs, as convolutions whose kernel is as large as the image.

    Args:
        x: (n, channels, height, width), zero beyond its borders; channels that ``weight`` lacks count for nothing.
        weight: (out, channels, k, k), of the same dtype.
        stride, padding: along both axes.
    """
    weight = weight.view_as(weight)  # no leaf: see _asked
    return cast(Tensor, _Derivative.apply(2, stride, padding, x, weight, None))  # type: ignore[no-untyped-call]


class _Derivative(torch.autograd.Function):
    """The derivative of s(x, w, g) = <x * w, g> by one of the three, ``which``; of that one only the shape matters.

    s is linear in each. So the derivatives (the convolution and its gradients by input and weight) are each other's.
    """

    @staticmethod
    def forward(ctx: Any, which: int, stride: int, padding: int, *parts: Tensor | None) -> Tensor:
        ctx.which, ctx.how = which, (stride, padding)
        ctx.save_for_backward(*(None if i == which else part for i, part in enumerate(parts)))
        operation = (torch.ops.aseqdip.by_input, torch.ops.aseqdip.by_weight, torch.ops.aseqdip.convolution)[which]
        given = [part for i, part in enumerate(parts) if i != which]
        size = [parts[which].shape] if which < 2 else []  # type: ignore[union-attr]
        return cast(Tensor, operation(*given, *size, stride, padding))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        parts = list(ctx.saved_tensors)
        parts[ctx.which] = cotangents[0]

        def by(i: int) -> Any:
            shaped = [part.detach() if i == j else part for j, part in enumerate(parts)]
            return _Derivative.apply(i, *ctx.how, *shaped) if _asked(ctx, i) else None  # type: ignore[no-untyped-call]

        return None, None, None, by(0), by(1), by(2)


def _asked(ctx: Any, i: int) -> bool:
    """Whether this pass backward wants the gradient by part ``i``; PyTorch itself tells only whether any pass could."""
    if not ctx.needs_input_grad[3 + i]:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(ctx.next_functions[i][0]))
    except (RuntimeError, AttributeError):  # it does not say for leaves; a private name, which may go
        return True


def _arranged(x: Tensor, form: torch.memory_format, channels: int = 0, batch: int = 0) -> Tensor:
    """``x`` in a memory layout, with zeros up to so many channels and images (of a weight: outputs)."""
    n, c, h, w = x.shape
    if channels > c or batch > n:
        x = F.pad(x, (0, 0, 0, 0, 0, max(channels - c, 0), 0, max(batch - n, 0)))
    x = x.contiguous(memory_format=form)
    if form != torch.channels_last:
        return x
    n, c = x.shape[:2]
    # the strides of one channel or pixel are anything, and then convolutions choose the other layout
    return x.as_strided(x.shape, (h * w * c, 1, w * c, c))


def _empty(size: Sequence[int], like: Tensor, form: torch.memory_format) -> Tensor:
    return torch.empty(tuple(size), dtype=like.dtype, device=like.device, memory_format=form)


def _backward(g: Tensor, x: Tensor, w: Tensor, stride: int, padding: int, which: int) -> Tensor:
    wanted = [i == which for i in range(3)]
    how = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, wanted
    return cast(Tensor, torch.ops.aten.convolution_backward(g, x, w, None, *how)[which])


@_operation(
    "convolution(Tensor x, Tensor w, int stride, int padding) -> Tensor",
    lambda x, w, *_, out_shape, **__: _flops(out_shape, w),
)
def _convolution(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    out, c, form = len(w), whole(x.shape[1], x), layout(w, x)
    y = F.conv2d(_arranged(x, form, c), _arranged(w, form, c, whole(out, x)), None, stride, padding)
    return _arranged(y[:, :out], form)


@_operation(
    "by_input(Tensor w, Tensor g, int[] size, int stride, int padding) -> Tensor", lambda w, g, *_, **__: _flops(g, w)
)
def _by_input(w: Tensor, g: Tensor, size: Sequence[int], stride: int, padding: int) -> Tensor:
    n, channels, *sides = size
    c, out, form = whole(channels, g), whole(len(w), g), layout(w, g)
    x = _empty((n, c, *sides), g, form)
    found = _backward(_arranged(g, form, out), x, _arranged(w, form, c, out), stride, padding, 0)
    return _arranged(found[:, :channels], form)


@_operation(
    "by_weight(Tensor x, Tensor g, int[] size, int stride, int padding) -> Tensor",
    lambda x, g, size, *_, **__: _flops(g, size),
)
def _by_weight(x: Tensor, g: Tensor, size: Sequence[int], stride: int, padding: int) -> Tensor:
    (out, channels, k, _), form = size, layout(x, g)
    if _prefers_products(x):
        return _arranged(_products(x, g, k, stride, padding)[:, :channels], form)
    c, outs = whole(x.shape[1], x), whole(out, x)
    w = _empty((outs, c, k, k), x, form)
    found = _backward(_arranged(g, form, outs), _arranged(x, form, c), w, stride, padding, 1)
    return _arranged(found[:out, :channels], form)


def _prefers_products(x: Tensor) -> bool:
    """Where oneDNN's weight gradients of channels-last features reach a sixth of what the processor can do."""
    old = on_cpu(x) and torch.backends.cpu.get_cpu_capability() == "AVX2"
    wide = x.shape[1] >= 8 and layout(x) == torch.channels_last
    return old and wide and x.dtype == torch.float32 and switches.products


def _products(x: Tensor, g: Tensor, k: int, stride: int, padding: int) -> Tensor:
    """Gradient by weight, one matrix product a tap: rows of pixels of x against those of g, so many further on."""
    x = F.pad(x, (padding,) * 4) if padding else x
    c, (out, h, w) = x.shape[1], g.shape[1:]
    result = x.new_empty(k, k, out, c)
    for a in range(min(stride, k)):
        for b in range(min(stride, k)):  # pixels that one tap sees, those of another phase none of them
            below, right = (k - 1 - a) // stride, (k - 1 - b) // stride
            phase = x[:, :, a::stride, b::stride][:, :, : h + below, : w + right]
            pixels = phase.movedim(1, -1).reshape(-1, c)
            spread = F.pad(g, (0, right, 0, below)) if below or right else g
            values = spread.movedim(1, -1).reshape(-1, out)
            for i in range(a, k, stride):
                for j in range(b, k, stride):
                    on = i // stride * (w + right) + j // stride
                    torch.mm(values[: len(values) - on].T, pixels[on:], out=result[i, j])
    return result.permute(2, 3, 0, 1)


# --- reflected borders ---------------------------------------------------------------------------------------------


def reflect(x: Tensor, border: int) -> Tensor:
    """``F.pad(x, (border,) * 4, mode="reflect")``, with zero channels up to what the hardware wants, in one copy.

    (n, channels, height, width) -> (n, ``whole(channels)``, height + 2 border, width + 2 border). Raises UserError
    where a side is no longer than the border. The adjoint adds each border line to the line that it mirrors.
    """
    n, c, h, w = x.shape
    if min(h, w) <= border:
        raise UserError(
            f"The network came to features of {h} x {w} pixels, which cannot be reflected at a border of {border}: "
            "use a larger image or a smaller network.depth."
        )
    if not border:
        return x
    if not switches.reflect:
        return F.pad(x, (border,) * 4, mode="reflect")
    adjoint = partial(_fold, border=border, channels=c)
    return linear_map(x, partial(_reflect, border=border, channels=whole(c, x)), adjoint)


def _reflect(x: Tensor, border: int, channels: int) -> Tensor:
    (n, c, h, w), inner = x.shape, slice(border, -border)
    result = _empty((n, channels, h + 2 * border, w + 2 * border), x, layout(x))
    result[:, c:].zero_()  # one kernel; a number from Python would be made on the device first
    filled = result[:, :c]
    middle = filled[..., inner]
    middle[:, :, inner] = x
    for outside, inside in _mirrored(h, border):
        middle[:, :, outside] = x[:, :, inside]
    for outside, inside in _mirrored(w, border):
        filled[..., outside] = middle[..., inside]
    return result


def _fold(g: Tensor, border: int, channels: int) -> Tensor:
    h, w = (side - 2 * border for side in g.shape[2:])
    g, inner = g[:, :channels], slice(border, -border)
    result = _arranged(g[:, :, inner, inner].clone(memory_format=layout(g)), layout(g))
    for outside, inside in _mirrored(w, border):
        result[..., inside].add_(g[:, :, inner, outside])
    for outside, inside in _mirrored(h, border):
        lines = g[:, :, outside].clone()
        middle = lines[..., inner]
        for beyond, within in _mirrored(w, border):
            middle[..., within].add_(lines[..., beyond])
        result[:, :, inside].add_(middle)
    return result


def _mirrored(side: int, border: int) -> Iterator[tuple[slice, slice]]:
    """Lines beyond the borders, counted in the padded image, and those that they mirror, counted in the image."""
    for i in range(1, border + 1):
        (before, low), (after, high) = (border - i, i), (border + side - 1 + i, side - 1 - i)
        if low < high:  # both borders in one kernel
            yield slice(before, after + 1, after - before), slice(low, high + 1, high - low)
        else:
            yield from ((slice(o, o + 1), slice(m, m + 1)) for o, m in ((before, low), (after, high)))


# --- up-sampling ---------------------------------------------------------------------------------------------------


def upsample(x: Tensor, align_corners: bool) -> Tensor:
    """Bilinear, to twice the size: (n, channels, height, width) -> (n, channels, 2 height, 2 width).

    PyTorch's gradient has one core do a whole image on a CPU, and adds by atomics, in bf16, on CUDA.
    """
    if not switches.upsample:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)
    adjoint = partial(torch.ops.aseqdip.by_upsampled, align_corners=align_corners)
    return linear_map(x, partial(F.interpolate, scale_factor=2, mode="bilinear", align_corners=align_corners), adjoint)


@_operation("by_upsampled(Tensor g, bool align_corners) -> Tensor")
def _by_upsampled(g: Tensor, align_corners: bool) -> Tensor:
    n, c, rows, columns = g.shape
    if on_cpu(g) and not align_corners:  # there a depthwise convolution is faster
        padded = F.pad(g, (1, 1, 1, 1), mode="replicate")
        kernel = kept(g.device, _kernel, g.dtype).expand(c, 1, 4, 4)
        return _arranged(F.conv2d(padded, kernel, stride=2, groups=c), layout(g))
    down, right = (kept(g.device, _weights, side // 2, align_corners, g.dtype) for side in (rows, columns))
    if layout(g) != torch.channels_last:
        return down @ (g @ right.T)
    lines = down @ g.movedim(1, -1).reshape(n, rows, columns * c)
    return (right @ lines.view(n, rows // 2, columns, c)).movedim(-1, 1)


def _weights(side: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """Adjoint of linear interpolation of ``side`` values to twice as many: (side, 2 side)."""
    identity = torch.eye(side, dtype=torch.promote_types(dtype, torch.float32))[None]
    return F.interpolate(identity, scale_factor=2, mode="linear", align_corners=align_corners)[0].to(dtype)


def _kernel(dtype: torch.dtype) -> Tensor:
    """The same without ``align_corners`` and along both axes, as a kernel of stride 2."""
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    return (taps[:, None] * taps).to(dtype)


# --- output layer --------------------------------------------------------------------------------------------------


def linear(pixels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``F.linear(pixels.float(), weight, bias)``: (..., channels) -> (..., out), in fp32 whatever the pixels are."""
    if on_cpu(pixels) and pixels.dtype != torch.float32:
        return cast(Tensor, _Widened.apply(pixels, weight, bias))  # type: ignore[no-untyped-call]
    return F.linear(pixels.float(), weight, bias)


class _Widened(torch.autograd.Function):
    """A few rows at a time, so that the wide copies stay in the processor's cache.

    Whole, they are the largest tensors of a step and take longer to write and read than the product itself.
    """

    rows = 4096

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, weight)
        out = weight.new_empty(*pixels.shape[:-1], len(weight))
        for part, into in zip(_rows(pixels), _rows(out), strict=True):
            torch.addmm(bias, part.float(), weight.T, out=into)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient will be asked for: no writing in place
            flat = gradient.flatten(0, -2)
            of_pixels = (gradient @ weight).to(pixels.dtype)
            return of_pixels, flat.T @ pixels.flatten(0, -2).float(), flat.sum(0)
        back, of_weight = torch.empty_like(pixels), torch.zeros_like(weight)
        for part, g, into in zip(_rows(pixels), _rows(gradient), _rows(back), strict=True):
            into.copy_(g @ weight)
            of_weight = of_weight + g.T @ part.float()
        return back, of_weight, gradient.flatten(0, -2).sum(0)


def _rows(pixels: Tensor) -> tuple[Tensor, ...]:
    return pixels.view(-1, pixels.shape[-1]).split(_Widened.rows)
