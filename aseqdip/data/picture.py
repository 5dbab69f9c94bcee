"""Photographs and micrographs from files: PNG, JPEG, BMP, TIFF; grey or colour, 8 to 32 bits or floating point."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from aseqdip.data._files import check_size, opened, printable
from aseqdip.data.base import Sample, VolumeReader
from aseqdip.errors import UserError
from aseqdip.parts import knob

if TYPE_CHECKING:
    import tifffile
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")  # none that starts another program, as PostScript does
EXPECTED = "a whole picture: PNG, JPEG, BMP or TIFF"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEPTHS = (8, 10, 12, 14, 16, 24, 31, 32)  # bits that cameras and scanners give


class Picture(VolumeReader):
    """Pictures as (1 or 3, rows, columns) in [0, 1], upright, without an alpha channel; a TIFF may hold a stack."""

    name = "picture"
    title = "pictures"
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

    @dataclass
    class Options(VolumeReader.Options):
        aspect: bool = knob(
            "whether resized pictures keep their aspect (size is the short side), or become square", False
        )
        bits: int | None = knob(
            "pictures of more than 8 bits: how many of them white has; default: as the file says, else the fewest "
            "usual ones that hold its largest value",
            None,
            low=1,
            high=32,
        )

    options: Options

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._largest: dict[Path, int] = {}

    def count(self, path: Path) -> int | None:
        with opened(path, EXPECTED) as file:
            if not _is_tiff(file):
                return None
            import tifffile

            with tifffile.TiffFile(file) as tiff:
                count = _frames(tiff.series[0])
        return None if count == 1 else count

    def read_slice(self, path: Path, index: int | None) -> Sample:
        sample = self.sample(path, aspect=self.options.aspect)
        sample.origin.unit, sample.origin.kind = "grey levels", "picture"
        with opened(path, EXPECTED) as file:
            if _is_tiff(file):
                sample.origin.kind = "tiff"
                array = self._read_tiff(sample, path, file, index)
            else:
                self.check_index(path, index, 1)
                array = self._read_pillow(sample, path, file)
        sample.image = channels_first(array)
        if not (torch.isfinite(sample.image).all() and sample.image.min() >= 0 and sample.image.max() <= 1):
            raise UserError(
                f"{printable(path)} holds values outside 0..1: rescale floating-point pictures to that range."
            )
        return sample

    def _read_pillow(self, sample: Sample, path: Path, file: BinaryIO, frame: int = 0) -> np.ndarray:
        """One picture, (rows, columns) or (rows, columns, 3), float32."""
        from PIL import Image, ImageOps

        Image.MAX_IMAGE_PIXELS = None  # max_gib is the limit
        file.seek(0)
        with Image.open(file, formats=FORMATS) as opened_picture:
            opened_picture.seek(frame)
            bands = 3 if len(opened_picture.getbands()) > 2 or opened_picture.mode == "P" else 1
            check_size(path, "the picture", (bands, *opened_picture.size[::-1]), 4, self.options.max_gib)
            low = _low_bytes(file, opened_picture)
            picture = ImageOps.exif_transpose(opened_picture)
        if picture.mode.startswith("I"):
            return self._scaled(sample, path, np.asarray(picture))
        if picture.mode == "F":
            return np.asarray(picture)
        array = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))
        if low is not None:
            return self._scaled(sample, path, array * np.uint16(256) + low)
        sample.origin.high = 255.0
        return array / np.float32(255)

    def _read_tiff(self, sample: Sample, path: Path, file: BinaryIO, index: int | None) -> np.ndarray:
        """One picture of a TIFF, likewise. More than 8 bits a channel are tifffile's, which keeps them all."""
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            count = _frames(series)
            self.check_index(path, index, count)
            number = self.choose(sample, path, index, count) if count > 1 else 0
            first = series.keyframe
            page: Any = series.pages[number] if len(series.pages) == count else None
            shape = [n for n, axis in zip(series.shape, series.axes, strict=True) if axis in "YXS"]
            check_size(path, "the picture", shape, 4, self.options.max_gib)
            small = first.dtype is None or first.dtype.itemsize == 1 and first.dtype.kind in "bu"
            if page is not None and isinstance(page.index, int) and (small or not _decodable(first)):
                if not small and first.samplesperpixel > 2:
                    raise UserError(
                        f"{printable(path)}: colours of more than 8 bits, compressed by "
                        f"{getattr(first.compression, 'name', first.compression)}, need the package imagecodecs: "
                        "install it, or save the picture without compression."
                    )
                return self._read_pillow(sample, path, file, page.index)
            if len((page or first).dataoffsets) < math.prod(first.chunked):
                raise UserError(f"{printable(path)} is cut off: parts of the picture that it declares are not there.")
            if page is None:
                check_size(path, "the stack", series.shape, 8, self.options.max_gib)
                array = series.asarray().reshape(count, *shape)[number]
            else:
                array = page.asarray()
            if count > 1 and array.dtype.kind in "iu" and path not in self._largest:  # one white for all slices
                every: Any = series.pages if page is not None else [series]
                self._largest[path] = max(int(one.asarray().max()) for one in every)
            axes = "".join(axis for axis in series.axes if axis in "YXS")
        return _upright(self._scaled(sample, path, _plain(path, array, axes, first), _declared(first)), first)

    def _scaled(self, sample: Sample, path: Path, array: np.ndarray, declared: int | None = None) -> np.ndarray:
        """Values as float32, white as 1. Whole numbers: white is what the file declares, or else a guess, which is
        said.

        Args:
            declared: bits of a value, where the file says more than how much room each has.
        """
        if array.dtype.kind == "f":
            return array.astype(np.float32)
        if array.dtype.kind not in "bui":
            raise UserError(f"{printable(path)} holds values of type {array.dtype}; expected whole or real numbers.")
        least, most = int(array.min()), max(int(array.max()), self._largest.get(path, 0))
        if least < 0:
            raise UserError(f"{printable(path)} holds negative values, down to {least}: shift them to 0 and up.")
        room = 8 * array.dtype.itemsize - (array.dtype.kind == "i")
        bits = self.options.bits or declared
        if self.options.bits is None and (declared is None or most >= 2**declared):
            bits = min(room, next((usual for usual in DEPTHS if most < 2**usual), room))
            if bits < room:
                sample.notes.append(
                    f"its largest value is {most}: taken as {bits}-bit data, white is {2**bits - 1}; if not, say "
                    "dataset.bits"
                )
        if bits is None or most >= 2**bits:
            raise UserError(f"{printable(path)} holds values up to {most}, more than dataset.bits={bits} allows.")
        sample.origin.high = 2.0**bits - 1
        return array.astype(np.float32) / (2**bits - 1)


