"""Runs a config's images, one after another, whatever happens to any of them."""

import logging
import os
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aseqdip import records
from aseqdip.case import Case
from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.data.sample import Items, select
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.files import check_writable, claimed
from aseqdip.methods import METHODS
from aseqdip.reconstruction import Interrupt, Reconstruction
from aseqdip.tasks import check_combination, make_case, references, setting
from aseqdip.trackers import Tracker, make_trackers

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """How a config's images ended."""

    folder: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)  # another process is at work on them
    interrupted: int | None = None  # by this signal
    late: bool = False  # out of time


def run(cfg: Config) -> Summary:
    """Reconstruct every image a config asks for, with each of its seeds; finished ones are skipped, unfinished continued.

    One image's failure does not stop the next. Raises UserError if nothing can start at all.
    """
    check_combination(cfg)
    check_writable(Path(cfg.outputs))
    engine = Engine(cfg.device, cfg.precision)
    items = open_dataset(cfg)
    names = select(list(items), cfg.images)
    repeats = [replace(cfg, seed=seed, seeds=None) for seed in cfg.seeds or [cfg.seed]]
    folders = [records.run_folder(repeat) for repeat in repeats]
    summary = Summary(folders[0] if len(folders) == 1 else folders[0].parent)
    if not names:
        return summary
    deadline = None if cfg.budget_minutes is None else command_start() + 60 * cfg.budget_minutes
    with Interrupt(deadline) as interrupt:
        for repeat, folder in zip(repeats, folders, strict=True):
            if not interrupt.due:
                _run_seed(repeat, engine, items, names, folder, summary, interrupt)
    summary.interrupted, summary.late = interrupt.signal, interrupt.late
    return summary


def sweep_device(number: int) -> str:
    """Where a sweep's job runs under device=auto: CUDA devices in turn, so that jobs at the same time spread over them."""
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "auto"


def command_start() -> float:
    """When the command began: main() notes it where worker processes find it too; else now."""
    return float(os.environ.setdefault("ASEQDIP_STARTED", str(time.time())))


def _run_seed(
    cfg: Config,
    engine: Engine,
    items: Items,
    names: list[str],
    folder: Path,
    summary: Summary,
    interrupt: Interrupt,
) -> None:
    log.info(
        "%s %s, %s on %s (%s), preset=%s, seed %d, %d image(s) -> %s",
        *(cfg.task.name, setting(cfg), cfg.method.name, engine.device, engine.precision, cfg.preset.name),
        *(cfg.seed, len(names), folder),
    )
    finished = [name for name in names if records.finished(folder / name)]
    summary.skipped += finished
    if finished:
        log.info("Skipped %d finished image(s): delete their folders to compute them again.", len(finished))
    todo = [name for name in names if name not in finished]

    def attempt(name: str) -> None:
        if interrupt.due:
            return
        try:
            with claimed(folder / name) as free:
                if not free:
                    log.info("%s: another process is at work on it.", name)
                    summary.elsewhere.append(name)
                elif records.finished(folder / name):  # by another process, in the meantime
                    summary.skipped.append(name)
                else:
                    with engine.current():
                        _attempt(cfg, engine, name, items, folder / name, summary, interrupt)
        except OSError as error:  # its folder cannot be made: the other images' may
            _fail(summary, name, folder / name, str(error), "", None)

    engine.each(attempt, todo, engine.workers(cfg.parallel, len(todo)))


