"""PSNR and SSIM against scikit-image."""

from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aseqdip import kernels
from aseqdip.metrics import SSIM, psnr, ssim


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


class Launches(TorchDispatchMode):
    """Operations that would be kernels, and those that touch the host; the device without values stands for CUDA."""

    views = ("view", "expand", "unsqueeze", "split", "slice", "alias", "_unsafe_view", "detach")

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self.host: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func._overloadpacket.__name__
        if name not in self.views:
            self.kernels.append(name)
        if any(isinstance(t, Tensor) and t.device.type == "cpu" for t in tree_leaves((args, kwargs, result))):
            self.host.append(name)
        return result


@pytest.mark.parametrize("channels", [1, 3])
def test_scoring_takes_few_kernels_and_nothing_from_the_host(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "constants", {})
    truth, image = (torch.empty(1, channels, 32, 32, device="meta") for _ in range(2))
    similarity = SSIM(truth, 1.0)
    with Launches() as launches:
        similarity(image)
        psnr(image, truth, 1.0)
    assert launches.host == []
    assert len(launches.kernels) <= 16, launches.kernels


def test_one_truth_serves_many_images() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, first, second = (torch.rand(1, 3, 20, 24, generator=generator) for _ in range(3))
    similarity = SSIM(truth, 1.0)
    for image in (first, second, first):
        assert float(similarity(image)) == pytest.approx(float(ssim(image, truth, 1.0)), abs=1e-7)
    assert float(similarity(first)) != float(similarity(second))
