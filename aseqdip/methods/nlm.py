"""Non-local means."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._pictures import Denoiser, as_array, as_tensor
from aseqdip.parts import knob
from aseqdip.problem import Problem


class NLM(Denoiser):
    """Each pixel becomes the mean of those whose surroundings look like its own; scikit-image's."""

    name = "nlm"
    title = "NLM"
    paper = "Buades, Coll, Morel: A non-local algorithm for image denoising, CVPR 2005"

    @dataclass
    class Options:
        strength: float = knob(
            "cut-off distance of surroundings, in units of the noise's standard deviation", 0.6, above=0
        )
        patch: int = knob("side of the surroundings in pixels, odd", 5, low=3)
        reach: int = knob("how far away pixels are compared", 6, low=1)

    def denoise(self, problem: Problem, sigma: float) -> Tensor:
        from skimage.restoration import denoise_nl_means

        o: Any = self.options
        if o.patch % 2 == 0:
            raise UserError(f"patch={o.patch}: expected an odd number of pixels, such as {o.patch + 1}.")
        sizes = {"patch_size": o.patch, "patch_distance": o.reach, "fast_mode": True}
        found = denoise_nl_means(as_array(problem.y), h=o.strength * sigma, sigma=sigma, channel_axis=-1, **sizes)
        return as_tensor(found)
