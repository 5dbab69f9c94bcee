"""NCSN++ as in Score-MRI and MCG, with the keys of their published weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aseqdip.kernels import kept
from aseqdip.priors.schedules import VE

#: both branches of a sum keep its variance
HALF = 1 / math.sqrt(2)


class NCSNpp(VE):
    """Song et al., Score-based generative modeling through stochastic differential equations, 2021: the score.

    BigGAN's residual blocks, halving and doubling by the filter [1, 3, 3, 1]; the image itself, halved by convolutions
    of its own, is added at each level. The parts have the numbers of the released list, ``all_modules``.

    Args:
        channels: of images.
        width: channels of the first convolution.
        multipliers: of the width, one a level.
        blocks: residual blocks a level; the middle alone has attention.
    """

    def __init__(self, channels: int, width: int, multipliers: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.blocks, self.multiple = blocks, 2 ** (len(multipliers) - 1)
        time, last = 4 * width, len(multipliers) - 1
        parts: list[nn.Module] = [_Fourier(width), nn.Linear(2 * width, time), nn.Linear(time, time)]
        parts.append(nn.Conv2d(channels, width, 3, padding=1))
        now, image, widths = width, channels, [width]
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                before, now = now, multiplier * width
                parts.append(_Residual(before, now, time))
                widths.append(now)
            if level != last:
                parts += [_Residual(now, now, time, "down"), _Pyramid(image, now)]
                image = now
                widths.append(now)
        parts += [_Residual(now, now, time), _Attention(now), _Residual(now, now, time)]
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                before, now = now + widths.pop(), multiplier * width
                parts.append(_Residual(before, now, time))
            if level:
                parts.append(_Residual(now, now, time, "up"))
        parts += [_norm(now), nn.Conv2d(now, channels, 3, padding=1)]
        self.levels: int = len(multipliers)
        self.all_modules = nn.ModuleList(parts)

    def predict(self, x: Tensor, level: Tensor) -> Tensor:
        """sigma times the score, from x in [0, 1], (batch, channels, height, width), and ln sigma, (batch,)."""
        parts = iter(self.all_modules)
        fourier, first, second, enter = (next(parts) for _ in range(4))
        time = F.silu(second(F.silu(first(fourier(level)))))
        image = 2 * x - 1
        h = enter(image)
        kept = [h]
        for scale in range(self.levels):
            for _ in range(self.blocks):
                h = next(parts)(h, time)
                kept.append(h)
            if scale != self.levels - 1:
                h = next(parts)(h, time)
                image = h = (next(parts)(image) + h) * HALF
                kept.append(h)
        before, attention, after = (next(parts) for _ in range(3))
        h = after(attention(before(h, time)), time)
        for scale in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(parts)(torch.cat((h, kept.pop()), 1), time)
            if scale:
                h = next(parts)(h, time)
        norm, leave = parts
        result: Tensor = leave(F.silu(norm(h)))
        return result

    @classmethod
    def arguments(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        width, channels = weights["all_modules.3.weight"].shape[:2]
        pyramids = sorted(int(key.split(".")[1]) for key in weights if key.endswith(".Conv2d_0.weight"))
        if not pyramids:
            raise KeyError("all_modules.*.Conv2d_0.weight")
        blocks, outputs = pyramids[0] - 5, [weights[f"all_modules.{i}.Conv2d_0.weight"].shape[0] for i in pyramids]
        outputs.append(weights[f"all_modules.{pyramids[-1] + 1}.Conv_0.weight"].shape[0])
        return {"channels": channels, "width": width, "multipliers": [n // width for n in outputs], "blocks": blocks}


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def _filter(x: Tensor) -> Tensor:
    """[1, 3, 3, 1] / 8 along rows and columns, one for each channel: (channels, 1, 4, 4)."""
    return kept(x.device, _taps, x.dtype).expand(x.shape[1], 1, 4, 4)


def _taps(dtype: torch.dtype) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype) / 8
    return taps[:, None] * taps


def _resized(x: Tensor, resize: str) -> Tensor:
    """The image halved, doubled, or as it is."""
    if resize == "down":
        return F.conv2d(x, _filter(x), stride=2, padding=1, groups=x.shape[1])
    if resize == "up":
        return F.conv_transpose2d(x, 4 * _filter(x), stride=2, padding=1, groups=x.shape[1])
    return x


class _Fourier(nn.Module):
    """Sines, then cosines, of ln sigma at random frequencies, which were drawn once and are part of the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(16 * torch.randn(width), requires_grad=False)

    def forward(self, log_sigma: Tensor) -> Tensor:
        angles = 2 * math.pi * log_sigma[:, None] * self.W
        return torch.cat((angles.sin(), angles.cos()), 1)


class _Pyramid(nn.Module):
    """The image at half its sides: the filter, then a convolution of every second pixel."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.Conv2d_0(F.conv2d(x, _filter(x), padding=2, groups=x.shape[1]))
        return result


class _Residual(nn.Module):
    def __init__(self, channels: int, out_channels: int, time: int, resize: str = "") -> None:
        super().__init__()
        self.resize = resize
        self.GroupNorm_0, self.GroupNorm_1 = _norm(channels), _norm(out_channels)
        self.Conv_0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.Dense_0 = nn.Linear(time, out_channels)
        self.Conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels or resize:
            self.Conv_2 = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``time``: already activated, (batch, 4 * width)."""
        h = self.Conv_0(_resized(F.silu(self.GroupNorm_0(x)), self.resize)) + self.Dense_0(time)[..., None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        x = _resized(x, self.resize)
        return (h + (self.Conv_2(x) if hasattr(self, "Conv_2") else x)) * HALF


class _Mix(nn.Module):
    """A 1 x 1 convolution whose weight is (in, out)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(channels, channels) / channels), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class _Attention(nn.Module):
    """Self-attention with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (_Mix(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x).flatten(2).transpose(1, 2)  # (batch, pixels, channels)
        mixed = F.scaled_dot_product_attention(self.NIN_0(h), self.NIN_1(h), self.NIN_2(h))
        return (x + self.NIN_3(mixed).transpose(1, 2).reshape(x.shape)) * HALF
