"""MR images from NumPy files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aseqdip.data import Sample, make_reader
from aseqdip.data.brain import brain
from aseqdip.errors import UserError
from aseqdip.operators.mri import fft2c


def load(path: Path, **options: Any) -> Sample:
    return next(iter(make_reader("complex", path.parent, files=[path.name], options=options).items().values()))()


IMAGE = np.arange(12.0).reshape(3, 4) + 1j


@pytest.mark.parametrize("array", [IMAGE, IMAGE.astype(np.complex64), IMAGE.real, IMAGE.real.astype(np.int16)])
def test_images(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", image=array, subject="P1")
    np.savez_compressed(tmp_path / "c.npz", image=np.asfortranarray(array))
    for path in sorted(tmp_path.iterdir()):
        sample = load(path)
        assert np.array_equal(sample.image[0].numpy(), array.astype(np.complex64))
        assert not sample.notes
    assert load(tmp_path / "b.npz").patient == "P1"
    assert load(tmp_path / "a.npy").patient == str(tmp_path / "a.npy")


def test_slices(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([IMAGE, 2 * IMAGE, 3 * IMAGE]))
    np.save(tmp_path / "b.npy", IMAGE)
    items = make_reader("complex", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["a_s000", "a_s001", "a_s002", "b"]
    third, middle = items["a_s002"]().image, load(tmp_path / "a.npy")
    assert np.array_equal(third[0].numpy(), 3 * IMAGE)
    assert middle.source == "a.npy, slice 1"
    assert "slice 1 of 3 was taken" in middle.notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), "it is empty"),
        (np.zeros((3, 4, 0)), "it is empty"),
        (np.zeros(()), r"shape \(\); expected \(rows, columns\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((8, 8, 3)), r"shape \(8, 8, 3\)"),
        (np.full((3, 4), np.inf), "12 values that are NaN or infinite"),
        (np.full((3, 4), 1e300), "12 values that are NaN or infinite"),
        (np.array([["a", "b"]]), "'image' has type <U1; expected numbers"),
        (np.zeros((3, 4), "M8[s]"), "'image' has type datetime64"),
        (np.zeros((3, 4), bool), "'image' has type bool"),
        (np.zeros((3, 4), [("a", "f4"), ("b", "f4")]), r"'image' has type \[\('a'"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", image=array)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            load(tmp_path / name)


def test_numpy_files_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="a.npy: 'image' holds Python objects, which are never loaded"):
        load(tmp_path / "a.npy")


def npy(shape: str, dtype: str = "<f8") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(1000000, 1000000)"), r"takes 7.45e\+03 GiB, more than dataset.max_gib=2"),
        (npy("(1000, 1000)"), "is cut off"),
        (npy("(-1, 4)"), "could not be read"),
        (npy("(2, 2)", "zz"), "could not be read"),
        (npy("(2, 2)", "|O"), "never loaded"),
        (b"1 2 3\n4 5 6\n", "could not be read .*expected an .npz file with an array 'image'"),
        (b"", "could not be read"),
        (b"\x93NUMPY\x03\x00\x01\0\0\0 ", "named fields"),
        (b"PK\x03\x04 and no more", "could not be read"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    for choice in ("middle", "all"):
        with pytest.raises(UserError, match=f"a.npy.*{message}"):
            load(tmp_path / "a.npy", slice=choice)


def test_archives_without_the_array_or_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", picture=IMAGE)
    with pytest.raises(UserError, match=r"a.npz holds picture; expected an .npz file with an array 'image'"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", image=IMAGE)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="a.npz could not be read"):
        load(tmp_path / "a.npz")


def test_what_looks_like_k_space_is_said(tmp_path: Path) -> None:
    image = brain(64).numpy()
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "b.npy", fft2c(torch.from_numpy(image)).numpy())
    notes = [load().notes for load in make_reader("complex", tmp_path).items().values()]
    assert notes[0] == [] and "as of k-space" in notes[1][0]


def test_counts_of_photons_are_no_line_integrals(tmp_path: Path) -> None:
    integrals = np.repeat(np.hanning(40)[:, None], 20, axis=1)
    counts = np.exp(-3 * integrals)
    hot = counts.copy()
    hot[5, 5] = 9
    for name, sinogram in (("a", integrals), ("b", integrals[10:31]), ("c", counts), ("d", hot)):
        np.savez(tmp_path / f"{name}.npz", sinogram=sinogram, angles=np.arange(0, 180, 9))
    notes = [load().notes for load in make_reader("sinogram", tmp_path).items().values()]
    assert [any("as counts of photons are" in note for note in each) for each in notes] == [False, False, True, True]
