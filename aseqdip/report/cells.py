"""Rows gathered as the paper's table has them: blocks of one task and setting, a cell for each method."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aseqdip.config import METHOD_NAMES
from aseqdip.records import COMMON_KNOBS, TASK_KNOBS
from aseqdip.report import protocol, published
from aseqdip.report.names import TITLES, setting_title, title
from aseqdip.report.published import Published
from aseqdip.report.rows import Row
from aseqdip.report.statistics import MeanCurve, Paired, Summary, mean_curve, onset, paired, summary

REFERENCE = "aseqdip"
#: as in the paper's table: from the simplest to its own
ORDER = ("direct", *(m for m in METHOD_NAMES if m not in ("direct", REFERENCE)), REFERENCE)
TASKS = tuple(TASK_KNOBS)
#: neither the problem nor the method: where the data lie, and which of the repeats it is
APART = ("seed", "data_root")
#: which files, and how their values become images
FILES = ("dataset.folder", "dataset.files", "dataset.hu_low", "dataset.hu_high")


@dataclass
class Cell:
    """One method in one block.

    Attributes:
        key: unique on the page. variant: the knobs that tell it from the block's other cells of its method, or "".
        copies: rows left out, since another one has the same image, seed and settings.
        scores: by column name (psnr_result, ssim_result, ...); a column without a number is not there.
        means: of seconds_method, tflop, passes and steps over the rows.
        versus: result's PSNR against aSeqDIP's on the images and seeds that both have.
        falls: the iteration at which the mean curve starts to fall; the last one if it does not.
    """

    key: str
    method: str
    variant: str
    rows: list[Row]
    copies: list[Row]
    published: Published | None
    scores: dict[str, Summary]
    means: dict[str, float]
    versus: Paired | None = None
    curve: MeanCurve | None = None
    falls: int | None = None

    @property
    def label(self) -> str:
        """The method as printed, with what tells it apart."""
        return f"{title(self.method)} ({self.variant})" if self.variant else title(self.method)

    @property
    def onset(self) -> str:
        """Where the mean curve starts to fall, in words; "" without a curve."""
        if self.curve is None or self.falls is None:
            return ""
        return f"{self.falls}" if self.falls < self.curve.end else f"none by {self.curve.end}"

    @property
    def which(self) -> str:
        """Which iterate is the result: last, stopped or ema."""
        return self.rows[0].run.result


@dataclass
class Block:
    """One task, setting, data set, preset and recipe.

    Attributes:
        problem: the knobs that tell its measurements from those of a block that is else the same, or "".
        missing: published methods without a cell here.
        departures: what is not as in the paper's protocol; empty if nothing is known not to be.
        notes: what the published numbers must be read with.
    """

    key: str
    task: str
    setting: str
    dataset: str
    preset: str
    recipe: str
    problem: str
    cells: list[Cell]
    missing: list[Published]
    departures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Task and setting, as printed."""
        return f"{TITLES.get(self.task, self.task)}, {setting_title(self.setting)}"

    @property
    def facts(self) -> list[str]:
        """What else tells the block from others."""
        facts = [f"data set {self.dataset}", f"preset {self.preset}", f"recipe {self.recipe}", self.problem]
        return [fact for fact in facts if fact]

    @property
    def title(self) -> str:
        return " · ".join([self.place, *self.facts])


def build(rows: Sequence[Row]) -> list[Block]:
    """All blocks, in the paper's order of tasks, settings and methods."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        run = row.run
        key = run.task, run.setting, run.dataset, run.preset, run.recipe, _problem(row)
        groups.setdefault(key, []).append(row)
    labels = _differences(groups, lambda key: key[:5], lambda key: dict(key[5]))
    return [
        _block(f"b{number}", key, labels[key], groups[key])
        for number, key in enumerate(sorted(groups, key=_place), start=1)
    ]


def _place(key: tuple[Any, ...]) -> tuple[Any, ...]:
    task, setting, *rest = key
    paper = [*published.SETTINGS].index((task, setting)) if (task, setting) in published.SETTINGS else 99
    return (TASKS.index(task) if task in TASKS else 99, task, paper, setting, *map(str, rest))


def _settings(row: Row, problem: bool) -> tuple[tuple[str, Any], ...]:
    """The knobs of a row's measurements, or the others, sorted; values as text where they cannot be hashed."""
    names = {*COMMON_KNOBS, *FILES, *TASK_KNOBS.get(row.run.task, ())} - set(APART)
    chosen = [(k, v) for k, v in row.run.settings.items() if k not in APART and (k in names) == problem]
    return tuple(sorted((k, v if isinstance(v, (str, int, float, bool)) else str(v)) for k, v in chosen))


