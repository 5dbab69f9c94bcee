"""PSNR and SSIM against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from aseqdip.metrics import psnr, ssim


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_range", [1.0, 0.7])
def test_scores_agree_with_scikit_image(channels: int, data_range: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((channels, 50, 61), dtype=np.float32)
    image = np.clip(truth + 0.1 * rng.standard_normal(truth.shape, dtype=np.float32), 0, 1)
    ours = [f(torch.from_numpy(image)[None], torch.from_numpy(truth)[None], data_range) for f in (psnr, ssim)]
    reference = structural_similarity(
        truth,
        image,
        channel_axis=0,
        data_range=data_range,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert float(ours[0]) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=data_range), abs=1e-4)
    assert float(ours[1]) == pytest.approx(reference, abs=1e-5)


def test_perfect_image() -> None:
    x = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    assert float(ssim(x, x, 1.0)) == pytest.approx(1)
    assert float(psnr(x, x, 1.0)) == float("inf")
