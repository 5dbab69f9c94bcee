"""Windowed moving variance (Wang et al., TMLR 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aseqdip.parts import knob
from aseqdip.stopping.base import MinimumRule


class WindowedVariance(MinimumRule):
    """Variance of the last ``window`` outputs, per pixel.

    VAR(t) = 1/W sum_w ||x_w - mean||^2 / n, over a ring of W outputs whose sum is kept in double precision.
    """

    name = "wmv"
    title = "windowed moving variance"
    paper = "Wang, Li, Zhuang, Chen, Liang, Sun: Early stopping for deep image prior, TMLR 2023"

    @dataclass
    class Options(MinimumRule.Options):
        window: int = knob("iterates in its window", 100, low=2)

    @property
    def judges_from(self) -> int:
        return int(self.options.window)

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        kept, slot = self.tensors, (step - 1) % self.options.window
        if "ring" not in kept:
            kept["ring"] = image.new_zeros(self.options.window, *image.shape)
            kept["sum"] = torch.zeros_like(image, dtype=torch.float64)
            kept["squares"] = image.new_zeros((), dtype=torch.float64)
        old = kept["ring"][slot].double()
        new = image.double()
        kept["sum"] += new - old
        kept["squares"] += new.square().sum() - old.square().sum()
        kept["ring"][slot] = image
        if step < self.judges_from:
            return None
        mean = kept["sum"] / self.options.window
        return (kept["squares"] / self.options.window - mean.square().sum()) / image.numel()
