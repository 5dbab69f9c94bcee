"""PSNR and SSIM on the device, one written convention: the protocol of ``docs/protocol.md``."""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def psnr(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """``10 log10(R^2 / MSE)`` in dB, jointly over channels and pixels; a 0-d tensor, no host sync."""
    mse = (image - truth).square().mean()
    return 10 * torch.log10(data_range**2 / mse)


def ssim(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Mean SSIM (Wang et al. 2004), averaged over channels; a 0-d tensor, no host sync.

    Gaussian window of 11 x 11 pixels, sigma 1.5, biased covariance, K1 = 0.01, K2 = 0.03, only windows that lie
    inside the image: ``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.

    Args:
        image, truth: (1, channels, height, width), both sides at least 11 pixels.
        data_range: R, the span of valid values.
    """
    x, y = image, truth
    mean_x, mean_y, xx, yy, xy = _blur(torch.cat((x, y, x * x, y * y, x * y), dim=1)).chunk(5, dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    return (luminance * structure).mean()


@cache
def _taps(device: torch.device) -> Tensor:
    """The window, once for each device: making it anew would wait for the device at every iterate."""
    taps = torch.tensor([math.exp(-(t**2) / (2 * 1.5**2)) for t in range(-5, 6)], device=device)
    return taps / taps.sum()


def _blur(stack: Tensor) -> Tensor:
    """Separable Gaussian window, valid part only; depthwise, which a CPU does seven times faster than as a batch."""
    channels = stack.shape[1]
    taps = _taps(stack.device)
    rows = F.conv2d(stack, taps.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)
