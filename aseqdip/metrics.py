"""PSNR and SSIM on the device, one written convention: the protocol of ``docs/protocol.md``."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip.kernels import kept


def psnr(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """``10 log10(R^2 / MSE)`` in dB, jointly over channels and pixels; a 0-d tensor, no host sync."""
    return torch.rsub(F.mse_loss(image, truth).log10(), 20 * math.log10(data_range), alpha=10)


def ssim(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """:class:`SSIM` of one image."""
    return SSIM(truth, data_range)(image)


def estimated_sigma(picture: Tensor) -> float:
    """Standard deviation of white noise, from the finest diagonal differences (Donoho and Johnstone, 1994)."""
    p = picture[..., : picture.shape[-2] // 2 * 2, : picture.shape[-1] // 2 * 2]
    diagonal = (p[..., ::2, ::2] - p[..., 1::2, ::2] - p[..., ::2, 1::2] + p[..., 1::2, 1::2]) / 2
    return float(diagonal.abs().median()) / 0.6745


class SSIM:
    """Mean SSIM (Wang et al. 2004) against one truth, averaged over channels; a 0-d tensor, no host sync.

    Gaussian window of 11 x 11 pixels, sigma 1.5, biased covariance, K1 = 0.01, K2 = 0.03, only windows that lie
    inside the image: ``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.
    What concerns the truth alone is computed here, once; an image then takes a dozen kernels.

    Args:
        truth: (1, channels, height, width), both sides at least 11 pixels.
        data_range: R, the span of valid values.
    """

    def __init__(self, truth: Tensor, data_range: float) -> None:
        y, c1, c2 = truth, (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        self.ones, self.twice = torch.ones_like(y), 2 * y
        self.added = torch.stack((0 * y, y * y + (c1 + c2), torch.full_like(y, c1 + c2)), dim=1)
        mean = _blur(y)
        self.c1, self.twice_mean, self.square = y.new_full((), c1), 2 * mean, mean * mean + c1

    def __call__(self, image: Tensor) -> Tensor:
        """Of an image x shaped like the truth y; E is the window's mean."""
        x = image
        products = torch.addcmul(self.added, torch.stack((self.ones, x, self.twice), dim=1), x[:, None])
        mean, squares, cross = _blur(products.flatten(1, 2)).chunk(3, dim=1)  # Ex, Exx + Eyy + c1 + c2, 2 Exy + c1 + c2
        bottom = torch.addcmul(self.square, mean, mean)  # Ex^2 + Ey^2 + c1
        top = torch.addcmul(self.c1, mean, self.twice_mean)  # 2 Ex Ey + c1
        return (top * (cross - top) / (bottom * (squares - bottom))).mean()


def _taps() -> Tensor:
    """The window along one axis."""
    taps = torch.tensor([math.exp(-(t**2) / (2 * 1.5**2)) for t in range(-5, 6)])
    return taps / taps.sum()


def _blur(stack: Tensor) -> Tensor:
    """Separable Gaussian window, valid part only; depthwise, which a CPU does seven times faster than as a batch."""
    channels = stack.shape[1]
    taps = kept(stack.device, _taps)
    rows = F.conv2d(stack, taps.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)
