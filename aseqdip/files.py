"""Files that appear whole or not at all, a look ahead whether they can, and how others may read of them."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from aseqdip.errors import UserError


def config_folder() -> Path:
    """``configs/``: beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in the folder (which is created)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Results cannot be written to {folder} ({error.strerror}): set outputs=... to another folder."
        ) from error


def place(path: Path, roots: Iterable[Path] = ()) -> str:
    """A path as others may read it, since an absolute one tells of a machine and its users.

    Relative to the working folder, or to one that code is imported from; else ``.../`` and what follows from one of the
    roots on, or its last part.
    """
    if not path.is_absolute():
        return str(path)
    for base in map(Path, (os.getcwd(), *sys.path)):  # noqa: PTH109 - one that is gone, too
        if base.is_absolute() and path != base and len(base.parts) > 1 and path.is_relative_to(base):
            return str(path.relative_to(base))
    if str(path) == os.path.expanduser("~"):  # noqa: PTH111 - pathlib's raises where there is none
        return "..."
    root = next((root for root in roots if path.is_relative_to(root)), path)
    return str(Path("...", root.name, path.relative_to(root)))


#: absolute paths in a text: in quotes all of it, else up to a delimiter; a few words before a slash belong to it
_ABSOLUTE = re.compile(
    r"""(?<=["'])/[^"'\n]*(?=["'])|"""
    r"""(?<![\w.:/~\\"'-])/[^\s,;:\])"']+(?:(?:[ ][^\s/,;:()\[\]"']+){1,3}/[^\s,;:\])"']+)*"""
)
#: the same on Windows: from a drive's letter on
_ON_A_DRIVE = re.compile(r"""(?<=["'])[A-Za-z]:[\\/][^"'\n]*(?=["'])|(?<![\w.])[A-Za-z]:[\\/][^\s,;:\])"']*""")


def without_folders(text: str) -> str:
    """A text with each absolute path in it as :func:`place` has it."""
    text = _ON_A_DRIVE.sub(lambda found: _on_a_drive(PureWindowsPath(found[0])), text) if ":" in text else text
    return _ABSOLUTE.sub(lambda found: place(Path(found[0])), text) if "/" in text else text


def _on_a_drive(path: PureWindowsPath) -> str:
    base = PureWindowsPath(os.getcwd())  # noqa: PTH109 - as in place
    inside = path != base and path.is_relative_to(base)
    return (path.relative_to(base) if inside else PureWindowsPath("...", path.name)).as_posix()


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work in the folder (made if need be): False while another one, or a thread, does.

    The claim ends with its holder, however that ends; the hidden file it hangs on stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield from _claimed_elsewhere(folder / ".claim")
        return
    with (folder / ".claim").open("wb") as file:
        free = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for half in folder.glob(".*.????????"):  # of write_atomically, by a process that was killed
                half.unlink(missing_ok=True)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks: as on Windows
            pass
        yield free


def _claimed_elsewhere(path: Path) -> Iterator[bool]:
    from filelock import FileLock, Timeout  # comes with PyTorch

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """The file appears whole or not at all, also when the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """The text as such a file, in UTF-8; what is no text in a file's name is written as \\udcxx."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))
