"""The network of Rethinking DIP (Jo et al., ICCV 2021)."""

from typing import Self

import torch
from torch import Tensor, nn

from aseqdip.networks.base import Network, NetworkSettings
from aseqdip.networks.blocks import Conv, Head, batch_norm, upsample


def _conv(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution with reflected borders, batch norm, softplus."""
    conv = Conv(channels, out, 3, stride, borders="reflect")
    return nn.Sequential(conv, batch_norm(out), nn.Softplus())


class S2S(Network):
    """Hourglass whose decoder is twice as wide as its encoder and sees the input image once more at the end.

    Args:
        in_channels, out_channels: of the images.
        width: channels of the encoder (48).
        depth: number of scales (5).
        sigmoid: squash the output to (0, 1).

    1,140,627 parameters for 3 -> 3 channels with the defaults. Sides must be multiples of 2^depth.
    """

    name = "s2s"
    title = "S2S"
    paper = "Jo, Chun, Choi: Rethinking deep image prior for denoising, ICCV 2021"
    sigmoid = True
    defaults = {"width": 48, "depth": 5}

    def __init__(self, in_channels: int, out_channels: int, width: int, depth: int, sigmoid: bool) -> None:
        super().__init__()
        inputs = [in_channels] + [width] * (depth - 1)
        self.down = nn.ModuleList(nn.Sequential(_conv(c, width, 2), _conv(width, width)) for c in inputs)
        wide = 2 * width
        self.bridge = _conv(width, wide)
        self.up = nn.ModuleList(
            nn.Sequential(batch_norm(wide + width), _conv(wide + width, wide), _conv(wide, wide)) for _ in inputs[1:]
        )
        self.last = nn.Sequential(_conv(wide + in_channels, 64), _conv(64, 32))
        self.head = Head(32, out_channels, sigmoid, kernel=3)

    def forward(self, image: Tensor) -> Tensor:
        kept = [image]
        for block in self.down:
            kept.append(block(kept[-1]))
        x = self.bridge(kept.pop())
        for block in (*self.up, self.last):
            x = block(torch.cat((kept.pop(), upsample(x, "nearest")), dim=1))
        result: Tensor = self.head(x)
        return result

    @classmethod
    def build(cls, settings: NetworkSettings, in_channels: int, out_channels: int, sigmoid: bool) -> Self:
        return cls(in_channels, out_channels, settings.width, settings.depth, sigmoid)
