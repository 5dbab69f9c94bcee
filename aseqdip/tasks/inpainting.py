"""A hole in a photograph."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from aseqdip.data.picture import read_picture
from aseqdip.errors import UserError
from aseqdip.operators.base import Operator
from aseqdip.operators.mask import Mask, center_hole, random_hole
from aseqdip.parts import knob
from aseqdip.problem import Kind
from aseqdip.tasks._pictures import PictureTask

log = logging.getLogger(__name__)


class Inpainting(PictureTask):
    """y = m x (paper: a central square, 0.1 and 0.25 of the area, no noise)."""

    name = "inpainting"
    title = "In-painting"
    starts = ("paper", "mean")  # the measurement, or its hole filled with the mean of the known pixels

    @dataclass
    class Options(PictureTask.Options):
        mask: str = knob("center, random, or a picture file (white = known)", "center", file=True)
        hiar: float = knob("mask=center: area of the central hole over the image's area", 0.1, above=0, high=0.9)
        missing: float = knob("mask=random: fraction of the pixels missing", 0.97, above=0, high=1)

    @property
    def setting(self) -> str:
        o = self.options
        return f"hiar{o.hiar:g}" if o.mask == "center" else f"mask-{Path(o.mask).stem}"

    @property
    def setting_title(self) -> str:
        o = self.options
        return f"hole {o.hiar:g} of the area" if o.mask == "center" else f"mask {Path(o.mask).stem}"

    def check(self) -> None:
        mask = self.options.mask
        if mask not in ("center", "random") and not Path(mask).is_file():
            raise UserError(f"mask={mask}: expected center, random, or a picture file (white = known pixel).")

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        of = {"hiar": "center", "missing": "random"}
        this = f"and this is mask={options.mask}"
        return {k: f"it belongs to mask={v}, {this}" for k, v in of.items() if v != options.mask}

    def kind(self) -> Kind:
        return replace(super().kind(), hole=True)

    def operator(self, name: str, height: int, width: int) -> Operator:
        o = self.options
        if o.mask == "center":
            return Mask(center_hole(height, width, o.hiar))
        if o.mask == "random":
            return Mask(random_hole(height, width, o.missing, self.rng(name, "mask")))
        grey = read_picture(Path(o.mask)).mean(0)
        mask = grey > 0.5 * grey.max()  # 0 and 1 of 255 are a mask as well
        if mask.shape != (height, width):
            raise UserError(
                f"The mask {o.mask} is {mask.shape[0]} x {mask.shape[1]}, the image {height} x {width}: "
                "they must agree."
            )
        if bool(mask.all()):
            raise UserError(f"The mask {o.mask} has no hole: white is known, black is not, and no part is transparent.")
        if (known := float(mask.float().mean())) < 0.5:
            log.warning("mask=%s: white is known, which are %.0f %% of the pixels.", o.mask, 100 * known)
        return Mask(mask[None, None])

    def kept(self, operator: Operator, noisy: Tensor) -> Tensor:
        return operator(noisy)

    def hole(self, operator: Operator) -> Tensor:
        assert isinstance(operator, Mask)
        return 1 - operator.mask

    def first(self, operator: Operator, y: Tensor) -> Tensor:
        z0 = operator.direct(y)
        if self.start != "mean":
            return z0
        hole = self.hole(operator)
        return z0 + hole * (y.sum((-2, -1), keepdim=True) / (1 - hole).sum((-2, -1), keepdim=True))
