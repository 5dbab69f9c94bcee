"""The study of readings as a document: every number in it comes from the records of ``experiment=calibration``.

python -m aseqdip.studies.readings_report results/calibration docs/reproduction.md
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from aseqdip.averages import FEWEST, Paired, mean_curve, onset, paired
from aseqdip.errors import UserError
from aseqdip.figures import literal, new_figure
from aseqdip.figures import save as save_figure
from aseqdip.files import write_text
from aseqdip.paper.numbers import onset as onset_in_paper
from aseqdip.paper.numbers import rows_of
from aseqdip.records import Record, scan
from aseqdip.report.tables import fill_in
from aseqdip.studies.choice import broken
from aseqdip.studies.readings import CLOSE, label, words_of

TASKS = ("mri", "ct", "denoising", "inpainting", "deblurring")


@dataclass
class Try:
    """A reading on one image with one seed, and its record."""

    stage: str
    method: str
    reading: dict[str, str]
    image: str
    seed: int
    record: Record

    @property
    def unit(self) -> tuple[str, int]:
        return self.image, self.seed

    def psnr(self, which: str) -> float:
        """PSNR in dB of the "last", "best", "ema", "start", "stopped" image or the "result"."""
        score = self.record.score if which == "result" else self.record.scores[which]
        assert score.psnr_db is not None
        return score.psnr_db

    @property
    def best_step(self) -> int:
        return self.record.scores["best"].step or 0


@dataclass
class Row:
    """A reading on all its units: means in dB, and what it cost."""

    method: str
    reading: dict[str, str]
    tries: list[Try]

    @property
    def label(self) -> str:
        return label(self.method, self.reading)

    @property
    def words(self) -> str:
        return words_of(self.reading)

    @cached_property
    def units(self) -> dict[tuple[str, int], Try]:
        return {t.unit: t for t in self.tries}

    def mean(self, which: str, like: "Row | None" = None) -> float:
        """PSNR in dB over its units, or those of another reading."""
        return fmean(t.psnr(which) for t in self.tries if like is None or t.unit in like.units)

    @property
    def best_step(self) -> float:
        return fmean(t.best_step for t in self.tries)

    @property
    def onset(self) -> str:
        """Where the mean over its images starts to fall; "-" for too few of them to tell a fall from noise."""
        curves = [(t.record.curve.every, np.asarray(t.record.curve.psnr), t.record.steps) for t in self.tries]
        mean = mean_curve(curves, [t.image for t in self.tries])
        return "-" if len(mean.each) < FEWEST else f"{onset(mean) or 'none'} of {self.steps}"

    @property
    def steps(self) -> int:
        return self.tries[0].record.steps

    @property
    def seconds(self) -> float:
        return fmean(t.record.seconds["method"] for t in self.tries)

    @property
    def passes(self) -> float:
        return self.tries[0].record.passes_per_step * self.steps

    @property
    def held(self) -> bool:
        """Whether the last iterate keeps to within ``CLOSE`` of the best one."""
        return self.mean("last") >= self.mean("best") - CLOSE


@dataclass
class Study:
    """One task's study."""

    task: str
    best: dict[str, dict[str, str]]
    words: list[str]
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The task as printed."""
        return self.anchor.tries[0].record.titles["task"]

    @property
    def place(self) -> str:
        """Its setting as printed."""
        return self.anchor.tries[0].record.titles["setting"]

    @property
    def command(self) -> str:
        """The words of the command but its task and its folder."""
        return " ".join(w for w in self.words if not w.startswith(("task=", "outputs=", "images=")))

    def row(self, method: str, reading: dict[str, str]) -> Row | None:
        return self.rows.get(label(method, reading))

    def one(self, method: str) -> Row:
        """A method's best reading."""
        return self.rows[label(method, self.best[method])]

    @property
    def recipe_run(self) -> Row:
        """The whole long run of the recipe's reading."""
        reading = _without(_without(self.best["recipe"], "ema"), "stop")
        return self.longer(self.rows[label("aseqdip", reading)])

    @property
    def recipe(self) -> Row:
        """What the recipe says: that run, or the one that its stopping rule ended."""
        return self.stopped("aseqdip", self.best["recipe"].get("stop", "")) or self.recipe_run

    @property
    def served(self) -> str:
        """Which of that run's scores the recipe gives: the running average is in the record of every run."""
        return "ema" if "ema" in self.best["recipe"] else "result"

    @property
    def recipe_behind(self) -> bool:
        """Whether Vanilla's last iterate is the better one, on average."""
        found = against(self.recipe, self.longer(self.vanilla), self.served, "last")
        return found is not None and found.mean <= 0

    @property
    def recipe_fallen(self) -> bool:
        """Whether the recipe gives up more than ``CLOSE`` of its run's highest PSNR, on average."""
        found = against(self.recipe, self.recipe_run, self.served, "best")
        return found is not None and found.mean < -CLOSE

    @property
    def recipe_words(self) -> str:
        return words_of(self.best["recipe"])

    def of(self, method: str, images: int = 1) -> list[Row]:
        """A method's readings at the study's own steps and size, tried on at least so many images, best first."""
        aside = {"stop", "steps", "size", "precision"}
        found = [r for r in self.rows.values() if r.method == method and not aside & set(r.reading)]
        found = [r for r in found if len({t.image for t in r.tries}) >= images]
        return sorted(found, key=lambda r: (-len(r.tries), -r.mean("last")))

    @property
    def literal(self) -> Row:
        """The paper's own reading, as far as this size goes."""
        return self.rows[label("aseqdip", {"lr": "1e-4"})]

    @property
    def anchor(self) -> Row:
        """The reading that single changes depart from: the best network and learning rate, all else as published."""
        plain = [r for r in self.of("aseqdip", 2) if set(r.reading) <= {"lr", "network"}]
        return max(plain, key=lambda r: (len(r.tries), r.mean("last")))

    @property
    def vanilla(self) -> Row:
        """Vanilla DIP as published, with a random input, at its best network and learning rate."""
        plain = [r for r in self.of("vanilla_dip", 2) if set(r.reading) <= {"lr", "network"}]
        return max(plain, key=lambda r: (len(r.tries), r.mean("last")))

    def changed(self, **change: str) -> Row | None:
        return self.row("aseqdip", {**self.anchor.reading, **change})

    def stopped(self, method: str, rule: str) -> Row | None:
        found = [r for r in self.rows.values() if r.method == method and r.reading.get("stop") == rule]
        return found[0] if found else None

    def longer(self, row: Row) -> Row:
        """The same reading run to the paper's number of steps."""
        found = [r for r in self.longest() if r.method == row.method]
        return next((r for r in found if _without(r.reading, "steps") == row.reading), row)

    def short(self, row: Row) -> Row:
        """The same reading at the study's own steps."""
        return self.rows[label(row.method, _without(row.reading, "steps"))]

    def longest(self) -> list[Row]:
        """What ran longer than the study's own steps, to the end."""
        found = [r for r in self.rows.values() if "steps" in r.reading and "stop" not in r.reading]
        return found or [self.literal, self.one("aseqdip"), self.vanilla, self.one("vanilla_dip")]

    def sizes(self) -> list[Try]:
        """The best reading at several sizes and on two networks, on the first image."""
        rows = [r for r in self.rows.values() if any(t.stage == "size" for t in r.tries)]
        rows += [self.one("aseqdip")] * (self.one("aseqdip") not in rows)
        return sorted((r.tries[0] for r in rows), key=lambda t: (side(t), t.reading.get("network", "")))

    def peak(self, method: str) -> Try:
        """The highest PSNR along any run of any reading of a method, short or long, on the first image."""
        first = self.anchor.tries[0].unit
        ran = [*self.of(method), *(row for row in self.longest() if row.method == method)]
        return max((r.units[first] for r in ran if first in r.units), key=lambda t: t.psnr("best"))

    def exact(self) -> list[tuple[Row, Row]]:
        """Pairs: a reading in bf16, and in fp32."""
        found = [(r, self.row(r.method, _without(r.reading, "precision"))) for r in self.rows.values()]
        return [(plain, r) for r, plain in found if plain is not None and plain is not r]


