"""One HTML file that holds everything: tables, curves, pictures, and every record; it asks no server for anything."""

import base64
import datetime
import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from aseqdip import __version__
from aseqdip.paper import numbers
from aseqdip.paper.settings import SETTINGS
from aseqdip.report import charts, tables
from aseqdip.report.blocks import ORDER, REFERENCE, Block, Cell, published_onset, start_level
from aseqdip.report.gallery import gallery
from aseqdip.report.rows import Found, Row
from aseqdip.report.statistics import finite
from aseqdip.report.tables import db, spread

HERE = Path(__file__).parent
#: a record in the page's data: its run, image and (where it has another name) folder, then these
COLUMNS = (
    *("result_psnr_db", "last_psnr_db", "best_psnr_db", "best_step", "ema_psnr_db", "result_ssim", "steps"),
    "method_seconds",
)
#: the columns of a block's table behind the method: key, head, class, note
TABLE = (
    ("published", "published", "pub", ""),
    ("ours", "ours", "main", ""),
    ("n", "n", "", "images × seeds"),
    ("difference", "difference", "", "ours minus published"),
    ("versus", "− aSeqDIP [95 %]", "", "on the images and seeds both have"),
    ("wins", "ahead", "", "pairs in which the method is ahead of aSeqDIP"),
    ("best", "best (oracle)", "oracle", "highest PSNR along the run: needs the truth"),
    ("last", "last", "", "last iterate"),
    ("ema", "EMA", "", "running average of the iterates"),
    ("ssim_published", "SSIM published", "pub", ""),
    ("ssim", "SSIM ours", "", ""),
    ("seeds", "± seeds", "", "standard deviation across seeds, mean over images"),
    ("steps", "steps", "", ""),
    ("seconds", "seconds", "", ""),
    ("tflop", "TFLOP", "", ""),
    ("passes", "passes", "", "forward passes of the network"),
)
PUBLISHED = ("published", "difference", "ssim_published")
UNSCORED = ("n", "steps", "seconds", "tflop", "passes")
NOTES = (tables.HEADLINE, tables.SPREAD, tables.INTERVAL)


