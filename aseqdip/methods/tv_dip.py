"""DIP with total variation (Liu et al., ICASSP 2019)."""

from dataclasses import dataclass

from torch import Tensor

from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.parts import knob


class TVDIP(VanillaDIP):
    """min_phi ||A f_phi(z) - y||^2 + rho TV(f_phi(z)); sums over pixels, each channel alone."""

    name = "tv_dip"
    title = "TV-DIP"
    paper = "Liu, Sun, Xu, Kamilov: Image restoration using total variation regularized deep image prior, ICASSP 2019"

    @dataclass
    class Options(VanillaDIP.Options):
        # calibrated on one image a task outside all test lists (docs/protocol.md)
        rho: float = knob(
            "weight of total variation (the paper's: 1, which over-smooths)", 0.01, low=0,
            by_task={"ct": 0.001, "deblurring": 0.001},
        )  # fmt: skip
        tv: str = knob("kind of total variation", "isotropic", choices=("isotropic", "anisotropic"))

    def penalty(self, x: Tensor) -> Tensor | None:
        return self.options.rho * total_variation(x, isotropic=self.options.tv == "isotropic")


def total_variation(x: Tensor, isotropic: bool) -> Tensor:
    """Sum over pixels of |gradient| (forward differences, zero beyond the border), Euclidean or city-block.

    The root is taken of at least 1e-12 away from zero, so that flat regions have a gradient of zero, not NaN.
    """
    down, right = x.diff(dim=-2, append=x[..., -1:, :]), x.diff(dim=-1, append=x[..., -1:])
    if not isotropic:
        return down.abs().sum() + right.abs().sum()
    return (down.square() + right.square() + 1e-12).sqrt().sum()
