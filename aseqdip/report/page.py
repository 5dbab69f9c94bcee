"""One HTML file that holds everything: tables, curves, pictures, and every record; it asks no server for anything."""

import base64
import datetime
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from aseqdip import __version__
from aseqdip.report import published, svg, tables
from aseqdip.report.cells import ORDER, REFERENCE, Block, Cell, published_onset, reference
from aseqdip.report.command import image_word
from aseqdip.report.gallery import Gallery, gallery
from aseqdip.report.names import TITLES, setting_title, title
from aseqdip.report.rows import Found, Row, commands
from aseqdip.report.tables import db, name, spread

HERE = Path(__file__).parent
#: a record in the page's data: its run, image and (where it has another name) folder, then these
COLUMNS = (
    "psnr_result",
    "psnr_last",
    "psnr_best",
    "best_step",
    "psnr_ema",
    "ssim_result",
    "steps",
    "seconds_method",
)


def render(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> str:
    """The page. Every text in it that comes from a record is escaped: names of images and folders are anybody's."""
    commands(found.rows)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # our own files, which hold no text from outside
    script, style = ((HERE / f"page.{kind}").read_text() for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(dash=svg.dash, colour=svg.colour)
    return environment.get_template("page.html.j2").render(
        script=Markup(script),  # noqa: S704
        script_hash=digest,
        style=Markup(style),  # noqa: S704
        data=embedded(data(blocks)),
        facts=facts(found, blocks, folders),
        overviews=overviews(blocks),
        sections=[section(block) for block in blocks],
        failures=failures(found, blocks),
        notes=[tables.HEADLINE, tables.SPREAD, tables.INTERVAL],
    )


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def data(blocks: Sequence[Block]) -> dict[str, Any]:
    """Every record, by cell, as short rows of numbers; runs and names of images are said once."""
    runs: dict[int, int] = {}
    names: dict[str, int] = {}
    listed_runs, listed_names, cells = [], [], {}

    def index(text: str) -> int:
        if text not in names:
            names[text] = len(names)
            listed_names.append([text, image_word(text)])
        return names[text]

    for cell in (cell for block in blocks for cell in block.cells):
        rows: list[list[Any]] = []
        for row in cell.rows:
            if id(row.run) not in runs:
                runs[id(row.run)] = len(runs)
                listed_runs.append([row.run.folder, row.run.command, row.run.seed])
            folder = row.folder.name
            rows.append(
                [
                    runs[id(row.run)],
                    index(row.image),
                    -1 if folder == row.image else index(folder),
                    *(_rounded(row.numbers[column]) for column in COLUMNS),
                ]
            )
        cells[cell.key] = rows
    return {"runs": listed_runs, "images": listed_names, "cells": cells}


def _rounded(value: float | None) -> float | int | None:
    return None if value is None else int(value) if value == int(value) else round(value, 3)


def facts(found: Found, blocks: Sequence[Block], folders: Sequence[Path]) -> dict[str, Any]:
    """What the page's head says of the whole."""
    runs = {id(row.run): row.run for row in found.rows}.values()
    seconds = sum(row.numbers["seconds_method"] or 0 for row in found.rows)
    lists = {
        "presets": sorted({run.preset for run in runs}),
        "recipes": sorted({run.recipe for run in runs}),
        "data sets": sorted({run.dataset for run in runs}),
        "devices": sorted({row.device for row in found.rows if row.device}),
    }
    return {
        "folders": [str(folder) for folder in folders],
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "records": len(found.rows),
        "images": len({(run.dataset, row.image) for row in found.rows for run in (row.run,)}),
        "seeds": len({run.seed for run in runs}),
        "methods": len({run.method for run in runs}),
        "hours": seconds / 3600,
        "failed": len(found.failed),
        "unfinished": len(found.unfinished),
        "damaged": len(found.damaged),
        "lists": lists,
        "foreign": any(block.departures for block in blocks),
    }


def overviews(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Table 2 at a glance, for each preset and recipe: every method in every setting, or that it is missing."""
    found = []
    for preset, recipe in sorted({(block.preset, block.recipe) for block in blocks}):
        mine = [block for block in blocks if (block.preset, block.recipe) == (preset, recipe)]
        places = list(published.SETTINGS)
        places += [p for p in dict.fromkeys((b.task, b.setting) for b in mine) if p not in places]
        columns = [_column(place, [b for b in mine if (b.task, b.setting) == place]) for place in places]
        learned = dict.fromkeys(
            p.name for task, setting in places for p in published.rows_of(task, setting) if not p.method
        )
        methods = [(m, "Direct (CT: FBP)" if m == "direct" else title(m)) for m in ORDER] + [("", n) for n in learned]
        found.append(
            {
                "preset": preset,
                "recipe": recipe,
                "columns": columns,
                "rows": [
                    {"name": n, "method": m, "cells": [_glance(column, m, n) for column in columns]} for m, n in methods
                ],
            }
        )
    return found


def _column(place: tuple[str, str], blocks: Sequence[Block]) -> dict[str, Any]:
    """One setting of the overview: its block with most records, and how many others there are."""
    block = max(blocks, key=lambda b: sum(len(cell.rows) for cell in b.cells), default=None)
    printed = published.rows_of(*place, block.dataset if block else "")
    task, setting = place
    return {
        "title": f"{TITLES.get(task, task)} {setting_title(setting)}",
        "block": block,
        "others": len(blocks) - 1,
        "departs": bool(block and block.departures),
        "printed": {p.method or p.name: p for p in printed},
    }


def _glance(column: dict[str, Any], method: str, label: str) -> dict[str, Any]:
    printed, block = column["printed"].get(method or label), column["block"]
    cells = [cell for cell in block.cells if cell.method == method] if block and method else []
    cell = reference(cells) if method == REFERENCE else (cells[0] if cells else None)
    ours = cell.scores.get("psnr_result") if cell else None
    state = "have" if cell else "none" if printed is None else "missing" if method else "learned"
    return {
        "state": state,
        "ours": db(ours.mean) if ours else "no truth",
        "published": db(printed.psnr) if printed else "",
        "href": f"#{cell.key}" if cell else "",
        "label": label,
    }


def section(block: Block) -> dict[str, Any]:
    """Everything the template shows of one block."""
    styles = _styles(block)
    pictures: Gallery | None = gallery(block)
    devices = sorted({row.device for cell in block.cells for row in cell.rows if row.device})
    return {
        "block": block,
        "protocol": tables.protocol(block),
        "rows": [_table_row(block, cell, styles[cell.key]) for cell in block.cells],
        "missing": [_missing(p) for p in block.missing],
        "devices": devices,
        "copies": sum(len(cell.copies) for cell in block.cells),
        "reference": getattr(reference(block.cells), "label", None),
        **_graphs(block, styles),
        "gallery": pictures,
    }


def _styles(block: Block) -> dict[str, int]:
    """A number of a line style and colour for each cell: the method's own, or where several share it the next free one."""
    styles: dict[str, int] = {}
    first = reference(block.cells)
    for cell in sorted(block.cells, key=lambda c: c is not first):
        wanted = ORDER.index(cell.method) if cell.method in ORDER else 0
        free = (s for s in range(len(block.cells) + len(ORDER)) if s not in styles.values())
        styles[cell.key] = next(free) if wanted in styles.values() else wanted
    return styles


def _table_row(block: Block, cell: Cell, style: int) -> dict[str, Any]:
    """(text, number to sort by) for each column; the number is "" where there is none."""
    printed, gap, versus, scores = cell.published, tables.difference(cell), cell.versus, cell.scores

    def score(column: str, digits: int = 2) -> tuple[str, Any]:
        found = scores.get(column)
        return tables.scored(found, digits), "" if found is None else found.mean

    def mean(column: str, digits: int) -> tuple[str, Any]:
        value = cell.means.get(column)
        return db(value, digits), "" if value is None else value

    result = scores.get("psnr_result")
    seeds = "" if result is None or result.over_seeds != result.over_seeds else result.over_seeds
    return {
        "key": cell.key,
        "style": style,
        "name": name(block, cell),
        "own": cell is reference(block.cells),
        "which": cell.which,
        "deviations": ", ".join(f"{k}={v}" for k, v in cell.rows[0].run.deviations.items()),
        "cells": {
            "published": (spread(printed.psnr, printed.psnr_std), printed.psnr) if printed else ("not published", ""),
            "ours": score("psnr_result"),
            "n": (tables.size(cell), len(cell.rows)),
            "difference": ("–", "") if gap is None else (f"{gap:+.2f}", gap),
            "last": score("psnr_last"),
            "best": score("psnr_best"),
            "ema": score("psnr_ema"),
            "versus": (tables.against(versus), versus.mean) if versus else ("–", ""),
            "wins": (f"{versus.wins} of {versus.n}", versus.wins / versus.n) if versus else ("–", ""),
            "ssim_published": (spread(printed.ssim, printed.ssim_std, 3), printed.ssim or "") if printed else ("–", ""),
            "ssim": score("ssim_result", 3),
            "seeds": ("one seed" if seeds == "" else f"{seeds:.2f}", seeds),
            "seconds": mean("seconds_method", 1),
            "tflop": (significant(cell.means.get("tflop")), cell.means.get("tflop", "")),
            "passes": mean("passes", 0),
        },
    }


def significant(value: float | None) -> str:
    """Three digits of a number that may be of any size."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _missing(row: published.Published) -> dict[str, Any]:
    return {
        "name": row.name + (" (Table 3)" if row.table == 3 else ""),
        "why": tables.absent(row),
        "psnr": (spread(row.psnr, row.psnr_std), row.psnr),
        "ssim": (spread(row.ssim, row.ssim_std, 3), row.ssim or ""),
    }


def _graphs(block: Block, styles: dict[str, int]) -> dict[str, Any]:
    """The block's curves, the table of onsets beside them, and the scatter of cost and quality."""
    drawn = [cell for cell in block.cells if cell.curve is not None]
    lines = [svg.Line(name(block, c), styles[c.key], c.curve, c.falls or c.curve.end) for c in drawn if c.curve]
    start = next((c.scores["psnr_start"].mean for c in block.cells if "psnr_start" in c.scores), None)
    scored = [cell for cell in block.cells if "psnr_result" in cell.scores]
    unit, column = ("TFLOP", "tflop") if any(c.means.get("tflop") for c in scored) else ("seconds", "seconds_method")
    dots = [
        svg.Dot(name(block, c), styles[c.key], c.means.get(column) or None, c.scores["psnr_result"].mean)
        for c in scored
    ]
    return {
        "curves": svg.curves(f"{block.key}f", f"PSNR curves: {block.title}", lines, start) if lines else None,
        "onsets": [_onset(block, cell, styles[cell.key]) for cell in drawn],
        "paper_onsets": {"mri": "MRI 4×", "ct": 'CT "18 views"'}.get(block.task, ""),
        "every": max((line.curve.every for line in lines), default=1),
        "shortened": [line.label for line in lines if line.curve.shortened],
        "scatter": svg.scatter(f"{block.key}g", f"Cost and quality: {block.title}", dots, unit) if dots else None,
        "unit": unit,
    }


def _onset(block: Block, cell: Cell, style: int) -> dict[str, Any]:
    curve = cell.curve
    assert curve is not None
    return {
        "name": name(block, cell),
        "style": style,
        "ours": cell.onset,
        "peak": f"{curve.mean.max():.2f}",
        "lost": f"{curve.mean.max() - curve.mean[-1]:.2f}",
        "n": curve.n,
        "paper": published_onset(block, cell),
    }


def failures(found: Found, blocks: Sequence[Block]) -> dict[str, list[dict[str, str]]]:
    """What has no result, and why: a row each."""
    copies: list[Row] = [row for block in blocks for cell in block.cells for row in cell.copies]
    return {
        "failed": [
            {
                "folder": str(t.folder),
                "message": str(t.content.get("error", "no message")),
                "step": str(t.content.get("after_step", "–")),
            }
            for t in found.failed
        ],
        "damaged": [{"folder": str(t.folder), "message": t.error} for t in found.damaged],
        "unfinished": [{"folder": str(t.folder)} for t in found.unfinished],
        "copies": [{"folder": str(row.folder)} for row in copies],
    }
