"""One image as every method gives it, small enough to live in a page: with a zoomed part, and the part's error."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aseqdip.report.cells import Block, Cell
from aseqdip.report.rows import Row
from aseqdip.report.tables import db, name

SIDE = 288  # pixels of a picture's longer side
ERROR_GAIN = 5.0
KEPT = ("shown", "start", "truth")


@dataclass
class Picture:
    """A picture of a gallery. uri: the image itself (data:image/jpeg;base64,...); alt: what a screen reader says."""

    name: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass
class Gallery:
    """The pictures of one image; unreadable: files that were there and could not be read."""

    image: str
    pictures: list[Picture]
    unreadable: list[str]


def gallery(block: Block) -> Gallery | None:
    """Truth, start, and each method's result, of the image that most methods kept arrays of; None if none did."""
    there: dict[tuple[int, str], dict[str, tuple[Cell, Row]]] = {}
    for cell in block.cells:
        for row in cell.rows:
            if _file(row).is_file():
                there.setdefault((row.run.seed, row.image), {})[cell.key] = (cell, row)
    unreadable: list[str] = []
    for seed, image in sorted(there, key=lambda k: (-len(there[k]), k)):
        pictures = _pictures(block, image, list(there[seed, image].values()), unreadable)
        if pictures:
            return Gallery(image, pictures, unreadable)
        if len(unreadable) >= 50:
            break
    return Gallery("", [], unreadable) if unreadable else None


def _pictures(block: Block, image: str, found: list[tuple[Cell, Row]], unreadable: list[str]) -> list[Picture]:
    truth: np.ndarray | None = None
    pictures: list[Picture] = []
    for cell, row in found:
        try:
            arrays = _arrays(row)
        except Exception as error:  # a damaged file raises many kinds
            unreadable.append(f"{_file(row)}: {error}")
            continue
        truth = arrays.get("truth") if truth is None else truth
        shown, high = arrays["shown"], _peak(arrays["shown"] if truth is None else truth)
        if truth is not None and truth.shape != shown.shape:
            unreadable.append(f"{_file(row)}: its result is not of the truth's size")
            continue
        box = _box(shown if truth is None else truth)
        if not pictures:
            if truth is not None:
                pictures.append(_picture("Truth", "", image, truth, None, high, box))
            start = arrays.get("start")
            if start is not None and start.shape == shown.shape:
                pictures.append(_picture("Start", _score(row, "start"), image, start, truth, high, box))
        pictures.append(_picture(name(block, cell), _score(row, "result"), image, shown, truth, high, box))
    return pictures


def _score(row: Row, which: str) -> str:
    psnr = row.numbers.get(f"psnr_{which}")
    return "" if psnr is None else f"{db(psnr)} dB, SSIM {db(row.numbers.get(f'ssim_{which}'), 3)}"


def _file(row: Row) -> Path:
    """The reconstruction's arrays; where they were not kept, a small picture may have been (scripts/campaign.py)."""
    arrays = row.folder / "reconstruction.npz"
    return arrays if arrays.is_file() else row.folder / "shown.jpg"


def _arrays(row: Row) -> dict[str, np.ndarray]:
    """Displayed arrays, (height, width, 1 or 3)."""
    if _file(row).suffix == ".jpg":
        return {name: _opened(row.folder / f"{name}.jpg") for name in KEPT if (row.folder / f"{name}.jpg").exists()}
    with np.load(row.folder / "reconstruction.npz", allow_pickle=False) as file:
        found = {k: np.asarray(file[k], dtype=np.float32) for k in KEPT if k in file}
    for key, array in found.items():
        if array.ndim != 4 or array.shape[0] != 1 or array.shape[1] not in (1, 3) or not np.isfinite(array).all():
            raise ValueError(f"'{key}' is no displayed image: shape {array.shape}")
    if "shown" not in found:
        raise KeyError("it holds no 'shown'")
    return {key: np.moveaxis(array[0], 0, -1) for key, array in found.items()}


def _opened(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        array = np.asarray(picture, dtype=np.float32) / 255
    return array[..., None] if array.ndim == 2 else array


def _peak(image: np.ndarray) -> float:
    return max(float(image.max()), 1e-12)


def _box(image: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the part to enlarge: a fifth of the image, where it has most detail."""
    grey = image.mean(axis=-1)
    height, width = grey.shape
    side = max(4, min(height, width) // 5)
    detail = sum(np.abs(np.diff(grey, axis=a, append=grey.take([-1], axis=a))) for a in (0, 1))
    total = np.pad(np.cumsum(np.cumsum(detail, axis=0, dtype=np.float64), axis=1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    margin = min(height, width) // 8  # the image's rim is no detail
    sums[:margin], sums[:, :margin] = -1, -1
    sums[max(margin + 1, int(0.62 * height) - side) :] = -1  # the insets are to hide nothing of it
    sums[:, max(margin + 1, width - side - margin) :] = -1
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), side


def _picture(
    title: str,
    score: str,
    image: str,
    array: np.ndarray,
    truth: np.ndarray | None,
    high: float,
    box: tuple[int, int, int],
) -> Picture:
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    top, left, side = box
    height, width = array.shape[:2]
    scale = SIDE / max(height, width)
    inset = int(0.34 * SIDE * min(height, width) / max(height, width))
    grey = np.clip(array / high, 0, 1)
    rgb = np.repeat(grey, 3, axis=-1) if grey.shape[-1] == 1 else grey
    whole = Image.fromarray((rgb * 255).round().astype(np.uint8))
    canvas = whole.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas)
    frame = [left * scale, top * scale, (left + side) * scale, (top + side) * scale]
    pen.rectangle(frame, outline=(255, 215, 0))
    part = whole.crop((left, top, left + side, top + side)).resize((inset, inset), Image.Resampling.NEAREST)
    canvas.paste(part, (0, canvas.height - inset))
    pen.rectangle([0, canvas.height - inset, inset, canvas.height - 1], outline=(255, 215, 0))
    said = f"{title} of {image}, enlarged part at the lower left"
    if truth is not None:
        error = np.abs(array - truth).mean(axis=-1)[top : top + side, left : left + side] / high
        colours = colormaps["inferno"](np.clip(ERROR_GAIN * error, 0, 1))[..., :3]
        error_part = Image.fromarray((colours * 255).round().astype(np.uint8))
        corner = canvas.width - inset, canvas.height - inset
        canvas.paste(error_part.resize((inset, inset), Image.Resampling.NEAREST), corner)
        pen.rectangle([*corner, canvas.width - 1, canvas.height - 1], outline=(255, 255, 255))
        said += ", its error at the lower right"
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=84, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(title, score, f"{said}. {score}".strip(), uri, canvas.width, canvas.height)
