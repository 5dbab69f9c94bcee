"""Runs a config's images: score every iterate, record, checkpoint, stop. The only place that knows the truth."""

import itertools
import logging
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from aseqdip import records
from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.data.sample import Sample, select
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.files import check_writable, write_atomically
from aseqdip.methods import METHODS
from aseqdip.methods.base import Iterate, Method, State
from aseqdip.stopping import StoppingRule, make_rule
from aseqdip.tasks import START, Case, check_combination, make_case, setting
from aseqdip.trackers import Tracker, make_trackers

log = logging.getLogger(__name__)

EMA_DECAY = 0.99
ASK_RULE_EVERY = 25
PSNR = records.COLUMNS.index("psnr")


class NonFiniteError(Exception):
    """The loss or the image is no longer a number."""


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
            torch.cuda.synchronize()
        for what, start, end in self.pending:
            self.seconds[what] += start.elapsed_time(end) / 1000
        self.pending.clear()


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a flag, so that a step ends and is saved; the second one kills."""

    def __init__(self) -> None:
        self.signal: int | None = None

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


@dataclass
class Scores:
    """Everything the runner accumulates over the iterates of one image, on the device and without waiting for it.

    Attributes:
        rule: the stopping rule, if there is one.
        rows: finished rows of the curve.
        last: the last finite iterate; ema: running average, decay 0.99; best: by PSNR against the truth (an oracle).
    """

    case: Case
    rule: StoppingRule | None = None
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
        self.ema = x.clone() if self.ema is None else torch.lerp(self.ema, x, 1 - EMA_DECAY)
        if self.rule is not None:
            self.rule.add(x, iterate.step)
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

    def result(self) -> Tensor:
        """The reconstruction: the last iterate, or the one that the stopping rule kept."""
        assert self.last is not None
        return self.last if self.rule is None else self.rule.image

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


class Reconstruction:
    """One image on its way through one method, advanced an iterate at a time."""

    def __init__(self, cfg: Config, case: Case, method: Method, folder: Path) -> None:
        self.cfg, self.case, self.method, self.folder = cfg, case, method, folder
        self.checkpoint = folder / "checkpoint.pt"
        self.clock = Clock(method.engine.device)
        self.state: State | None = method.start(case.problem)
        self.scores = Scores(case, None if self.state is None else make_rule(cfg))
        self._resume()
        self.iterates = method.iterates(case.problem, self.state)
        self.flushed = self.saved = time.monotonic()

    @property
    def name(self) -> str:
        return self.case.problem.image

    def _resume(self) -> None:
        if self.state is None or not self.checkpoint.exists():
            return
        try:
            saved = torch.load(self.checkpoint, map_location=self.method.engine.device, weights_only=True)
            self.state.load_state_dict(saved["state"])
            self.scores.load_state_dict(saved["scores"])
            self.clock.seconds.update(saved["seconds"])
        except Exception as error:  # a damaged file raises many kinds; starting over is always right
            log.warning(
                "%s: %s is damaged (%s); starting from the beginning.", self.name, self.checkpoint, error
            )
            self.checkpoint.unlink()
            self.state = self.method.start(self.case.problem)
            self.scores = Scores(self.case, make_rule(self.cfg))
            return
        log.info("%s: resumed at step %d.", self.name, self.state.step)

    def save(self) -> None:
        """Write a checkpoint from which a rerun continues to the same result."""
        self.saved = time.monotonic()
        if self.state is None:
            return
        with self.clock.measure("saving"):
            content = {
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
        while True:
            with self.clock.measure("method"):
                iterate = next(self.iterates, None)
            if iterate is None:
                self._flush(trackers)
                return True
            with self.clock.measure("scoring"):
                self.scores.add(iterate)
            now = time.monotonic()
            if now - self.flushed > 0.5:  # a device sync at every step would cost more than the step
                self._flush(trackers)
            if self.scores.stopped(iterate.step):
                self._flush(trackers)
                return True
            if interrupt.signal is not None:
                self._flush(trackers)
                self.save()
                return False
            if now - self.saved > 60 * self.cfg.checkpoint_minutes:
                self._flush(trackers)
                self.save()

    def _flush(self, trackers: list[Tracker]) -> None:
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
        with self.clock.measure("saving"):
            self.write_partial()
            figures.preview(
                self.folder / "preview.png",
                start,
                result,
                truth,
                scores,
                title,
                START.get(cfg.task.name, "measurement"),
            )
            figures.curve(self.folder / "curve.png", self.scores.rows, scores, title)
            arrays = {"reconstruction": image, "shown": result, "start": start, "truth": truth}
            records.write_arrays(
                self.folder / "reconstruction.npz", **arrays, **self.method.arrays(self.state)
            )
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
            "deviations_from_paper": records.deviations(cfg),
            "scores": scores,
            "steps": steps,
            "network_parameters": parameters,
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


@dataclass
class Summary:
    """How a config's images ended."""

    folder: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: int | None = None


