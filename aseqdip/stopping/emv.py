"""Exponential moving variance (Wang et al., TMLR 2023)."""

from torch import Tensor

from aseqdip.stopping.base import MinimumRule


class ExponentialVariance(MinimumRule):
    """Exponential moving variance, decay 0.1, looked at after 100 iterates that follow the first.

    The moving mean of images that lie in [0, 1] is kept there. The result is the iterate where the variance is least;
    the authors' notebook scores the moving mean at that step.
    """

    name = "emv"
    title = "exponential moving variance"
    paper = "Wang, Li, Zhuang, Chen, Liang, Sun: Early stopping for deep image prior, TMLR 2023"
    alpha = 0.1
    warm_up = 100

    @property
    def judges_from(self) -> int:
        return self.warm_up + 2  # theirs count from 0

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        kept = self.tensors
        if "mean" not in kept:
            kept["mean"], kept["variance"] = image.clone(), image.new_zeros(())
        deviation = image - kept["mean"]
        mean = kept["mean"] + self.alpha * deviation
        kept["mean"] = mean if self.signed else mean.clamp(0, 1)
        kept["variance"] = (1 - self.alpha) * (kept["variance"] + self.alpha * deviation.square().sum())
        return None if step < self.judges_from else kept["variance"]