def _without(reading: dict[str, str], name: str) -> dict[str, str]:
    return {k: v for k, v in reading.items() if k != name}


def side(tried: Try) -> int:
    """Pixels on a side."""
    return int(tried.record.problem["size"])


def load(folder: Path) -> list[Study]:
    """The studies below a folder, by task. Raises UserError where there is none, or a record is gone."""
    studies = []
    there = {trace.folder: trace.record for trace in scan([folder])}
    for task in TASKS:
        file = folder / f"{task}.json"
        if not file.is_file():
            continue
        content = json.loads(file.read_bytes())
        study = Study(task, content["best"], content["words"])
        for tried in content["tried"]:
            place = folder / tried.pop("folder")
            if (record := there.get(place)) is None:
                raise UserError(
                    f"The record of {place} is missing, which {file} names: run the study again, which computes it."
                )
            one = Try(**tried, record=record)
            name = label(one.method, one.reading)
            study.rows.setdefault(name, Row(one.method, one.reading, [])).tries.append(one)
        studies.append(study)
    if not studies:
        raise UserError(
            f"There is no finished study in {folder}: run python run.py -m experiment=calibration outputs={folder}."
        )
    return studies


def against(mine: Row | None, other: Row | None, which: str = "last", others: str = "") -> Paired | None:
    """Difference in dB, mine minus other's, over the units both were tried on."""
    if mine is None or other is None:
        return None
    shared = [unit for unit in mine.units if unit in other.units]
    if not shared:
        return None
    return paired(
        [mine.units[u].psnr(which) for u in shared],
        [other.units[u].psnr(others or which) for u in shared],
        images=[u[0] for u in shared],
    )


