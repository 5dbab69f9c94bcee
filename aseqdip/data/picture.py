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
#: of tifffile, which takes pages to be alike after a look at some, or follows links to other files: here all pages of
#: one file are looked at
OTHER_LAYOUTS = ("uniform", "ome", "mmstack", "ndtiff")
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
                count = sum(part.count for part in _parts(tiff)[0])
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
                array = self._scaled(sample, path, self._by_pillow(path, file))
        sample.image = channels_first(array)
        if not (torch.isfinite(sample.image).all() and sample.image.min() >= 0 and sample.image.max() <= 1):
            raise UserError(
                f"{printable(path)} holds values outside 0..1: rescale floating-point pictures to that range."
            )
        return sample

    def _by_pillow(self, path: Path, file: BinaryIO, frame: int = 0) -> np.ndarray:
        """One picture as the file has it, (rows, columns) or (rows, columns, 3); whole numbers of 8 bits have 255 as
        white."""
        from PIL import Image, ImageOps

        Image.MAX_IMAGE_PIXELS = None  # max_gib is the limit
        file.seek(0)
        with Image.open(file, formats=FORMATS) as opened_picture:
            opened_picture.seek(frame)
            bands = 3 if len(opened_picture.getbands()) > 2 or opened_picture.mode == "P" else 1
            check_size(path, "the picture", (bands, *opened_picture.size[::-1]), 4, self.options.max_gib)
            deep = _deep(file, opened_picture)
            picture = ImageOps.exif_transpose(opened_picture)
        if deep is not None:
            return deep
        if picture.mode.startswith("I") or picture.mode == "F":
            return np.asarray(picture)
        return np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))

    def _read_tiff(self, sample: Sample, path: Path, file: BinaryIO, index: int | None) -> np.ndarray:
        """One picture of a TIFF, float32, white as 1."""
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            parts, left_out = _parts(tiff)
            count = sum(part.count for part in parts)
            self.check_index(path, index, count)
            number = self.choose(sample, path, index, count) if count > 1 else 0
            if left_out:
                sample.notes.append(
                    f"pictures of the file that were left out: {left_out}, smaller copies, masks, or of another size "
                    "or type than the first; to have them read, save them as files of their own"
                )
            part, place = _at(parts, number)
            array = self._pictures(path, file, part)[place]
            if count > 1 and array.dtype.kind in "iu" and array.dtype.itemsize > 1 and path not in self._largest:
                every = (int(one.max()) for each in parts for one in self._pictures(path, file, each))
                self._largest[path] = max(every)  # one white for all slices
            from_white = _light(part.key) == "MINISWHITE"
            if from_white:
                sample.origin.unit = "grey levels counted from black (the file counts them from white)"
            if part.pillow and array.dtype == np.uint8 and part.key.photometric == 0:
                from_white = not from_white  # Pillow has turned them round, also where the tag is missing
            return self._scaled(sample, path, array, _declared(parts[0].key), from_white)

    def _pictures(self, path: Path, file: BinaryIO, part: "_Part") -> list[np.ndarray]:
        """The pictures of a part, upright, as the file has them. More than 8 bits a channel are tifffile's, which keeps
        them all."""
        key, shape = part.key, part.shape
        check_size(path, "the picture", shape, 4, self.options.max_gib)
        if part.pillow:
            if not _small(key) and key.samplesperpixel > 2:
                raise UserError(
                    f"{printable(path)}: colours of more than 8 bits, compressed by "
                    f"{getattr(key.compression, 'name', key.compression)}, need the package imagecodecs: "
                    "install it, or save the picture without compression."
                )
            return [self._by_pillow(path, file, part.page.index)]
        if len((part.page or key).dataoffsets) < math.prod(key.chunked):
            raise UserError(f"{printable(path)} is cut off: parts of the picture that it declares are not there.")
        if part.page is None:
            check_size(path, "the stack", part.series.shape, 8, self.options.max_gib)
            arrays = part.series.asarray().reshape(part.count, *shape)
        else:
            arrays = part.page.asarray()[None]
        axes = "".join(axis for axis in part.series.axes if axis in "YXS")
        own = key if part.page is None else part.page.aspage()
        return [_upright(_plain(path, array, axes, key), own) for array in arrays]

    def _scaled(
        self, sample: Sample, path: Path, array: np.ndarray, declared: int | None = None, from_white: bool = False
    ) -> np.ndarray:
        """Values as float32, white as 1. Whole numbers: the brightest is what the file declares, or else a guess, which
        is said.

        Args:
            declared: bits of a value, where the file says more than how much room each has.
            from_white: whether 0 is white.
        """
        if array.dtype.kind == "f":
            return 1 - array.astype(np.float32) if from_white else array.astype(np.float32)
        if array.dtype.kind not in "bui":
            raise UserError(f"{printable(path)} holds values of type {array.dtype}; expected whole or real numbers.")
        most = 2 ** self._bits(sample, path, array, declared, "black" if from_white else "white") - 1
        sample.origin.high = float(most)
        if from_white:
            array = most - array.astype(np.float64)
        return array.astype(np.float32) / np.float32(most)

    def _bits(self, sample: Sample, path: Path, array: np.ndarray, declared: int | None, end: str) -> int:
        """How many bits the whole numbers of a picture have. UserError for values that they do not hold.

        Args:
            end: what the largest number stands for, for the note of a guess.
        """
        if array.dtype == np.uint8:
            return 8
        if array.dtype.kind == "b":
            return 1
        least, most = int(array.min()), max(int(array.max()), self._largest.get(path, 0))
        if least < 0:
            raise UserError(f"{printable(path)} holds negative values, down to {least}: shift them to 0 and up.")
        room = 8 * array.dtype.itemsize - (array.dtype.kind == "i")
        bits = self.options.bits or declared
        if self.options.bits is None and (declared is None or most >= 2**declared):
            bits = min(room, next((usual for usual in DEPTHS if most < 2**usual), room))
            if bits < room:
                sample.notes.append(
                    f"its largest value is {most}: taken as {bits}-bit data, {end} is {2**bits - 1}; if not, say "
                    "dataset.bits"
                )
        if bits is None or most >= 2**bits:
            raise UserError(f"{printable(path)} holds values up to {most}, more than dataset.bits={bits} allows.")
        return bits


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