def read_picture(path: Path) -> Tensor:
    """One picture, (1 or 3, rows, columns) in [0, 1]; UserError if it cannot be decoded."""
    image = Picture().read(path).image
    assert image is not None
    return image


def channels_first(array: np.ndarray) -> Tensor:
    """(rows, columns) or (rows, columns, channels) as a float32 tensor (channels, rows, columns)."""
    image = torch.from_numpy(np.array(array, dtype=np.float32))
    return image[None] if image.ndim == 2 else image.movedim(-1, 0).contiguous()


def _is_tiff(file: BinaryIO) -> bool:
    magic = file.read(4)
    file.seek(0)
    return magic in TIFF


def _frames(series: "tifffile.TiffPageSeries") -> int:
    """Pictures in a stack; UserError-free: anything but rows, columns and samples counts."""
    return int(
        np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS"], dtype=object)
    )


def _decodable(page: "tifffile.TiffPage") -> bool:
    """Whether tifffile can decode it without imagecodecs, which few have."""
    try:
        import imagecodecs  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        return (
            page.compression in (1, 8, 32946, 32773)
            and page.predictor in (1, 2)
            and page.bitspersample in (8, 16, 32, 64)
        )
    return True


def _declared(page: "tifffile.TiffPage") -> int | None:
    """Bits of a value, if the tags say more than the room it has: an odd BitsPerSample, or MaxSampleValue."""
    if page.bitspersample % 8:
        return int(page.bitspersample)
    tag = page.tags.get("MaxSampleValue")
    most = 0 if tag is None else int(np.max(tag.value))
    return next((bits for bits in DEPTHS if most < 2**bits), None) if most > 0 else None


def _plain(path: Path, array: np.ndarray, axes: str, page: "tifffile.TiffPage") -> np.ndarray:
    """Rows and columns, and 3 colours if there are; alpha is left out, white is the largest."""
    light = getattr(page.photometric, "name", str(page.photometric))
    if array.ndim != len(axes) or sorted(axes) not in (["X", "Y"], ["S", "X", "Y"]):
        raise UserError(f"{printable(path)} has shape {array.shape}: expected rows, columns and up to 4 channels.")
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
        colours = {1: 1, 2: 1, 3: 3, 4: 3}.get(array.shape[-1])
        if colours is None or light not in ("RGB", "MINISBLACK", "MINISWHITE"):
            raise UserError(f"{printable(path)} has {array.shape[-1]} channels ({light}): expected grey or RGB.")
        array = array[..., 0] if colours == 1 else array[..., :3]
    if light == "MINISWHITE" and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    return array


def _upright(array: np.ndarray, page: "tifffile.TiffPage") -> np.ndarray:
    """Turned and mirrored as the tag Orientation says."""
    tag = page.tags.get("Orientation")
    turned = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1)}
    turned |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1), 8: np.rot90}
    return turned.get(0 if tag is None else int(tag.value), lambda a: a)(array)


def _low_bytes(file: BinaryIO, picture: "Image.Image") -> np.ndarray | None:
    """The lower half of a PNG's 16-bit colours, of which Pillow keeps the upper: read again with bytes swapped."""
    from PIL import Image, ImageOps

    tiles: Any = getattr(picture, "tile", None) if picture.format == "PNG" else None
    raw = tiles[0][3] if tiles else None
    raw = raw[0] if isinstance(raw, tuple) else raw
    if raw not in ("RGB;16B", "RGBA;16B"):
        return None
    place = file.tell()
    file.seek(0)
    again: Any
    with Image.open(file, formats=("PNG",)) as again:
        again.tile = [(*tile[:3], raw[:-1] + "L") for tile in again.tile]
        low = np.asarray(ImageOps.exif_transpose(again).convert("RGB"))
    file.seek(place)
    return low
