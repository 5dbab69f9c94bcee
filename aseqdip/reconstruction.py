"""One image on its way through one method: clock, checkpoints, and what it leaves behind."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from aseqdip import records
from aseqdip.case import Case
from aseqdip.config import Config
from aseqdip.engine import Cost
from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.methods.base import Method, State
from aseqdip.scores import EMA_DECAY, Scores
from aseqdip.stopping import make_rule
from aseqdip.tasks import START, setting
from aseqdip.trackers import Tracker

log = logging.getLogger(__name__)


class Clock:
    """Seconds spent by purpose; on CUDA from events, so that reading the clock never waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {"method": 0.0, "scoring": 0.0, "saving": 0.0}
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


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a flag, so that a step ends and is saved; the second one kills.

    Args:
        deadline: the time (``time.time()``) at which to stop as well; None for none.

    Attributes:
        signal: what was received, if anything.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.signal: int | None = None
        self.deadline = deadline

    @property
    def due(self) -> bool:
        """Whether to save and stop now."""
        return self.signal is not None or self.late

    @property
    def late(self) -> bool:
        """Whether the deadline is past."""
        return self.deadline is not None and time.time() > self.deadline

    def __enter__(self) -> "Interrupt":
        self.previous = {}
        try:
            for which in (signal.SIGINT, signal.SIGTERM):
                self.previous[which] = signal.signal(which, self._note)
        except ValueError:  # not the main thread: nobody sends us signals there
            pass
        return self

    def _note(self, which: int, frame: FrameType | None) -> None:
        self.signal = which
        signal.signal(which, self.previous[signal.Signals(which)])

    def __exit__(self, *exception: object) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)


