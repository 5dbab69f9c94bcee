"""Which reading of the paper reproduces it: what it leaves open, screened on images that no table uses.

Readings are halved over images, not over steps: the early part of a DIP curve says little about its end. A screen tries
its readings on the first image, keeps the best third by the last iterate (and those that a question is about) for the
second image, and the best third of these for a second seed. Every reconstruction is an ordinary one, found again when
finished.
"""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from aseqdip import records
from aseqdip.compose import compose
from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.data.base import select
from aseqdip.errors import UserError
from aseqdip.files import without_folders
from aseqdip.identity import run_folder
from aseqdip.run import runner
from aseqdip.run.scores import EMA_DECAY

log = logging.getLogger(__name__)

#: overrides beyond the study's own words; the empty one is the paper's text
Reading = dict[str, str]
#: (index of the image, seed)
Unit = tuple[int, int]

FIRST, SECOND, AGAIN = [(0, 0)], [(1, 0)], [(0, 1), (1, 1)]
RATES = ("1e-4", "3e-4", "1e-3", "3e-3")
#: the task's own network first
NETWORKS = {
    **dict.fromkeys(("mri", "ct"), ("medium", "shallow", "skip")),
    **dict.fromkeys(("denoising", "inpainting", "deblurring"), ("skip", "shallow", "medium")),
}
QUESTIONS: tuple[Reading, ...] = ({"lam": "0"}, {"residual": "norm"})
#: one change each. Measuring A in other units, c A, is lam / c^2 for squared norms and lam / c for norms
CHANGES: tuple[Reading, ...] = (
    *QUESTIONS,
    {"lam": "0.01"},
    {"lam": "0.1"},
    {"lam": "10"},
    {"residual": "norm", "lam": "0.01"},
    {"N": "10"},
    {"network.init": "default"},
)
TASK_CHANGES: dict[str, tuple[Reading, ...]] = {
    "mri": ({"input_update": "data_consistent"},),
    "ct": ({"input_update": "data_consistent"}, {"start": "adjoint"}),
    "denoising": ({"input_update": "reflection"},),
    "inpainting": ({"input_update": "data_consistent"}, {"start": "mean"}),
    "deblurring": ({"input_update": "reflection"},),
}
VANILLA_CHANGES: tuple[Reading, ...] = ({"perturb": "0.033"}, {"input": "normal"}, {"input": "measurement"})
GUIDED_CHANGES: tuple[Reading, ...] = ({"passes": "4"}, {"alpha": "0.1"})
CLOSE = 0.5  # dB: a result counts as held when it is no further below its own run's highest PSNR
WORTH = 0.1  # dB by which a single change must gain on the first image to be tried together with others
SIZES = (64, 128, 256, 512)


class Halt(Exception):  # not an error
    """A signal, or the time is up."""


def words_of(reading: Reading) -> str:
    """A reading in words, the same for equal ones."""
    return " ".join(f"{name}={reading[name]}" for name in sorted(reading))


def label(method: str, reading: Reading) -> str:
    """A method's reading in words."""
    return f"{method} {words_of(reading)}"


def run(cfg: Config, words: Sequence[str]) -> runner.Summary:
    """The study of one task; finished reconstructions are skipped, unfinished continued.

    Args:
        words: the overrides that led to ``cfg``; each reading adds its own to them.

    Leaves, once finished, ``outputs/<task>.json``: every reading tried, on what, where its record is, and the best.
    """
    if cfg.seeds is not None:
        raise UserError("study=calibration has seeds of its own: leave seeds out.")
    study = Study(cfg, words)
    with suppress(Halt):
        study.run()
    return study.summary