def render(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> str:
    """The page. Every text in it that comes from a record is escaped: names of images and folders are anybody's."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # our own files, which hold no text from outside
    script, style = ((HERE / f"page.{kind}").read_text() for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(dash=charts.dash)
    return environment.get_template("page.html.j2").render(
        script=Markup(script),  # noqa: S704
        script_hash=digest,
        style=Markup(style),  # noqa: S704
        data=embedded(data(blocks)),
        facts=facts(found, blocks, folders),
        overviews=overviews(blocks),
        sections=[section(block) for block in blocks],
        failures=failures(found, blocks),
        notes=NOTES,
    )


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def data(blocks: Sequence[Block]) -> dict[str, Any]:
    """Every record, by cell, as short rows of numbers; runs and names of images are said once."""
    runs: dict[tuple[str, ...], int] = {}
    names: dict[tuple[str, str], int] = {}
    cells: dict[str, list[list[Any]]] = {}
    for cell in (cell for block in blocks for cell in block.cells):
        rows = cells[cell.key] = []
        for row in cell.rows:
            # the command in two parts, since all images of a run share the first
            command = [w for w in row.record.command if not w.startswith("images=")]
            image = [w for w in row.record.command if w.startswith("images=")]
            line = shlex.join(["python", "run.py", *command]) if command else ""
            run = runs.setdefault((str(row.folder.parent), line, str(row.record.seed)), len(runs))
            name = names.setdefault((row.label, shlex.join(image)), len(names))
            folder = names.setdefault((row.folder.name, ""), len(names)) if row.folder.name != row.label else -1
            rows.append([run, name, folder, *(_rounded(row.number(column)) for column in COLUMNS)])
    listed = [[folder, line, int(seed)] for folder, line, seed in runs]
    return {"runs": listed, "images": list(names), "cells": cells}


def _rounded(value: float | None) -> float | int | str | None:
    if value is None or not finite(value):
        return None if value is None else str(value)
    return int(value) if value == int(value) else round(value, 3)


def facts(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> dict[str, Any]:
    """What the page's head says of the whole."""
    records = [row.record for row in found.rows]
    kinds = {"presets": "preset", "recipes": "recipe", "data sets": "dataset", "devices": "device"}
    return {
        "folders": [str(folder) for folder in folders],
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "records": len(records),
        "images": len({(row.record.dataset, *row.image) for row in found.rows}),
        "seeds": len({r.seed for r in records}),
        "methods": len({r.method for r in records}),
        "hours": sum(row.number("method_seconds") or 0 for row in found.rows) / 3600,
        "failed": len(found.failed),
        "unfinished": len(found.unfinished),
        "damaged": len(found.damaged),
        "lists": {kind: sorted({v for r in records if (v := getattr(r, name))}) for kind, name in kinds.items()},
        "foreign": any(block.departures for block in blocks),
        "published": any(block.printed for block in blocks),
    }


def overviews(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Table 2 at a glance, for each preset and recipe with such data: every method in every setting, or that it is missing."""
    mine = [block for block in blocks if block.printed]
    found = []
    for preset, recipe in sorted({(block.first.preset, block.first.recipe) for block in mine}):
        chosen = [block for block in mine if (block.first.preset, block.first.recipe) == (preset, recipe)]
        places = [*SETTINGS, *((b.first.task, b.first.setting) for b in chosen)]
        columns = [_column(place, chosen) for place in dict.fromkeys(places)]
        printed = [p for column in columns for p in column["printed"].values()]
        names = {p.method: p.name for p in printed if p.method} | {"direct": "Direct (CT: FBP)"}
        rows = [(method, names[method]) for method in ORDER if method in names]
        rows += [("", name) for name in dict.fromkeys(p.name for p in printed if not p.method)]
        glances = [{"name": n, "method": m, "cells": [_glance(column, m, n) for column in columns]} for m, n in rows]
        found.append({"preset": preset, "recipe": recipe, "columns": columns, "rows": glances})
    return found


def _column(place: tuple[str, str], blocks: Sequence[Block]) -> dict[str, Any]:
    """One setting of the overview: its block with most records, and how many others there are."""
    here = [block for block in blocks if (block.first.task, block.first.setting) == place]
    block = max(here, key=lambda b: sum(len(cell.rows) for cell in b.cells), default=None)
    printed = block.printed if block else numbers.rows_of(*place)
    return {
        "title": SETTINGS.get(place) or (block.place if block else ""),
        "block": block,
        "others": len(here) - 1,
        "printed": {p.method or p.name: p for p in printed},
    }


def _glance(column: dict[str, Any], method: str, label: str) -> dict[str, Any]:
    printed, block = column["printed"].get(method or label), column["block"]
    cells = [cell for cell in block.cells if cell.method == method] if block and method else []
    cell = block.reference if cells and method == REFERENCE else (cells[0] if cells else None)
    state = "have" if cell else "none" if printed is None else "missing" if method else "learned"
    return {
        "state": state,
        "ours": db(cell.psnr.mean) if cell and cell.psnr else "no truth",
        "published": db(printed.psnr) if printed else "",
        "href": f"#{cell.key}" if cell else "",
    }


def section(block: Block) -> dict[str, Any]:
    """Everything the template shows of one block."""
    styles = _styles(block)
    return {
        "block": block,
        "columns": [
            c for c in TABLE if (c[0] in UNSCORED if not block.known else block.printed or c[0] not in PUBLISHED)
        ],
        "protocol": tables.protocol(block),
        "rows": [_table_row(block, cell, styles[cell.key]) for cell in block.cells],
        "missing": [_missing(p) for p in block.missing],
        "devices": sorted({row.record.device for cell in block.cells for row in cell.rows if row.record.device}),
        "copies": sum(len(cell.copies) for cell in block.cells),
        "reference": block.reference.label if block.reference else None,
        **_graphs(block, styles),
        "gallery": gallery(block),
    }


def _styles(block: Block) -> dict[str, int]:
    """A number of a line style and colour for each cell: the method's own, or where several share it the next free one."""
    styles: dict[str, int] = {}
    first = block.reference
    for cell in sorted(block.cells, key=lambda c: c is not first):
        wanted = ORDER.index(cell.method) if cell.method in ORDER else 0
        free = (s for s in range(len(block.cells) + len(ORDER)) if s not in styles.values())
        styles[cell.key] = next(free) if wanted in styles.values() else wanted
    return styles


def _table_row(block: Block, cell: Cell, style: int) -> dict[str, Any]:
    """(text, number to sort by) for each column; the number is "" where there is none."""
    printed, gap, versus = cell.published, cell.difference, cell.versus

    def score(column: str, digits: int = 2) -> tuple[str, Any]:
        found = cell.scores.get(column)
        return tables.scored(found, digits), "" if found is None else found.mean

    def mean(column: str, digits: int) -> tuple[str, Any]:
        value = cell.means.get(column)
        return db(value, digits), "" if value is None else value

    seeds = "" if cell.psnr is None or not finite(cell.psnr.over_seeds) else cell.psnr.over_seeds
    departures = ", ".join(f"{k}={v}" for k, v in cell.rows[0].record.departures.items())
    return {
        "key": cell.key,
        "style": style,
        "name": cell.label,
        "own": cell is block.reference,
        "which": cell.which,
        "departures": departures,
        "cells": {
            "published": (spread(printed.psnr, printed.psnr_std), printed.psnr) if printed else ("not published", ""),
            "ours": score("result_psnr_db"),
            "n": (tables.size(cell), len(cell.rows)),
            "difference": ("–", "") if gap is None else (f"{gap:+.2f}", gap),
            "last": score("last_psnr_db"),
            "best": score("best_psnr_db"),
            "ema": score("ema_psnr_db"),
            "versus": (tables.against(versus), versus.mean) if versus else ("–", ""),
            "wins": (f"{versus.wins} of {versus.n}", versus.wins / versus.n) if versus else ("–", ""),
            "ssim_published": (spread(printed.ssim, printed.ssim_std, 3), printed.ssim or "") if printed else ("–", ""),
            "ssim": score("result_ssim", 3),
            "seeds": ("one seed" if seeds == "" else f"{seeds:.2f}", seeds),
            "steps": mean("steps", 0),
            "seconds": mean("method_seconds", 1),
            "tflop": (significant(cell.means.get("tflop")), cell.means.get("tflop", "")),
            "passes": mean("passes", 0),
        },
    }


def significant(value: float | None) -> str:
    """Three digits of a number that may be of any size."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _missing(row: numbers.Published) -> dict[str, Any]:
    return {
        "name": row.name + (" (Table 3)" if row.table == 3 else ""),
        "cells": {
            "published": (spread(row.psnr, row.psnr_std), row.psnr),
            "ours": (tables.absent(row), ""),
            "ssim_published": (spread(row.ssim, row.ssim_std, 3), row.ssim or ""),
        },
    }


def _graphs(block: Block, styles: dict[str, int]) -> dict[str, Any]:
    """The block's curves, the table of onsets beside them, and the scatter of cost and quality."""
    drawn = [cell for cell in block.cells if cell.curve is not None]
    lines = [charts.Line(_legend(c), styles[c.key], c.curve, c.falls) for c in drawn if c.curve]
    scored = [cell for cell in block.cells if cell.psnr is not None and finite(cell.psnr.mean)]
    unit, column = ("TFLOP", "tflop") if any(c.means.get("tflop") for c in scored) else ("seconds", "method_seconds")
    dots = [
        charts.Dot(c.label, styles[c.key], c.means.get(column) or None, c.psnr.mean)
        for c in scored
        if c.psnr is not None
    ]
    chart = None
    if lines:
        title = f"{'PSNR' if block.known else 'Loss'} along the run: {block.title}"
        key = f"{block.key}f"
        chart = (
            charts.curves(key, title, lines, start_level(block)) if block.known else charts.losses(key, title, lines)
        )
    return {
        "curves": chart,
        "bands": any(line.curve.low is not None for line in lines),
        "onsets": [_onset(block, cell, styles[cell.key]) for cell in drawn if block.known],
        "paper_onsets": {"mri": "MRI 4×", "ct": 'CT "18 views"'}.get(block.first.task, "") if block.printed else "",
        "every": max((line.curve.every for line in lines), default=1),
        "shortened": [cell.label for cell in drawn if cell.curve and cell.curve.shortened],
        "scatter": charts.scatter(f"{block.key}g", f"Cost and quality: {block.title}", dots, unit) if dots else None,
    }


def _legend(cell: Cell) -> str:
    """A curve's name, with the number that the table gives for it: the result's, whichever iterate that is."""
    if cell.psnr is None:
        return cell.label
    which = "" if cell.which == "last" else f" ({cell.which})"
    return f"{cell.label} {db(cell.psnr.mean)}{which}"


def _onset(block: Block, cell: Cell, style: int) -> dict[str, Any]:
    curve = cell.curve
    assert curve is not None
    peak = float(curve.mean.max())
    return {
        "name": cell.label,
        "style": style,
        "ours": cell.onset,
        "peak": db(peak),
        "lost": db(peak - float(curve.mean[-1])),
        "n": curve.n,
        "paper": published_onset(block, cell),
    }


def failures(found: Found, blocks: Sequence[Block]) -> dict[str, list[dict[str, str]]]:
    """What has no result, and why: a row each."""
    copies: list[Row] = [row for block in blocks for cell in block.cells for row in cell.copies]
    failed = [(t.folder, t.failure) for t in found.failed if t.failure is not None]
    return {
        "failed": [{"folder": str(p), "message": f.error, "step": str(f.after_step)} for p, f in failed],
        "damaged": [{"folder": str(t.folder), "message": t.error} for t in found.damaged],
        "unfinished": [{"folder": str(t.folder)} for t in found.unfinished],
        "copies": [{"folder": str(row.folder)} for row in copies],
    }
