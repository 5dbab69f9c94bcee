"""Pieces that the networks share: convolution, up-sampling, the fp32 output layer, initialisation."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aseqdip import kernels


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that always uses the statistics of the one image it sees (no running averages)."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def upsample(features: Tensor, mode: str, align_corners: bool = False) -> Tensor:
    """Twice the size, in the features' own precision: autocast would widen them to fp32 and back."""
    with torch.autocast(features.device.type, enabled=False):
        if mode == "bilinear":
            return kernels.upsample(features, align_corners)
        return F.interpolate(features, scale_factor=2, mode=mode)


Borders = Literal["zeros", "reflect"]


class Conv(nn.Conv2d):
    """A convolution of odd kernel that keeps the size, divided by ``stride``; computes in autocast's precision.

    Args:
        channels, out, kernel, stride: as PyTorch's.
        borders: "zeros" or "reflect", what lies beyond them.
        shifted: whether the bias is added. Batch norm subtracts the mean, so before it a bias changes nothing: it stays
            a parameter, as in the published networks and their files, but takes no part and has no gradient.
    """

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, borders: Borders = "zeros", shifted: bool = False
    ) -> None:
        super().__init__(channels, out, kernel, stride, padding=kernel // 2, padding_mode=borders)
        self.border, self.shifted = kernel // 2, shifted

    def forward(self, features: Tensor) -> Tensor:
        if not kernels.switches.convolution:
            return super().forward(features)
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        with torch.autocast(device, enabled=False):
            features, zeros = features.to(dtype), self.border
            if self.padding_mode == "reflect":
                features, zeros = kernels.reflect(features, self.border), 0
            result = kernels.convolution(features, self.weight.to(dtype), int(self.stride[0]), zeros)
            if self.bias is not None and (self.shifted or not kernels.switches.skip_bias):
                result = result + self.bias.to(dtype)[:, None, None]
            return result


class Head(nn.Module):
    """The output layer: convolution and optional sigmoid, always in fp32, also under autocast.

    Half precision here would round the image itself to 8 bits of mantissa.
    """

    def __init__(self, channels: int, out_channels: int, sigmoid: bool, kernel: int = 1) -> None:
        super().__init__()
        self.conv = Conv(channels, out_channels, kernel, borders="reflect", shifted=True)
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
        assert self.conv.bias is not None
        return kernels.linear(features.movedim(1, -1), self.conv.weight.flatten(1), self.conv.bias).movedim(-1, 1)


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
        add_input: whether its output is added to the image.
    """

    def __init__(self, network: nn.Module, multiple: int, add_input: bool = False) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.add_input = add_input

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            image = F.pad(image, (0, right, 0, down), mode="reflect")
        result: Tensor = self.network(image)
        if self.add_input:
            result = image + result
        return result[..., :height, :width]
