"""What the tasks on real images share: CT, and those on photographs."""

import logging
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip.case import Case, Scoring
from aseqdip.data.base import Sample
from aseqdip.errors import UserError
from aseqdip.operators.base import Operator
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem
from aseqdip.tasks.base import Task, operator_norm

log = logging.getLogger(__name__)

ROUNDING = 1e-3  # by which the values of an image may leave 0 to 1
NOISY = 1.0, 6  # and those of a noisy one, or so many standard deviations of its noise: more is another scale


def real_image(task: str, sample: Sample, known: bool, sigma: float = 0.0) -> Tensor:
    """A sample's image, (1, channels, height, width), in [0, 1] if it is the truth. UserError for another scale.

    Args:
        sigma: of its noise, on the 0..255 scale, where it is not the truth.
    """
    if sample.image is None:
        raise UserError(f"task={task} needs images, but {sample.source} holds k-space: use task=mri.")
    if sample.image.is_complex() and bool((sample.image.imag != 0).any()):
        raise UserError(
            f"task={task} needs real images, but {sample.source} is complex: use task=mri, or another dataset."
        )
    image = (sample.image.real if sample.image.is_complex() else sample.image)[None].float()
    low, high = float(image.min()), float(image.max())
    beyond = ROUNDING if known else max(NOISY[0], NOISY[1] * sigma / 255)
    if not -beyond <= low <= high <= 1 + beyond:
        noise = "" if known else ", but for the noise"
        raise UserError(
            f"{sample.source} has values from {low:g} to {high:g}; task={task} needs 0 to 1{noise}: rescale it."
        )
    return image.clamp(0, 1) if known else image


def resized(image: Tensor, size: int | None, aspect: bool = False, known: bool = True) -> Tensor:
    """Bicubic to ``size`` x ``size``, or with its own aspect to ``size`` on the short side; None: as it is.

    Of an image that is known, and so in [0, 1], what overshoots is cut off.
    """
    if size is None:
        return image
    short = min(image.shape[-2:])
    height, width = (round(n * size / short) if aspect else size for n in image.shape[-2:])
    if image.shape[-2:] == (height, width):
        return image
    found = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
    return found.clamp(0, 1) if known else found


class PictureTask(Task):
    """y = A x + n, n of standard deviation sigma/255, not clipped; z0 = y (paper, Sec. 3.2)."""

    @dataclass
    class Options:
        sigma: float = knob("standard deviation of the added noise, on the 0..255 scale", 0.0, low=0)

    @abstractmethod
    def operator(self, name: str, height: int, width: int) -> Operator:
        """A for one image. UserError if there is none for its size."""

    def kept(self, operator: Operator, noisy: Tensor) -> Tensor:
        """What is measured of an image that noise was added to: all of it."""
        return noisy

    def hole(self, operator: Operator) -> Tensor | None:
        """1 where nothing is known of the image, (1, 1, height, width); None where something is known everywhere."""
        return None

    def first(self, operator: Operator, y: Tensor) -> Tensor:
        """z0 from y."""
        return operator.direct(y)

    def kind(self) -> Kind:
        return Kind(self.name, image=True, noise=self.options.sigma)

    def make(self, name: str, sample: Sample) -> Case:
        known, sigma = self.truth == "known", self.options.sigma
        original = real_image(self.name, sample, known, sigma)
        image = resized(original, self.size, sample.aspect, known)
        if not known and sigma and image.shape != original.shape:
            log.warning("%s is resized, which changes its noise from sigma=%g: use size=native.", name, sigma)
        operator = self.operator(name, *image.shape[-2:])
        noisy = image
        if known:
            clean = operator(image)
            noisy = clean + sigma / 255 * torch.randn(clean.shape, generator=self.rng(name, "noise"))
        y = self.kept(operator, noisy)
        problem = Problem(
            y, operator, self.first(operator, y), name, self.seed, sigma / 255 or (0.0 if known else None)
        )
        scoring = Scoring(image, 1.0, self.hole(operator)) if known else None
        facts = {"operator_norm": operator_norm(problem)}
        return Case(problem, scoring, facts=facts, truth=image if known else None)

    def reference(self, name: str, sample: Sample, like: Tensor) -> Tensor:
        return resized(real_image(self.name, sample, False, self.options.sigma), self.size, sample.aspect)
