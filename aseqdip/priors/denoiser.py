"""The denoiser that is trained here: a small U-Net on unshuffled pixels, told the noise level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: what the sides of its input are padded to a multiple of: 2 for unshuffling, 2 for each coarser level
MULTIPLE = 8


class Denoiser(nn.Module):
    """E[x0 | x0 + sigma n = x], in the range that it was trained in.

    Four pixels are one of four times the channels, with the noise level as a channel more (FFDNet, Zhang, Zuo and
    Zhang, 2018); residual blocks at three scales, added across (DRUNet, Zhang et al., 2021); the noise is what it
    gives. Without biases, denoise(c x, c sigma) = c denoise(x, sigma): levels and brightness that it has not seen are
    no others (Mohan et al., 2020).

    Args:
        channels: of the images.
        widths: channels at a half, a quarter and an eighth of the resolution.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 96)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.arguments = {"channels": channels, "widths": tuple(widths)}
        self.head = _conv(4 * channels + 1, fine)
        self.encode = nn.ModuleList([_Block(fine), _Block(middle)])
        self.down = nn.ModuleList([_half(fine, middle), _half(middle, coarse)])
        self.centre = nn.Sequential(_Block(coarse), _Block(coarse))
        self.up = nn.ModuleList([_double(middle, fine), _double(coarse, middle)])
        self.decode = nn.ModuleList([_Block(fine), _Block(middle)])
        self.tail = _conv(fine, 4 * channels)
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised images.

        Args:
            x: noisy images, (batch, channels, height, width).
            sigma: standard deviation of the noise, one number or (batch,), in x's unit.
        """
        rows, columns = x.shape[-2:]
        padded = _padded(x)
        level = sigma.reshape(-1, 1, 1, 1).expand(len(x), 1, padded.shape[-2] // 2, padded.shape[-1] // 2)
        fine = self.encode[0](self.head(torch.cat((F.pixel_unshuffle(padded, 2), level), 1)))
        middle = self.encode[1](self.down[0](fine))
        middle = self.decode[1](middle + self.up[1](self.centre(self.down[1](middle))))
        noise = F.pixel_shuffle(self.tail(self.decode[0](fine + self.up[0](middle))), 2)
        return x - noise[..., :rows, :columns].to(x.dtype)


class _Block(nn.Module):
    """x + W2 relu(W1 x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        nn.init.zeros_(self.second.weight)  # begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.second(F.relu(self.first(x)))
        return result


def _conv(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)


def _half(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 2, stride=2, bias=False)


def _double(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4 * out_channels, 1, bias=False), nn.PixelShuffle(2))


def _padded(x: Tensor) -> Tensor:
    """The images continued by their edges, to sides that it can halve."""
    down, right = (-side % MULTIPLE for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
