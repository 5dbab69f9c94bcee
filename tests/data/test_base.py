"""Which files a data set has, what their images are called, and how a user asks for them."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Configure
from PIL import Image

import aseqdip.data
from aseqdip.data import READERS, Reader, make_reader, open_dataset, select
from aseqdip.data.base import unique_names
from aseqdip.errors import UserError
from aseqdip.parts import Registry


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def names(root: Path, *files: str, **words: Any) -> list[str]:
    return list(make_reader("picture", root, files=files or None, **words).items())


def test_every_reader_is_found_by_its_file() -> None:
    assert set(READERS) == {
        "body",
        "brain",
        "complex",
        "ct",
        "bart",
        "dicom",
        "ismrmrd",
        "kspace",
        "mat",
        "nifti",
        "photos",
        "picture",
        "sinogram",
    }
    assert {name for name in READERS if READERS[name].generated} == {"body", "brain", "photos"}
    with pytest.raises(UserError, match="Did you mean kspace"):
        make_reader("kspce")


OWN = """
from aseqdip.data import Sample, VolumeReader
from aseqdip.data.base import finite
import numpy as np

class Raw(VolumeReader):
    name = "raw"
    title = "raw numbers"
    suffixes = (".raw.bin",)

    def count(self, path):
        return path.stat().st_size // 64

    def read_slice(self, path, index):
        sample = self.sample(path)
        index = self.choose(sample, path, index, self.count(path))
        values = np.fromfile(path, "f4").reshape(-1, 4, 4)[index]
        sample.image = finite(values, str(path))[None]
        return sample
