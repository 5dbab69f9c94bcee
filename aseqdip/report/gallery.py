"""One image as every method gives it, small enough to live in a page: with a zoomed part, and the part's error."""

import base64
import re
from dataclasses import dataclass, field

from aseqdip.files import without_folders
from aseqdip.plain import loads
from aseqdip.report.blocks import Block, Cell
from aseqdip.report.rows import Row
from aseqdip.report.tables import db
from aseqdip.thumbnails import arrays_of, draw


@dataclass
class Picture:
    """A picture of a gallery. data: a WebP file in base64; alt: what a screen reader says."""

    name: str
    caption: str
    alt: str
    data: str


@dataclass
class Gallery:
    """The pictures of one image; unreadable: files that were there and could not be read."""

    image: str = ""
    pictures: list[Picture] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def gallery(block: Block) -> Gallery:
    """Truth, start, and each method's result, of the image that most methods have pictures of; empty if none has."""
    there: dict[tuple[int, str], dict[str, tuple[Cell, Row]]] = {}
    for cell in block.cells:
        for row in cell.rows:
            if row.pictured or (row.folder / "reconstruction.npz").is_file():
                there.setdefault((row.record.seed, row.label), {})[cell.key] = (cell, row)
    found = Gallery()
    for (_, image), cells in sorted(there.items(), key=lambda item: (-len(item[1]), item[0])):
        for cell, row in cells.values():
            try:
                drawn = pictures(row)
            except Exception as error:  # a damaged file raises many kinds
                found.unreadable.append(f"{row.place}: {without_folders(str(error))}")
                continue
            for place, what in enumerate(("truth", "start")):
                if what in drawn and what.capitalize() not in [p.name for p in found.pictures]:
                    found.pictures.insert(place, _said(what.capitalize(), row, what, drawn[what]))
            found.pictures.append(_said(cell.label, row, "result", drawn["result"]))
        if found.pictures or len(found.unreadable) >= 50:
            found.image = image
            break
    return found


def _said(title: str, row: Row, which: str, data: str) -> Picture:
    psnr = row.number(f"{which}_psnr_db") if which != "truth" else None
    caption = "" if psnr is None else f"{db(psnr)} dB, SSIM {db(row.number(f'{which}_ssim'), 3)}"
    error = "" if psnr is None else ", its error at the lower right"
    said = f"{title} of {row.label}, enlarged part at the lower left{error}"
    return Picture(title, caption, f"{said}. {caption}".strip(), data)


def pictures(row: Row) -> dict[str, str]:
    """A row's "result", "start" and "truth" as WebP in base64: those kept with its record, else drawn from its arrays.

    Raises ValueError, OSError and what else a damaged file brings.
    """
    if row.lines is None:
        return {name: base64.b64encode(file).decode() for name, file in draw(arrays_of(row.folder)).items()}
    with row.lines.open("rb") as lines:
        for line in lines:
            content = loads(line)
            if row.lines.with_suffix("") / str(content.get("folder")) == row.folder:
                kept = {str(k): str(v) for k, v in content["pictures"].items()}
                if "result" not in kept or not all(re.fullmatch(r"[A-Za-z0-9+/=]+", v) for v in kept.values()):
                    raise ValueError("its pictures are none")
                return kept
    raise ValueError("its line is gone")
