"""Runs a config's images, one after another, whatever happens to any of them."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import threading
import time
import traceback
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aseqdip import export, identity, records
from aseqdip.case import Case
from aseqdip.config import Config, make_task
from aseqdip.data import open_dataset
from aseqdip.data._files import bytes_digest
from aseqdip.data.base import Items, Origin, Sample, select
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.files import check_writable, claimed, without_folders
from aseqdip.methods import METHODS
from aseqdip.methods._classical import image_by
from aseqdip.methods.base import Shared
from aseqdip.networks import check_size
from aseqdip.records import Failure, Record
from aseqdip.run import results, warm
from aseqdip.run.holdout import check_method, check_start, fitted_case, holds_out, to_be_fitted
from aseqdip.run.interrupt import Interrupt
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.terminal import about
from aseqdip.run.trackers import Tracker, make_trackers
from aseqdip.tasks.base import Task

log = logging.getLogger(__name__)
#: what of an origin makes it another result; the rest is the place in a volume
OF_THE_FILE = ("kind", "low", "high", "unit", "digest")


@dataclass
class Summary:
    """How a config's images ended."""

    folder: Path
    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)  # another process is at work on them
    interrupted: int | None = None  # by this signal
    late: bool = False  # out of time
    used: list[Path] = field(default_factory=list)  # folders of runs, whose common one is ``folder``


def run(cfg: Config) -> Summary:
    """Reconstruct every image a config asks for, with each of its seeds.

    Finished ones are skipped, unfinished ones continued. One image's failure does not stop the next. Raises UserError
    if nothing can start at all.
    """
    check_combination(cfg)
    check_writable(Path(cfg.outputs))
    engine = Engine(cfg.device, cfg.precision)
    items = open_dataset(cfg)
    names = select(list(items), cfg.images)
    repeats = [replace(cfg, seed=seed, seeds=None) for seed in cfg.seeds or [cfg.seed]]
    folders = [identity.run_folder(repeat) for repeat in repeats]
    summary = Summary(folders[0] if len(folders) == 1 else folders[0].parent)
    summary.used = [] if len(folders) == 1 else [summary.folder]
    if not names:
        return summary
    deadline = None if cfg.budget_minutes is None else command_start() + 60 * cfg.budget_minutes
    with Interrupt(deadline) as interrupt:
        seeds = [Seed(*each, engine, items, summary, interrupt) for each in zip(repeats, folders, strict=True)]
        for seed in seeds:
            if not interrupt.due:
                seed.run(names)
    summary.interrupted, summary.late = interrupt.signal, interrupt.late
    return summary


def check_combination(cfg: Config) -> None:
    """Raise UserError for choices that are each fine and cannot go together, before any data are read."""
    task, method, reader = make_task(cfg), cfg.method.part, cfg.dataset.reader.part
    if reader.gives not in task.takes:
        raise UserError(
            f"task={cfg.task.name} is made of {' or '.join(task.takes)}, but dataset={cfg.dataset.name} holds "
            f"{reader.gives}: use another task or another data set."
        )
    task.check()
    check_method(cfg.rule, method, cfg.method.options, cfg.shared(), task.kind())
    if cfg.start not in task.starts:
        check_start(cfg.rule, cfg.start, task.starts, method, task.kind())
    elif holds_out(cfg.rule) and cfg.start != task.starts[0]:
        raise UserError(f"start={cfg.start} uses all measurements: with stop=holdout leave it out, or use start=tv.")
    warm.check(cfg)
    if method.learns and task.size is not None:
        check_size(cfg.network, (task.size, task.size), f"size={cfg.size}: an image")


def sweep_device(number: int) -> str:
    """Where a sweep's job runs under device=auto: CUDA devices in turn, so that jobs at a time spread over them."""
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "auto"


def command_start() -> float:
    """When the command began: main() notes it where worker processes find it too; else now."""
    return float(os.environ.setdefault("ASEQDIP_STARTED", str(time.time())))


