"""Stopping rules that need no ground truth; each can be given to any method (``stop=wmv``)."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from aseqdip.config import Config
from aseqdip.errors import UserError
from aseqdip.problem import Problem


class StoppingRule(ABC):
    """Watches the iterates, keeps the one it would give as the result, and says when to stop.

    Everything stays on the device: nothing here waits for it but :meth:`stopped`.

    Attributes:
        image: the result it keeps, the latest iterate while it has no choice yet; step: that iterate's number.
        watches: the term of the objective that it is given.
    """

    watches = "loss"

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @abstractmethod
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        """Look at the next iterate and the term it watches. ``result`` is what is kept of it where that is not ``image`` itself (an average)."""

    @abstractmethod
    def stopped(self, step: int) -> bool:
        """Whether to stop at ``step``; waits for the device."""

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


class MinimumRule(StoppingRule):
    """Keeps the iterate where a statistic is lowest; stops when ``patience`` iterates in a row brought no new minimum."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience = patience

    @abstractmethod
    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        """The 0-d value to minimise after this iterate; None while there is none."""

    @torch.no_grad()
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        result = image if result is None else result
        value = self.statistic(image, step)
        kept = self.tensors
        if "image" not in kept:
            kept["minimum"] = image.new_full((), torch.inf)
        if value is None:
            kept.update(image=result.clone(), step=image.new_full((), float(step)))
            return
        # once patience is exhausted the choice stands, however long the loop runs on before it asks
        better = (value < kept["minimum"]) & (step - kept["step"] <= self.patience)
        kept["image"] = torch.where(better, result, kept["image"])
        kept["minimum"] = torch.where(better, value.to(image.dtype), kept["minimum"])
        kept["step"] = torch.where(better, float(step), kept["step"])

    def stopped(self, step: int) -> bool:
        kept = self.tensors
        return "step" in kept and step - float(kept["step"]) > self.patience


class WindowedVariance(MinimumRule):
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


class ExponentialVariance(MinimumRule):
    """EMV (the same paper): exponential moving variance, decay 0.1, looked at after 100 iterates.

    Args:
        signed: whether images take negative values; the moving mean of those that do not is kept in [0, 1].
    """

    alpha = 0.1
    warm_up = 100

    def __init__(self, patience: int, signed: bool) -> None:
        super().__init__(patience)
        self.signed = signed

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        kept = self.tensors
        if "mean" not in kept:
            kept["mean"], kept["variance"] = image.clone(), image.new_zeros(())
        deviation = image - kept["mean"]
        mean = kept["mean"] + self.alpha * deviation
        kept["mean"] = mean if self.signed else mean.clamp(0, 1)
        kept["variance"] = (1 - self.alpha) * (kept["variance"] + self.alpha * deviation.square().sum())
        return kept["variance"] if step > self.warm_up else None


class Crossing(StoppingRule):
    """Keeps the last iterate before a term of the objective first falls below a threshold, and stops there.

    With the loss and 0: Rethinking DIP's rule (Jo et al., ICCV 2021), whose loss estimates the error. With the data term and
    what the noise alone would make of it: Morozov's discrepancy principle.
    """

    def __init__(self, threshold: float = 0.0, watches: str = "loss") -> None:
        super().__init__()
        self.threshold, self.watches = threshold, watches

    @torch.no_grad()
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        result = image if result is None else result
        kept = self.tensors
        if "image" not in kept:
            kept.update(image=result.clone(), step=image.new_zeros(()), crossed=torch.zeros_like(term).bool())
        kept["crossed"] = kept["crossed"] | (term < self.threshold)
        kept["image"] = torch.where(kept["crossed"], kept["image"], result)
        kept["step"] = torch.where(kept["crossed"], kept["step"], float(step))

    def stopped(self, step: int) -> bool:
        return "crossed" in self.tensors and bool(self.tensors["crossed"])


def noise_energy(problem: Problem) -> float:
    """E ||n||^2 of the noise n in y: its variance times the number of real values measured.

    What is not measured is exactly 0 in y. Raises UserError where the noise level is not known.
    """
    if not problem.noise_std:
        raise UserError(
            f"stop=discrepancy stops once the data fit to within the noise, so the noise level must be known; that of "
            f"{problem.image} is not: give a level (sigma for pictures, noise for MRI) above 0, or use stop=wmv."
        )
    values = int((problem.y != 0).sum()) * (2 if problem.y.is_complex() else 1)
    return problem.noise_std**2 * values


def make_rule(cfg: Config, problem: Problem) -> StoppingRule | None:
    """The rule a config names, or None. Raises UserError where it does not go with the problem."""
    if cfg.stop == "wmv":
        return WindowedVariance(cfg.window, cfg.patience)
    if cfg.stop == "emv":
        return ExponentialVariance(cfg.patience, signed=cfg.task.name == "mri")
    if cfg.stop == "discrepancy":
        energy = noise_energy(problem)
        return Crossing(energy if cfg.residual == "squared" else energy**0.5, "data")
    return Crossing() if cfg.stop == "zero" else None