"""


def test_a_reader_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw.py").write_text(OWN)
    monkeypatch.setattr(aseqdip.data, "__path__", [*aseqdip.data.__path__, str(tmp_path)])
    monkeypatch.setattr(aseqdip.data, "READERS", Registry(Reader, "aseqdip.data", "dataset.reader"))
    np.arange(48, dtype=np.float32).tofile(tmp_path / "scan.raw.bin")
    items = make_reader("raw", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["scan_s000", "scan_s001", "scan_s002"]
    assert items["scan_s002"]().image[0, 0, 0] == 32
    sample = make_reader("raw", tmp_path).items()["scan"]()
    assert sample.source == "scan.raw.bin, slice 1"
    assert sample.notes
    monkeypatch.delitem(sys.modules, "aseqdip.data.raw")


def test_sizes_of_what_is_drawn() -> None:
    assert make_reader("brain", size="48").items()["brain03"]().image.shape == (1, 48, 48)
    with pytest.raises(UserError, match="size=big: expected a number of pixels, or native"):
        make_reader("brain", size="big").items()
    with pytest.raises(UserError, match="size=100000: expected 8 to 4096 pixels"):
        make_reader("body", size="100000").items()


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.slices: reader kspace has no such setting; it has max_gib, slice"):
        make_reader("kspace", tmp_path, options={"slices": "all"})
    with pytest.raises(UserError, match=r"dataset.max_gib=0: expected more than 0"):
        make_reader("kspace", tmp_path, options={"max_gib": 0})
    with pytest.raises(UserError, match="expected low below high"):
        make_reader("ct", tmp_path, options={"hu_low": 100.0, "hu_high": 100.0})


def test_a_data_set_may_name_its_files(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "b.png", "sub/c.png")
    assert names(tmp_path) == ["a", "b"], "without a list: every file of the folder"
    assert names(tmp_path, "sub/c.png", "a.png") == ["c", "a"], "in the order of the list"
    assert names(tmp_path, "a.png", "a.png") == ["a"]
    assert make_reader("picture", tmp_path, files=["sub/c.png"]).items()["c"]().source == "sub/c.png"


def test_files_of_a_list_that_are_missing(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    with pytest.raises(UserError, match=r"lists 3 files, of which 2 are missing in .*: b.png, /x/c.png"):
        names(tmp_path, "a.png", "b.png", "/x/c.png")
    with pytest.raises(UserError, match="its list of files is empty"):
        make_reader("picture", tmp_path, files=[]).items()


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist.*dataset=mine expects.*set data_root="):
        names(tmp_path / "nowhere", dataset="mine")
    with pytest.raises(UserError, match=r"No \.png, .* file.*an empty folder"):
        names(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"found \.txt"):
        names(tmp_path)
    with pytest.raises(UserError, match=r"notes.txt is a file, not a folder"):
        names(tmp_path / "notes.txt")
    for root in ("~nobody-is-called-that/data", "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match=r"data folder .*set data_root"):
            make_reader("picture", root).items()


def test_what_cannot_be_looked_at_is_an_image_that_fails(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["a", "gone", "loop"]
    items = make_reader("picture", tmp_path, files=["loop.png/b.png", "a.png"]).items()
    assert items["a"]().image is not None
    with pytest.raises(UserError, match="b.png cannot be read: Too many levels of symbolic links"):
        items["b"]()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match="closed"):
        names(tmp_path / "closed")


def test_folder_below_the_root_or_the_root_itself(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "set/b.png")
    assert names(tmp_path, folder="set") == ["b"]
    assert names(tmp_path, folder="other") == ["a"]


def test_names_are_unique(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "a.jpg", "b.png", "p/c.png", "q/c.png", "p/q/d.png", "p_q/d.png", "a.png.bmp")
    assert names(tmp_path) == ["a.jpg", "a.png", "a.png.bmp", "b"]
    assert names(tmp_path, "p/c.png", "q/c.png", "b.png") == ["p_c.png", "q_c.png", "b"]
    assert names(tmp_path, "p/q/d.png", "p_q/d.png") == ["p_q_d.png", "p_q_d.png+"]


def test_a_folder_that_is_named_must_be_there(configure: Configure, tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}")
    assert list(open_dataset(configure(*words))) == ["a"]
    (tmp_path / "patient1").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "patient1" / "a.png")
    for _ in range(2):  # whether the root itself has images or none
        with pytest.raises(UserError, match=r"dataset.folder=pateint1: there is no such folder: .*pateint1"):
            open_dataset(configure(*words, "dataset.folder=pateint1"))
        Image.new("L", (32, 32)).save(tmp_path / "b.png")


def test_names_that_would_lead_out_of_a_folder(tmp_path: Path) -> None:
    files = [tmp_path / "..png", tmp_path / "...png", tmp_path / "a.b.png"]
    assert list(unique_names(files, tmp_path, (".png",))) == ["..png", "...png", "a.b"]
    outside = [Path("/home/somebody/p/a.png"), Path("/home/somebody/q/a.png"), tmp_path / "p" / "a.png"]
    assert list(unique_names(outside, tmp_path, (".png",))) == ["p_a.png", "q_a.png", "p_a.png+"], "not whose they are"


def test_names_that_are_no_text_are_read_and_printable(tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("its file system takes UTF-8 names alone")
    write_pictures(tmp_path, "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    write_pictures(tmp_path, "two\nlines.png", "gr\u00fcn.png")
    items = make_reader("picture", tmp_path).items()
    assert set(items) == {"caf%E9", "two%0Alines", "gr\u00fcn"}
    assert {item().source for item in items.values()} == {"caf%E9.png", "two%0Alines.png", "gr\u00fcn.png"}
    (tmp_path / os.fsdecode(b"caf\xe9.png")).rename(tmp_path / os.fsdecode(b"caf\xe9.h5"))
    with pytest.raises(UserError, match="caf%E9.h5 could not be read"):
        make_reader("kspace", tmp_path).items()["caf%E9"]()


NAMES = ["a", "b", "c", "3"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", NAMES),
        (0, ["a"]),
        ("1", ["b"]),
        (-1, ["3"]),
        ("1:3", ["b", "c"]),
        (":2", ["a", "b"]),
        (["c", 0, "c"], ["c", "a"]),
        ("3", ["3"]),
        ("./a", ["a"]),
        ("2:9", ["c", "3"]),
        ("7:9", []),
    ],
)
def test_select(spec: Any, expected: list[str]) -> None:
    assert select(NAMES, spec) == expected


@pytest.mark.parametrize("spec", [4, "-5", "d", ["a", "x"], "./x", "9" * 30, "1e0", ""])
def test_select_what_there_is_not(spec: Any) -> None:
    with pytest.raises(UserError, match=r"there is no such image. The data set has 4, indices 0 to 3: a, b, c, 3"):
        select(NAMES, spec)


def test_select_what_is_a_name_and_another_index() -> None:
    numbered = ["1", "2", "3"]
    with pytest.raises(UserError, match=r"images=1 is the name of one image and the index of another \(2\)") as error:
        select(numbered, 1)
    assert "images=./1 for the name, images=1:2 for the index" in str(error.value)
    assert select(numbered, "./1") == ["1"]
    assert select(numbered, "1:2") == ["2"]
    assert select(numbered, 0) == ["1"], "no image has this name"
    assert select(numbered, "3") == ["3"], "no image has this index"
    assert select(["0", "1", "2"], 1) == ["1"], "both are the same image"
    with pytest.raises(UserError, match="the list is empty"):
        select(numbered, [])