class Seed:
    """A config's images with one of its seeds."""

    def __init__(
        self, cfg: Config, folder: Path, engine: Engine, items: Items, summary: Summary, interrupt: Interrupt
    ) -> None:
        self.cfg, self.engine, self.items, self.folder = cfg, engine, items, folder
        self.summary, self.interrupt = summary, interrupt
        self.names, self.tried, self.skipped, self.begun = 0, 0, 0, 0.0
        self.others: dict[Path, Seed] = {}
        self.lock = threading.Lock()
        self.slices: list[tuple[Path, Origin]] = []  # of volumes: where those that are finished are
        self.said = False  # its setting and folder, to the user
        # a size that was asked for is no surprise
        self.sized = cfg.dataset.reader.part.generated or any(word.startswith("size=") for word in cfg.words)
        self.busy: set[str] = set()  # volumes that another process is at work on, from slice to slice
        self.task: Task = make_task(cfg)
        self.identity = identity.digest(identity.identity(cfg))
        # once, as its folder: what lies in one may change while images are written
        self.problem, self.settings = identity.problem(cfg), identity.settings(cfg)
        self.departures, self.code = identity.departures(cfg), identity.code_of(cfg)
        self.files, self.warned = identity.named_files(cfg), False

    def run(self, names: list[str]) -> None:
        """All of them, several at a time if the config says so."""
        cfg, before = self.cfg, len(self.summary.skipped)
        self.skipped = before
        known = cfg.dataset.reader.part.gives == "image"  # else a file may have a sampling of its own
        log.info(
            "%s, %s on %s (%s), preset=%s, seed %d, %d image(s)%s",
            f"{cfg.task.name} {self.task.setting}" if known else cfg.task.name,
            cfg.method.name,
            self.engine.device,
            self.engine.precision if cfg.learns else "fp32",
            cfg.preset,
            cfg.seed,
            len(names),
            f" -> {self.folder}" if known else "",
        )
        self.said = known
        self.names, self.begun = len(names), time.monotonic()
        self.engine.each(self.attempt, names, self.engine.workers(cfg.parallel, len(names)))
        try:
            for seed in (self, *self.others.values()):
                seed.assemble()
        except (UserError, OSError) as error:
            log.warning("A volume could not be put together: %s", error)
        if skipped := len(self.summary.skipped) - before:
            log.info("Skipped %d finished image(s): redo=true computes them again.", skipped)

    def attempt(self, name: str) -> None:
        """One image, whatever happens: its record or its failure ends up in the summary and on disk."""
        if self.interrupt.due:
            return
        before = len(self.summary.records)
        self._attempt(name)
        self.tried += 1
        if len(self.summary.records) > before and 1 < self.names > self.tried:
            spent, here = time.monotonic() - self.begun, self.tried - (len(self.summary.skipped) - self.skipped)
            left = spent / max(1, here) * (self.names - self.tried)
            log.info("%d of %d images, about %s left.", self.tried, self.names, about(left))

    def _attempt(self, name: str) -> None:
        folder = self.folder / name  # of a failure to read it
        try:
            sample = self.items[name]()
            content = "" if self.cfg.dataset.reader.part.generated else identity.content(sample)
            folder = self.folder / identity.image_folder(self.cfg, name, sample)
            own = self.settled(sample)
            folder = own.folder / folder.name
            with claimed(folder) as free:
                if not free or sample.origin.volume in own.busy:
                    log.info("%s: another process is at work on it.", name)
                    self.summary.elsewhere.append(name)
                    if self.cfg.warm and sample.origin.volume:
                        own.busy.add(sample.origin.volume)
                elif not self.cfg.redo and (record := own.finished(folder, content, sample.origin)) is not None:
                    own.keep(folder, record, sample.origin)
                    self.summary.skipped.append(name)
                    if (every := record.facts.get("score_every", 1)) > self.cfg.score_every:
                        log.warning("%s: only every %d. iterate was scored, so its best is of those.", name, every)
                else:
                    with self.engine.current():
                        own._reconstruct(name, sample, content, folder)
        except UserError as error:
            self.fail(name, folder, str(error))
        except OSError as error:  # its folder cannot be made: the other images' may
            self.fail(name, folder, str(error))
        except Exception as error:  # an image's failure must not lose the others
            self.fail(name, folder, f"{type(error).__name__}: {error}", traceback.format_exc())

    def settled(self, sample: Sample) -> "Seed":
        """This, or where a measured sample has settings of its own (its acceleration) what runs with those."""
        options, own = self.task.settled(sample), self
        if options != self.cfg.task.options:
            cfg = replace(self.cfg, task=replace(self.cfg.task, options=options))
            folder = identity.run_folder(cfg)
            with self.lock:  # another thread's slices of a volume must come to the same one
                if folder not in self.others:
                    self.others[folder] = Seed(cfg, folder, self.engine, self.items, self.summary, self.interrupt)
            own = self.others[folder]
        if not own.said:
            own.said = True
            self.summary.used.append(own.folder)
            self.summary.folder = Path(os.path.commonpath(self.summary.used))
            how = "Undersampled here" if sample.mask is None and sample.sinogram is None else "As it was measured"
            log.info("%s: %s %s -> %s", how, self.cfg.task.name, own.task.setting, own.folder)
        return own

    def assemble(self) -> None:
        """The volumes whose slices are all finished, in one file each, with one picture of all slices."""
        whole = {(o.volume, o.volume_digest, o.slices) for _, o in self.slices if o.volume}
        for volume, digest, count in sorted(whole):
            found = [(folder, o) for folder, o in self.slices if (o.volume, o.volume_digest) == (volume, digest)]
            own = {o.slice: (folder, o.path) for folder, o in found}
            target = self.folder / export.volume_folder(volume, digest)
            newest = max((folder / "record.json").stat().st_mtime for folder, _ in own.values())
            picture = target / "preview.png"
            if len(own) < count and self.summary.failed:
                log.warning(
                    "%s: %d of its %d slices are finished, so there is no volume of them.", volume, len(own), count
                )
            if len(own) < count or picture.is_file() and picture.stat().st_mtime >= newest:
                continue
            traces = [(folder, records.read(folder), path) for folder, path in own.values()]
            loaded = [export.load(f, trace.record, path) for f, trace, path in traces if trace and trace.record]
            for slices in export.volumes(loaded).values():
                target.mkdir(exist_ok=True)
                export.beside(target, slices)
                export.montage(picture, slices)
                log.info("%s: all %d slices -> %s", volume, len(slices), target)

    def finished(self, folder: Path, content: str, origin: Origin) -> Record | None:
        """The folder's record, if it is of this image, by this code, of this file, begun from the same slice."""
        trace = records.read(folder)
        if trace is None or trace.record is None:
            return None
        found, start = trace.record, self.before(origin)
        same = (found.identity, found.content, found.results_version) == (self.identity, content, identity.RESULTS)
        now = origin_of(found, origin)
        same = same and all(found.origin.get(name, "") == now[name] for name in OF_THE_FILE)
        if not same or found.facts.get("warm_from") != (start and start.said):
            return None
        arrays = folder / "reconstruction.npz"
        if arrays.is_file() and not zipfile.is_zipfile(arrays):
            log.warning("%s: its %s is damaged; it is computed again.", found.image, arrays.name)
            return None
        if not arrays.is_file():
            log.warning("%s: its %s is gone; redo=true computes it again.", found.image, arrays.name)
        if ":" in found.code and found.code != self.code and not self.warned:
            self.warned = True
            log.warning(
                "%s is finished, but of other code of operators or engine, and so may others be: redo=true computes "
                "them anew.",
                found.image,
            )
        return found

    def stands(self, folder: Path) -> bool:
        """Whether a result of this run is there, whole: redo=true began it anew, and failed."""
        trace = records.read(folder) if folder.is_dir() else None
        if trace is None or trace.record is None:
            return False
        found = trace.record.identity, trace.record.results_version
        return found == (self.identity, identity.RESULTS) and zipfile.is_zipfile(folder / "reconstruction.npz")

    def keep(self, folder: Path, record: Record, origin: Origin) -> None:
        """Take a finished result; its record says where it stands now: other slices may have come since."""
        now = origin_of(record, origin)
        if record.origin != now:
            records.write(folder, replace(record, origin=now))
        self.slices.append((folder, origin))

    def before(self, origin: Origin) -> warm.Before | None:
        """The slice that one begins from."""
        return warm.before(self.slices, origin) if self.cfg.warm else None

    def _reconstruct(self, name: str, sample: Sample, content: str, folder: Path) -> None:
        cfg, engine = self.cfg, self.engine.fresh()
        reconstruction: Reconstruction | None = None
        trackers: list[Tracker] = []
        record: Record | None = None
        try:
            self.check_files()
            begin = time.perf_counter()
            case = self.started(fitted_case(self.task.make(name, sample), cfg.rule).to(engine.device))
            seconds = time.perf_counter() - begin
            start = self.before(sample.origin)
            sample.notes += warm.note(sample.origin, start) if cfg.warm else []
            for note in sample.notes:
                log.warning("%s: %s", name, note)
            if sample.notes:
                case.facts["notes"] = sample.notes
            self.say_size(name, sample, case)
            method = cfg.method.part(cfg.method.options, unsquashed(cfg.shared(), case), engine, case.signed)
            facts = {"settings": self.identity, "version of results": identity.RESULTS, "code": self.code}
            if start is not None:
                method.before, facts["slice before it"] = start.left(engine.device), start.said
                method.shared.steps = cfg.warm_steps or method.shared.steps
            case.problem.references = self._wanted(method.wants(method.options), method.pool, case, sample)
            reconstruction = Reconstruction(
                case, method, cfg.rule, cfg.ema, folder, facts, cfg.checkpoint_minutes, cfg.score_every
            )
            if not reconstruction.resumed:  # else they are among those it was saved with
                reconstruction.clock.seconds["start"] += seconds
            where = name, run_id(folder), folder, method.steps, engine.device.type == "cpu"
            trackers = make_trackers(cfg, *where, len(reconstruction.scores.rows))
            if reconstruction.run(trackers, self.interrupt):
                self.check_files()
                known = self.known(name, sample, content)
                if start is not None:
                    case.facts["warm_from"] = start.said
                if cfg.warm and sample.origin.slice < sample.origin.slices - 1:
                    case.facts["warm_left"] = warm.leave(folder, name, reconstruction.state)
                record = results.write(folder, reconstruction, known, sample.origin.path)
                self.summary.records.append(record)
                self.slices.append((folder, sample.origin))
                if start is not None:
                    (start.folder / warm.FILE).unlink(missing_ok=True)
        except UserError as error:
            self.fail(name, folder, str(error), begun=reconstruction)
        except OSError as error:
            self.fail(name, folder, why_not_written(error), traceback.format_exc(), reconstruction)
        except Exception as error:  # an image's failure must not lose the others
            self.fail(name, folder, f"{type(error).__name__}: {error}", traceback.format_exc(), reconstruction)
        finally:
            preview = folder / "preview.png"
            for tracker in reversed(trackers):  # the progress bar first: the lines below are not to be drawn over
                tracker.finish(record, preview if record is not None and preview.is_file() else None)
        if record is not None and reconstruction is not None:
            if folder.name != name:
                self._forget_failure(self.folder / name)
            log.info("%s", results.describe(record, reconstruction.scores.rule))
        elif self.interrupt.due:
            why = "out of time" if self.interrupt.signal is None else "interrupted"
            log.info("%s: %s; the same command continues it.", name, why)

    def started(self, case: Case) -> Case:
        """The case, its z0 the image of the method that the config names for it."""
        if self.cfg.start in self.task.starts:
            return case
        for problem in to_be_fitted(case, self.cfg.rule):
            image = image_by(self.cfg.start, problem, self.engine, case.signed)
            problem.z0 = image if case.signed else image.clamp(0, 1 if case.bounded else None)
        return case

    def known(self, name: str, sample: Sample, content: str) -> Record:
        """The record as far as it is known before anything is computed."""
        cfg, task = self.cfg, self.task
        return Record(
            image=name,
            content=content,
            source=sample.source,
            task=cfg.task.name,
            setting=task.setting,
            method=cfg.method.name,
            dataset=cfg.dataset.name,
            preset=cfg.preset,
            recipe=cfg.recipe,
            titles={
                "task": task.title,
                "setting": task.setting_title,
                "method": cfg.method.part.title,
                "group": cfg.method.part.group,
                "start": task.start_title if cfg.start in task.starts else METHODS[cfg.start].title,
            },
            seed=cfg.seed,
            departures=self.departures,
            origin=sample.origin.recorded,
            problem=self.problem,
            settings=self.settings,
            command=command(cfg, name),
            identity=self.identity,
            code=self.code,
            results_version=identity.RESULTS,
            finished=int(time.time()),
        )

    def check_files(self) -> None:
        """Raise UserError where a file that the settings name is not what it was when the run's folder was named."""
        if changed := [
            path for path, before in self.files.items() if not path.is_file() or bytes_digest(path) != before
        ]:
            raise UserError(f"{changed[0]} changed while this ran: the same command computes images of what it is now.")

    def say_size(self, name: str, sample: Sample, case: Case) -> None:
        """Say once that images are not reconstructed as large as they are."""
        measured = sample.kspace if sample.image is None else sample.image
        if not self.sized and measured is not None:
            before, now = tuple(measured.shape[-2:]), tuple(case.problem.z0.shape[-2:])
            if before != now:
                self.sized = True
                sizes = " become ".join(f"{rows} x {columns}" for rows, columns in (before, now))
                log.warning("%s: its %s pixels; size=native keeps as many as there are.", name, sizes)

    def _wanted(self, what: str, pool: str | None, case: Case, sample: Sample) -> Iterable[tuple[str, Tensor]]:
        """What a method wants besides measurements: images of others, or (a diagnostic says so) the truth."""
        if what == "references":
            items = self.items if pool is None else open_pool(self.cfg, pool)
            return self.task.references(sample, case.problem.z0, items)
        if what == "truth":
            if case.truth is None:
                raise UserError(
                    f"input=oracle needs the true image, and {case.problem.image} has none: use another input."
                )
            return [("truth", case.truth)]
        return ()

    def fail(self, name: str, folder: Path, message: str, trace: str = "", begun: Reconstruction | None = None) -> None:
        """Note an image's failure, and keep what is there of it."""
        self.summary.failed[name] = message
        log.error("%s failed: %s", name, message)
        if self.stands(folder):
            log.error("%s: its earlier result is kept.%s", name, trace and f"\n{without_folders(trace)}")
            return
        begun = begun if begun is not None and begun.scores.last is not None else None
        if begun is not None:
            with contextlib.suppress(Exception):  # what failed may have left nothing to be fetched
                begun.scores.flush()
        steps = 0 if begun is None else len(begun.scores.rows)
        try:
            if begun is not None:
                results.write_partial(folder, begun)
            records.write_failure(folder, Failure(name, without_folders(message), steps, without_folders(trace)))
        except OSError as error:  # a full disk may have been the failure
            log.error("%s: what is there of it could not be written: %s", name, error)
        else:
            if begun is not None:
                log.error("%s: the last finite iterate, the curve and the traceback are in %s.", name, folder)

    def _forget_failure(self, folder: Path) -> None:
        """Remove what an earlier failure to read the image left."""
        if (folder / "failure.json").is_file():
            (folder / "failure.json").unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def unsquashed(shared: Shared, case: Case) -> Shared:
    """The settings, without a network's own sigmoid where images may be brighter than 1; with one that is asked for."""
    if case.bounded or shared.network.sigmoid is not None:
        return shared
    return replace(shared, network=replace(shared.network, sigmoid=False))


