"""Pictures of every kind: all their bits, upright; where white is a guess it is said."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from aseqdip.data import Sample, make_reader
from aseqdip.data.picture import read_picture
from aseqdip.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def load(path: Path, **options: Any) -> Sample:
    return next(iter(make_reader("picture", path.parent, files=[path.name], options=options).items().values()))()


def values(sample: Sample) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3)."""
    assert sample.image.shape[0] in (1, 3)
    return sample.image.movedim(0, -1).squeeze(-1).numpy()


def write_png16(path: Path, pixels: np.ndarray, kind: int) -> Path:
    """A PNG with 16 bits a channel, its rows filtered in all five ways."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    step = pixels.itemsize * pixels[0, 0].size
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(height, -1).astype(int)
    lines = []
    for y, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        up = rows[y - 1] if y else np.zeros_like(row)
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        nearest = left + up - corner
        distance = np.stack([abs(nearest - left), abs(nearest - up), abs(nearest - corner)])
        paeth = np.choose(distance.argmin(0), [left, up, corner])
        guess = [np.zeros_like(row), left, up, (left + up) // 2, paeth][y % 5]
        lines.append(bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes())
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_eight_bits(tmp_path: Path) -> None:
    for mode, pixels in {"RGB": RGB, "L": GREY, "RGBA": np.dstack([RGB, GREY]), "LA": np.dstack([GREY, GREY])}.items():
        for kind in ("png", "tif", "bmp"):
            if (mode, kind) in (("RGBA", "bmp"), ("LA", "bmp")):
                continue
            Image.fromarray(pixels).save(tmp_path / f"{mode}.{kind}")
            sample = load(tmp_path / f"{mode}.{kind}")
            assert np.array_equal(values(sample), (RGB if "RGB" in mode else GREY) / np.float32(255))
            assert not sample.notes
    Image.fromarray(RGB).quantize(7).save(tmp_path / "palette.png")
    assert values(load(tmp_path / "palette.png")).shape == (20, 30, 3)
    Image.fromarray(GREY > 99).save(tmp_path / "bits.tif")
    assert np.array_equal(values(load(tmp_path / "bits.tif")), GREY > 99)
    Image.new("RGB", (30, 20), (9, 99, 199)).save(tmp_path / "lossy.jpg", quality=100)
    assert np.abs(values(load(tmp_path / "lossy.jpg")) * 255 - (9, 99, 199)).max() < 3


@pytest.mark.parametrize(
    "how", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}]
)
def test_sixteen_bits_of_tiff(tmp_path: Path, how: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", DEEP[..., 0], **how)
    tifffile.imwrite(tmp_path / "colour.tif", DEEP, photometric="rgb", **how)
    tifffile.imwrite(
        tmp_path / "planes.tif", DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **how
    )
    tifffile.imwrite(
        tmp_path / "alpha.tif", DEEP[..., [0, 1, 2, 0]], photometric="rgb", extrasamples=["unassalpha"], **how
    )
    assert np.array_equal(values(load(tmp_path / "grey.tif")), DEEP[..., 0] / np.float32(65535))
    for name in ("colour.tif", "planes.tif", "alpha.tif"):
        sample = load(tmp_path / name)
        assert np.array_equal(values(sample), DEEP / np.float32(65535)), name
        assert not sample.notes


@pytest.mark.parametrize(("kind", "channels"), [(0, [0]), (2, [0, 1, 2]), (6, [0, 1, 2, 0])])
def test_sixteen_bits_of_png(tmp_path: Path, kind: int, channels: list[int]) -> None:
    pixels = DEEP[..., channels] if kind else DEEP[..., 0]
    sample = load(write_png16(tmp_path / "a.png", pixels, kind))
    assert np.array_equal(values(sample), (DEEP if kind else DEEP[..., 0]) / np.float32(65535))
    assert not sample.notes


@pytest.mark.parametrize("dtype", ["u2", "u4", "i2", "i4"])
@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (1000, 10), (3071, 12), (4095, 12), (4096, 14)])
def test_white_of_fewer_bits_than_there_is_room_for(tmp_path: Path, dtype: str, largest: int, bits: int) -> None:
    pixels = np.arange(600).reshape(20, 30) * largest // 599
    exact = pixels.astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(dtype))
    sample = load(tmp_path / "a.tif")
    assert np.array_equal(values(sample), exact / np.float32(2**bits - 1))
    assert f"its largest value is {largest}: taken as {bits}-bit data, white is {2**bits - 1}" in sample.notes[0]
    own = load(tmp_path / "a.tif", bits=15)
    assert np.array_equal(values(own), exact / np.float32(2**15 - 1))
    assert not own.notes
    with pytest.raises(UserError, match=f"holds values up to {largest}, more than dataset.bits=7"):
        load(tmp_path / "a.tif", bits=7)


def test_white_of_signed_bytes_and_of_whole_integers(tmp_path: Path) -> None:
    for dtype, white in (("i1", 127), ("i2", 2**15 - 1), ("u4", 2**32 - 1), ("i4", 2**31 - 1)):
        pixels = np.linspace(0, white, 600).astype(dtype).reshape(20, 30)
        pixels[-1, -1] = white
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        assert np.allclose(values(load(tmp_path / "a.tif")), pixels / white, atol=1e-6), dtype
    tifffile.imwrite(tmp_path / "a.tif", pixels - 5)
    with pytest.raises(UserError, match="holds negative values, down to -5: shift them"):
        load(tmp_path / "a.tif")


def test_white_as_the_file_declares_it(tmp_path: Path) -> None:
    pixels = GREY.astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(281, 3, 1, 4095, True)])
    assert np.array_equal(values(load(tmp_path / "a.tif")), pixels / np.float32(4095))
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(281, 3, 1, 65535, True)])
    assert np.array_equal(values(load(tmp_path / "a.tif")), pixels / np.float32(65535))


def test_white_is_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="miniswhite")
    assert np.array_equal(values(load(tmp_path / "a.tif")), (65535 - DEEP[..., 0]) / np.float32(65535))


def test_floating_point(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        tifffile.imwrite(tmp_path / "a.tif", (RGB / 255).astype(dtype), photometric="rgb")
        assert np.array_equal(values(load(tmp_path / "a.tif")), (RGB / 255).astype(np.float32))
    for bad in (np.nan, 1.5, -0.1):
        tifffile.imwrite(tmp_path / "a.tif", np.full((20, 30), bad, np.float32))
        with pytest.raises(UserError, match="a.tif holds values outside 0..1"):
            load(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.complex64))
    with pytest.raises(UserError, match="a.tif holds values of type complex64"):
        load(tmp_path / "a.tif")


@pytest.mark.parametrize("imagej", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_stack_is_a_volume(tmp_path: Path, dtype: str, imagej: bool) -> None:
    stack = np.stack([np.full((20, 30), v, dtype) for v in (10, 20, 30, 40, 255)])
    stack[:, 0, 0] = np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=imagej, photometric="minisblack")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    items = make_reader("picture", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["a_s000", "a_s001", "a_s002", "a_s003", "a_s004", "b"]
    for index in range(5):
        assert values(items[f"a_s{index:03d}"]())[1, 1] == stack[index, 1, 1] / np.float32(np.iinfo(dtype).max)
    middle = load(tmp_path / "a.tif")
    assert values(middle)[1, 1] == values(load(tmp_path / "a.tif", slice="2"))[1, 1]
    assert middle.notes == ["slice 2 of 5 was taken: dataset.slice=all makes an image of each"]
    assert middle.source == "a.tif, slice 2"
    with pytest.raises(UserError, match="has slices 0 to 4"):
        load(tmp_path / "a.tif", slice="5")
    with pytest.raises(UserError, match="holds one slice, 0"):
        load(tmp_path / "b.png", slice="1")


def test_a_compressed_stack(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((20, 30), v, np.uint8)) for v in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert [values(load(tmp_path / "a.tif", slice=str(i)))[0, 0] * 255 for i in range(3)] == [10, 20, 30]
    deep = Image.fromarray(DEEP[..., 0])
    deep.save(tmp_path / "b.tif", compression="tiff_lzw")
    assert np.array_equal(values(load(tmp_path / "b.tif")), DEEP[..., 0] / np.float32(65535))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    expected = values(load(tmp_path / "a.png"))
    assert expected.shape == ((30, 20, 3) if orientation > 4 else (20, 30, 3))
    tifffile.imwrite(
        tmp_path / "a.tif", RGB.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    assert np.allclose(values(load(tmp_path / "a.tif")), expected, atol=1e-6)


def png_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_sizes_are_asked_before_memory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of(60000, 60000))
    with pytest.raises(UserError, match=r"a.png: the picture .*takes 40.2 GiB, more than dataset.max_gib=2"):
        load(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[tag].overwrite(60000)
    with pytest.raises(UserError, match=r"a.tif: the picture .*GiB, more than dataset.max_gib=2"):
        load(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", GREY.astype("u2"))
    with pytest.raises(UserError, match="raise dataset.max_gib"):
        load(tmp_path / "b.tif", max_gib=1e-6)


def test_pictures_of_more_than_pillows_limit(tmp_path: Path) -> None:
    """What Pillow calls a decompression bomb is read if max_gib allows it."""
    Image.new("1", (14000, 14000)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape == (1, 14000, 14000)
    with pytest.raises(UserError, match="max_gib"):
        load(tmp_path / "a.png", max_gib=0.5)


@pytest.mark.parametrize(
    "content", [b"not a picture", b"", b"II*\0", b"MM\0*\0\0\0\x08\0\0", png_of(20, 30), b"%!PS-Adobe"]
)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_damaged_pictures(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} could not be read .*expected a whole picture"):
        load(tmp_path / name)


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "bmp"])
def test_truncated_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="could not be read"):
        load(path)


def test_channels_that_are_no_colours(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP[..., [0, 1, 2, 0]], photometric="separated")
    with pytest.raises(UserError, match=r"a.tif has 4 channels \(SEPARATED\): expected grey or RGB"):
        load(tmp_path / "a.tif")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.png is a pipe: expected a regular file"):
        make_reader("picture", tmp_path, options={"slice": "all"}).items()["a"]()
