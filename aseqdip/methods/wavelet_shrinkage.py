"""Denoising by shrinking wavelet coefficients."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._pictures import Denoiser, as_array, as_tensor
from aseqdip.parts import knob
from aseqdip.problem import Problem


class WaveletShrinkage(Denoiser):
    """Soft thresholds from the statistics of each sub-band (BayesShrink), averaged over shifts; scikit-image's.

    Colours are shrunk as luma and chroma.
    """

    name = "wavelet_shrinkage"
    title = "BayesShrink"
    paper = "Chang, Yu, Vetterli: Adaptive wavelet thresholding for image denoising and compression, IEEE TIP 2000"

    @dataclass
    class Options:
        shifts: int = knob("shifts in each direction that are averaged (cycle spinning)", 4, low=1, high=16)

    def denoise(self, problem: Problem, sigma: float) -> Tensor:
        from skimage.restoration import denoise_wavelet

        if find_spec("pywt") is None:
            raise UserError("method=wavelet_shrinkage needs PyWavelets: pip install PyWavelets.")
        noisy, found = as_array(problem.y), []
        colour = noisy.shape[-1] == 3
        for shift in np.ndindex(self.options.shifts, self.options.shifts):
            shifted = np.roll(noisy, shift, (0, 1))
            clean = denoise_wavelet(shifted, sigma=sigma, convert2ycbcr=colour, channel_axis=-1)
            found.append(np.roll(clean, (-shift[0], -shift[1]), (0, 1)))
        return as_tensor(np.mean(found, axis=0))
