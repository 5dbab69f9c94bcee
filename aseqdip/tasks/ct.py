"""Sparse-view parallel-beam CT."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from aseqdip.case import Case, Scoring
from aseqdip.data.base import HOUNSFIELD, Sample, center_crop, central
from aseqdip.errors import UserError
from aseqdip.operators.base import Operator
from aseqdip.operators.ct import ParallelBeam
from aseqdip.parts import knob
from aseqdip.problem import Problem
from aseqdip.tasks._pictures import real_image, resized
from aseqdip.tasks.base import Task

#: Hounsfield units between which an image's 0 is air, and so attenuates nothing
AIR = (-1100.0, -900.0)
#: attenuation of water at the mean energy of a 120 kV beam, per mm, and the field of view; only for photon noise
WATER_PER_MM, FIELD_OF_VIEW_MM = 0.02, 350.0


class CT(Task):
    """y = A x with A = R / ||R||, post-log; ``photons``: Poisson counts before the log (paper: 18 and 30 views)."""

    name = "ct"
    title = "CT"
    defaults = {"size": "512", "dataset": "body", "network": "medium"}
    takes = ("image", "sinogram")
    starts = ("paper", "adjoint")  # clipped filtered back-projection, or A^H y, scaled to fit y
    start_title = "filtered back-projection"

    @dataclass
    class Options:
        views: int = knob("projection angles over 180 degrees", 30, low=1)
        photons: float | None = knob("photons per ray for Poisson noise; default: noise-free", None, above=0, high=1e12)

    @property
    def setting(self) -> str:
        return f"views{self.options.views}"

    @property
    def setting_title(self) -> str:
        return f"{self.options.views} views"

    def check(self) -> None:
        if self.truth == "none":
            raise UserError("truth=none is for pictures: task=ct simulates measurements, or has dataset=sinogram.")

    def settled(self, sample: Sample) -> Any:
        if sample.angles is None:
            return self.options
        return replace(self.options, views=len(sample.angles), photons=None)

    def make(self, name: str, sample: Sample) -> Case:
        if sample.sinogram is not None and sample.angles is not None:
            return self._measured(name, sample.sinogram, sample.angles)
        o, original = self.options, real_image(self.name, sample, known=True)
        image = self._slice(original)
        operator = ParallelBeam(size=image.shape[-1], views=o.views)
        y = operator(image)
        if o.photons is not None:
            self._check_air(sample)
            per_pixel = WATER_PER_MM * sample.hu_width / 1000 * FIELD_OF_VIEW_MM / image.shape[-1]
            expected = o.photons * torch.exp(-per_pixel * operator.radon_norm * y)
            counts = torch.poisson(expected, self.rng(name, "photons"))
            y = -torch.log(counts.clamp_min(1) / o.photons) / (per_pixel * operator.radon_norm)
        start = fitted_adjoint(operator, y) if self.start == "adjoint" else operator.direct(y)
        noise = 0.0 if o.photons is None else None
        problem = Problem(y, operator, start.clamp(0, 1), name, self.seed, noise)
        facts = {"operator_norm": operator.radon_norm, "scaled_by_norm": True}
        side = min(original.shape[-2:])
        region = central(original.shape[-2:], side, side)
        return Case(problem, Scoring(image, 1.0), facts=facts, truth=image, region=region)

    def _check_air(self, sample: Sample) -> None:
        """Photons need attenuation. UserError where an image's 0 is not air's; a note where its units are not known."""
        if not AIR[0] <= sample.hu_low <= AIR[1]:
            raise UserError(
                f"photons={self.options.photons:g} counts what air lets through, and 0 in {sample.source} is "
                f"{sample.hu_low:g} Hounsfield units, of which air is no more to be told: use dataset.hu_low=-1024."
            )
        if sample.origin.kind and sample.origin.unit != HOUNSFIELD:
            high = sample.hu_low + sample.hu_width
            sample.notes.append(f"photons: its 0 to 1 are taken for {sample.hu_low:g} to {high:g} Hounsfield units")

    def _measured(self, name: str, sinogram: Tensor, angles: Tensor) -> Case:
        """Of a sinogram, (detectors, views): an image as wide as the detector, its largest FBP value 1.

        What is in reach of the detector in every view is taken for all there is: beyond its ends, integrals are 0.
        """
        side = len(sinogram)
        A = ParallelBeam(size=side, views=len(angles), angles=(angles % (2 * torch.pi)).tolist())
        before = A.detectors // 2 - side // 2
        y = A.scale * pad(sinogram, (0, 0, before, A.detectors - side - before))[None, None]
        level = float(A.direct(y).max())
        if not level > 0:
            raise UserError(f"{name}: its filtered back-projection is nowhere above 0: expected line integrals.")
        y = y / level
        start = fitted_adjoint(A, y) if self.start == "adjoint" else A.direct(y)
        problem = Problem(y, A, start.clamp_min(0), name, self.seed, None)
        facts = {"operator_norm": A.radon_norm, "scaled_by_norm": True, "scale": 1 / level}
        return Case(problem, None, facts=facts, bounded=False)  # what is small is brighter than its back-projection

    def reference(self, name: str, sample: Sample, like: Tensor) -> Tensor:
        return self._slice(real_image(self.name, sample, known=True))

    def _slice(self, image: Tensor) -> Tensor:
        """One channel, square, of the size asked for."""
        side = min(image.shape[-2:])
        return resized(center_crop(image.mean(1, keepdim=True), side, side), self.size)


def fitted_adjoint(A: Operator, y: Tensor) -> Tensor:
    """A^H y times the factor with which its measurements come closest to y."""
    back = A.adjoint(y)
    again = A(back)
    return back * ((again * y).sum() / again.square().sum().clamp_min(1e-12))