def origin_of(record: Record, read: Origin) -> dict[str, Any]:
    """What a finished record's origin is, of what was read now."""
    return results.origin(read.recorded, record.facts.get("scale", 1.0), record.origin.get("region"))


def open_pool(cfg: Config, folder: str) -> Items:
    """The images that may serve as a reference: every file of the folder, in the data set's format."""
    words = [word for word in cfg.words if not word.startswith("dataset.folder=")]  # that is in data_root
    own = replace(cfg.dataset, files=None, folder=cfg.dataset.folder if words == cfg.words else "")
    return open_dataset(replace(cfg, data_root=folder, dataset=own, words=words))


def why_not_written(error: OSError) -> str:
    """An error of the file system, in words; what to do where that is plain."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = ": free some space, or set outputs=... to another disk; the same command does it again" if full else ""
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{advice}"


def command(cfg: Config, name: str) -> list[str]:
    """The words that compute one image again, by a config's own; a folder behind ``.../`` is to be filled in."""
    own = ("images", "seed", "seeds", "redo", "outputs", "parallel")
    left = [word for word in cfg.words if word.partition("=")[0] not in own]
    if cfg.images == "all" and getattr(cfg.dataset.reader.options, "slice", None) == "all":
        left = [*(word for word in left if not word.startswith("dataset.slice=")), "dataset.slice=all"]
    if cfg.configs is not None:
        left = [f"--config-dir={cfg.configs}", *left]
    # a name that would be taken for an index, for all, or for another value
    alike = re.fullmatch(r"-?\d{1,9}|all|~.*|(?i:null|true|false|[+-]?(nan|inf))", name)
    # what begins with another slice is made again with all of them
    images = "all" if cfg.warm else f"./{name}" if alike else name
    if re.search(r"[,{}[\]]", images):
        images = f"[{json.dumps(images, ensure_ascii=False)}]"
    return [*map(without_folders, left), f"images={images}", f"seed={cfg.seed}"]


def run_id(folder: Path) -> str:
    """A W&B id that a rerun finds again: the method's hash and the image's name; of a long one a hash ends it."""
    name = "".join(c if c.isalnum() else "-" for c in f"{folder.parent.name}-{folder.name}")
    return name if len(name) <= 120 else f"{name[:103]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
