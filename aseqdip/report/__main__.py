"""Tables of the records below folders, beside the published numbers: on the screen, as a page, and as files."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.records import scan
from aseqdip.report import figures
from aseqdip.report.cells import build
from aseqdip.report.page import render
from aseqdip.report.rows import export, load
from aseqdip.report.statistics import paired
from aseqdip.report.tables import latex, markdown

log = logging.getLogger(__name__)

GROUP = ("task", "setting", "method", "recipe", "preset")
SCORES = ("start", "result", "last", "best (oracle)", "EMA", "SSIM", "seconds", "TFLOP")


def scores(record: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of one reconstruction: PSNR in dB, SSIM, the method's seconds and floating-point operations."""
    parts, result = record["scores"], record["result"]
    chosen = {"start": "start", "result": result, "last": "last", "best (oracle)": "best", "EMA": "ema"}
    numbers: dict[str, float | None] = {name: parts[which]["psnr"] for name, which in chosen.items()}
    cost = record["flops_per_step"] * record["steps"] / 1e12
    return {
        **numbers,
        "SSIM": parts[result]["ssim"],
        "seconds": record["seconds"]["method"],
        "TFLOP": cost,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: one row a reconstruction; the step of the best iterate beside it."""
    rows = []
    for r in found:
        numbers = _shown(scores(r))
        if "step" in r["scores"]["best"]:
            numbers["best (oracle)"] += f" at {r['scores']['best']['step']}"
        rows.append([r["task"], r["setting"], r["image"], r["method"], str(r["steps"]), *numbers.values()])
    return _markdown(["task", "setting", "image", "method", "steps", *SCORES], rows)


def means(found: list[dict[str, Any]], reference: str = "aseqdip") -> str:
    """Markdown: one row for each task, setting, method, recipe and preset: means over images and seeds, n of them.

    The last column is the result's PSNR minus the reference method's on the images and seeds that both have: mean, 95 %
    bootstrap interval, and how often the method is ahead.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, int], dict[str, float | None]]] = {}
    for r in found:
        members = groups.setdefault(tuple(str(r[name]) for name in GROUP), {})
        members[r["image"], r["seed"]] = scores(r)
    rows = []
    for key, members in groups.items():
        columns = {name: [m[name] for m in members.values()] for name in SCORES}
        mean = {
            name: None if None in values else fmean(v for v in values if v is not None)
            for name, values in columns.items()
        }
        task, setting, _, recipe, preset = key
        against = groups.get((task, setting, reference, recipe, preset), {})
        versus = "" if against is members else _versus(members, against)
        rows.append([*key, str(len(members)), *_shown(mean).values(), versus])
    return _markdown([*GROUP, "n", *SCORES, f"- {reference} (95 %)"], rows)


def _versus(
    members: dict[tuple[str, int], dict[str, float | None]],
    reference: dict[tuple[str, int], dict[str, float | None]],
) -> str:
    pairs = [(m["result"], reference[k]["result"]) for k, m in members.items() if k in reference]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not known:
        return ""
    p = paired([ours for ours, _ in known], [theirs for _, theirs in known])
    interval = "" if p.n == 1 else f" ({p.low:+.2f} to {p.high:+.2f})"
    return f"{p.mean:+.2f}{interval}, {p.wins} of {p.n}"


def _shown(numbers: dict[str, float | None]) -> dict[str, str]:
    digits = {"SSIM": 3, "seconds": 0, "TFLOP": 1}
    return {
        name: "-" if value is None else f"{value:.{digits.get(name, 2)}f}" for name, value in numbers.items()
    }


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold records")
    parser.add_argument(
        "--mean", action="store_true", help="one row a method: means over its images and seeds"
    )
    parser.add_argument("--figure", type=Path, help="also draw the PSNR curves into this PNG file")
    for name, what in FILES.items():
        parser.add_argument(f"--{name}", type=Path, help=what)
    return parser.parse_args()


FILES = {
    "html": "write one self-contained page: tables beside the published numbers, curves, pictures, every record",
    "markdown": "write the tables beside the published numbers as Markdown",
    "latex": "write them as LaTeX",
    "export": "write one line a reconstruction into this .csv or .parquet file",
}


def write(words: argparse.Namespace) -> list[Path]:
    """The files that were asked for. Raises UserError where there is nothing to report, or for an unknown suffix."""
    found = load(words.folder)
    if not found.rows and not found.failed:
        raise _nothing(words.folder)
    for trace in found.damaged:
        log.warning("%s is left out: %s", trace.folder, trace.error)
    if words.export is not None:
        export(words.export, found.rows)
    if words.html is not None or words.markdown is not None or words.latex is not None:
        blocks = build(found.rows)
        if words.html is not None:
            save(words.html, render(found, blocks, words.folder))
        if words.markdown is not None:
            save(words.markdown, markdown(blocks))
        if words.latex is not None:
            save(words.latex, latex(blocks))
    return [path for name in FILES if (path := getattr(words, name)) is not None]


def save(path: Path, text: str) -> None:
    """The text as a file, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _nothing(folders: Sequence[Path]) -> UserError:
    return UserError(f"There is no record.json below {', '.join(map(str, folders))}: run something first.")


def listing(words: argparse.Namespace) -> None:
    """The records as a table on standard output; their curves as a picture."""
    found = []
    for trace in scan(words.folder):
        if trace.state == "done":
            record = {**trace.content, "folder": str(trace.folder)}
            try:
                table([record]), means([record])
            except (KeyError, TypeError, ValueError) as error:
                log.warning("%s is left out: not a record (%s)", trace.folder, error)
            else:
                found.append(record)
        elif trace.state == "damaged":
            log.warning("%s is left out: %s", trace.folder, trace.error)
    if not found:
        raise _nothing(words.folder)
    sys.stdout.write((means(found) if words.mean else table(found)) + "\n")
    if words.figure is not None:
        figures.comparison(words.figure, found)


def main() -> None:
    """Entry point."""
    logging.basicConfig(format="%(message)s")
    words = _words()
    wanted = any(getattr(words, name) is not None for name in FILES)
    try:
        if missing := [str(folder) for folder in words.folder if not folder.is_dir()]:
            raise UserError(
                f"There is no folder {', '.join(missing)}: give the folders that results went to."
            )
        if wanted:
            for path in write(words):
                sys.stdout.write(f"{path}\n")
        if words.mean or words.figure is not None or not wanted:
            listing(words)
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