def run(cfg: Config) -> Summary:
    """Reconstruct every image a config asks for; finished ones are skipped, unfinished ones continued.

    One image's failure does not stop the next. Raises UserError if nothing can start at all.
    """
    check_combination(cfg)
    folder = records.run_folder(cfg)
    check_writable(Path(cfg.outputs))
    engine = Engine(cfg.device, cfg.precision)
    items = open_dataset(cfg)
    names = select(list(items), cfg.images)
    summary = Summary(folder, skipped=[name for name in names if records.finished(folder / name)])
    log.info(
        "%s %s, %s on %s (%s), preset=%s, %d image(s) -> %s",
        *(cfg.task.name, setting(cfg), cfg.method.name, engine.device, engine.precision, cfg.preset.name),
        *(len(names), folder),
    )
    if summary.skipped:
        log.info(
            "Skipped %d finished image(s): delete their folders to compute them again.", len(summary.skipped)
        )
    with Interrupt() as interrupt:
        for name in names:
            if name not in summary.skipped and interrupt.signal is None:
                _attempt(cfg, engine, name, items[name], folder / name, summary, interrupt)
    summary.interrupted = interrupt.signal
    return summary


def _attempt(
    cfg: Config, engine: Engine, name: str, load: Any, folder: Path, summary: Summary, interrupt: Interrupt
) -> None:
    """One image, whatever happens: its record or its failure ends up in ``summary`` and on disk."""
    reconstruction: Reconstruction | None = None
    trackers: list[Tracker] = []
    record = None
    try:
        sample: Sample = load()
        case = make_case(cfg, name, sample).to(engine.device)
        method = METHODS[cfg.method.name](cfg, engine, case.signed)
        folder.mkdir(parents=True, exist_ok=True)
        reconstruction = Reconstruction(cfg, case, method, folder)
        _announce(cfg, reconstruction)
        group = f"{cfg.task.name}/{setting(cfg)}/{cfg.method.name}"
        total = 1 if reconstruction.state is None else cfg.steps
        trackers = make_trackers(cfg, name, group, _run_id(folder), folder, total)
        if reconstruction.run(trackers, interrupt):
            record = reconstruction.write()
            summary.records.append(record)
    except UserError as error:
        _fail(summary, name, folder, str(error), "", reconstruction)
    except Exception as error:  # an image's failure must not lose the others
        _fail(
            summary, name, folder, f"{type(error).__name__}: {error}", traceback.format_exc(), reconstruction
        )
    finally:
        preview = folder / "preview.png"
        for tracker in reversed(trackers):  # the progress bar first: the lines below are not to be drawn over
            tracker.finish(record, preview if record is not None else None)
    if record is not None:
        log.info("%s", describe(record))
    elif interrupt.signal is not None:
        log.info("%s: interrupted; the same command continues it.", name)


def _fail(
    summary: Summary, name: str, folder: Path, message: str, trace: str, reconstruction: Reconstruction | None
) -> None:
    summary.failed[name] = message
    log.error("%s failed: %s", name, message)
    if reconstruction is not None and reconstruction.scores.last is not None:
        steps = len(reconstruction.scores.rows)
        reconstruction.write_partial()
        records.write_json(
            folder / "failure.json", {"error": message, "after_step": steps, "traceback": trace}
        )
        reconstruction.checkpoint.unlink(missing_ok=True)
        log.error("%s: the last finite iterate, the curve and the traceback are in %s.", name, folder)


def _run_id(folder: Path) -> str:
    """A W&B id that a rerun finds again: the method's hash and the image's name."""
    return "".join(c if c.isalnum() else "-" for c in f"{folder.parent.name}-{folder.name}")[-120:]


def _announce(cfg: Config, reconstruction: Reconstruction) -> None:
    """On a CPU at the paper's budget, say beforehand how long it takes: the user may prefer preset=quick."""
    method, problem = reconstruction.method, reconstruction.case.problem
    if cfg.preset.name != "paper" or method.engine.device.type != "cpu" or reconstruction.state is None:
        return
    trial = method.iterates(problem, method.start(problem))
    next(trial)  # the first step also allocates
    begin = time.perf_counter()
    list(itertools.islice(trial, 2))
    minutes = (time.perf_counter() - begin) / 2 * (cfg.steps - reconstruction.state.step) / 60
    log.info(
        "%s: about %.0f min on this CPU at the paper's budget (%d steps); preset=quick takes a few minutes.",
        *(reconstruction.name, minutes, cfg.steps),
    )


def describe(record: dict[str, Any]) -> str:
    """One line on a finished image."""
    scores, seconds = record["scores"], record["seconds"]["method"]
    if scores["last"]["psnr"] is None:
        return f"{record['image']}: {record['steps']} steps in {seconds:.0f} s; no truth, so no PSNR."
    start, last, best = scores["start"], scores["last"], scores["best"]
    line = (
        f"{record['image']}: start {start['psnr']:.2f} dB -> {last['psnr']:.2f} dB, SSIM {last['ssim']:.3f} "
        f"(EMA {scores['ema']['psnr']:.2f}, best {best['psnr']:.2f} at step {best['step']}), {seconds:.0f} s"
    )
    if "stopped" in scores:
        line += f"; {record['config']['stop']} chose step {scores['stopped']['step']}: {scores['stopped']['psnr']:.2f} dB"
    if "hole_psnr" in last:
        line += f"; hole {start['hole_psnr']:.2f} -> {last['hole_psnr']:.2f} dB"
    return line
