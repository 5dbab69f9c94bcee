"""What methods on pictures share that are computed by NumPy libraries."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import OneStep
from aseqdip.methods.base import Shared
from aseqdip.metrics import estimated_sigma
from aseqdip.problem import Kind, Problem


class Denoiser(OneStep):
    """A method that takes Gaussian noise off a picture; where its level is not given it is estimated from the
    picture.
    """

    instead = "it takes the measurement"

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not kind.identity:
            raise UserError(
                f"method={cls.name} takes noise off a picture: it is for task=denoising, not task={kind.task}."
            )

    @abstractmethod
    def denoise(self, problem: Problem, sigma: float) -> Tensor:
        """The picture without noise of standard deviation ``sigma``."""

    def solve(self, problem: Problem) -> Tensor:
        sigma = estimated_sigma(problem.y) if problem.noise_std is None else problem.noise_std
        self.facts["sigma_used"] = float(f"{sigma:.4g}")
        return self.denoise(problem, sigma) if sigma else problem.y.clone()


def as_array(picture: Tensor) -> np.ndarray[Any, Any]:
    """(1, channels, height, width) as (height, width, channels)."""
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).cpu().numpy())


def as_tensor(picture: np.ndarray[Any, Any]) -> Tensor:
    """(height, width, channels) as (1, channels, height, width); non-local means drop an only channel."""
    picture = np.ascontiguousarray(picture, dtype=np.float32).reshape(*picture.shape[:2], -1)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()
