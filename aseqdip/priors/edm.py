"""The U-Net of EDM, as InverseBench trained it for MRI, with the keys of its published weights."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aseqdip.priors.adm import embedding
from aseqdip.priors.schedules import Translated

#: the standard deviation of the images that the preconditioning supposes, and channels of an attention head; no weight
#: tells either, and both are EDM's own for all its networks
SPREAD, HEAD = 0.5, 64


class EDM(Translated):
    """Karras, Aittala, Aila, Laine, Elucidating the design space of diffusion-based generative models, 2022:

        D(x, s) = c_skip x + c_out F(c_in x, ln(s) / 4)
        c_skip = d^2 / (s^2 + d^2),   c_out = s d / sqrt(s^2 + d^2),   c_in = 1 / sqrt(s^2 + d^2),   d = 0.5

    F is the U-Net of guided diffusion in EDM's writing: its parts are named after the resolution that they work at.

    Args:
        channels: of images.
        size: side of the images that it was trained on; names the parts. It takes other sides, too.
        width: channels of the first convolution.
        multipliers: of the width, one a level.
        blocks: residual blocks a level.
        attention: the levels with attention, from 0; the middle has it always.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(multipliers) - 1)
        self.model = _UNet(channels, size, width, multipliers, blocks, attention)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.check(x)
        s = sigma.reshape(-1, 1, 1, 1)
        total = s.square() + SPREAD**2
        found = self.predict(x / total.sqrt(), sigma.log() / 4).float()
        return SPREAD**2 / total * x + s * SPREAD / total.sqrt() * found

    def predict(self, x: Tensor, level: Tensor) -> Tensor:
        """F, from c_in x, (batch, channels, height, width), and ln(s) / 4, (batch,)."""
        result: Tensor = self.model(x, level)
        return result

    @classmethod
    def arguments(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        sizes = {int(n) for n in re.findall(r"model\.enc\.(\d+)x\1_block0\.conv0\.weight", " ".join(weights))}
        if not sizes:
            raise KeyError("model.enc.*_block0.conv0.weight")
        names = [f"model.enc.{n}x{n}" for n in sorted(sizes, reverse=True)]
        width = weights["model.map_layer0.weight"].shape[1]
        outputs = [weights[f"{name}_block0.conv0.weight"].shape[0] for name in names]
        return {
            "channels": weights["model.out_conv.weight"].shape[0],
            "size": max(sizes),
            "width": width,
            "multipliers": [n // width for n in outputs],
            "blocks": sum(re.fullmatch(rf"{names[0]}_block\d+\.conv0\.weight", key) is not None for key in weights),
            "attention": [level for level, name in enumerate(names) if f"{name}_block0.qkv.weight" in weights],
        }


class _UNet(nn.Module):
    """F."""

    def __init__(
        self, channels: int, size: int, width: int, multipliers: Sequence[int], blocks: int, attention: Sequence[int]
    ) -> None:
        super().__init__()
        time, last, self.width = 4 * width, len(multipliers) - 1, width
        self.map_layer0, self.map_layer1 = nn.Linear(width, time), nn.Linear(time, time)
        names, now = [f"{size >> level}x{size >> level}" for level in range(last + 1)], multipliers[0] * width
        widths = [now]
        self.enc = nn.ModuleDict({f"{names[0]}_conv": nn.Conv2d(channels, now, 3, padding=1)})
        for level, multiplier in enumerate(multipliers):
            if level:
                self.enc[f"{names[level]}_down"] = _Block(now, now, time, "down")
                widths.append(now)
            for block in range(blocks):
                before, now = now, multiplier * width
                self.enc[f"{names[level]}_block{block}"] = _Block(before, now, time, attend=level in attention)
                widths.append(now)
        self.dec = nn.ModuleDict({f"{names[last]}_in0": _Block(now, now, time, attend=True)})
        self.dec[f"{names[last]}_in1"] = _Block(now, now, time)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            if level != last:
                self.dec[f"{names[level]}_up"] = _Block(now, now, time, "up")
            for block in range(blocks + 1):
                before, now = now + widths.pop(), multiplier * width
                self.dec[f"{names[level]}_block{block}"] = _Block(before, now, time, attend=level in attention)
        self.out_norm, self.out_conv = _norm(now), nn.Conv2d(now, channels, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        time = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding(level, self.width)))))
        h, kept = x, []
        for part in self.enc.values():
            h = part(h, time) if isinstance(part, _Block) else part(h)
            kept.append(h)
        for name, part in self.dec.items():
            h = part(torch.cat((h, kept.pop()), 1) if "_block" in name else h, time)
        result: Tensor = self.out_conv(F.silu(self.out_norm(h)))
        return result


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels)


class _Resample(nn.Module):
    """Halves ("down") or doubles ("up") an image by the filter that it keeps, [1, 1] along rows and columns."""

    resample_filter: Tensor

    def __init__(self, resize: str) -> None:
        super().__init__()
        self.resize = resize
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        each = self.resample_filter.expand(x.shape[1], -1, -1, -1)
        if self.resize == "down":
            return F.conv2d(x, each, stride=2, groups=x.shape[1])
        return F.conv_transpose2d(x, 4 * each, stride=2, groups=x.shape[1])


class _ResampledConv(_Resample):
    """The same, followed by a convolution."""

    def __init__(self, resize: str, channels: int, out_channels: int) -> None:
        super().__init__(resize)
        self.weight = nn.Parameter(torch.empty(out_channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(super().forward(x), self.weight, self.bias, padding=1)


class _Block(nn.Module):
    """Two convolutions beside a skip, the second scaled and shifted by the time; then self-attention, where asked."""

    def __init__(self, channels: int, out_channels: int, time: int, resize: str = "", attend: bool = False) -> None:
        super().__init__()
        self.norm0, self.norm1 = _norm(channels), _norm(out_channels)
        plain = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv0 = _ResampledConv(resize, channels, out_channels) if resize else plain
        self.affine = nn.Linear(time, 2 * out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if resize:
            self.skip: nn.Module = _Resample(resize)
        else:
            same = channels == out_channels
            self.skip = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)
        self.heads = max(1, out_channels // HEAD) if attend else 0
        if attend:
            self.norm2, self.qkv = _norm(out_channels), nn.Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.affine(time)[..., None, None].chunk(2, 1)
        h = self.norm1(self.conv0(F.silu(self.norm0(x)))) * (1 + scale) + shift
        h = self.conv1(F.silu(h)) + self.skip(x)
        if not self.heads:
            return h
        # of each head's channels, one after another: query, key, value
        each = self.qkv(self.norm2(h)).flatten(2).unflatten(1, (self.heads, -1, 3))
        query, key, value = (part.transpose(2, 3) for part in each.unbind(3))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(1, 2)
        result: Tensor = h + self.proj(mixed.reshape(h.shape))
        return result
