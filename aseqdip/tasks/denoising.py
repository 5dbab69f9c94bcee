"""Gaussian noise on photographs."""

from dataclasses import dataclass, replace

from aseqdip.case import Case
from aseqdip.data.base import Sample
from aseqdip.metrics import estimated_sigma
from aseqdip.operators.base import Operator
from aseqdip.operators.identity import Identity
from aseqdip.parts import knob
from aseqdip.problem import Kind
from aseqdip.tasks._pictures import PictureTask


class Denoising(PictureTask):
    """y = x + n (paper: sigma 15 and 30)."""

    name = "denoising"
    title = "Denoising"

    @dataclass
    class Options(PictureTask.Options):
        sigma: float = knob("standard deviation of the added noise, on the 0..255 scale", 15.0, low=0)

    @property
    def setting(self) -> str:
        return f"sigma{self.options.sigma:g}"

    @property
    def setting_title(self) -> str:
        return f"sigma {self.options.sigma:g}"

    def kind(self) -> Kind:
        return replace(super().kind(), identity=True)

    def make(self, name: str, sample: Sample) -> Case:
        case = super().make(name, sample)
        given, found = self.options.sigma, 255 * estimated_sigma(case.problem.y)
        # texture raises what is found, so that this says little of a larger one
        if self.truth == "none" and not given - max(5, given / 2) <= found <= 2 * given + 10:
            sample.notes.append(
                f"sigma={given:g} is taken for its noise, which looks like {found:.3g}: if it is, set sigma={found:.2g}"
            )
        return case

    def operator(self, name: str, height: int, width: int) -> Operator:
        return Identity()
