"""The "skip" hourglass of Deep Image Prior (Ulyanov et al., CVPR 2018)."""

import torch
from torch import Tensor, nn

from aseqdip.networks.blocks import Conv, Head, batch_norm, upsample


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution with reflected borders, batch norm, leaky ReLU (0.2)."""
    conv = Conv(channels, out, kernel, stride, borders="reflect")
    return nn.Sequential(conv, batch_norm(out), nn.LeakyReLU(0.2, inplace=True))


class Skip(nn.Module):
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
