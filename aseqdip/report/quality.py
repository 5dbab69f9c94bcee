"""What a method has reached after so many seconds: a document with a figure a task, from records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.averages import by_image, numbered
from aseqdip.errors import UserError
from aseqdip.figures import literal, new_figure, save
from aseqdip.files import write_text
from aseqdip.report import tables
from aseqdip.report.blocks import Block, Cell, versus
from aseqdip.report.charts import COLOURS, dash
from aseqdip.report.rows import Row

#: what a reader has time for, in seconds, and how it is printed
PATIENCE = {10: "10 s", 60: "1 min", 600: "10 min"}
INTRODUCTION = """\
# Quality against time

What each method has reached after so many seconds of computing, those of its start image included; scoring and saving
are not counted. PSNR in dB and SSIM, means over images; the result is the last iterate, or the average or the iterate
that a rule keeps, where that was asked for: never one picked with the truth. Before its end, a run counts with what
it has then.

`- classical`, `- network`: PSNR minus that of the best classical method and of the best untrained network of the
table, image by image, and in how many pairs it is ahead. Which is best is seen on these very images, which favours it
a little.
"""


def document(blocks: Sequence[Block], path: Path, command: str, more: str = "") -> list[Path]:
    """Write the document and its figures, ``<path without suffix>-<task>-<setting>.png``; returns all files.

    Args:
        command: what makes it again. more: what is to stand below the tables.

    Raises UserError where no record has a truth.
    """
    known = [block for block in blocks if block.known]
    if not known:
        raise UserError("--quality needs reconstructions that were scored against a truth; there is none.")
    parts, files = [INTRODUCTION, f"Made by `{command}`.\n"], [path]
    for block in known:
        first = block.first
        picture = path.with_name(f"{path.stem}-{first.task}-{first.setting.replace('/', '_')}.png")
        if picture in files:
            picture = picture.with_stem(f"{picture.stem}-{block.key}")
        runs = sorted((Timed(cell) for cell in block.cells if cell.psnr is not None), key=lambda run: -run.psnr)
        draw(picture, block, runs)
        files.append(picture)
        parts += [f"## {tables.escaped(block.title)}\n", f"{machine(block)}\n"]
        parts += [f"![PSNR and SSIM against seconds: {tables.escaped(block.place)}]({picture.name})\n"]
        parts += [tables.markdown(table(runs)) + "\n"]
    text = "\n".join([*parts, more]).rstrip() + "\n"
    write_text(path, text)
    return files


def machine(block: Block) -> str:
    """One sentence on what the seconds are of; a warning where they cannot be compared."""
    found = set()
    for row in (row for cell in block.cells for row in cell.rows):
        r = row.record
        processor = r.versions.get("processor", "") if r.device == "cpu" else r.device
        threads = f"{r.threads} thread{'s' * (r.threads != 1)} of " * (r.device == "cpu")
        found.add(f"{threads}{processor or 'a CPU of unknown name'}")
    images = len({row.image for cell in block.cells for row in cell.rows})
    said = " and of ".join(sorted(found))
    warning = " **These are several machines: seconds of one do not compare with those of another.**" * (len(found) > 1)
    return f"{images} image{'s' * (images != 1)}; seconds are of {said}.{warning}"


@dataclass
class Timed:
    """A cell with its clock."""

    cell: Cell

    @property
    def group(self) -> str:
        return self.cell.rows[0].record.titles.get("group", "")

    @property
    def psnr(self) -> float:
        assert self.cell.psnr is not None
        return self.cell.psnr.mean

    @cached_property
    def ends(self) -> list[float]:
        """Seconds at which each row's result was there."""
        return [seconds(row) for row in self.cell.rows]

    def reached(self, what: str, at: np.ndarray) -> np.ndarray:
        """Mean over images of PSNR ("psnr_db") or "ssim" at these seconds; NaN where some image has nothing yet."""
        values = np.stack([_reached(row, what, at) for row in self.cell.rows])
        return by_image(values, numbered([row.image for row in self.cell.rows])).mean(axis=0)


def seconds(row: Row) -> float:
    """Of the start image and of the method."""
    return row.record.seconds.get("start", 0.0) + row.record.seconds.get("method", 0.0)