def said(difference: Paired | None) -> str:
    """ "+0.52 [0.31, 0.73], 4 of 4", with the interval where there is one."""
    if difference is None:
        return "-"
    interval = "" if np.isnan(difference.low) else f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f}{interval}, {difference.wins} of {difference.n}"


def published(study: Study, method: str) -> float | None:
    """The paper's PSNR in dB for the study's setting."""
    setting = study.anchor.tries[0].record.setting
    found = [p.psnr for p in rows_of(study.task, setting) if p.method == method]
    return found[0] if found else None


def published_onset(task: str, row: Row) -> str:
    """Where the paper's Fig. 4 shows the decay to begin; "-" where it does not show it."""
    return onset_in_paper(task, row.tries[0].record.setting, row.method, row.reading) or "-"


def verdict(held: int, of: int) -> str:
    """How many readings a claim holds under."""
    word = "every" if held == of else "no" if held == 0 else "some"
    return f"{word} ({held} of {of})"


def claims(study: Study) -> dict[str, str]:
    """Under how many of the readings tried on both images the paper's claims hold."""
    mine, vanilla, guided = study.of("aseqdip", 2), study.vanilla, study.one("self_guided_dip")
    from_start = study.one("vanilla_dip")

    def ahead(which: str, other: Row) -> str:
        found = [d for row in mine if (d := against(row, other, which)) is not None]
        return verdict(sum(d.mean > 0 for d in found), len(found))

    return {
        "last iterate above Vanilla's (random input, its best network and learning rate)": ahead("last", vanilla),
        "last iterate above the best of all readings of Vanilla": ahead("last", from_start),
        "last iterate above Self-Guided's best reading's": ahead("last", guided),
        "highest PSNR above Vanilla's": ahead("best", vanilla),
        f"last iterate within {CLOSE} dB of its own highest": verdict(sum(r.held for r in mine), len(mine)),
    }


def draw(path: Path, studies: Sequence[Study]) -> None:
    """PSNR along the run on the first image, a column a task: best readings and questions; below, the long runs."""
    figure, axes = new_figure(len(studies), 4.2, 4.4, rows=2)
    for study, (short, long) in zip(studies, np.atleast_2d(axes.T), strict=True):
        shown = [study.literal, study.anchor, study.one("aseqdip"), study.changed(lam="0")]
        shown += [study.changed(residual="norm"), study.vanilla, study.one("self_guided_dip")]
        _panel(short, study, [*shown, study.one("vanilla_dip")])
        _panel(long, study, study.longest())
    save_figure(figure, path, dpi=76)


def _panel(axis: Any, study: Study, shown: Sequence[Row | None]) -> None:
    first = study.anchor.tries[0]
    for name, row in {row.label: row for row in shown if row is not None}.items():
        curve = row.units[first.unit].record.curve
        at = np.minimum(curve.every * np.arange(1, len(curve.psnr) + 1), row.steps)
        axis.plot(at, curve.psnr, linewidth=1, label=name)
    start = first.psnr("start")
    axis.axhline(start, color="0.5", linestyle=":", label=f"start {start:.1f} dB")
    axis.set(xlabel="iteration", ylabel="PSNR (dB)", title=literal(f"{study.title} · {first.image}"))
    axis.set_ylim(bottom=min(start, axis.get_ylim()[1] - 14))
    axis.legend(fontsize=7, loc="lower right")
    axis.grid(alpha=0.3)


def render(folder: Path, studies: Sequence[Study], picture: str) -> str:
    """The document."""
    records = [t.record for study in studies for row in study.rows.values() for t in row.tries]
    made_of = {"studies": studies, "picture": picture, "folder": folder, "broken": broken(records)}
    made_of["missing"] = [t for t in TASKS if t not in {s.task for s in studies}]
    tools = {"against": against, "said": said, "claims": claims, "side": side}
    tools |= {"published": published, "published_onset": published_onset}
    return fill_in(Path(__file__).with_name("readings.md.j2"), **made_of, **tools)


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m aseqdip.studies.readings_report", description=__doc__)
    parser.add_argument("folder", type=Path, help="outputs of experiment=calibration")
    parser.add_argument("document", type=Path, help="the .md file to write; its figure goes beside it, as .png")
    words = parser.parse_args(None if arguments is None else list(arguments))
    try:
        studies = load(words.folder)
        picture = words.document.with_suffix(".png")
        draw(picture, studies)
        text = render(words.folder, studies, picture.name)
        write_text(words.document, text)
    except (UserError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{words.document}\n{picture}\n")


if __name__ == "__main__":
    main()