class Study:
    """One task's screens, in order; the next step depends on the scores of those before."""

    def __init__(self, cfg: Config, words: Sequence[str]) -> None:
        self.cfg, self.words = cfg, list(words)
        self.summary = runner.Summary(Path(cfg.outputs) / cfg.task.name)
        self.file = Path(cfg.outputs) / f"{cfg.task.name}.json"
        self.names = select(list(open_dataset(cfg)), [0, 1])
        self.scores: dict[tuple[str, Unit], dict[str, float]] = {}  # PSNR in dB: "last", "ema" ...
        self.tried: list[dict[str, Any]] = []
        self.best: dict[str, Reading] = {}

    def run(self) -> None:
        task = self.cfg.task.name
        rates = self.rates()
        anchor = self.screen("aseqdip", "rate", rates, (FIRST, SECOND))[0]
        half = {"network.width": str(self.cfg.network.width // 2)}
        changes = [{**anchor, **change} for change in (*CHANGES, half, *TASK_CHANGES[task])]
        asked = [anchor, rates[0], *({**anchor, **change} for change in QUESTIONS)]
        self.try_all("aseqdip", "objective", [anchor, *changes], FIRST)
        together = self.together(anchor, changes)
        pool = [anchor, *changes, *([together] if together else [])]
        found = self.screen("aseqdip", "objective", pool, (FIRST, SECOND, AGAIN), asked)
        self.best["aseqdip"] = found[0]

        vanilla = self.screen("vanilla_dip", "rate", rates, (FIRST, SECOND))[0]
        pool = [vanilla, *({**vanilla, **change} for change in VANILLA_CHANGES)]
        found = self.screen("vanilla_dip", "objective", pool, (FIRST, SECOND, AGAIN), [vanilla, rates[0]])
        self.best["vanilla_dip"] = found[0]

        network = {k: v for k, v in self.best["aseqdip"].items() if k == "network"}
        pool = [{**network, "lr": rate, "passes": "1"} for rate in RATES[1:3]]
        guided = self.screen("self_guided_dip", "rate", pool, (FIRST,))[0]
        pool = [guided, *({**guided, **change} for change in GUIDED_CHANGES)]
        self.best["self_guided_dip"] = self.screen("self_guided_dip", "objective", pool, (FIRST, SECOND, AGAIN))[0]

        self.beyond(rates[0], anchor, vanilla)
        self.best["recipe"] = self.recipe(rates[0], anchor)
        self.write()

    def rates(self) -> list[Reading]:
        """Learning rates on the task's own network, the paper's first; then the other networks."""
        _, *others = NETWORKS[self.cfg.task.name]
        return [{"lr": rate} for rate in RATES] + [{"network": other, "lr": "1e-3"} for other in others]

    def beyond(self, literal: Reading, anchor: Reading, vanilla: Reading) -> None:
        """The best readings run to the paper's number of steps, stopped early, in fp32, and at other sizes."""
        best = self.best
        for method, others in (("aseqdip", [literal, anchor]), ("vanilla_dip", [vanilla])):
            units = FIRST + SECOND + AGAIN if method == "aseqdip" else FIRST
            self.try_all(method, "precision", [{**best[method], "precision": "fp32"}], units)
            self.try_all(method, "budget", [self.longer(literal)], FIRST)
            longer = [self.longer(reading) for reading in (best[method], *others)]
            self.try_all(method, "budget", longer, FIRST + SECOND)
            self.try_all(method, "stop", self.stopped(method), FIRST + SECOND)
        if self.cfg.task.name == "denoising":
            own, other = int(self.cfg.size), NETWORKS["denoising"][1]
            reading = {name: value for name, value in best["aseqdip"].items() if name != "network"}
            sizes = [{} if s == own else {"size": str(s)} for s in SIZES if s <= 2 * own]
            pool = [{**reading, **size, **net} for size in sizes for net in ({}, {"network": other})]
            self.try_all("aseqdip", "size", pool, FIRST)

    def recipe(self, literal: Reading, anchor: Reading) -> Reading:
        """What serves a user best without the truth at the paper's number of steps.

        The best reading, the anchor or the paper's text: the last iterate, the running average of the iterates, or (the
        best reading) what a stopping rule picks. Of those within ``CLOSE`` of their own run's highest PSNR, the
        highest: what has fallen further would be another result with another number of steps.
        """
        units, best = FIRST + SECOND, self.longer(self.best["aseqdip"])
        rivals = [
            (reading, best, self.mean("aseqdip", reading, units, "stopped")) for reading in self.stopped("aseqdip")
        ]
        for full in (best, self.longer(anchor), self.longer(literal)):
            rivals += [(full, full, self.mean("aseqdip", full, units))]
            # the average is in every record
            rivals += [({**full, "ema": str(EMA_DECAY)}, full, self.mean("aseqdip", full, units, "ema"))]
        held = [r for r in rivals if r[2] >= self.mean("aseqdip", r[1], units, "best") - CLOSE]
        found, _, _ = max(held or rivals, key=lambda rival: rival[2])
        return {name: value for name, value in found.items() if name != "steps"}

    def longer(self, reading: Reading) -> Reading:
        """A reading over four times the study's steps, which is the paper's number under preset=quick."""
        return reading if self.cfg.preset == "paper" else {**reading, "steps": str(4 * self.cfg.steps)}

    def stopped(self, method: str) -> list[Reading]:
        """A method's best reading under each rule that needs no truth; the second needs noise of a known level."""
        options = self.cfg.task.options
        known = getattr(options, "sigma", 0) > 0 or getattr(options, "noise", 0) > 0
        rules = ("wmv", "discrepancy") if known else ("wmv",)
        return [{**self.longer(self.best[method]), "stop": rule} for rule in rules]

    def together(self, anchor: Reading, changes: Iterable[Reading]) -> Reading | None:
        """All changes that gained on the first image, in one reading; of two changes of one knob, the better."""
        start = self.mean("aseqdip", anchor, FIRST)
        gained = [c for c in changes if self.mean("aseqdip", c, FIRST) > start + WORTH]
        gained.sort(key=lambda c: self.mean("aseqdip", c, FIRST))
        joined = dict(anchor)
        for change in gained:
            joined.update({k: v for k, v in change.items() if anchor.get(k) != v})
        return joined if len(gained) > 1 and joined not in gained else None

    def screen(
        self,
        method: str,
        stage: str,
        readings: Sequence[Reading],
        rungs: Sequence[list[Unit]],
        asked: Sequence[Reading] = (),
    ) -> list[Reading]:
        """The readings that come through all rungs, best first; those ``asked`` after are carried along."""
        units: list[Unit] = []
        for number, rung in enumerate(rungs):
            self.try_all(method, stage, readings, rung)
            units += rung
            ranked = sorted(readings, key=lambda r: self.mean(method, r, units), reverse=True)
            count = len(ranked) if number == len(rungs) - 1 else math.ceil(len(ranked) / 3)
            readings = [*ranked[:count], *(r for r in ranked[count:] if r in asked)]
            scores = [f"{label(method, r)} {self.mean(method, r, units):.2f}" for r in readings]
            log.info("%s, %s: kept %d of %d: %s", method, stage, len(readings), len(ranked), "; ".join(scores))
            if number == 0:
                readings = [*readings, *(r for r in asked if r not in readings)]
        return sorted(readings, key=lambda r: self.mean(method, r, units), reverse=True)

    def mean(self, method: str, reading: Reading, units: Sequence[Unit], which: str = "last") -> float:
        """Mean PSNR in dB over the units: of the last iterate, or of "ema" or "stopped"."""
        return fmean(self.scores[label(method, reading), unit][which] for unit in units)

    def try_all(self, method: str, stage: str, readings: Iterable[Reading], units: Iterable[Unit]) -> None:
        """Have a result of each reading on each unit, this process's or another's."""
        wanted = {(label(method, r), u): (r, u) for u in units for r in readings}
        jobs = [job for key, job in wanted.items() if key not in self.scores]
        while jobs:
            jobs = [job for job in jobs if not self.attempt(method, stage, *job)]
            if jobs:  # another process computes them
                time.sleep(5)

    def attempt(self, method: str, stage: str, reading: Reading, unit: Unit) -> bool:
        """One reconstruction; False if another process is at work on it. Raises Halt when told to stop."""
        cfg = self.compose(method, reading, unit)
        log.info("%s: %s", stage, label(method, reading))
        ended = runner.run(cfg)
        self.summary.records += ended.records
        self.summary.skipped += ended.skipped
        self.summary.failed |= ended.failed
        self.summary.interrupted, self.summary.late = ended.interrupted, ended.late
        if ended.interrupted is not None or ended.late:
            raise Halt
        if ended.elsewhere:
            return False
        name = self.names[unit[0]]
        traces = [t for t in records.scan([run_folder(cfg)]) if name in (t.folder.name, getattr(t.record, "image", ""))]
        trace = next((t for t in traces if t.record is not None), traces[0])
        scores = {} if trace.record is None else trace.record.scores
        key = label(method, reading), unit
        # what a failed one has
        self.scores[key] = dict.fromkeys(("last", "best", "ema", "stopped"), -math.inf)
        self.scores[key] |= {which: s.psnr_db for which, s in scores.items() if s.psnr_db is not None}
        self.tried.append(
            {
                "stage": stage,
                "method": method,
                "reading": reading,
                "image": name,
                "seed": unit[1],
                "folder": str(trace.folder.relative_to(self.cfg.outputs)),
            }
        )
        return True

    def compose(self, method: str, reading: Reading, unit: Unit) -> Config:
        """The configuration of a reading: the study's words, but for what the reading and its unit say."""
        own = {"method": method, "study": "none", "images": str(unit[0]), "seed": str(unit[1]), **reading}
        words = [word for word in self.words if word.split("=")[0] not in own]
        return compose([*words, *(f"{name}={value}" for name, value in own.items())])

    def write(self) -> None:
        """Only at the end: an interrupted rerun must not take the place of a finished study."""
        records.write_json(
            self.file,
            {
                "task": self.cfg.task.name,
                "words": list(map(without_folders, self.words)),
                "best": self.best,
                "tried": self.tried,
            },
        )