def _attempt(
    cfg: Config, engine: Engine, name: str, items: Items, folder: Path, summary: Summary, interrupt: Interrupt
) -> None:
    """One image, whatever happens: its record or its failure ends up in ``summary`` and on disk."""
    reconstruction: Reconstruction | None = None
    trackers: list[Tracker] = []
    record = None
    try:
        sample = items[name]()
        case = make_case(cfg, name, sample).to(engine.device)
        if cfg.input == "reference":
            case.problem.references = references(cfg, sample, case.problem.z0, _pool(cfg, items))
        if cfg.input == "oracle":
            case.problem.references = [("truth", _oracle(case))]
        method = METHODS[cfg.method.name](cfg, engine.fresh(), case.signed)
        reconstruction = Reconstruction(cfg, case, method, folder)
        total = 1 if reconstruction.state is None else cfg.steps
        trackers = make_trackers(cfg, name, _run_id(folder), folder, total, engine.device.type == "cpu")
        if reconstruction.run(trackers, interrupt):
            record = reconstruction.write()
            summary.records.append(record)
    except UserError as error:
        _fail(summary, name, folder, str(error), "", reconstruction)
    except Exception as error:  # an image's failure must not lose the others
        _fail(summary, name, folder, f"{type(error).__name__}: {error}", traceback.format_exc(), reconstruction)
    finally:
        preview = folder / "preview.png"
        for tracker in reversed(trackers):  # the progress bar first: the lines below are not to be drawn over
            tracker.finish(record, preview if record is not None and preview.is_file() else None)
    if record is not None:
        log.info("%s", describe(record))
    elif interrupt.due:
        why = "out of time" if interrupt.signal is None else "interrupted"
        log.info("%s: %s; the same command continues it.", name, why)


def _pool(cfg: Config, items: Items) -> Items:
    """The images that may serve as a reference: every file of the pool's folder, else those of the data set."""
    if cfg.pool is None:
        return items
    return open_dataset(replace(cfg, data_root=cfg.pool, dataset=replace(cfg.dataset, files=None)))


def _oracle(case: Case) -> Tensor:
    """The truth, for input=oracle: the one place where a method is given it."""
    if case.truth is None:
        raise UserError(f"input=oracle needs the true image, and {case.problem.image} has none: use another input.")
    return case.truth


def _fail(
    summary: Summary, name: str, folder: Path, message: str, trace: str, reconstruction: Reconstruction | None
) -> None:
    summary.failed[name] = message
    log.error("%s failed: %s", name, message)
    begun = reconstruction if reconstruction is not None and reconstruction.scores.last is not None else None
    steps = 0 if begun is None else len(begun.scores.rows)
    try:
        if begun is not None:
            begun.write_partial()
        failure = {"image": name, "error": message, "after_step": steps, "traceback": trace}
        records.write_json(folder / "failure.json", failure)
    except OSError as error:  # a full disk may have been the failure
        log.error("%s: what is there of it could not be written: %s", name, error)
    else:
        if begun is not None:
            log.error("%s: the last finite iterate, the curve and the traceback are in %s.", name, folder)


def _run_id(folder: Path) -> str:
    """A W&B id that a rerun finds again: the method's hash and the image's name."""
    return "".join(c if c.isalnum() else "-" for c in f"{folder.parent.name}-{folder.name}")[-120:]


def describe(record: dict[str, Any]) -> str:
    """One line on a finished image."""
    scores, seconds = record["scores"], record["seconds"]["method"]
    if scores["last"]["psnr"] is None:
        return f"{record['image']}: {record['steps']} steps in {seconds:.0f} s; no truth, so no PSNR."
    start, result, best = scores["start"], scores[record["result"]], scores["best"]
    chosen = f" (step {result['step']}, chosen by {record['config']['stop']})" if "step" in result else ""
    last = "" if record["result"] == "last" else f"last {scores['last']['psnr']:.2f}, "
    line = (
        f"{record['image']}: start {start['psnr']:.2f} dB -> {result['psnr']:.2f} dB{chosen}, SSIM {result['ssim']:.3f} "
        f"({last}EMA {scores['ema']['psnr']:.2f}, "
        f"best {best['psnr']:.2f} at step {best['step']}), {seconds:.0f} s"
    )
    if "hole_psnr" in result:
        line += f"; hole {start['hole_psnr']:.2f} -> {result['hole_psnr']:.2f} dB"
    return line