class Reconstruction:
    """One image on its way through one method, advanced an iterate at a time."""

    def __init__(self, cfg: Config, case: Case, method: Method, folder: Path) -> None:
        self.cfg, self.case, self.method, self.folder = cfg, case, method, folder
        self.checkpoint = folder / "checkpoint.pt"
        self.clock = Clock(method.engine.device)
        self.pace = method.engine.pace()
        self.state: State | None = method.start(case.problem)
        self.scores = self._empty_scores()
        self._resume()
        self.iterates = method.iterates(case.problem, self.state)
        self.flushed = self.saved = time.monotonic()

    @property
    def name(self) -> str:
        return self.case.problem.image

    def _empty_scores(self) -> Scores:
        if self.state is None:
            return Scores(self.case, self.method.engine)
        rule, decay = make_rule(self.cfg, self.case.problem), self.cfg.ema or EMA_DECAY
        averaged, restarts = self.cfg.ema > 0, self.method.average_restarts
        every = self.cfg.score_every, self.cfg.steps
        return Scores(self.case, self.method.engine, rule, decay, averaged, restarts, *every)

    def _resume(self) -> None:
        if self.state is None or not self.checkpoint.exists():
            return
        device = self.method.engine.device
        try:
            saved = torch.load(self.checkpoint, map_location=device, weights_only=True)
            if (begun := saved.get("device", device.type)) != device.type:
                raise UserError(
                    f"it was begun on {begun}, and its checkpoint cannot be continued on {device.type}: run it there again, "
                    f"or delete {self.checkpoint} to start from the beginning."
                )
            self.state.load_state_dict(saved["state"])
            self.scores.load_state_dict(saved["scores"])
            self.clock.seconds.update(saved["seconds"])
        except (UserError, OSError, MemoryError, torch.OutOfMemoryError):  # no fault of the file's contents
            raise
        except Exception as error:  # a damaged file raises many kinds; starting over is always right
            aside = self.checkpoint.replace(self.folder / "checkpoint-damaged.pt")
            log.warning(
                "%s: its checkpoint is damaged (%s) and kept as %s; starting from the beginning.",
                *(self.name, error, aside),
            )
            self.state = self.method.start(self.case.problem)
            self.scores = self._empty_scores()
            return
        log.info("%s: resumed at step %d.", self.name, self.state.step)

    def save(self) -> None:
        """Write a checkpoint from which a rerun continues to the same result."""
        self.saved = time.monotonic()
        if self.state is None:
            return
        with self.clock.measure("saving"):
            content = {
                "device": self.method.engine.device.type,
                "state": self.state.state_dict(),
                "scores": self.scores.state_dict(),
                "seconds": dict(self.clock.seconds),
            }
            write_atomically(self.checkpoint, lambda file: torch.save(content, file))

    def run(self, trackers: list[Tracker], interrupt: Interrupt) -> bool:
        """All iterates to the end; False if interrupted (then a checkpoint is there)."""
        for tracker in trackers:
            if self.scores.rows:
                tracker.rows(self.scores.rows)
        while self.advance(trackers):
            if interrupt.due:
                self.flush(trackers)
                self.save()
                return False
            if time.monotonic() - self.saved > 60 * self.cfg.checkpoint_minutes:
                self.flush(trackers)
                self.save()
        return True

    def advance(self, trackers: list[Tracker]) -> bool:
        """One iterate further, scored; False once there is none left or the stopping rule has had enough."""
        with self.clock.measure("method"):
            iterate = next(self.iterates, None)
        if iterate is None:
            self.flush(trackers)
            return False
        with self.clock.measure("scoring"):
            self.scores.add(iterate)
        self.pace()
        # a device sync at every step would cost more than the step
        if self.scores.full or time.monotonic() - self.flushed > 0.5:
            self.flush(trackers)
        if self.scores.stopped(iterate.step):
            self.flush(trackers)
            return False
        return True

    def flush(self, trackers: list[Tracker]) -> None:
        """Fetch the rows since the last call from the device and hand them to the trackers."""
        rows = self.scores.flush()
        self.clock.settle()
        self.flushed = time.monotonic()
        if rows:
            with self.clock.measure("saving"):
                for tracker in trackers:
                    tracker.rows(rows)

    def write(self) -> dict[str, Any]:
        """Pictures, arrays, curve, and last of all the record; returns the record."""
        from aseqdip.report import figures

        case, cfg = self.case, self.cfg
        scores = self.scores.summary()
        title = f"{cfg.task.name} {setting(cfg)} · {cfg.method.name} · {self.name} · preset={cfg.preset.name}"
        truth = None if case.scoring is None else case.scoring.truth
        image = self.scores.result()
        start, result = case.show(case.problem.z0), case.show(image)
        start_name = START.get(cfg.task.name, "measurement")
        with self.clock.measure("saving"):
            self.write_partial()
            try:
                figures.preview(
                    *(self.folder / "preview.png", start, result, truth, scores, title, start_name),
                    self.scores.headline,
                )
                figures.curve(self.folder / "curve.png", self.scores.rows, scores, title)
            except Exception as error:  # whatever it is, a picture is not worth the reconstruction
                log.warning("%s: its pictures could not be drawn: %s", self.name, error)
            arrays = {"reconstruction": image, "shown": result, "start": start, "truth": truth}
            records.write_arrays(self.folder / "reconstruction.npz", **arrays, **self.method.arrays(self.state))
        self.clock.settle()
        record = self._record(scores)
        records.write_json(self.folder / "record.json", record)
        for leftover in (self.checkpoint, self.folder / "failure.json"):
            leftover.unlink(missing_ok=True)
        return record

    def write_partial(self) -> None:
        """The curve so far and the last finite iterate: what is kept of a reconstruction that failed, too."""
        records.write_curve(self.folder / "curve.csv", self.scores.rows)
        records.write_arrays(self.folder / "reconstruction.npz", reconstruction=self.scores.last)

    def cost(self) -> dict[str, float]:
        """Network passes and floating-point operations per step; the loss's gradient is in the latter."""
        cost = (self.state and self.state.network.cost) or Cost()
        extra = self.method.extra_passes if cost.passes else 0
        return {
            "passes_per_step": cost.passes + extra,
            "flops_per_step": cost.step_flops + extra * cost.pass_flops,
        }

    def _record(self, scores: dict[str, Any]) -> dict[str, Any]:
        cfg, engine, steps = self.cfg, self.method.engine, len(self.scores.rows)
        device = torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else "cpu"
        parameters = sum(p.numel() for p in self.state.network.parameters()) if self.state else 0
        return {
            "schema": 1,
            "image": self.name,
            "task": cfg.task.name,
            "setting": setting(cfg),
            "method": cfg.method.name,
            "dataset": cfg.dataset.name,
            "preset": cfg.preset.name,
            "recipe": cfg.recipe.name,
            "deviations_from_paper": records.deviations(cfg),
            "result": self.scores.headline,
            "scores": scores,
            "curve": records.thin(self.scores.rows),
            "steps": steps,
            "network_parameters": parameters,
            **self.cost(),
            **self.method.facts,
            **({"not_recorded": engine.failures} if engine.failures else {}),
            "seconds": {k: round(v, 4) for k, v in self.clock.seconds.items()},
            "seconds_per_step": self.clock.seconds["method"] / max(steps, 1),
            "device": device,
            "threads": torch.get_num_threads(),
            "precision": engine.precision,
            "seed": cfg.seed,
            **self.case.info,
            "noise_std": self.case.problem.noise_std,
            "versions": records.environment(),
            "identity": records.identity(cfg),
            "config": records.config_dict(cfg),
        }
