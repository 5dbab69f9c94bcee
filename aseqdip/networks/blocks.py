"""Pieces that both networks share: initialisation and the fp32 output layer."""

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that always uses the statistics of the one image it sees (no running averages)."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def upsample(features: Tensor, mode: str, align_corners: bool | None = None) -> Tensor:
    """Twice the size, in the features' own precision: autocast would widen them to fp32 and back."""
    with torch.autocast(features.device.type, enabled=False):
        if mode == "bilinear" and features.device.type == "cpu":
            return cast(Tensor, _Bilinear.apply(features, bool(align_corners)))  # type: ignore[no-untyped-call]
        return F.interpolate(features, scale_factor=2, mode=mode, align_corners=align_corners)


class _Bilinear(torch.autograd.Function):
    """Bilinear up-sampling by two with a fast gradient: PyTorch's own, on a CPU, has one core do a whole image.

    Without ``align_corners`` the adjoint is a convolution of stride 2 with the kernel (1, 3, 3, 1)/4 along each axis;
    with it, the weights vary from pixel to pixel and the adjoint is a product with a small matrix along each axis.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, align_corners: bool) -> Tensor:
        ctx.align_corners = align_corners
        return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=align_corners)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        with _disable_current_modes():  # how it is computed is not part of what a step costs
            if not ctx.align_corners:
                channels = gradient.shape[1]
                taps = _taps(gradient.dtype, gradient.device)
                kernel = (taps[:, None] * taps).expand(channels, 1, 4, 4)
                padded = F.pad(gradient, (1, 1, 1, 1), mode="replicate")
                return F.conv2d(padded, kernel, stride=2, groups=channels), None
            n, c, rows, columns = gradient.shape
            down, right = (_weights(side // 2, gradient.dtype) for side in (rows, columns))
            lines = down @ gradient.movedim(1, -1).reshape(n, rows, columns * c)
            return (right @ lines.view(n, rows // 2, columns, c)).movedim(-1, 1), None


@lru_cache
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once: a recording cannot take numbers from the host."""
    return torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=dtype, device=device)


@lru_cache
def _weights(side: int, dtype: torch.dtype) -> Tensor:
    """Adjoint of linear interpolation of ``side`` values to twice as many, ends aligned: (side, 2 side)."""
    identity = torch.eye(side)[None]
    return F.interpolate(identity, scale_factor=2, mode="linear", align_corners=True)[0].to(dtype)


class ReflectConv(nn.Conv2d):
    """A convolution of odd kernel that reflects at the border, in the input's own precision (as :func:`upsample`)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, out, kernel, stride)
        self.border = kernel // 2

    def forward(self, features: Tensor) -> Tensor:
        if self.border:
            with torch.autocast(features.device.type, enabled=False):
                features = F.pad(features, (self.border,) * 4, mode="reflect")
        return super().forward(features)


class Head(nn.Module):
    """The output layer: convolution and optional sigmoid, always in fp32, also under autocast.

    Half precision here would round the image itself to 8 bits of mantissa.
    """

    def __init__(self, channels: int, out_channels: int, sigmoid: bool, kernel: int = 1) -> None:
        super().__init__()
        self.conv = ReflectConv(channels, out_channels, kernel)
        self.sigmoid = sigmoid

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            image = self._project(features)
            return image.sigmoid() if self.sigmoid else image

    def _project(self, features: Tensor) -> Tensor:
        if self.conv.border:
            return self.conv(features.float())
        # a matrix product over the last axis of the channels-last layout: the convolution of one pixel would, on CPUs,
        # turn the features into the other layout, and hand gradients back in it
        pixels, weight, bias = features.movedim(1, -1), self.conv.weight.flatten(1), self.conv.bias
        if features.device.type == "cpu" and features.dtype != torch.float32:
            return cast(Tensor, _Widened.apply(pixels, weight, bias)).movedim(-1, 1)  # type: ignore[no-untyped-call]
        return F.linear(pixels.float(), weight, bias).movedim(-1, 1)


class _Widened(torch.autograd.Function):
    """``F.linear(pixels.float(), weight, bias)`` a few rows at a time: the wide copies stay in the processor's cache.

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


def initialise(network: nn.Module, how: str, generator: torch.Generator) -> None:
    """Fill every parameter from ``generator`` (a CPU one, so that all devices start alike).

    "normal": convolutions N(0, 0.02^2), batch-norm weights N(1, 0.02^2), biases 0 (the DIP-family default);
    "he": convolutions N(0, 2 / fan-in), unit batch norm, biases 0;
    "default": PyTorch's own: Kaiming-uniform convolutions, unit batch norm.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            _draw(module.weight, how, 0.0, generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel()) if how == "default" else 0.0
                _set(module.bias, torch.empty(module.bias.shape).uniform_(-bound, bound, generator=generator))
        elif isinstance(module, nn.BatchNorm2d):
            if how == "normal":
                _draw(module.weight, how, 1.0, generator)
            else:
                nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def _draw(weight: Tensor, how: str, mean: float, generator: torch.Generator) -> None:
    value = torch.empty(weight.shape)
    if how == "normal":
        value.normal_(mean, 0.02, generator=generator)
    elif how == "he":
        nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)
    else:
        nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
    _set(weight, value)


def _set(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)


class Padded(nn.Module):
    """Runs a network on images of any size: reflect-pads to its multiple and crops back.

    Args:
        network: takes sides that are multiples of ``multiple``.
        multiple: 2^(number of scales).
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            image = F.pad(image, (0, right, 0, down), mode="reflect")
        result: Tensor = self.network(image)
        return result[..., :height, :width]
