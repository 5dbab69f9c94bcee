"""Rows gathered as the paper's tables have them: blocks of one task, setting and data, a cell for each method."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from aseqdip.averages import MeanCurve, Paired, Summary, finite, mean_curve, onset, paired, summary
from aseqdip.paper import numbers, protocol
from aseqdip.paper.numbers import Published
from aseqdip.paper.settings import SETTINGS, comparable
from aseqdip.records import Record
from aseqdip.report.rows import Row

REFERENCE = "aseqdip"
#: what networks that are compared should have alike, unless it is what makes the method: said where they have not
ALIKE = ("steps", "network", "network.width", "network.depth", "precision")
#: as in the paper's tables, from the simplest to its own; methods that are not there, trained ones, too, come in front
#: of its own
ORDER = (*(method for method in numbers.METHODS.values() if method != REFERENCE), REFERENCE)


@dataclass
class Cell:
    """One method in one block.

    Attributes:
        key: unique on the page. label: the method as printed, with the knobs that tell it from others of its method.
        copies: rows left out, since a newer one has the same image, seed and settings.
        scores: by column name (result_psnr_db, best_ssim ...); a column without a number is not there.
        means: of method_seconds, tflop, passes and steps over the rows.
        curve: of PSNR, or of the loss where there is no truth.
        versus: result's PSNR against aSeqDIP's on the images and seeds that both have.
    """

    key: str
    method: str
    label: str
    rows: list[Row]
    copies: list[Row]
    published: Published | None
    scores: dict[str, Summary]
    means: dict[str, float]
    curve: MeanCurve | None = None
    versus: Paired | None = None

    @property
    def which(self) -> str:
        """Which iterate is the result: last, stopped or ema."""
        return self.rows[0].record.result

    @property
    def psnr(self) -> Summary | None:
        """Of the result, in dB."""
        return self.scores.get("result_psnr_db")

    @cached_property
    def falls(self) -> int | None:
        """The iteration at which the mean PSNR starts to fall; None if it does not, or on too few images to tell."""
        return None if self.curve is None or self.psnr is None else onset(self.curve)

    @property
    def difference(self) -> float | None:
        """Our result's mean PSNR minus the published one."""
        return None if self.psnr is None or self.published is None else self.psnr.mean - self.published.psnr


@dataclass
class Block:
    """One task, setting, data set, preset and recipe, on the same measurements.

    Attributes:
        problem: the knobs that tell its measurements from those of a block that is else the same, or "".
        printed: what the paper has for it; missing: those of it without a cell here.
        departures: what is not as in the paper's protocol; empty if nothing is known not to be.
        told: what the published numbers must be read with.
    """

    key: str
    problem: str
    cells: list[Cell]
    printed: list[Published] = field(default_factory=list)
    missing: list[Published] = field(default_factory=list)
    departures: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @cached_property
    def cautions(self) -> list[str]:
        """What its numbers must be read with, in a short table, too."""
        return _cautions(self)

    @cached_property
    def notes(self) -> list[str]:
        """All that they must be read with."""
        alike, pairs = agreement(self)
        said = f"Held-out error orders {alike} of {pairs} pairs of methods on one image as PSNR does."
        return [*self.told, *self.cautions, *([said] if pairs else [])]

    def of(self, methods: Collection[str]) -> "Block":
        """The same with these methods alone: what they are measured against stays."""
        missing = [published for published in self.missing if published.method in methods]
        return replace(self, cells=[cell for cell in self.cells if cell.method in methods], missing=missing)

    @cached_property
    def first(self) -> Record:
        """One of its records: of networks, if there are any, which agree in preset and recipe, too."""
        records = [cell.rows[0].record for cell in self.cells]
        return next((record for record in records if not record.classical), records[0])

    @property
    def known(self) -> bool:
        """Whether there is a truth."""
        return any(cell.psnr is not None for cell in self.cells)

    @property
    def heldout(self) -> bool:
        """Whether any of it has an error in measurements that were held out."""
        return any("heldout" in cell.means for cell in self.cells)

    @property
    def place(self) -> str:
        """Task and setting, as printed."""
        titles = self.first.titles
        return f"{titles.get('task', self.first.task)}, {titles.get('setting', self.first.setting)}"

    @property
    def facts(self) -> list[str]:
        """What else tells the block from others."""
        named = {"data set": self.first.dataset, "preset": self.first.preset, "recipe": self.first.recipe}
        return [*(f"{kind} {value}" for kind, value in named.items() if value), *filter(None, [self.problem])]

    @property
    def title(self) -> str:
        return " · ".join([self.place, *self.facts])

    @property
    def reference(self) -> Cell | None:
        """Its aSeqDIP."""
        return self.nearest(REFERENCE)

    def nearest(self, method: str) -> Cell | None:
        """A method's: where there are several, the one nearest to the paper's settings, then with most rows."""
        own = [cell for cell in self.cells if cell.method == method]
        return min(own, key=lambda c: (len(c.rows[0].record.departures), -len(c.rows), c.label), default=None)


