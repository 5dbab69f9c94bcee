"""Files that appear whole or not at all, and a look ahead whether they can."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from aseqdip.errors import UserError


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
