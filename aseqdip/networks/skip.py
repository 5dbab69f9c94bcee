"""The "skip" hourglass of Deep Image Prior (Ulyanov et al., CVPR 2018)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from aseqdip.networks.base import Network, NetworkSettings
from aseqdip.networks.blocks import Conv, Head, batch_norm, upsample
from aseqdip.parts import knob


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution with reflected borders, batch norm, leaky ReLU (0.2)."""
    conv = Conv(channels, out, kernel, stride, borders="reflect")
    return nn.Sequential(conv, batch_norm(out), nn.LeakyReLU(0.2, inplace=True))


class Skip(Network):
    """Hourglass with thin skip connections at every scale.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        width: channels of the down and up paths (128).
        skip: channels of the skip connections (4).
        depth: number of scales (5).
        mode: of up-sampling, "bilinear" or "nearest".
        sigmoid: squash the output to (0, 1).

    2,184,307 parameters for 3 -> 3 channels with the defaults. Sides must be multiples of 2^depth.
    """

    name = "skip"
    title = "skip hourglass"
    paper = "Ulyanov, Vedaldi, Lempitsky: Deep image prior, CVPR 2018"
    sigmoid = True
    defaults = {"width": 128, "depth": 5}

    @dataclass
    class Options:
        skip: int = knob("channels of its skip connections", 4, low=1)
        upsample: str = knob("how it up-samples", "bilinear", choices=("bilinear", "nearest"))

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        skip: int,
        depth: int,
        mode: str,
        sigmoid: bool,
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [width] * (depth - 1)
        self.skips = nn.ModuleList(_conv(c, skip, 1) for c in inputs)
        self.down = nn.ModuleList(nn.Sequential(_conv(c, width, 3, 2), _conv(width, width, 3)) for c in inputs)
        self.up = nn.ModuleList(
            nn.Sequential(batch_norm(width + skip), _conv(width + skip, width, 3), _conv(width, width, 1))
            for _ in inputs
        )
        self.mode = mode
        self.head = Head(width, out_channels, sigmoid)

    def forward(self, image: Tensor) -> Tensor:
        x, kept = image, []
        for skip, down in zip(self.skips, self.down, strict=True):
            kept.append(skip(x))
            x = down(x)
        for up in self.up:
            x = up(torch.cat((kept.pop(), upsample(x, self.mode)), dim=1))
        result: Tensor = self.head(x)
        return result

    @classmethod
    def build(cls, settings: NetworkSettings, in_channels: int, out_channels: int, sigmoid: bool) -> Self:
        own = settings.options
        return cls(in_channels, out_channels, settings.width, own.skip, settings.depth, own.upsample, sigmoid)
