"""What a person is shown: streams that cannot fail a reconstruction, be they closed, full or gone; times in words."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Steady:
    """A text stream whose ``write`` and ``flush`` never raise: from the first failure on, its text is thrown away."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with self._surviving():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._surviving():
            self.stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:  # a reader that is behind: this text is lost, not the next
            pass
        except (OSError, ValueError):  # a closed pipe, a full disk; a closed file
            self._give_up()

    def _give_up(self) -> None:
        # what is left in its buffer would be written, and fail, at the end of the process
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
        except (OSError, ValueError, AttributeError):  # it has no number
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def about(seconds: float) -> str:
    """A length of time for a person: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


def steady_streams() -> None:
    """Make standard output and error such streams; call first of all, before a file takes a closed stream's number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Steady):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # no UTF-8 locale
            setattr(sys, name, Steady(stream))
