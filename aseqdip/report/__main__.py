"""Tables of the records below folders, beside the published numbers: on the screen, as a page, and as files."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from aseqdip.errors import UserError
from aseqdip.files import write_text
from aseqdip.report import tables
from aseqdip.report.blocks import build
from aseqdip.report.rows import export, load

log = logging.getLogger(__name__)

FILES = {
    "html": "write one self-contained page: tables beside the published numbers, curves, pictures, every record",
    "markdown": "write the tables beside the published numbers as Markdown",
    "latex": "write them as LaTeX",
    "quality": "write PSNR and SSIM against seconds as Markdown, with a PNG figure beside it for each task and setting",
    "figure": "draw the PSNR curves of every image into this PNG file",
    "export": "write one line a reconstruction into this .csv or .parquet file",
    "compact": "write records and small pictures below this folder, a file a setting: what to keep when the rest goes",
}


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold records")
    parser.add_argument("--mean", action="store_true", help="one row a method: means over its images and seeds")
    parser.add_argument("--method", nargs="+", help="of these methods only")
    for name, what in FILES.items():
        parser.add_argument(f"--{name}", type=Path, help=what)
    return parser.parse_args()


def write(words: argparse.Namespace) -> None:
    """Everything that was asked for. Raises UserError where there is nothing to report, or for an unknown suffix."""
    found = load(words.folder)
    blocks = build(found.rows)
    if words.method is not None:
        there = sorted({row.record.method for row in found.rows})
        others = [method for method in words.method if method not in there]
        if there and len(others) == len(words.method):
            raise UserError(f"--method {' '.join(others)}: there are results of {', '.join(there)}.")
        if others:
            log.warning("There is no result of %s.", ", ".join(others))
        blocks = [block for whole in blocks if (block := whole.of(words.method)).cells]
        found.rows = [row for row in found.rows if row.record.method in words.method]
    if not (found.rows or found.failed or found.damaged):
        raise UserError(f"There is no finished record below {', '.join(map(str, words.folder))}: run something first.")
    for trace in found.damaged:
        log.warning("%s is left out: %s", trace.folder, trace.error)
    for trace in found.failed[:5]:
        log.warning("%s failed: %s", trace.folder, trace.failure and trace.failure.error)
    if more := len(found.failed[5:]):
        log.warning("%d more failed: --html FILE.html lists them all.", more)
    if found.unfinished:
        log.warning("%d more were begun and are not finished: the same command continues them.", len(found.unfinished))
    if words.export is not None:
        export(words.export, found.rows)
    if words.html is not None:
        from aseqdip.report.page import render

        write_text(words.html, render(found, blocks, words.folder))
    for path, made in ((words.markdown, tables.document), (words.latex, tables.latex)):
        if path is not None:
            write_text(path, made(blocks))
    beside: list[Path] = []
    if words.quality is not None:
        from aseqdip.report import quality

        beside = quality.document(blocks, words.quality, shlex.join(["python", "-m", "aseqdip.report", *sys.argv[1:]]))
    if words.figure is not None:
        from aseqdip.report.charts import comparison

        if not blocks:
            raise UserError("No reconstruction has a record: there are no curves to draw.")
        comparison(words.figure, blocks)
    if words.compact is not None:
        from aseqdip.report.compact import compact

        compact(words.folder, words.compact, words.method or ())
    written = [path for name in FILES if (path := getattr(words, name)) is not None]
    if words.mean or not written:
        sys.stdout.write((tables.means(blocks) if words.mean else tables.each(blocks)) + "\n")
        if not written:
            sys.stdout.write("\nEverything there is: --export FILE.csv; on a page, with pictures: --html FILE.html\n")
    for path in dict.fromkeys([*written, *beside]):
        sys.stdout.write(f"{path}\n")


def main() -> None:
    """Entry point."""
    logging.basicConfig(format="%(message)s")
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what a terminal cannot show
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    words = _words()
    try:
        if missing := [str(folder) for folder in words.folder if not folder.exists()]:
            raise UserError(f"There is no folder {', '.join(missing)}: give the folders that results went to.")
        write(words)
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