@dataclass
class _Part:
    """Pictures of a TIFF that are decoded at once: those of one page, or of a series that declares them by one page.

    Attributes:
        page: None for a whole series.
        count: of pictures.
    """

    series: "tifffile.TiffPageSeries"
    page: Any
    count: int

    @property
    def key(self) -> "tifffile.TiffPage":
        """The page that says how its pictures are stored."""
        return self.series.keyframe

    @property
    def shape(self) -> list[int]:
        """Of one picture: rows, columns, and channels if it has an axis of them."""
        return [n for n, axis in zip(self.series.shape, self.series.axes, strict=True) if axis in "YXS"]

    @property
    def kind(self) -> Any:
        """What pictures of one stack have in common."""
        return self.shape, self.series.dtype, max(1, self.key.photometric)  # grey is 1, or 0 where 0 is white

    @property
    def place(self) -> Any:
        """Its place in the file."""
        index: Any = (self.page or self.key).treeindex  # of a page inside another one: both their numbers
        return index if isinstance(index, tuple) else (index,)

    @property
    def extra(self) -> bool:
        """Whether it is none of the file's pictures: inside another page, of less resolution, a mask."""
        own = self.page if hasattr(self.page, "subfiletype") else self.key
        return len(self.place) > 1 or own.is_reduced or own.is_mask

    @property
    def pillow(self) -> bool:
        """Whether Pillow decodes it, which sees nothing but whole pages."""
        whole = self.page is not None and len(self.place) == 1
        return whole and (_small(self.key) or not _decodable(self.key))


