"""Two languages in which a network says what an image without its noise is, put into ours.

Ours is D(x, sigma) = E[x0 | x0 + sigma n = x] (Karras et al., 2022). VP: eps, the noise in x_t = sqrt(ab_t) x0 +
sqrt(1 - ab_t) n (Ho et al., 2020), so that sigma_t = sqrt((1 - ab_t) / ab_t). VE: the score, the gradient of the log
density of x (Song et al., 2021).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aseqdip.errors import UserError

#: beta_t of t = 0 ... 999, the cumulative products ab_t of 1 - beta_t, and sigma_t, in double precision
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BARS = np.cumprod(1 - BETAS)
SIGMAS = np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS)


def time_of(sigma: float) -> float:
    """t with sigma_t = sigma, which may lie between two times; the nearest end of 0 ... 999 beyond them."""
    t = float(np.interp(np.log(max(sigma, SIGMAS[0])), np.log(SIGMAS), np.arange(len(SIGMAS))))
    return float(round(t)) if abs(t - round(t)) < 1e-3 else t  # sigma has been rounded to single precision


class Translated(nn.Module, ABC):
    """A denoiser: (x, sigma) to D, (batch, channels, height, width), sigma (batch,).

    Attributes:
        multiple: what the sides of its images must be multiples of.
    """

    multiple: int

    @classmethod
    @abstractmethod
    def arguments(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the shapes of its weights say of the arguments. Raises KeyError where they are another network's."""

    @abstractmethod
    def predict(self, x: Tensor, level: Tensor) -> Tensor:
        """The network as it was trained."""

    def check(self, x: Tensor) -> None:
        """Raise UserError for images that it cannot halve down to its last level."""
        if any(side % self.multiple for side in x.shape[-2:]):
            raise UserError(
                f"This prior's network takes images whose sides are multiples of {self.multiple}; found {x.shape[-2]} "
                f"x {x.shape[-1]}: set size=256, say."
            )


class VP(Translated):
    """Predicts eps from (x_t, t), t in 0 ... 999; what it gives in channels more follows D as it is."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.check(x)
        t = torch.tensor([time_of(s) for s in sigma.double().tolist()], dtype=x.dtype, device=x.device)
        s, channels = sigma.reshape(-1, 1, 1, 1), x.shape[1]
        found = self.predict(x / (1 + s.square()).sqrt(), t).float()
        return torch.cat((x - s * found[:, :channels], found[:, channels:]), 1)


class VE(Translated):
    """Predicts sigma times the score from (x, ln sigma)."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.check(x)
        return x + sigma.reshape(-1, 1, 1, 1) * self.predict(x, sigma.log()).float()
