"""The U-Net family of the paper's experiments: Medium (depth 3) and shallow (depth 2)."""

from typing import Self

import torch
from torch import Tensor, nn

from aseqdip.errors import UserError
from aseqdip.networks.base import Network, NetworkSettings
from aseqdip.networks.blocks import Conv, Head, batch_norm, upsample


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, middle: int, out: int) -> None:
        layers: list[nn.Module] = []
        for a, b in ((channels, middle), (middle, out)):
            layers += [Conv(a, b, 3), batch_norm(b), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(Network):
    """U-Net with max-pooling, bilinear up-sampling (corners aligned) and a linear 1x1 output layer.

    Args:
        channels: input and output channels.
        width: channels at full resolution; doubles with each scale but the last.
        depth: down-samplings. Depth 3 and width 64 is the "Medium U-Net" (4,283,842 parameters for 2 channels),
            depth 2 the "shallow" one (1,036,995 for 3 channels).
        sigmoid: squash the output to (0, 1).

    Image (batch, channels, height, width) with sides that are multiples of 2^depth.
    """

    name = "unet"
    title = "U-Net"
    defaults = {"width": 64, "depth": 3}

    def __init__(self, channels: int, width: int, depth: int, sigmoid: bool) -> None:
        super().__init__()
        scales = [width * 2**i for i in range(depth)]
        scales.append(scales[-1])
        self.inc = DoubleConv(channels, width, width)
        self.down = nn.ModuleList(DoubleConv(a, b, b) for a, b in zip(scales, scales[1:], strict=False))
        self.up = nn.ModuleList(DoubleConv(2 * s, s, max(s // 2, width)) for s in reversed(scales[:-1]))
        self.head = Head(width, channels, sigmoid)

    def forward(self, image: Tensor) -> Tensor:
        skips = [self.inc(image)]
        for block in self.down:
            skips.append(block(nn.functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.up:
            x = upsample(x, "bilinear", align_corners=True)
            x = block(torch.cat((skips.pop(), x), dim=1))
        result: Tensor = self.head(x)
        return result

    @classmethod
    def build(cls, settings: NetworkSettings, in_channels: int, out_channels: int, sigmoid: bool) -> Self:
        if in_channels != out_channels:
            raise UserError(
                f"network=unet maps an image to itself; found {in_channels} -> {out_channels} channels: "
                "use network=skip, or leave input_channels alone."
            )
        return cls(out_channels, settings.width, settings.depth, sigmoid)