def _parts(tiff: "tifffile.TiffFile") -> tuple[list[_Part], int]:
    """The pictures of a file that are slices of one stack, in order, and how many it has besides: of other sizes or
    types, of less resolution, masks."""
    parts: list[_Part] = []
    for layout in OTHER_LAYOUTS:
        setattr(tiff, f"is_{layout}", False)
    for series in tiff.series:
        count = _frames(series)
        pages = list(series.pages)
        pages = pages if len(pages) == count and all(page is not None for page in pages) else [None]
        parts += [_Part(series, page, count // len(pages)) for page in pages]
    levels = sum(_frames(level) for series in tiff.series for level in series.levels[1:])
    whole = [part for part in parts if not part.extra] or parts[:1]
    kept = sorted((part for part in whole if part.kind == whole[0].kind), key=lambda part: part.place)
    return kept, sum(part.count for part in parts) + levels - sum(part.count for part in kept)


def _at(parts: list[_Part], number: int) -> tuple[_Part, int]:
    """The part that holds a picture of the stack, and the picture's place in it."""
    for part in parts:
        if number < part.count:
            return part, number
        number -= part.count
    raise IndexError(number)


def _frames(series: "tifffile.TiffPageSeries") -> int:
    """Pictures in a stack; UserError-free: anything but rows, columns and samples counts."""
    return int(
        np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS"], dtype=object)
    )


def _small(page: "tifffile.TiffPage") -> bool:
    """Whether it has at most 8 bits a channel."""
    return page.dtype is None or page.dtype.itemsize == 1 and page.dtype.kind in "bu"


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


def _light(page: "tifffile.TiffPage") -> str:
    """What its values mean: RGB, MINISBLACK ...; without the tag, what libtiff takes them for."""
    if "PhotometricInterpretation" not in page.tags:
        return "MINISWHITE" if page.compression in (2, 3, 4) else "MINISBLACK"  # those of fax machines
    return getattr(page.photometric, "name", str(page.photometric))


def _plain(path: Path, array: np.ndarray, axes: str, page: "tifffile.TiffPage") -> np.ndarray:
    """Rows and columns, and 3 colours if there are; alpha is left out."""
    light = _light(page)
    if light == "PALETTE" and page.colormap is not None and array.dtype == np.uint8:
        return np.moveaxis(page.colormap >> 8, 0, -1).astype(np.uint8)[array]  # as Pillow has the colours
    if array.ndim != len(axes) or sorted(axes) not in (["X", "Y"], ["S", "X", "Y"]):
        raise UserError(f"{printable(path)} has shape {array.shape}: expected rows, columns and up to 4 channels.")
    array = np.moveaxis(array, axes.index("S"), -1) if "S" in axes else array[..., None]
    channels = array.shape[-1]
    if channels > 4 or light not in ("RGB", "MINISBLACK", "MINISWHITE"):
        raise UserError(f"{printable(path)} has {channels} channels ({light}): expected grey or RGB.")
    return array[..., 0] if channels < 3 else array[..., :3]


def _upright(array: np.ndarray, page: "tifffile.TiffPage") -> np.ndarray:
    """Turned and mirrored as the tag Orientation says."""
    tag = page.tags.get("Orientation")
    turned = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1)}
    turned |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1), 8: np.rot90}
    return turned.get(0 if tag is None else int(tag.value), lambda a: a)(array)


def _deep(file: BinaryIO, picture: "Image.Image") -> np.ndarray | None:
    """A PNG's colours, or grey and alpha, of 16 bits, upright: Pillow keeps their upper halves, and the lower ones are
    read again as if they were the upper. None for any other picture."""
    tiles: Any = getattr(picture, "tile", None) if picture.format == "PNG" else None
    raw = tiles[0][3] if tiles else None
    raw = raw[0] if isinstance(raw, tuple) else raw
    if raw == "LA;16B":  # a pixel's four bytes as four channels
        grey = _read_as(file, "RGBA").astype(np.uint16)
        return grey[..., 0] * np.uint16(256) + grey[..., 1]
    if raw in ("RGB;16B", "RGBA;16B"):
        high, low = (_read_as(file, mode)[..., :3] for mode in (raw, raw[:-1] + "L"))
        return high * np.uint16(256) + low
    return None


def _read_as(file: BinaryIO, raw: str) -> np.ndarray:
    """A PNG's pixels, upright, its bytes taken for another kind of pixel."""
    from PIL import Image, ImageOps

    place = file.tell()
    file.seek(0)
    again: Any
    with Image.open(file, formats=("PNG",)) as again:
        again.tile = [(*tile[:3], raw) for tile in again.tile]
        array = np.asarray(ImageOps.exif_transpose(again))
    file.seek(place)
    return array
