"""What else is trained here: a reconstruction network for MRI, and the autoencoder of the paper's Appendix B."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aseqdip.operators.base import Operator
from aseqdip.priors.denoiser import Denoiser, _Block, _conv, _double, _half, _padded


class Unrolled(nn.Module):
    """x_k = D(x_{k-1} + t_k A^H (y - A x_{k-1}), s_k), k = 1 ... cascades, x_0 = A^H y: trained as one network.

    A variational network (Hammernik et al., 2018) that is given the coil sensitivities and has one denoiser D for all
    its cascades (as Aggarwal et al., 2019), at levels s_k and with steps t_k that are learned, too.

    Args:
        channels: of images: real and imaginary part.
        widths: of D.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 96), cascades: int = 8) -> None:
        super().__init__()
        self.arguments = {"channels": channels, "widths": tuple(widths), "cascades": cascades}
        self.denoiser = Denoiser(channels, widths)
        self.levels = nn.Parameter(torch.linspace(math.log(0.1), math.log(0.02), cascades))
        self.steps = nn.Parameter(torch.ones(cascades))

    def forward(self, start: Tensor, A: Operator, y: Tensor) -> Tensor:
        """The images, like ``start``, A^H y, (batch, channels, height, width)."""
        x = start
        for level, step in zip(self.levels, self.steps, strict=True):
            x = self.denoiser(x + step * A.adjoint(y - A(x)), level.exp()).float()
        return x


class Autoencoder(nn.Module):
    """g, trained to give back what it is given, by an eighth of the resolution and no way around it.

    The paper says "U-Net": the skips of one let everything pass, and g would be the identity for noise, too.

    Args:
        channels: of images.
        widths: channels at a half, a quarter and an eighth of the resolution.
        latent: numbers that are left of 8 x 8 pixels.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 96), latent: int = 32) -> None:
        super().__init__()
        self.arguments = {"channels": channels, "widths": tuple(widths), "latent": latent}
        fine, middle, coarse = widths
        self.encode = nn.Sequential(
            nn.PixelUnshuffle(2), _conv(4 * channels, fine), _Block(fine), _half(fine, middle), _Block(middle),
            _half(middle, coarse), _Block(coarse), _conv(coarse, latent),
        )  # fmt: skip
        self.decode = nn.Sequential(
            _conv(latent, coarse), _Block(coarse), _double(coarse, middle), _Block(middle), _double(middle, fine),
            _Block(fine), _conv(fine, 4 * channels), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """g(x), like x."""
        found: Tensor = self.decode(self.encode(_padded(x)))
        return found[..., : x.shape[-2], : x.shape[-1]]
