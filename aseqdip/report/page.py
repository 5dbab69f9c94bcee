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
from aseqdip.averages import finite
from aseqdip.files import without_folders
from aseqdip.report import charts, tables
from aseqdip.report.blocks import ORDER, Block, Cell, start_level
from aseqdip.report.gallery import gallery
from aseqdip.report.rows import Found
from aseqdip.report.tables import db

HERE = Path(__file__).parent
#: a record in the page's data: its run, image and (where it has another name) folder, then these
COLUMNS = (
    "result_psnr_db", "last_psnr_db", "best_psnr_db", "best_step", "ema_psnr_db", "result_ssim", "steps",
    "method_seconds",
)  # fmt: skip


def render(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> str:
    """The page. Every text in it that comes from a record is escaped: names of images and folders are anybody's."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # our own files, which hold no text from outside
    script, style = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return environment.get_template("page.html.j2").render(
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
        dash=charts.dash,
        data=embedded(data(blocks)),
        facts=facts(found, blocks, folders),
        overview=overview([block for block in blocks if block.printed]),
        sections=[section(block) for block in blocks],
        failures=failures(found, blocks),
        notes=[tables.HEADLINE, tables.SPREAD, tables.INTERVAL],
    )


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"}))


def data(blocks: Sequence[Block]) -> dict[str, Any]:
    """Every record, by cell, as short rows of numbers; runs and names of images are said once."""
    runs: dict[tuple[str, str, int], int] = {}
    names: dict[tuple[str, str], int] = {}
    cells: dict[str, list[list[Any]]] = {}
    for cell in (cell for block in blocks for cell in block.cells):
        rows = cells[cell.key] = []
        for row in cell.rows:
            # the command in two parts, since all images of a run share the first
            command = [w for w in row.record.command if not w.startswith("images=")]
            image = [w for w in row.record.command if w.startswith("images=")]
            line = shlex.join(["python", "run.py", *command]) if command else ""
            run = runs.setdefault((str(Path(row.place).parent), line, row.record.seed), len(runs))
            name = names.setdefault((row.label, shlex.join(image)), len(names))
            folder = names.setdefault((row.folder.name, ""), len(names)) if row.folder.name != row.label else -1
            rows.append([run, name, folder, *(_rounded(row.number(column)) for column in COLUMNS)])
    return {"runs": list(runs), "images": list(names), "cells": cells}


def _rounded(value: float | None) -> float | int | str | None:
    if value is None or not finite(value):
        return None if value is None else str(value)
    return int(value) if value == int(value) else round(value, 3)


def facts(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> dict[str, Any]:
    """What the page's head and foot say of the whole."""
    records = [row.record for row in found.rows]
    kinds = {"presets": "preset", "recipes": "recipe", "data sets": "dataset", "devices": "device"}
    counts = {
        "reconstructions": len(records),
        "images": len({(row.record.dataset, *row.image) for row in found.rows}),
        "methods": len({r.method for r in records}),
        "seeds": len({r.seed for r in records}),
        "hours": f"{sum(row.number('method_seconds') or 0 for row in found.rows) / 3600:.1f}",
    }
    lost = {kind: len(getattr(found, kind)) for kind in ("failed", "unfinished", "damaged")}
    return {
        "counts": counts,
        "lost": {kind: count for kind, count in lost.items() if count},
        "lists": {kind: sorted({v for r in records if (v := getattr(r, name))}) for kind, name in kinds.items()},
        "folders": [found.place(folder) for folder in folders],
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "foreign": any(block.departures for block in blocks),
    }


def overview(blocks: Sequence[Block]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The paper's methods in every setting there is: name, and for each block our PSNR, its cell, the published one."""
    # the first of two printed for one method
    printed = [{p.method: p for p in reversed(block.printed)} for block in blocks]
    names = {p.method: p.name.partition(" (")[0] for block in blocks for p in block.printed}
    order = sorted(names, key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
    return [(names[m], [_glance(b, m, table.get(m)) for b, table in zip(blocks, printed, strict=True)]) for m in order]


def _glance(block: Block, method: str, printed: Any) -> tuple[str, str, str]:
    published = db(printed.psnr) if printed else ""
    cell = block.nearest(method)
    if cell is None:
        return printed.why_not if printed else "", "", published
    several = sum(other.method == method for other in block.cells) > 1
    most = max(other.psnr.images for other in block.cells if other.psnr) if cell.psnr else 0
    few = f", {cell.psnr.images} of {most} images" if cell.psnr and cell.psnr.images < most else ""
    said = f"{db(cell.psnr.mean) if cell.psnr else 'no truth'}{f' ({cell.label})' if several else ''}{few}"
    return said, cell.key, published


def section(block: Block) -> dict[str, Any]:
    """Everything the template shows of one block."""
    styles = _styles(block)
    drawn = [(cell, cell.curve) for cell in block.cells if cell.curve is not None]
    lines = [charts.Line(_legend(cell), styles[cell.key], curve, cell.falls) for cell, curve in drawn]
    columns = [key for key in tables.columns(block) if key != "start" or start_level(block) is None]
    title = f"{'PSNR' if block.known else 'Loss'} along the run: {block.title}"
    return {
        "block": block,
        "protocol": tables.protocol(block),
        "columns": [(key, *tables.COLUMNS[key]) for key in columns],
        "rows": [(cell, styles[cell.key], tables.cells(block, cell)) for cell in block.cells],
        "missing": [(p, tables.missing(p)) for p in block.missing],
        "devices": sorted({row.record.device for cell in block.cells for row in cell.rows if row.record.device}),
        "copies": sum(len(cell.copies) for cell in block.cells),
        "curves": charts.curves(f"{block.key}f", title, lines, start_level(block), block.known) if lines else None,
        "bands": any(curve.low is not None for _, curve in drawn),
        "every": max((curve.every for _, curve in drawn), default=1),
        "shortened": [cell.label for cell, curve in drawn if curve.shortened],
        "scatter": _scatter(block, styles),
        "gallery": gallery(block),
    }


def _styles(block: Block) -> dict[str, int]:
    """The number of each cell's line style and colour: the method's own, or where several share it a free one."""
    styles: dict[str, int] = {}
    for cell in sorted(block.cells, key=lambda c: c is not block.reference):
        wanted = ORDER.index(cell.method) if cell.method in ORDER else 0
        free = (s for s in range(len(block.cells) + len(ORDER)) if s not in styles.values())
        styles[cell.key] = next(free) if wanted in styles.values() else wanted
    return styles


def _legend(cell: Cell) -> str:
    """A curve's name, with the number that the table gives for it: the result's, whichever iterate that is."""
    if cell.psnr is None:
        return cell.label
    return f"{cell.label} {db(cell.psnr.mean)}" + ("" if cell.which == "last" else f" ({cell.which})")


def _scatter(block: Block, styles: dict[str, int]) -> Markup | None:
    scored = [(cell, cell.psnr.mean) for cell in block.cells if cell.psnr is not None and finite(cell.psnr.mean)]
    unit, column = ("TFLOP", "tflop") if any(c.means.get("tflop") for c, _ in scored) else ("seconds", "method_seconds")
    dots = [charts.Dot(c.label, styles[c.key], c.means.get(column) or None, psnr) for c, psnr in scored]
    return charts.scatter(f"{block.key}g", f"Cost and quality: {block.title}", dots, unit) if dots else None


def failures(found: Found, blocks: Sequence[Block]) -> dict[str, list[tuple[str, ...]]]:
    """What has no result, and why: folder, message and last step."""
    copies = [row.place for block in blocks for cell in block.cells for row in cell.copies]
    failed = [(t.folder, t.failure) for t in found.failed if t.failure is not None]
    return {
        "failed": [(found.place(folder), without_folders(f.error), str(f.after_step)) for folder, f in failed],
        "damaged": [(found.place(t.folder), t.error) for t in found.damaged],
        "unfinished": [(found.place(t.folder),) for t in found.unfinished],
        "copies": [(place,) for place in copies],
    }
