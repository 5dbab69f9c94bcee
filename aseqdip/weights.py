"""Published priors: which there are, and their files made ours. Nothing is downloaded.

python -m aseqdip.weights lists them; convert FILE writes weights/NAME.safetensors, which prior=NAME reads.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aseqdip.errors import UserError
from aseqdip.priors.published import PUBLISHED, convert


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m aseqdip.weights", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("convert", help="write a published checkpoint as safetensors with a card")
    one.add_argument("file", type=Path, help="the checkpoint, as its authors publish it")
    one.add_argument(
        "--as", dest="name", help=f"which it is: {', '.join(PUBLISHED)}; default: by its name or structure"
    )
    one.add_argument("--out", type=Path, help="where to write; default: weights/NAME.safetensors")
    given = parser.parse_args(words)
    try:
        if given.command is None:
            for name, it in PUBLISHED.items():
                size = f"{it.card.size} pixels, {it.card.channels} channel(s), " if it.card.size else ""
                sys.stdout.write(f"{name}: {it.file}, {size}from {it.where}. Terms: {it.terms}.\n")
        else:
            sys.stdout.write(f"{convert(given.file, given.name, given.out)}\n")
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
