"""A reconstruction in a picture small enough for a page or a record: with a zoomed part, and the part's error."""

import io
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 224  # pixels of a picture's longer side
QUALITY = 70
ERROR_GAIN = 5.0
KEPT = ("shown", "start", "truth")


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """Displayed arrays of a reconstruction, (height, width, 1 or 3). Raises ValueError for others."""
    with np.load(folder / "reconstruction.npz", allow_pickle=False) as file:
        found = {k: np.asarray(file[k], dtype=np.float32) for k in KEPT if k in file}
    for key, array in found.items():
        if array.ndim != 4 or array.shape[0] != 1 or array.shape[1] not in (1, 3) or not np.isfinite(array).all():
            raise ValueError(f"'{key}' is no displayed image: shape {array.shape}")
        if min(array.shape[2:]) < 8 or max(array.shape[2:]) > 8 * min(array.shape[2:]):
            raise ValueError(f"'{key}' is a strip of {array.shape[2]} x {array.shape[3]} pixels")
    if "shown" not in found:
        raise ValueError("it holds no 'shown'")
    return {key: np.moveaxis(array[0], 0, -1) for key, array in found.items()}


def draw(arrays: dict[str, np.ndarray], side: int = SIDE, quality: int = QUALITY) -> dict[str, bytes]:
    """WebP files of the result ("shown"), the start image and the truth, as far as they are there."""
    shown, truth = arrays["shown"], arrays.get("truth")
    if truth is not None and truth.shape != shown.shape:
        raise ValueError("its result is not of the truth's size")
    whole = shown if truth is None else truth
    high, box = max(float(whole.max()), 1e-12), _box(whole)
    wanted = {"result": (shown, truth), "start": (arrays.get("start"), truth), "truth": (truth, None)}
    return {
        name: _picture(array, against, high, box, side, quality)
        for name, (array, against) in wanted.items()
        if array is not None and array.shape == shown.shape
    }


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
    array: np.ndarray, truth: np.ndarray | None, high: float, box: tuple[int, int, int], longest: int, quality: int
) -> bytes:
    """The image, at the lower left an enlarged part, and at the lower right (with a truth) that part's error."""
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    top, left, side = box
    height, width = array.shape[:2]
    scale = longest / max(height, width)
    inset = int(0.34 * longest * min(height, width) / max(height, width))

    def pixels(values: np.ndarray) -> Any:
        return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))

    whole = pixels(np.broadcast_to(array / high, (height, width, 3)))
    canvas = whole.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle([left * scale, top * scale, (left + side) * scale, (top + side) * scale], outline=(255, 215, 0))
    part = whole.crop((left, top, left + side, top + side)).resize((inset, inset), Image.Resampling.NEAREST)
    canvas.paste(part, (0, canvas.height - inset))
    pen.rectangle([0, canvas.height - inset, inset, canvas.height - 1], outline=(255, 215, 0))
    if truth is not None:
        error = np.abs(array - truth).mean(axis=-1)[top : top + side, left : left + side] / high
        error_part = pixels(colormaps["inferno"](np.clip(ERROR_GAIN * error, 0, 1))[..., :3])
        corner = canvas.width - inset, canvas.height - inset
        canvas.paste(error_part.resize((inset, inset), Image.Resampling.NEAREST), corner)
        pen.rectangle([*corner, canvas.width - 1, canvas.height - 1], outline=(255, 255, 255))
    file = io.BytesIO()
    canvas.save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()