def _reached(row: Row, what: str, at: np.ndarray) -> np.ndarray:
    begin, steps, end = row.record.seconds.get("start", 0.0), max(row.record.steps, 1), seconds(row)
    values = row.reached if what == "psnr_db" else row.ssim
    # a value stands for its whole block of iterations, and is there at its end
    times = begin + np.minimum(row.every * np.arange(1, len(values) + 1), steps) / steps * (end - begin)
    final = row.number(f"result_{what}")
    times, values = np.append(times, end), np.append(values, np.nan if final is None else final)
    index = np.searchsorted(times, at, side="right") - 1
    found: np.ndarray = np.where(index >= 0, values[index], np.nan)
    return found


def _best(runs: Sequence[Timed]) -> Timed | None:
    """The first of those with most images: a mean over fewer is of other images."""
    images = [len({row.image for row in run.cell.rows}) for run in runs]
    return runs[images.index(max(images))] if runs else None


def table(runs: Sequence[Timed]) -> list[list[str]]:
    """A line for each method, the best first."""
    rivals = {
        name: _best([run for run in runs if run.group == group])
        for name, group in (("classical", "classical"), ("network", "untrained network"))
    }
    shown = {f"- {name}": rival for name, rival in rivals.items() if rival is not None}
    lines = [["method", "n", *PATIENCE.values(), "at its end", "SSIM", "seconds", *shown]]
    marks = np.array(list(PATIENCE), dtype=float)
    for run in runs:
        found = run.reached("psnr_db", marks)
        ssim = run.cell.scores.get("result_ssim")
        which = "" if run.cell.which == "last" else f" ({run.cell.which})"
        against = [tables.ahead(versus(run.cell, rival.cell)) for rival in shown.values()]
        ends = [tables.db(run.psnr) + which, tables.db(None if ssim is None else ssim.mean, 3)]
        took = tables.significant(float(np.mean(run.ends)))
        lines.append([run.cell.label, tables.size(run.cell), *map(tables.db, found), *ends, took, *against])
    return lines


def draw(path: Path, block: Block, runs: Sequence[Timed]) -> None:
    """PSNR and SSIM against seconds, on a logarithmic axis; results are dots, squares those of classical methods."""
    figure, axes = new_figure(2, 4.2, 5.6)
    ends = [end for run in runs for end in run.ends]
    at = np.geomspace(max(min(ends), 0.02) / 2, max(max(ends), 1.0) * 1.1, 300)
    for axis, what, name in zip(axes, ("psnr_db", "ssim"), ("PSNR (dB)", "SSIM"), strict=True):
        lows = []
        for number, run in enumerate(runs):
            lows.append(_line(axis, run, what, at, number))
        axis.set(xscale="log", xlabel="seconds", ylabel=name)
        axis.grid(alpha=0.3)
        top = axis.dataLim.y1
        low = min((v for v in lows if v == v), default=top)
        axis.set_ylim(min(low, top - 0.02) - 0.03 * (top - low), top + 0.05 * max(top - low, 0.02))
        axis.xaxis.set_major_formatter("{x:g}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(literal(block.place), fontsize=11)
    save(figure, path, dpi=72)


def _line(axis: Any, run: Timed, what: str, at: np.ndarray, number: int) -> float:
    """Draw one method; the value below which nothing of it need be seen: what it has half-way."""
    colour, pattern = COLOURS[number % len(COLOURS)], tuple(map(float, dash(number).split()))
    values, end, column = run.reached(what, at), float(np.mean(run.ends)), run.cell.scores.get(f"result_{what}")
    until = at <= end
    final = float("nan") if column is None else column.mean
    axis.plot(
        np.append(at[until], end),
        np.append(values[until], final),
        color=colour,
        linewidth=1.3,
        linestyle=(0, pattern) if pattern else "-",
        marker="s" if run.group == "classical" else "o",
        markersize=5,
        markevery=[-1],  # the result
        label=literal(f"{run.cell.label}  {run.psnr:.2f}"),
    )
    there = values[until & np.isfinite(values)]
    return float(there[len(there) // 2]) if len(there) else final
