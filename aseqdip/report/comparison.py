"""docs/comparison.md and its figures: every number in it comes from the records of the folders.

python -m aseqdip.report.comparison results docs/comparison.md
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from aseqdip.averages import FEWEST
from aseqdip.errors import UserError
from aseqdip.files import write_text
from aseqdip.report.blocks import Block, build
from aseqdip.report.charts import comparison
from aseqdip.report.rows import load
from aseqdip.report.tables import HEADLINE, INTERVAL, fill_in, wide

#: folders of records, and the figure that is drawn of each
PARTS = {"quick": "comparison.png", "fig4": "fig4.png", "fig9": "fig9.png"}


def render(folder: Path, blocks: dict[str, list[Block]]) -> str:
    """The document, from the blocks of each of PARTS."""
    told = {"headline": HEADLINE, "interval": INTERVAL, "fewest": FEWEST, "figures": PARTS, "folder": folder}
    tables = {name: "\n\n".join(map(wide, found)) for name, found in blocks.items()}
    return fill_in(Path(__file__).with_name("comparison.md.j2"), tables=tables, **told)


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = sys.argv[1:] if words is None else words
    if len(words) != 2:
        sys.exit(str(__doc__))
    folder, document = map(Path, words)
    try:
        blocks = {name: build(load([folder / name]).rows) for name in PARTS}
        if missing := [name for name, found in blocks.items() if not found]:
            raise UserError(f"{folder} has no record in {', '.join(missing)}: give the folder that has them.")
        for name, figure in PARTS.items():
            comparison(document.with_name(figure), blocks[name])
        write_text(document, render(folder, blocks))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
