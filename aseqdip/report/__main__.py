"""Tables of the records below folders, beside the published numbers: on the screen, as a page, and as files."""

import argparse
import logging
import sys
from pathlib import Path

from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.report.cells import build
from aseqdip.report.comparison import comparison
from aseqdip.report.listing import each, means
from aseqdip.report.page import render
from aseqdip.report.rows import export, load
from aseqdip.report.tables import latex, markdown

log = logging.getLogger(__name__)


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold records")
    parser.add_argument("--mean", action="store_true", help="one row a method: means over its images and seeds")
    for name, what in FILES.items():
        parser.add_argument(f"--{name}", type=Path, help=what)
    return parser.parse_args()


FILES = {
    "html": "write one self-contained page: tables beside the published numbers, curves, pictures, every record",
    "markdown": "write the tables beside the published numbers as Markdown",
    "latex": "write them as LaTeX",
    "figure": "draw the PSNR curves of every image into this PNG file",
    "export": "write one line a reconstruction into this .csv or .parquet file",
}


def write(words: argparse.Namespace) -> None:
    """Everything that was asked for. Raises UserError where there is nothing to report, or for an unknown suffix."""
    found = load(words.folder)
    if not found.rows and not found.failed:
        damaged = [f"{trace.folder} cannot be read" for trace in found.damaged[:1]]
        nothing = f"There is no finished record.json below {', '.join(map(str, words.folder))}"
        raise UserError(f"{'; '.join([nothing, *damaged])}: run something first.")
    for trace in found.damaged:
        log.warning("%s is left out: %s", trace.folder, trace.error)
    blocks = build(found.rows)
    if words.export is not None:
        export(words.export, found.rows)
    if words.html is not None:
        save(words.html, render(found, blocks, words.folder))
    if words.markdown is not None:
        save(words.markdown, markdown(blocks))
    if words.latex is not None:
        save(words.latex, latex(blocks))
    if words.figure is not None and not blocks:
        raise UserError("Every reconstruction failed: there are no curves to draw.")
    if words.figure is not None:
        comparison(words.figure, blocks)
    written = [path for name in FILES if (path := getattr(words, name)) is not None]
    if words.mean or not written:
        sys.stdout.write((means(blocks) if words.mean else each(blocks)) + "\n")
    for path in written:
        sys.stdout.write(f"{path}\n")


def save(path: Path, text: str) -> None:
    """The text as a file, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def main() -> None:
    """Entry point."""
    logging.basicConfig(format="%(message)s")
    words = _words()
    try:
        if missing := [str(folder) for folder in words.folder if not folder.is_dir()]:
            raise UserError(f"There is no folder {', '.join(missing)}: give the folders that results went to.")
        write(words)
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
