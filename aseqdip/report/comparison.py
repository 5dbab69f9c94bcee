"""docs/comparison.md and its figures: every number in it comes from the records of the folders.

python -m aseqdip.report.comparison results docs/comparison.md
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from aseqdip.averages import FEWEST
from aseqdip.errors import UserError
from aseqdip.report.__main__ import save
from aseqdip.report.blocks import Block, build
from aseqdip.report.charts import comparison
from aseqdip.report.rows import load
from aseqdip.report.tables import HEADLINE, INTERVAL, fill_in, lines, markdown

#: folders of records, and the figure that is drawn of each
PARTS = {"quick": "comparison.png", "fig4": "fig4.png", "fig9": "fig9.png"}
#: what its tables say of a method; a page may be wider than a screen
WIDE = ("n", "start", "ours", "ssim", "heldout", "best", "ema", "versus", "onset", "seconds", "tflop")


def render(folder: Path, blocks: dict[str, list[Block]]) -> str:
    """The document, from the blocks of each of PARTS."""
    told = {"headline": HEADLINE, "interval": INTERVAL, "fewest": FEWEST, "figures": PARTS}
    tables = {name: "\n\n".join(map(_table, found)) for name, found in blocks.items()}
    return fill_in(Path(__file__).with_name("comparison.md.j2"), folder=folder, tables=tables, **told)


def _table(block: Block) -> str:
    return f"{block.title}\n\n{markdown(lines(block, WIDE, std=False))}"


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report.comparison", description=__doc__)
    parser.add_argument("folder", type=Path, help=f"holds {', '.join(PARTS)}")
    parser.add_argument("document", type=Path, help="the .md file to write; its figures go beside it")
    words = parser.parse_args(None if arguments is None else list(arguments))
    try:
        blocks = {name: build(load([words.folder / name]).rows) for name in PARTS}
        if missing := [name for name, found in blocks.items() if not found]:
            raise UserError(f"{words.folder} has no record in {', '.join(missing)}: give the folder that has them.")
        for name, figure in PARTS.items():
            comparison(words.document.with_name(figure), blocks[name])
        save(words.document, render(words.folder, blocks))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
