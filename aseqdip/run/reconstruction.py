"""One image on its way through one method: the loop, its clock and its checkpoints. Needs no files and no settings."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aseqdip.case import Case
from aseqdip.methods.base import Method
from aseqdip.parts import Chosen
from aseqdip.problem import fingerprint
from aseqdip.records import Rows
from aseqdip.run.checkpoint import Checkpoint
from aseqdip.run.scores import EMA_DECAY, Scores
from aseqdip.stopping.base import StoppingRule
from aseqdip.stopping.holdout import Holdout

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Whatever is shown the rows of a curve as they come."""

    def rows(self, rows: Rows) -> None: ...


class Stop(Protocol):
    """Whatever says that it is time to save and stop."""

    @property
    def due(self) -> bool: ...


class Clock:
    """Seconds spent by purpose; on CUDA from events, so that reading the clock never waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {"start": 0.0, "method": 0.0, "scoring": 0.0, "saving": 0.0}
        self.cuda = device.type == "cuda"
        self.pending: list[tuple[str, Any, Any]] = []

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        if self.cuda:
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            yield
            events[1].record()
            self.pending.append((what, *events))
        else:
            start = time.perf_counter()
            yield
            self.seconds[what] += time.perf_counter() - start

    def settle(self) -> None:
        """Add up pending events; call where the device has been waited for anyway."""
        if self.pending:
            self.pending[-1][2].synchronize()  # of this stream alone: another thread may be recording a graph
        for what, start, end in self.pending:
            self.seconds[what] += start.elapsed_time(end) / 1000
        self.pending.clear()


class Reconstruction:
    """One image on its way through one method, advanced an iterate at a time.

    Args:
        case: the image, on the device.
        method: the method, made.
        rule: a stopping rule, whose choice is then the result.
        ema: decay of the running average that is the result; 0: the last iterate is.
        folder: where its checkpoints go; None for none.
        facts: what must be the same for a checkpoint to be continued, besides measurements, device and precision.
        minutes: how often it is saved.
        score_every: PSNR and SSIM of every so many iterates.

    Raises UserError where case, method and rule cannot go together.
    """

    def __init__(
        self,
        case: Case,
        method: Method[Any],
        rule: Chosen[StoppingRule] | None = None,
        ema: float = 0.0,
        folder: Path | None = None,
        facts: dict[str, Any] | None = None,
        minutes: float = 2.0,
        score_every: int = 1,
    ) -> None:
        self.case, self.method, self.minutes, self.score_every = case, method, minutes, score_every
        method.bounded = case.bounded
        self.rule, self.ema = (rule, ema) if method.iterative else (None, 0.0)
        self.clock = Clock(method.engine.device)
        self.pace = method.engine.pace()
        with self.clock.measure("start"):
            self.state = method.start(case.problem)
        self.scores = self._empty_scores()
        self.input = fingerprint(case.problem.y, case.problem.z0)
        self.problem, self.before = case.problem, 0  # what is fitted; iterates that another fit had before
        self.until: int | None = None  # how many iterates this one may have; None for all
        self.resumed = False
        self.scored_every = score_every  # before it was resumed, too
        self.checkpoint: Checkpoint | None = None
        if folder is not None:
            self.checkpoint = Checkpoint(folder / "checkpoint.pt", {**self._facts(), **(facts or {})})
            self._resume()
        self.iterates = method.iterates(self.problem, self.state)
        self.flushed = self.saved = time.monotonic()

    @property
    def name(self) -> str:
        return self.case.problem.image

    @property
    def threads(self) -> int:
        """CPU threads a result depends on: their number changes the order of sums."""
        return torch.get_num_threads() if self.method.engine.device.type == "cpu" else 0

    def _facts(self) -> dict[str, Any]:
        engine, z = self.method.engine, getattr(self.state, "z", None)
        return {
            "input": self.input if z is None else self.input + fingerprint(z),
            "precision": engine.precision,
            "device": engine.device.type,
            "number of threads": self.threads,
        }

    def _empty_scores(self) -> Scores:
        rule = None
        if self.rule is not None:
            rule = self.rule.part(self.rule.options, self.case.signed or not self.case.bounded)
            rule.begin(self.case.whole or self.case.problem, self.method.shared.residual == "squared")
        restarts = self.method.average_restarts
        every = self.score_every, self.method.steps
        return Scores(self.case, self.method.engine, rule, self.ema or EMA_DECAY, self.ema > 0, restarts, *every)

    def _resume(self) -> None:
        assert self.checkpoint is not None
        saved = self.checkpoint.load(self.name, self.method.engine.device)
        if saved is None:
            return
        try:
            if saved["before"]:
                self._refit(saved["before"], saved["until"])
            self.state.load_state_dict(saved["state"])
            self.scores.load_state_dict(saved["scores"])
            self.clock.seconds.update(saved["seconds"])
            self.method.facts.update(saved["choices"])
            self.scored_every = max(self.score_every, saved["score_every"])
        except torch.OutOfMemoryError:  # no fault of the file's
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            self.checkpoint.refuse(self.name, f"is of another version ({error})")
            self.problem, self.before, self.until = self.case.problem, 0, None
            self.state, self.scores = self.method.start(self.problem), self._empty_scores()
        else:
            self.resumed = True
            log.info("%s: resumed at step %d.", self.name, self.before + self.state.step)

    def save(self) -> bool:
        """Write a checkpoint from which a rerun continues to the same result; whether there is one now."""
        self.saved = time.monotonic()
        if self.checkpoint is None:
            return False
        with self.clock.measure("saving"):
            content = {
                "state": self.state.state_dict(),
                "scores": self.scores.state_dict(),
                "seconds": dict(self.clock.seconds),
                "choices": dict(self.method.facts),
                "before": self.before,
                "until": self.until,
                "score_every": self.scored_every,
            }
            return self.checkpoint.save(self.name, content)

    def run(self, sinks: Sequence[Sink] = (), stop: Stop | None = None) -> bool:
        """All iterates to the end; False if told to stop before: a checkpoint is then there, if one can be written."""
        for sink in sinks:
            if self.scores.rows:
                sink.rows(self.scores.rows)
        while self.advance(sinks):
            told = stop is not None and stop.due
            if told or time.monotonic() - self.saved > 60 * self.minutes:
                self.flush(sinks)
                self.save()
            if told:
                return False
        return True

    def advance(self, sinks: Sequence[Sink] = ()) -> bool:
        """One iterate further, scored; False once there is none left or the stopping rule has had enough."""
        with self.clock.measure("method"):
            iterate = None if self.state.step == self.until else next(self.iterates, None)
        if iterate is None:
            self.flush(sinks)
            return self._again()
        iterate.step += self.before
        with self.clock.measure("scoring"):
            self.scores.add(iterate)
        self.pace()
        # a device sync at every step would cost more than the step
        if self.scores.full or time.monotonic() - self.flushed > 0.5:
            self.flush(sinks)
        if self.scores.stopped(iterate.step):
            self.flush(sinks)
            return self._again()
        return True

    def _again(self) -> bool:
        """Begin anew with all measurements, where that is wanted and not done yet."""
        rule = self.scores.rule
        if self.before or not isinstance(rule, Holdout) or not rule.options.holdout_refit:
            return False
        with self.clock.measure("start"):
            self._refit(len(self.scores.rows), rule.step)
        self.iterates = self.method.iterates(self.problem, self.state)
        return True

    def _refit(self, before: int, steps: int) -> None:
        """All measurements, ended after so many steps: what a method schedules over all its steps stays."""
        assert self.case.whole is not None
        self.problem, self.before, self.until = self.case.whole, before, steps
        self.state = self.method.start(self.problem)
        self.scores.refit(before, steps)

    def flush(self, sinks: Sequence[Sink] = ()) -> None:
        """Fetch the rows since the last call from the device and hand them on."""
        rows = self.scores.flush()
        self.clock.settle()
        self.flushed = time.monotonic()
        if rows:
            with self.clock.measure("saving"):
                for sink in sinks:
                    sink.rows(rows)

    def facts(self) -> dict[str, Any]:
        """The method's choices; with held-out measurements, the relative error in them of what they chose."""
        rule, facts = self.scores.rule, dict(self.method.facts)
        if self.scored_every > 1 and self.method.iterative:
            facts["score_every"] = self.scored_every
        if not isinstance(rule, Holdout):
            return facts
        refit = {"refit_from_step": self.before} if self.before else {}
        return {**facts, "heldout": float(f"{float(rule.error(rule.image)):.5g}"), **refit}

    def result(self) -> Tensor:
        """The reconstruction: the last iterate, the running average, or what the stopping rule kept."""
        return self.scores.result()

    def arrays(self) -> dict[str, Tensor]:
        """What the method has beside its result; nothing where a rule chose an earlier iterate than these are of."""
        rule = self.scores.rule if self.scores.headline == "stopped" else None
        return self.method.arrays(self.state) if rule is None or rule.step == len(self.scores.rows) else {}

    def cost(self) -> tuple[float, float]:
        """Network passes and floating-point operations per step; the loss's gradient is in the latter."""
        cost = self.state.cost
        extra = self.method.extra_passes if cost.passes else 0
        return cost.passes + extra, cost.step_flops + extra * cost.pass_flops
