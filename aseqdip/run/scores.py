"""What the runner accumulates over the iterates of one image: scores, averages, the stopping rule's choice."""

import weakref
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aseqdip.case import Case
from aseqdip.engine import Engine
from aseqdip.methods.base import Iterate
from aseqdip.records import COLUMNS, Score
from aseqdip.stopping.base import StoppingRule

EMA_DECAY = 0.99  # of the average that is recorded beside the result
ASK_RULE_EVERY = 25
PSNR, STATISTIC = COLUMNS.index("psnr"), COLUMNS.index("statistic")
TERMS = COLUMNS[1:5]


class NonFiniteError(Exception):
    """The loss or the image is no longer a number."""


class Scores:
    """Everything the runner accumulates over the iterates of one image, on the device and without waiting for it.

    Args:
        case: the image and its truth.
        engine: executes the scoring of one iterate.
        rule: the stopping rule, if there is one.
        decay: of the running average of iterates.
        averaged: whether that average is the result.
        restarts: the steps at which it begins anew.
        every: PSNR and SSIM of every so many iterates, and of the first and the ``last_step``; in other rows they are
            NaN.

    Attributes:
        rows: finished rows of the curve.
        last: the last finite iterate; ema: running average; best: by PSNR against the truth (an oracle).
    """

    block = 512  # rows kept on the device before they must be fetched

    def __init__(
        self,
        case: Case,
        engine: Engine,
        rule: StoppingRule | None = None,
        decay: float = EMA_DECAY,
        averaged: bool = False,
        restarts: Collection[int] = (),
        every: int = 1,
        last_step: int = 0,
    ) -> None:
        self.case, self.rule, self.decay, self.averaged, self.restarts = case, rule, decay, averaged, restarts
        self.every, self.last_step, self.refitted = every, last_step, False
        self.rows: list[list[float]] = []
        self.last: Tensor | None = None
        self.ema: Tensor | None = None
        self.best: Tensor | None = None
        self.best_psnr: Tensor | None = None
        self.pending = 0
        self.ready = False
        # a strong reference would close a circle, and keep an image's tensors until the collector of circles comes by
        me = weakref.proxy(self)
        self._follow, self._score = (engine.repeat(partial(Scores._take, me, scored)) for scored in (False, True))

    def _allocate(self, x: Tensor) -> None:
        """Everything that :meth:`_take` reads and writes, unless a checkpoint brought it."""
        if self.last is None:
            self.last, self.ema = x.clone(), x.clone()
            self.best, self.best_psnr = x.clone(), x.new_full((), -torch.inf)
        self.x, self.terms, self.nan = torch.empty_like(x), x.new_empty(len(TERMS)), x.new_full((), torch.nan)
        self.table = x.new_empty(self.block, len(COLUMNS))  # the iteration's place is taken by: whether it is finite
        self.filled = torch.zeros(1, dtype=torch.long, device=x.device)
        self.ready = True

    @torch.no_grad()
    def add(self, iterate: Iterate) -> None:
        """Score one iterate; its row becomes readable with :meth:`flush`, which is due once :attr:`full`."""
        x = iterate.image
        if not self.ready:
            self._allocate(x)
        self.x.copy_(x)
        torch.stack([iterate.terms.get(name, self.nan).float() for name in TERMS], out=self.terms)
        scored = iterate.step % self.every == 0 or iterate.step in (1, self.last_step)
        (self._score if scored else self._follow)()
        if iterate.step in self.restarts and self.ema is not None:
            self.ema.copy_(x)
        self.pending += 1
        self.step = iterate.step
        if self.rule is not None and not self.refitted:
            term = self.terms[TERMS.index(self.rule.watches)]
            self.rule.add(x, iterate.step, term, self.ema if self.averaged else x)
            if self.rule.value is not None:
                self.table[self.pending - 1, STATISTIC - 1] = self.rule.value

    @torch.no_grad()
    def _take(self, scored: bool) -> None:
        """Take ``self.x`` into account: in place throughout, so that it can be recorded once and replayed."""
        x, last, ema, best, best_psnr = self.x, self.last, self.ema, self.best, self.best_psnr
        assert last is not None and ema is not None and best is not None and best_psnr is not None
        good = torch.isfinite(self.terms[0]) & torch.isfinite(x.sum())
        last.copy_(torch.where(good, x, last))
        ema.lerp_(x, 1 - self.decay)
        scores = [self.nan] * 3
        if scored and (scoring := self.case.scoring) is not None:
            shown = self.case.show(x)
            scores = [scoring.psnr(shown), scoring.ssim(shown), scoring.psnr(self.case.show(ema))]
            better = scores[0] > best_psnr
            best.copy_(torch.where(better, x, best))
            best_psnr.copy_(torch.where(better, scores[0], best_psnr))
        row = torch.cat((self.terms, torch.stack([*scores, self.nan, good.float()])))
        self.table.index_copy_(0, self.filled, row[None])
        self.filled.add_(1)

    @property
    def full(self) -> bool:
        """Whether there is no room for another row before the next :meth:`flush`."""
        return self.pending == self.block

    def flush(self) -> list[list[float]]:
        """The rows since the last call. Raises NonFiniteError at the first iterate that is not finite."""
        if not self.pending:
            return []
        first = self.step - self.pending + 1
        fetched = self.table[: self.pending].cpu().double().tolist()
        self.pending = 0
        self.filled.zero_()
        fresh: list[list[float]] = []
        for number, (*row, good) in enumerate(fetched, start=first):
            if not good:
                self.rows += fresh
                raise NonFiniteError(f"the loss or the image is not finite at step {number}")
            fresh.append([float(number), *row])
        self.rows += fresh
        return fresh

    def stopped(self, step: int) -> bool:
        """Whether the rule says stop; asked only at every so many steps, since the answer waits for the device."""
        return self._ruled and step % ASK_RULE_EVERY == 0 and self.rule is not None and self.rule.stopped(step)

    def refit(self, before: int, steps: int) -> None:
        """The rule has chosen: what comes is fitted to all measurements, and is the result."""
        self.refitted, self.restarts, self.last_step = True, (*self.restarts, before + 1), before + steps

    @property
    def _ruled(self) -> bool:
        return self.rule is not None and not self.refitted

    @property
    def headline(self) -> str:
        """Which of the scores belongs to the reconstruction: "last", "ema" or "stopped"; never "best"."""
        return "stopped" if self._ruled else "ema" if self.averaged else "last"

    def result(self) -> Tensor:
        """The reconstruction: the last iterate, the running average, or what the stopping rule kept."""
        image = self.rule.image if self.rule and self._ruled else self.ema if self.averaged else self.last
        assert image is not None
        return image

    def summary(self) -> dict[str, Score]:
        """The record's "scores": start, last, best, ema, and stopped where a rule chose; no numbers without a truth."""
        images = {"start": self.case.problem.z0, "last": self.last, "best": self.best, "ema": self.ema}
        if self.rule is not None:
            images["stopped"] = self.rule.image
        result = {name: Score() for name in images}
        if (scoring := self.case.scoring) is not None:
            y = (self.case.whole or self.case.problem).y
            for name, image in images.items():
                assert image is not None
                shown = self.case.show(image)
                extras = scoring.extras(shown, y)
                result[name] = Score(float(scoring.psnr(shown)), float(scoring.ssim(shown)), extras={**extras})
            scored = (row for row in self.rows if row[PSNR] == row[PSNR])
            result["best"].step = int(max(scored, key=lambda row: row[PSNR])[0])
        if self.rule is not None:
            result["stopped"].step = self.rule.step
        return result

    def state_dict(self) -> dict[str, Any]:
        kept = {"rows": torch.tensor(self.rows, dtype=torch.float64), "last": self.last, "ema": self.ema}
        rule = None if self.rule is None else self.rule.state_dict()
        return {**kept, "best": self.best, "best_psnr": self.best_psnr, "rule": rule}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows = saved["rows"].tolist()
        if self.rows and len(self.rows[0]) != len(COLUMNS):
            raise ValueError(f"{len(self.rows[0])} columns in its curve")
        self.last, self.ema, self.best, self.best_psnr = (saved[k] for k in ("last", "ema", "best", "best_psnr"))
        if self.rule is not None:
            self.rule.load_state_dict(saved["rule"])
