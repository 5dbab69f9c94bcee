"""Stopping rules that need no ground truth; each can be given to any method (``stop=wmv``)."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from aseqdip.config import Config


class StoppingRule(ABC):
    """Watches the iterates and keeps the one where its statistic is lowest.

    Stops when ``patience`` iterates in a row brought no new minimum. Everything stays on the device: nothing here waits
    for it but :meth:`stopped`.

    Args:
        patience: iterates without a new minimum before it stops.

    Attributes:
        image: the iterate at the minimum; step: its number (0 while the statistic is not defined yet).
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.tensors: dict[str, Tensor] = {}

    @abstractmethod
    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        """The 0-d value to minimise after this iterate; None while there is none."""

    @torch.no_grad()
    def add(self, image: Tensor, step: int) -> None:
        """Look at the next iterate."""
        value = self.statistic(image, step)
        kept = self.tensors
        if "image" not in kept:
            kept.update(image=image.clone(), step=image.new_zeros(()), minimum=image.new_full((), torch.inf))
        if value is None:
            return
        # once patience is exhausted the choice stands, however long the loop runs on before it asks
        better = (value < kept["minimum"]) & (step - kept["step"] <= self.patience)
        better = better | torch.isinf(kept["minimum"])
        kept["image"] = torch.where(better, image, kept["image"])
        kept["minimum"] = torch.where(better, value.to(image.dtype), kept["minimum"])
        kept["step"] = torch.where(better, float(step), kept["step"])

    def stopped(self, step: int) -> bool:
        """Whether patience is exhausted at ``step``; waits for the device."""
        kept = self.tensors
        return "step" in kept and float(kept["step"]) > 0 and step - float(kept["step"]) > self.patience

    @property
    def image(self) -> Tensor:
        return self.tensors["image"]

    @property
    def step(self) -> int:
        return int(self.tensors["step"])

    def state_dict(self) -> dict[str, Any]:
        return dict(self.tensors)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.tensors = dict(saved)


class WindowedVariance(StoppingRule):
    """WMV (Wang et al., TMLR 2023): variance of the last ``window`` outputs, per pixel.

    VAR(t) = 1/W sum_w ||x_w - mean||^2 / n, over a ring of W outputs whose sum is kept in double precision.
    """

    def __init__(self, window: int, patience: int) -> None:
        super().__init__(patience)
        self.window = window

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        kept, slot = self.tensors, (step - 1) % self.window
        if "ring" not in kept:
            kept["ring"] = image.new_zeros(self.window, *image.shape)
            kept["sum"] = torch.zeros_like(image, dtype=torch.float64)
            kept["squares"] = image.new_zeros((), dtype=torch.float64)
        old = kept["ring"][slot].double()
        new = image.double()
        kept["sum"] += new - old
        kept["squares"] += new.square().sum() - old.square().sum()
        kept["ring"][slot] = image
        if step < self.window:
            return None
        mean = kept["sum"] / self.window
        return (kept["squares"] / self.window - mean.square().sum()) / image.numel()


class ExponentialVariance(StoppingRule):
    """EMV (the same paper): exponential moving variance, decay 0.1, looked at after 100 iterates."""

    alpha = 0.1
    warm_up = 100

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        kept = self.tensors
        if "mean" not in kept:
            kept["mean"], kept["variance"] = image.clone(), image.new_zeros(())
        deviation = image - kept["mean"]
        kept["mean"] = kept["mean"] + self.alpha * deviation
        kept["variance"] = (1 - self.alpha) * (kept["variance"] + self.alpha * deviation.square().sum())
        return kept["variance"] if step > self.warm_up else None


def make_rule(cfg: Config) -> StoppingRule | None:
    """The rule a config names, or None."""
    if cfg.stop == "wmv":
        return WindowedVariance(cfg.window, cfg.patience)
    return ExponentialVariance(cfg.patience) if cfg.stop == "emv" else None
