"""The U-Net of guided diffusion (ADM), with the keys of its published weights."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aseqdip.priors.schedules import VP


class ADM(VP):
    """Dhariwal and Nichol, Diffusion models beat GANs, 2021: eps, and where there are channels more, its variance.

    Group normalisations are scaled and shifted by the time, residual blocks halve and double the image, attention has
    heads of a fixed width. Class-conditional networks are not provided for.

    Args:
        channels, out_channels: of images, and of what the network gives: eps, and v in [-1, 1] as many again where
            the variance was learned.
        width: channels of the first convolution, a multiple of 32.
        multipliers: of the width, one a level.
        blocks: residual blocks a level.
        attention: the levels with attention, from 0; the middle has it always.
        head_width: channels of an attention head, which no weight tells.
    """

    def __init__(
        self, channels: int, out_channels: int, width: int, multipliers: Sequence[int], blocks: int,
        attention: Sequence[int], head_width: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels, self.width, self.multiple = channels, width, 2 ** (len(multipliers) - 1)
        time, last = 4 * width, len(multipliers) - 1
        self.time_embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        now, widths = width, [width]
        self.input_blocks = nn.ModuleList([_Stage(nn.Conv2d(channels, width, 3, padding=1))])
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                before, now = now, multiplier * width
                attend = [_Attention(now, head_width)] if level in attention else []
                self.input_blocks.append(_Stage(_Residual(before, now, time), *attend))
                widths.append(now)
            if level != last:
                self.input_blocks.append(_Stage(_Residual(now, now, time, "down")))
                widths.append(now)
        self.middle_block = _Stage(_Residual(now, now, time), _Attention(now, head_width), _Residual(now, now, time))
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for block in range(blocks + 1):
                before, now = now + widths.pop(), multiplier * width
                attend = [_Attention(now, head_width)] if level in attention else []
                double = [_Residual(now, now, time, "up")] if level and block == blocks else []
                self.output_blocks.append(_Stage(_Residual(before, now, time), *attend, *double))
        self.out = nn.Sequential(_norm(now), nn.SiLU(), nn.Conv2d(now, out_channels, 3, padding=1))

    def predict(self, x: Tensor, level: Tensor) -> Tensor:
        """eps and v, (batch, out_channels, height, width), from x_t, (batch, channels, ...), and t, (batch,)."""
        embedded = self.time_embed(embedding(level, self.width))
        h, kept = x, []
        for stage in self.input_blocks:
            h = stage(h, embedded)
            kept.append(h)
        h = self.middle_block(h, embedded)
        for stage in self.output_blocks:
            h = stage(torch.cat((h, kept.pop()), 1), embedded)
        result: Tensor = self.out(h)
        return result

    @classmethod
    def arguments(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        width = weights["time_embed.0.weight"].shape[1]
        # the last block of an output level doubles the image: one part more, which alone tells how blocks are grouped
        ups = sorted(
            int(i) for i, _ in re.findall(r"output_blocks\.(\d+)\.([12])\.in_layers\.2\.weight", " ".join(weights))
        )
        blocks, levels = (ups[0] if ups else -1), len(ups) + 1
        if blocks < 1:
            raise KeyError("output_blocks.*.1.in_layers.2.weight")
        firsts = [1 + level * (blocks + 1) for level in range(levels)]
        return {
            "channels": weights["input_blocks.0.0.weight"].shape[1],
            "out_channels": weights["out.2.weight"].shape[0],
            "width": width,
            "multipliers": [weights[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] // width for i in firsts],
            "blocks": blocks,
            "attention": [level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in weights],
        }


def embedding(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of t at frequencies from 1 down to nearly 1/10000: (batch, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class _Stage(nn.Sequential):
    """One part after another, the residual blocks among them told the time."""

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:  # type: ignore[override]
        for part in self:
            h = part(h, embedded) if isinstance(part, _Residual) else part(h)
        return h


class _Residual(nn.Module):
    """Two convolutions beside a skip; "down" and "up" halve and double the image before the first and in the skip."""

    def __init__(self, channels: int, out_channels: int, time: int, resize: str = "") -> None:
        super().__init__()
        self.resize = resize
        self.in_layers = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * out_channels))
        last = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.out_layers = nn.Sequential(_norm(out_channels), nn.SiLU(), nn.Identity(), last)  # 2: dropout in training
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        norm, activation, first = self.in_layers
        h = first(self._resized(activation(norm(x))))
        scale, shift = self.emb_layers(embedded)[..., None, None].chunk(2, 1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        result: Tensor = self.skip_connection(self._resized(x)) + h
        return result

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.resize == "up" else x


class _Attention(nn.Module):
    """Self-attention; heads are cut first and then into query, key and value, as in the released networks."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm, self.qkv = _norm(channels), nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        each = self.qkv(self.norm(flat)).unflatten(1, (self.heads, -1))  # (batch, heads, 3 * head, pixels)
        query, key, value = (part.transpose(2, 3) for part in each.chunk(3, 2))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(1, 2)
        result: Tensor = (flat + self.proj_out(mixed)).reshape(x.shape)
        return result
