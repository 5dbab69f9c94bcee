"""Where every data file is opened: regular files only, sizes asked of the header, every library's error named."""

import hashlib
import logging
import math
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from aseqdip.errors import UserError

if TYPE_CHECKING:
    import h5py

GIB = 2**30
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}

# what these libraries find odd in a file is either an error, named below with the file, or of no consequence
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
for library in ("PIL", "pydicom"):
    warnings.filterwarnings("ignore", module=rf"{library}\b")


def printable(text: object) -> str:
    """A name for one line of text and for a folder: bytes that are not UTF-8, and control characters, as ``%E9``."""
    return "".join(
        c if c.isprintable() else "".join(f"%{b:02X}" for b in c.encode("utf-8", "surrogateescape")) for c in str(text)
    )


def there(path: Path) -> bool:
    """Whether a path leads to anything; one that may not be looked at is taken to: reading it will say why it fails."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def regular(path: Path) -> bool:
    """Whether this is a file that can be read without waiting: no folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def check_regular(path: Path) -> None:
    """Raise UserError unless there is a regular file: reading a pipe or a device may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(path)} cannot be read: {_reason(error)}.") from error
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in KINDS.items() if test(mode)), "a device")
        raise UserError(f"{printable(path)} is {kind}: expected a regular file. Remove it or leave it out.")


@contextmanager
def named_errors(path: Path, expected: str) -> Iterator[None]:
    """Whatever a library raises on a file inside becomes a UserError with the file's name and what was expected."""
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{printable(path)} does not fit into this machine's memory: use a smaller one.") from error
    except Exception as error:  # h5py, NumPy, Pillow, pydicom and tifffile raise dozens of kinds for a damaged file
        raise UserError(
            f"{printable(path)} could not be read ({_reason(error)}): expected {expected}. "
            "Repair or replace the file, or leave it out."
        ) from error


def _reason(error: Exception) -> str:
    """The library's own words, one line of them."""
    if type(error).__name__ == "UnidentifiedImageError":  # its words are the file object's
        return "no format that is known"
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is no UTF-8"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = printable(words.strip().split("\n")[0])
    if inner := re.fullmatch(r"Unable to [\w ]+\((.+)\)", line):  # h5py says twice that it could not
        line = inner[1]
    return line.rstrip(".:")[:200] or type(error).__name__


def _without_waiting(name: str, flags: int) -> int:
    """Opens at once, should the file have become a pipe since it was looked at."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def opened(path: Path, expected: str) -> Iterator[BinaryIO]:
    """An open regular file; errors as in :func:`named_errors`."""
    check_regular(path)
    with named_errors(path, expected), open(path, "rb", opener=_without_waiting) as file:  # pathlib has no opener
        yield file


def bytes_digest(path: Path) -> str:
    """The hash of a file's bytes; read again once it is another file, or its size or time is another."""
    check_regular(path)  # a pipe, say, would never end
    found = path.stat()
    return _bytes_digest(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@cache
def _bytes_digest(path: Path, _: tuple[int, ...]) -> str:
    with opened(path, "a file that can be read") as file:
        found = hashlib.sha256()
        while piece := file.read(1 << 20):
            found.update(piece)
        return found.hexdigest()


@contextmanager
def opened_hdf5(path: Path, expected: str) -> Iterator["h5py.File"]:
    """An open HDF5 file; errors as in :func:`named_errors`."""
    import h5py

    check_regular(path)
    with named_errors(path, expected), h5py.File(os.fsencode(path), "r") as file:
        yield file


def hdf5_dataset(file: "h5py.File", path: Path, name: str) -> "h5py.Dataset | None":
    """The data set of a name at the file's root; None if there is none.

    Raises UserError for one that is kept in another file: that one might be anything.
    """
    import h5py

    key = name.encode()
    if not file.id.links.exists(key):
        return None
    linked = file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD
    found = None if linked else file[name]
    if linked or (isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)):
        raise UserError(f"{printable(path)}: '{name}' is only a link to other data: store the data in the file itself.")
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{printable(path)}: '{name}' is a group: expected a data set.")
    return found


def check_size(path: Path, what: str, shape: Sequence[int], itemsize: int, max_gib: float) -> None:
    """Raise UserError, before memory is taken, for what is empty or larger than ``max_gib``."""
    if 0 in shape:
        raise UserError(f"{printable(path)}: {what} has shape {tuple(shape)}: it is empty.")
    gib = math.prod(int(n) for n in shape) * itemsize / GIB
    if gib > max_gib:
        raise UserError(
            f"{printable(path)}: {what} has shape {tuple(shape)} and takes {gib:.3g} GiB, more than dataset.max_gib="
            f"{max_gib:g}: is the file damaged? If it is as large as that, raise dataset.max_gib."
        )


def load_arrays(
    path: Path, keys: Sequence[str], expected: str, max_gib: float, headers: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file that are among ``keys``; a bare ``.npy`` holds the first of them.

    With ``headers``, nothing is read but them: arrays of that shape and type without memory of their own. Never
    unpickles. Raises UserError for a file without the first key, and for one that is damaged or too large.
    """
    with opened(path, expected) as file:
        magic = file.read(4)
        file.seek(0)
        if magic != b"PK\x03\x04":
            return {keys[0]: _read_npy(file, path, keys[0], max_gib, path.stat().st_size, headers)}
        with zipfile.ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if keys[0] not in members:
                names = ", ".join(map(printable, list(members)[:8])) or "nothing"
                raise UserError(f"{printable(path)} holds {names}; expected {expected}.")
            arrays = {}
            for key in keys:
                if key in members:
                    with archive.open(members[key]) as member:
                        size = archive.getinfo(members[key]).file_size
                        arrays[key] = _read_npy(member, path, key, max_gib, size, headers)
            return arrays


def _read_npy(file: Any, path: Path, key: str, max_gib: float, size: int, header: bool) -> np.ndarray:
    """One array in NumPy's format, of ``size`` bytes: its header is looked at before anything else."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # later ones are for field names that are not Latin-1: no plain array has any
        raise UserError(
            f"{printable(path)}: '{key}' holds a table with named fields; expected a plain array of numbers."
        )
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise UserError(
            f"{printable(path)}: '{key}' holds Python objects, which are never loaded: store plain numbers."
        )
    check_size(path, f"'{key}'", shape, dtype.itemsize, max_gib)
    if math.prod(shape) * dtype.itemsize > size:
        raise UserError(f"{printable(path)}: '{key}' is cut off: {shape} of {dtype} are more bytes than the file has.")
    if header:
        return np.broadcast_to(np.empty((), dtype), shape)
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


def load_array_or_none(path: Path, shape: Sequence[int], dtype: Any) -> np.ndarray | None:
    """A cached array, or None where there is none of this shape and type, whatever is there instead."""
    try:
        array = load_arrays(path, ["array"], "a NumPy file", math.inf)["array"] if regular(path) else None
    except UserError:
        return None
    return array if array is not None and array.shape == tuple(shape) and array.dtype == dtype else None