def build(rows: Sequence[Row]) -> list[Block]:
    """All blocks: those of one's own data first, then the paper's, in its order of settings and methods."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    volumes = {_key(row.record) for row in rows if row.record.origin.get("slices") != 1}
    for row in rows:  # which slice was asked for makes no other problem of files that have one
        key = _key(row.record)
        groups.setdefault(key if key in volumes else _key(row.record, "dataset.slice"), []).append(row)
    _share(groups)
    labels = _differences(groups, lambda key: key[:5], lambda key: json.loads(key[5]))
    return [
        _block(f"b{number}", labels[key], groups[key]) for number, key in enumerate(sorted(groups, key=_place), start=1)
    ]


def _share(groups: dict[tuple[str, ...], list[Row]]) -> None:
    """Classical results stand beside the networks of every preset and recipe on the same measurements and images."""
    whole = {key: list(rows) for key, rows in groups.items()}
    for key, rows in whole.items():
        placed: set[Row] = set()
        for other in (o for o in whole if o != key and (*o[:3], o[5]) == (*key[:3], key[5])):
            images = {(row.image, row.record.seed) for row in whole[other] if not row.record.classical}
            beside = [row for row in rows if row.record.classical and (row.image, row.record.seed) in images]
            groups[other] += beside
            placed |= {*beside}
        if placed == {*rows}:
            del groups[key]


def _key(r: Record, without: str = "") -> tuple[str, ...]:
    """What the records of a block have in common, but for one knob of the problem."""
    problem = {name: value for name, value in r.problem.items() if name != without}
    return r.task, r.setting, r.dataset, r.preset, r.recipe, _text(problem)


def _text(knobs: dict[str, Any]) -> str:
    """Knobs as text; one that is null is one that an older record has not."""
    return json.dumps({name: value for name, value in knobs.items() if value is not None}, sort_keys=True)


def _place(key: tuple[str, ...]) -> tuple[Any, ...]:
    task, setting, dataset, *rest, problem = key
    places = list(SETTINGS)
    place = places.index((task, setting)) if (task, setting) in places else 99
    return comparable(task, dataset), place, task, setting, dataset, *rest, len(problem), problem


def _differences(
    keys: Iterable[Any], alike: Callable[[Any], Any], knobs: Callable[[Any], dict[str, Any]]
) -> dict[Any, str]:
    """For each key, the knobs by which it differs from the others that are alike, as "a=1, b=2"."""
    families: dict[Any, list[Any]] = {}
    for key in keys:
        families.setdefault(alike(key), []).append(key)
    found = {}
    for family in families.values():
        all_knobs = {key: knobs(key) for key in family}
        names = sorted({name for have in all_knobs.values() for name in have})
        differing = [n for n in names if len({repr(have.get(n, families)) for have in all_knobs.values()}) > 1]
        for key, have in all_knobs.items():
            found[key] = ", ".join(f"{n}={have[n]}" for n in differing if n in have)
    return found


def _block(key: str, problem: str, rows: list[Row]) -> Block:
    first = rows[0].record
    _tell_apart(rows)
    variants: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        variants.setdefault((row.record.method, _text(row.record.settings)), []).append(row)
    labels = _differences(variants, lambda k: k[0], lambda k: json.loads(k[1]))
    printed: list[Published] = []
    if comparable(first.task, first.dataset) and any(row.record.known for row in rows):
        printed = numbers.rows_of(first.task, first.setting, first.dataset, first.problem.get("missing"))
    by_method = {p.method: p for p in reversed(printed)}  # the first of two printed for one method
    order = sorted(variants, key=lambda k: (*place_of(variants[k][0].record), labels[k]))
    if not (problem or printed) and "missing" in first.departures:  # why nothing is printed for it
        problem = f"missing={first.departures['missing']}"
    block = Block(key, problem, [])
    for number, variant in enumerate(order, start=1):
        printed_one = by_method.get(variant[0])
        block.cells.append(_cell(f"{key}c{number}", labels[variant], variants[variant], printed_one))
    if not block.known and one_part(block):  # all there is to rank methods by; cells without it stay behind
        block.cells.sort(key=lambda cell: cell.means.get("heldout", math.inf))
    _compare(block)
    block.printed = printed
    shown = [cell.published for cell in block.cells]
    block.missing = [p for p in printed if p not in shown]
    block.missing.sort(key=lambda p: ORDER.index(p.method) if p.method in ORDER else len(ORDER))
    if printed:
        block.departures = protocol.departures([[row.record for row in cell.rows] for cell in block.cells])
        block.told = protocol.notes(first.task, first.setting, first.dataset, printed)
    return block


def _cautions(block: Block) -> list[str]:
    found = []
    if copies := sum(len(cell.copies) for cell in block.cells):
        found.append(f"Left out: {copies} older of two with the same image, seed and settings.")
    if len({row.record.results_version for cell in block.cells for row in cell.rows}) > 1:
        found.append("Some results are of an older version of the program than others, and may differ now.")
    if changed := _changed(block):
        found.append(
            f"The code of {' and '.join(changed)}, or what it runs on, changed between results: redo=true computes "
            "them all anew."
        )
    elif len({r.code.partition(":")[2] for cell in block.cells for r in (row.record for row in cell.rows)} - {""}) > 1:
        found.append("Operators or the engine changed between results: redo=true computes them all anew.")
    over = {frozenset((row.image, row.record.seed) for row in cell.rows) for cell in block.cells}
    if len(over) > 1:
        but = "; differences from aSeqDIP are, over those that both have" if block.reference else ""
        found.append(f"Not all are means over the same images and seeds{but}.")
    if unequal := _unequal(block):
        found.append(f"Methods differ in {'; '.join(unequal)}.")
    if not one_part(block):
        found.append("Held-out errors are of parts of several sizes (holdout_fraction): they rank nothing.")
    return found


def _changed(block: Block) -> list[str]:
    """The methods whose results are of more than one code."""
    codes: dict[tuple[str, ...], set[str]] = {}
    for cell in block.cells:
        for r in (row.record for row in cell.rows if row.record.identity):
            name = r.titles.get("method", r.method)
            # of one cell and seed nothing but code makes another identity: the task's, the network's, too
            codes.setdefault((name, cell.key, str(r.seed)), set()).add(r.identity)
            for what, code in enumerate(filter(None, r.code.split(":"))):  # older records say less of it
                codes.setdefault((name, str(what)), set()).add(code)
    return list(dict.fromkeys(name for (name, *_), found in codes.items() if len(found) > 1))


def _unequal(block: Block) -> list[str]:
    """What networks that are compared should have alike and do not, each with its methods."""
    found = []
    for name in ALIKE:
        values: dict[str, dict[str, str]] = {}  # by method: one that is swept over has its equal among several
        for first in (cell.rows[0].record for cell in block.cells):
            if first.fitted and (value := first.settings.get(name)) is not None:
                values.setdefault(first.method, {})[str(value)] = first.titles.get("method", first.method)
        if any(one.keys().isdisjoint(two) for one, two in combinations(values.values(), 2)):
            methods: dict[str, list[str]] = {}
            for own in values.values():
                for value, title in own.items():
                    methods.setdefault(value, []).append(title)
            said = (f"{value} ({', '.join(titles)})" for value, titles in methods.items())
            found.append(f"{name}: {', '.join(said)}")
    return found


def one_part(block: Block) -> bool:
    """Whether all held-out errors are of parts of one size; those of another are no measure beside them."""
    cells = [cell for cell in block.cells if "heldout" in cell.means]
    return len({row.record.settings.get("holdout_fraction") for cell in cells for row in cell.rows}) < 2


def place_of(record: Record) -> tuple[bool, float, str]:
    """Where a method stands in a table: classical ones first."""
    place = ORDER.index(record.method) if record.method in ORDER else len(ORDER) - 1.5
    return record.titles.get("group") != "classical" and record.method != "direct", place, record.method


def _tell_apart(rows: Iterable[Row]) -> None:
    """Two images of one name are named with their contents."""
    contents: dict[str, set[str]] = {}
    for row in rows:
        contents.setdefault(row.record.image, set()).add(row.record.content)
    for row in rows:
        if len(contents[row.record.image]) > 1 and row.record.content:
            row.label = f"{row.record.image} [{row.record.content[:6]}]"


def _cell(key: str, variant: str, rows: list[Row], printed: Published | None) -> Cell:
    rows, copies = _newest(rows)
    first = rows[0].record
    label = first.titles.get("method", first.method)
    if first.method == "direct":  # a direct reconstruction is named after what it is
        label = first.titles.get("start", label)
        label = label[:1].upper() + label[1:]
    told = "given the truth" if first.facts.get("oracle_input") else ""  # no method, a diagnostic
    behind = ", ".join(filter(None, (told, first.trained_on, variant)))
    label += f" ({behind})" if behind else ""
    scores, means = {}, {}
    for which in ("start", "result", "last", "best", "ema"):
        for what in ("psnr_db", "ssim"):
            column = f"{which}_{what}"
            known = [(v, row.image) for row in rows if (v := row.number(column)) is not None]
            if known:
                scores[column] = summary([v for v, _ in known], [image for _, image in known])
    for column in ("heldout", "method_seconds", "tflop", "passes", "steps"):
        values = [v for row in rows if (v := row.number(column)) is not None]
        if values:
            means[column] = sum(values) / len(values)
    cell = Cell(key, first.method, label, rows, copies, printed, scores, means)
    drawn = [row for row in rows if len(row.curve) and row.record.known == first.known]
    if drawn:
        curves = [(row.every, row.curve, row.record.steps) for row in drawn]
        cell.curve = mean_curve(curves, [row.image for row in drawn])
    return cell


def _newest(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """One row for each image and seed, the newest, and the others: code that gives other numbers makes another."""
    found: dict[tuple[Any, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.image, row.record.seed), []).append(row)
    kept = [alike[0] if len(alike) == 1 else max(alike, key=_age) for alike in found.values()]
    copies = [row for alike, one in zip(found.values(), kept, strict=True) for row in alike if not _same(row, one)]
    return sorted(kept, key=lambda row: (row.label, row.record.seed)), copies


def _same(row: Row, other: Row) -> bool:
    """Whether they are one record, perhaps in two forms."""
    one, two = row.record, other.record
    return row is other or bool(one.identity) and (one.identity, one.finished) == (two.identity, two.finished)


def _age(row: Row) -> tuple[int, int, float]:
    """A file's own date says little: copies and checkouts have another. Older records have no other, though."""
    r = row.record
    return r.results_version, r.finished, (row.lines or row.folder / "record.json").stat().st_mtime


