"""Files of every kind with random damage: a sample or one line that names the file, soon; never anything else.

``ASEQDIP_FUZZ=1000`` tries as many damages of each file instead of a few.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from fuzz import damaged, fuzzed, tries
from PIL import Image
from test_ct_slices import write_dicom

from aseqdip.data import make_reader
from aseqdip.data._files import named_errors
from aseqdip.errors import UserError

TRIES = tries(12)
GREY = np.random.default_rng(0).integers(0, 256, (16, 12), dtype=np.uint8)
IMAGE = GREY + 1j * GREY


def hdf5(path: Path, **how: Any) -> None:
    with h5py.File(path, "w", **how) as file:
        k = np.random.default_rng(0).standard_normal((2, 3, 16, 12)).astype(np.complex64)
        file.create_dataset("kspace", data=k, chunks=(1, 3, 16, 12), compression="gzip")
        file["sens_maps"], file["mask"] = k, np.ones(12, bool)
        file.attrs["patient_id"] = "P1"


def stack(path: Path) -> None:
    tifffile.imwrite(path, np.stack([GREY.astype(np.uint16) * 257] * 3), photometric="minisblack", compression="zlib")


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a.h5": ("kspace", hdf5),
    "latest.h5": ("kspace", lambda path: hdf5(path, libver="latest")),
    "a.npy": ("complex", lambda path: np.save(path, IMAGE)),
    "a.npz": ("complex", lambda path: np.savez_compressed(path, image=IMAGE, subject="P1")),
    "hu.npz": ("ct", lambda path: np.savez(path, hu=GREY.astype(np.int16) - 1000)),
    "a.dcm": ("ct", lambda path: write_dicom(path)),
    "a.png": ("picture", lambda path: Image.fromarray(GREY).save(path)),
    "a.jpg": ("picture", lambda path: Image.fromarray(GREY).save(path)),
    "a.bmp": ("picture", lambda path: Image.fromarray(GREY).save(path)),
    "a.tif": ("picture", lambda path: Image.fromarray(GREY).save(path, compression="tiff_lzw")),
    "deep.tif": ("picture", stack),
}


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_named_in_one_line(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    reader, write = WRITERS[name]
    path = tmp_path / name
    write(path)
    content, rng = path.read_bytes(), random.Random(name)
    with fuzzed("files", record_property) as cases:
        for number in range(TRIES):
            path.write_bytes(damaged(content, rng))
            with cases.case((name, number)) as answer:
                for choice in ("middle", "all"):
                    for load in make_reader(reader, tmp_path, files=[name], options={"slice": choice}).items().values():
                        try:
                            sample = load()
                        except UserError as error:
                            answer(str(error))
                            assert name in str(error)
                            assert str(error).isprintable()
                        else:
                            assert all(note.isprintable() for note in (sample.source, *sample.notes))


def test_names_that_are_no_text_are_said_in_our_words() -> None:
    message = r"a.npz could not be read \(a name in it is no UTF-8\): expected an array"
    with pytest.raises(UserError, match=message), named_errors(Path("a.npz"), "an array"):
        b"\xff".decode()
