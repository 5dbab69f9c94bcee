"""What the runner accumulates over the iterates of one image: scores, averages, the stopping rule's choice."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aseqdip.case import Case
from aseqdip.methods.base import Iterate
from aseqdip.records import COLUMNS
from aseqdip.stopping import StoppingRule

EMA_DECAY = 0.99  # of the average that is recorded beside the result
ASK_RULE_EVERY = 25
PSNR = COLUMNS.index("psnr")


class NonFiniteError(Exception):
    """The loss or the image is no longer a number."""


@dataclass
class Scores:
    """Everything the runner accumulates over the iterates of one image, on the device and without waiting for it.

    Attributes:
        rule: the stopping rule, if there is one.
        rows: finished rows of the curve.
        decay: of the running average of iterates. averaged: whether that average is the result.
        last: the last finite iterate; ema: running average; best: by PSNR against the truth (an oracle).
    """

    case: Case
    rule: StoppingRule | None = None
    decay: float = EMA_DECAY
    averaged: bool = False
    rows: list[list[float]] = field(default_factory=list)
    last: Tensor | None = None
    ema: Tensor | None = None
    best: Tensor | None = None
    best_psnr: Tensor | None = None
    pending: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, iterate: Iterate) -> None:
        """Score one iterate; its row becomes readable with :meth:`flush`."""
        x = iterate.image
        nan = x.new_full((), float("nan"))
        loss = iterate.terms["loss"].float()
        good = torch.isfinite(loss) & torch.isfinite(x.sum())
        self.last = x.clone() if self.last is None else torch.where(good, x, self.last)
        self.ema = x.clone() if self.ema is None else torch.lerp(self.ema, x, 1 - self.decay)
        if self.rule is not None:
            self.rule.add(x, iterate.step, loss, self.ema if self.averaged else x)
        scores = [nan] * 3
        if (scoring := self.case.scoring) is not None:
            shown = self.case.show(x)
            scores = [scoring.psnr(shown), scoring.ssim(shown), scoring.psnr(self.case.show(self.ema))]
            if self.best is None or self.best_psnr is None:
                self.best, self.best_psnr = x.clone(), scores[0]
            else:
                better = scores[0] > self.best_psnr
                self.best = torch.where(better, x, self.best)
                self.best_psnr = torch.where(better, scores[0], self.best_psnr)
        terms = [
            iterate.terms.get(name, nan).float() for name in ("loss", "data", "autoencoding", "regulariser")
        ]
        self.pending.append(torch.stack([x.new_full((), float(iterate.step)), *terms, *scores, good.float()]))

    def flush(self) -> list[list[float]]:
        """The rows since the last call. Raises NonFiniteError at the first iterate that is not finite."""
        if not self.pending:
            return []
        fresh = torch.stack(self.pending).double().cpu().tolist()
        self.pending.clear()
        for index, row in enumerate(fresh):
            if not row.pop():
                del fresh[index:]
                self.rows += fresh
                raise NonFiniteError(f"the loss or the image is not finite at step {int(row[0])}")
        self.rows += fresh
        return fresh

    def stopped(self, step: int) -> bool:
        """Whether the rule says stop; asked only every so often, at fixed steps, since the answer waits for the device."""
        return self.rule is not None and step % ASK_RULE_EVERY == 0 and self.rule.stopped(step)

    @property
    def headline(self) -> str:
        """Which of the scores belongs to the reconstruction: "last", "ema" or "stopped"; never "best"."""
        return "stopped" if self.rule is not None else "ema" if self.averaged else "last"

    def result(self) -> Tensor:
        """The reconstruction: the last iterate, the running average, or what the stopping rule kept."""
        image = self.rule.image if self.rule is not None else self.ema if self.averaged else self.last
        assert image is not None
        return image

    def summary(self) -> dict[str, Any]:
        """The record's "scores": start, last, best, ema, and stopped where a rule chose; each with psnr, ssim and
        task extras; None without truth."""
        images = {"start": self.case.problem.z0, "last": self.last, "best": self.best, "ema": self.ema}
        if self.rule is not None:
            images["stopped"] = self.rule.image
        if (scoring := self.case.scoring) is None:
            return {name: {"psnr": None, "ssim": None} for name in images}
        result: dict[str, Any] = {}
        for name, image in images.items():
            assert image is not None
            shown = self.case.show(image)
            result[name] = {
                "psnr": float(scoring.psnr(shown)),
                "ssim": float(scoring.ssim(shown)),
                **scoring.extras(shown),
            }
        if self.rule is not None:
            result["stopped"]["step"] = self.rule.step
        result["best"]["step"] = int(max(self.rows, key=lambda row: row[PSNR])[0])
        return result

    def state_dict(self) -> dict[str, Any]:
        kept = {"rows": torch.tensor(self.rows, dtype=torch.float64), "last": self.last, "ema": self.ema}
        rule = None if self.rule is None else self.rule.state_dict()
        return {**kept, "best": self.best, "best_psnr": self.best_psnr, "rule": rule}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows = saved["rows"].tolist()
        self.last, self.ema, self.best, self.best_psnr = (
            saved[k] for k in ("last", "ema", "best", "best_psnr")
        )
        if self.rule is not None:
            self.rule.load_state_dict(saved["rule"])