def _problem(row: Row) -> tuple[tuple[str, Any], ...]:
    return _settings(row, problem=True)


def _differences(
    keys: Iterable[Any], alike: Callable[[Any], Any], knobs: Callable[[Any], dict[str, Any]]
) -> dict[Any, str]:
    """For each key, the knobs by which it differs from the others that are alike, as "a=1, b=2"."""
    families: dict[Any, list[Any]] = {}
    for key in keys:
        families.setdefault(alike(key), []).append(key)
    found = {}
    for family in families.values():
        names = sorted({name for key in family for name in knobs(key)})
        absent = object()
        differing = [n for n in names if len({repr(knobs(k).get(n, absent)) for k in family}) > 1]
        for key in family:
            have = knobs(key)
            found[key] = ", ".join(f"{n}={have[n]}" for n in differing if n in have)
    return found


def _block(key: str, group: tuple[Any, ...], problem: str, rows: list[Row]) -> Block:
    task, setting, dataset, preset, recipe, _ = group
    variants: dict[tuple[str, tuple[tuple[str, Any], ...]], list[Row]] = {}
    for row in rows:
        variants.setdefault((row.run.method, _settings(row, problem=False)), []).append(row)
    labels = _differences(variants, lambda k: k[0], lambda k: dict(k[1]))
    printed = published.rows_of(task, setting, dataset)
    by_method = {p.method: p for p in printed if p.method}
    order = sorted(variants, key=lambda k: (ORDER.index(k[0]) if k[0] in ORDER else -1, k[0], labels[k]))
    cells = [
        _cell(f"{key}c{number}", k[0], labels[k], variants[k], by_method.get(k[0]))
        for number, k in enumerate(order, start=1)
    ]
    _compare(cells)
    missing = [p for p in printed if p.method not in {c.method for c in cells}]
    missing.sort(key=lambda p: ORDER.index(p.method) if p.method else len(ORDER))
    block = Block(key, task, setting, dataset, preset, recipe, problem, cells, missing)
    block.departures = protocol.departures(task, setting, dataset, preset, [cell.rows for cell in cells])
    block.notes = protocol.notes(task, dataset, printed)
    return block


def _cell(key: str, method: str, variant: str, rows: list[Row], printed: Published | None) -> Cell:
    kept: dict[tuple[str, int], Row] = {}
    copies = []
    for row in rows:
        if kept.setdefault((row.image, row.run.seed), row) is not row:
            copies.append(row)
    rows = sorted(kept.values(), key=lambda row: (row.image, row.run.seed))
    images, seeds = [row.image for row in rows], [row.run.seed for row in rows]
    scores, means = {}, {}
    for name in rows[0].numbers:
        known = [(v, i, s) for r, i, s in zip(rows, images, seeds, strict=True) if (v := r.numbers[name]) is not None]
        if known and name.startswith(("psnr", "ssim")):
            scores[name] = summary(*zip(*known, strict=True))
        elif known:
            means[name] = sum(v for v, _, _ in known) / len(known)
    cell = Cell(key, method, variant, rows, copies, printed, scores, means)
    curves = [(row.curve, row.image) for row in rows if row.curve is not None]
    if curves:
        cell.curve = mean_curve([c for c, _ in curves], [image for _, image in curves])
        cell.falls = min(onset(cell.curve.mean.tolist(), cell.curve.every), cell.curve.end)
    return cell


def published_onset(block: Block, cell: Cell) -> str:
    """Where the paper's Fig. 4 has this method's mean curve start to fall; a dash where it does not show it."""
    return published.onset(block.task, cell.method, cell.rows[0].run.settings) or "–"


def reference(cells: Sequence[Cell]) -> Cell | None:
    """The block's aSeqDIP: where there are several, the one nearest to the paper's settings, then with most rows."""
    own = [cell for cell in cells if cell.method == REFERENCE]
    return min(own, key=lambda c: (len(c.rows[0].run.deviations), -len(c.rows), c.variant), default=None)


def _compare(cells: list[Cell]) -> None:
    against = reference(cells)
    if against is None:
        return
    theirs = {(row.image, row.run.seed): row.numbers["psnr_result"] for row in against.rows}
    for cell in cells:
        pairs = []
        for row in cell.rows if cell is not against else []:
            ours, other = row.numbers["psnr_result"], theirs.get((row.image, row.run.seed))
            if ours is not None and other is not None:
                pairs.append((ours, other, row.image))
        if pairs:
            method, ref, images = zip(*pairs, strict=True)
            cell.versus = paired(method, ref, images=images)
