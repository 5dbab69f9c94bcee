"""One reconstruction to run: the method's part, and the truth's part that only the runner sees."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.metrics import SSIM, psnr
from aseqdip.problem import Problem


@dataclass
class Scoring:
    """How an iterate is compared with the truth; the runner's alone.

    Attributes:
        truth: what is scored against, (1, channels, height, width), as displayed (magnitude for MRI).
        data_range: R in PSNR and SSIM.
        hole: in-painting: 1 inside the hole, (1, 1, height, width).

    Raises UserError for an image too small to be scored.
    """

    truth: Tensor
    data_range: float
    hole: Tensor | None = None

    def __post_init__(self) -> None:
        if (side := min(self.truth.shape[-2:])) < 11:
            raise UserError(f"The image is {side} pixels on its short side: SSIM needs at least 11.")

    def psnr(self, shown: Tensor) -> Tensor:
        """PSNR in dB of a displayed image."""
        return psnr(shown, self.truth, self.data_range)

    def ssim(self, shown: Tensor) -> Tensor:
        """SSIM of a displayed image."""
        return self._ssim(shown)

    @cached_property
    def _ssim(self) -> SSIM:
        return SSIM(self.truth, self.data_range)

    def extras(self, shown: Tensor, y: Tensor) -> dict[str, float]:
        """In-painting: PSNR inside the hole, and of the image with the known pixels put back as they were measured."""
        if self.hole is None:
            return {}
        inside = self.hole.expand_as(shown) > 0
        composited = torch.where(inside, shown, y.clamp(0, 1))
        return {
            "hole_psnr_db": float(psnr(shown[inside], self.truth[inside], self.data_range)),
            "composited_psnr_db": float(self.psnr(composited)),
        }

    def to(self, device: torch.device) -> "Scoring":
        hole = None if self.hole is None else self.hole.to(device)
        return Scoring(self.truth.to(device), self.data_range, hole)


@dataclass
class Case:
    """One reconstruction to run: what the method sees, and what only the runner sees.

    Attributes:
        problem: the method's part.
        scoring: the truth's part; None where there is no truth.
        signed: whether images take negative values (complex MRI).
        support: where an MRI image is shown: 1 where there are coil sensitivity maps, (1, 1, height, width).
        facts: for the record: scale, operator norm, where maps come from.
        truth: the true image, shaped like z0; None where there is none. For scoring alone, but for input=oracle.
        bounded: whether images that are not complex lie in [0, 1].
        region: top, left, rows and columns of what an image shows of the file's, in its pixels; None for all of it.
        whole: the problem with all measurements, where a stopping rule holds some of them out of ``problem``.
    """

    problem: Problem
    scoring: Scoring | None
    signed: bool = False
    support: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    truth: Tensor | None = None
    bounded: bool = True
    region: tuple[int, int, int, int] | None = None
    whole: Problem | None = None

    def to(self, device: torch.device) -> "Case":
        """The same case with every tensor on ``device``."""
        problem, whole = _moved(self.problem, device), self.whole and _moved(self.whole, device)
        scoring = None if self.scoring is None else self.scoring.to(device)
        support = None if self.support is None else self.support.to(device)
        truth = None if self.truth is None else self.truth.to(device)
        return replace(self, problem=problem, scoring=scoring, support=support, truth=truth, whole=whole)

    def show(self, image: Tensor) -> Tensor:
        """What a person looks at and what is scored: magnitude on the support for MRI, else clipped to [0, 1]."""
        if self.support is None:
            return image.clamp(0, 1) if self.bounded else image
        # on CPUs a norm over this short axis takes a hundred times as long
        return torch.hypot(image[:, :1], image[:, 1:]) * self.support


def _moved(p: Problem, device: torch.device) -> Problem:
    return replace(p, y=p.y.to(device), operator=p.operator.to(device), z0=p.z0.to(device))
