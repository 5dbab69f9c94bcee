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


@pytest.mark.parametrize(("kind", "channels"), [(0, [0]), (2, [0, 1, 2]), (4, [0, 1]), (6, [0, 1, 2, 0])])
def test_sixteen_bits_of_png(tmp_path: Path, kind: int, channels: list[int]) -> None:
    pixels = DEEP[..., channels] if kind else DEEP[..., 0]
    sample = load(write_png16(tmp_path / "a.png", pixels, kind))
    assert np.array_equal(values(sample), (DEEP if kind in (2, 6) else DEEP[..., 0]) / np.float32(65535))
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


def test_white_is_zero_of_other_kinds(tmp_path: Path) -> None:
    """Through Pillow as through tifffile, as many bits as the file declares, in 8 bits and in floats."""
    grey = DEEP[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
    assert np.array_equal(values(load(tmp_path / "a.tif")), (65535 - grey) / np.float32(65535))
    declared = [(281, "H", 1, 4095, True)]
    tifffile.imwrite(tmp_path / "b.tif", grey // 16, photometric="miniswhite", extratags=declared)
    sample = load(tmp_path / "b.tif")
    assert np.array_equal(values(sample), (4095 - grey // 16) / np.float32(4095)) and not sample.notes
    assert sample.origin.unit == "grey levels counted from black (the file counts them from white)"
    guessed = (DEEP[..., 0] // 16).astype(np.int16)
    tifffile.imwrite(tmp_path / "c.tif", guessed, photometric="miniswhite")
    sample = load(tmp_path / "c.tif")
    assert np.array_equal(values(sample), (4095 - guessed) / np.float32(4095)) and "black is 4095" in sample.notes[0]
    tifffile.imwrite(tmp_path / "d.tif", (GREY / 255).astype(np.float32), photometric="miniswhite")
    assert np.array_equal(values(load(tmp_path / "d.tif")), 1 - (GREY / 255).astype(np.float32))
    tifffile.imwrite(tmp_path / "e.tif", GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "f.tif", np.stack([GREY, GREY]), photometric="miniswhite", truncate=True)
    for name in ("e.tif", "f.tif"):
        assert np.array_equal(values(load(tmp_path / name)), (255 - GREY) / np.float32(255)), name


def test_a_tiff_that_does_not_say_what_zero_is(tmp_path: Path) -> None:
    """0 is black, in 8 bits as in 16."""
    for pixels in (GREY, DEEP[..., 0]):
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            place = tiff.pages[0].tags["PhotometricInterpretation"].offset
        content = bytearray((tmp_path / "a.tif").read_bytes())
        content[place : place + 2] = (65000).to_bytes(2, "little")  # a tag of somebody's own
        (tmp_path / "a.tif").write_bytes(content)
        white = np.float32(np.iinfo(pixels.dtype).max)
        assert np.array_equal(values(load(tmp_path / "a.tif")), pixels / white), pixels.dtype


def test_pillow_decodes_as_tifffile_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compressed in other ways than tifffile knows is read with the same tags."""
    monkeypatch.setattr("aseqdip.data.picture._decodable", lambda page: False)
    pixels = DEEP[..., 0] // 128
    for light in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=light, extratags=[(281, "H", 1, 4095, True)])
        sample = load(tmp_path / "a.tif")
        expected = 4095 - pixels if light == "miniswhite" else pixels
        assert np.array_equal(values(sample), expected / np.float32(4095)) and not sample.notes


def test_colours_by_number(tmp_path: Path) -> None:
    """A palette's numbers are no grey levels, in a stack that one page declares neither."""
    palette = RNG.integers(0, 256, (3, 256), dtype=np.uint8)
    colours = palette.T[GREY] / np.float32(255)
    for how in ({}, {"truncate": True}):
        tifffile.imwrite(
            tmp_path / "a.tif", np.stack([GREY] * 2), photometric="palette", colormap=palette * np.uint16(257), **how
        )
        assert np.array_equal(values(load(tmp_path / "a.tif", slice="1")), colours)
    deep = np.zeros((3, 65536), np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", DEEP[..., 0], photometric="palette", colormap=deep)
    with pytest.raises(UserError, match=r"b.tif has 1 channels \(PALETTE\): expected grey or RGB"):
        load(tmp_path / "b.tif")


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


def test_one_white_for_all_slices_however_they_are_stored(tmp_path: Path) -> None:
    stack = [np.linspace(0, most, 600).astype(np.uint16).reshape(20, 30) for most in (900, 4000, 3000)]
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for page, how in zip(stack, ("zlib", None, "zlib"), strict=True):
            file.write(page, compression=how)
    colours = np.stack([np.dstack([page, page, page, np.full_like(page, 65535)]) for page in stack])
    tifffile.imwrite(tmp_path / "c.tif", colours, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("a.tif", "b.tif", "c.tif"):  # the last with an alpha channel, which says nothing of white
        for index, page in enumerate(stack):
            sample = load(tmp_path / name, slice=str(index))
            assert np.array_equal(sample.image[0].numpy(), page / np.float32(4095)), (name, index)
            assert sample.notes[0].startswith("its largest value is 4000: taken as 12-bit data")


LEFT_OUT = "pictures of the file that were left out: 1, smaller copies, masks, or of another size or type"


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"metadata": None}])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_pages_written_one_by_one_are_a_stack(tmp_path: Path, how: dict[str, Any], dtype: str) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for level in (10, 20, 30):
            file.write(np.full((20, 30), level, dtype), **how)
    samples = [item() for item in make_reader("picture", tmp_path, options={"slice": "all"}).items().values()]
    assert [round(255 * float(sample.image[0, 0, 0])) for sample in samples] == [10, 20, 30]
    assert not any(LEFT_OUT in note for sample in samples for note in sample.notes)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("odd", [2, 5])
def test_pages_of_another_size_are_no_slices(tmp_path: Path, dtype: str, odd: int) -> None:
    """Wherever they are: who looks at some pages alone reads them in the first one's size."""
    for how in ({}, {"metadata": None}):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for number in range(9):
                file.write(np.full((20, 30) if number != odd else (12, 30), 10 * number, dtype), **how)
        samples = [item() for item in make_reader("picture", tmp_path, options={"slice": "all"}).items().values()]
        levels = [np.unique(np.rint(255 * values(sample))).tolist() for sample in samples]
        assert levels == [[10 * number] for number in range(9) if number != odd]
        assert all(sample.image.shape == (1, 20, 30) and LEFT_OUT in sample.notes[0] for sample in samples)


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
def test_copies_of_less_resolution_and_masks_are_no_slices(tmp_path: Path, metadata: dict[str, None]) -> None:
    with tifffile.TiffWriter(tmp_path / "inside.tif") as file:  # as large as the page that it is in
        file.write(GREY, subifds=1, **metadata)
        file.write(GREY // 2, **metadata)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(GREY, **metadata)
        file.write(GREY[::2, ::2], subfiletype=1, **metadata)
    with tifffile.TiffWriter(tmp_path / "before.tif") as file:
        file.write(GREY[::3, ::5], subfiletype=1, **metadata)
        file.write(GREY, **metadata)
    with tifffile.TiffWriter(tmp_path / "mask.tif") as file:
        file.write(GREY, **metadata)
        file.write(GREY > 99, subfiletype=4, **metadata)
    items = make_reader("picture", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["before", "inside", "mask", "pyramid"]
    for name, item in items.items():
        sample = item()
        assert np.array_equal(values(sample), GREY / np.float32(255)), name
        assert sample.notes[0].startswith(LEFT_OUT), name


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_tiff_that_names_others_is_read_alone(tmp_path: Path, dtype: str) -> None:
    """OME-TIFF: each file names the files of the whole stack, which are pictures of their own."""
    names = ["3d6198b6-ea61-11f1-a9fd-02fc00000000", "3d6198b6-ea61-11f1-a9fd-02fc00000001"]
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    sizes = f'Type="uint{8 * int(dtype[1])}" SizeX="30" SizeY="20" SizeC="1" SizeZ="2" SizeT="1"'
    for z, name in enumerate(names):
        text = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{name}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" {sizes}>'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{planes}</Pixels></Image></OME>"
        )
        pixels = np.full((20, 30), (z + 1) * 100, dtype)
        tifffile.imwrite(tmp_path / f"{z}.ome.tif", pixels, metadata=None, description=text)
    items = make_reader("picture", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["0.ome", "1.ome"]
    assert [round(255 * float(item().image.max())) for item in items.values()] == [100, 200]


def test_each_page_is_turned_as_it_says_itself(tmp_path: Path) -> None:
    for pixels in (GREY, DEEP[..., 0]):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for orientation in (1, 3):
                file.write(pixels, metadata=None, extratags=[(274, "H", 1, orientation, False)])
        white = np.float32(np.iinfo(pixels.dtype).max)
        assert np.array_equal(values(load(tmp_path / "a.tif", slice="0")), pixels / white)
        assert np.array_equal(values(load(tmp_path / "a.tif", slice="1")), np.rot90(pixels, 2) / white)


def test_bits_are_those_of_pictures_of_more_than_eight(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), truncate=True)
    assert np.array_equal(values(load(tmp_path / "a.tif", bits=16)), GREY / np.float32(255))


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