def _compare(block: Block) -> None:
    against = block.reference
    if against is None:
        return
    for cell in block.cells:
        cell.versus = versus(cell, against)


def versus(cell: Cell, other: Cell) -> Paired | None:
    """Results of one cell against those of another, on the images and seeds that both have; None for itself."""
    theirs = {(row.image, row.record.seed): row.number("result_psnr_db") for row in other.rows}
    pairs = []
    for row in cell.rows if cell is not other else []:
        ours, their = row.number("result_psnr_db"), theirs.get((row.image, row.record.seed))
        if ours is not None and their is not None:
            pairs.append((ours, their, row.image))
    return paired(*(list(part) for part in zip(*pairs, strict=True))) if pairs else None


def agreement(block: Block) -> tuple[int, int]:
    """In how many pairs of cells on one image and seed the one with less held-out error has more PSNR; and of how many.

    So far as can be told with a truth, what ``stop=holdout`` is worth for choosing a method without one.
    """
    judged: dict[tuple[Any, int], list[tuple[float, float]]] = {}
    for row in (row for cell in block.cells for row in cell.rows):
        error, psnr = row.number("heldout"), row.number("result_psnr_db")
        if error is not None and psnr is not None:
            judged.setdefault((row.image, row.record.seed), []).append((error, psnr))
    compared = judged.values() if one_part(block) else ()
    pairs = [(one, two) for all_of in compared for one, two in combinations(all_of, 2) if one[0] != two[0]]
    return sum((error < other) == (psnr > than) for (error, psnr), (other, than) in pairs), len(pairs)


def start_level(block: Block) -> float | None:
    """Mean PSNR of the start image, where all methods begin from the same and it can be drawn."""
    found = {round(c.scores["start_psnr_db"].mean, 2) for c in block.cells if "start_psnr_db" in c.scores}
    level = found.pop() if len(found) == 1 else None
    return level if finite(level) else None
