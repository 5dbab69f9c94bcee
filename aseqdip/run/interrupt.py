"""Being told to stop: signals, a deadline, a command's word to its worker processes; and what a command ends with."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

#: exit statuses: all done; an image failed; bad input; unfinished (out of time, or another process is at work on it)
DONE, FAILED, BAD_INPUT, UNFINISHED = 0, 1, 2, 3
#: a signal's number is added to this
SIGNALLED = 128

#: the variable by which a command's worker processes know it: "process id:folder"
_VARIABLE = "ASEQDIP_COMMAND"
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PARENT = os.getppid()


class Handlers:
    """Signal handlers for SIGINT, SIGTERM and SIGHUP, and what was there before; a signal that was ignored stays so."""

    def __init__(self, handler: Any) -> None:
        self.previous: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: nobody sends us signals there
            for which in _SIGNALS:
                if signal.getsignal(which) != signal.SIG_IGN:  # nohup
                    self.previous[which] = signal.signal(which, handler)

    def kill_next_time(self) -> None:
        """The next signal ends the process at once."""
        for which in self.previous:
            signal.signal(which, signal.SIG_DFL)

    def restore(self) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)
        self.previous.clear()


class Interrupt:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a flag, so that a step ends and is saved; the second one kills.

    In a worker process of a command, its command's word to stop, or its end, counts as SIGTERM.

    Args:
        deadline: the time (``time.time()``) at which to stop as well; None for none.

    Attributes:
        signal: what was received, if anything.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.signal: int | None = None
        self.deadline = deadline
        self.worker = Worker.of_this_process()
        self.handlers: Handlers | None = None

    @property
    def due(self) -> bool:
        """Whether to save and stop now."""
        if self.signal is None and self.worker is not None and self.worker.told():
            self.signal = signal.SIGTERM
        return self.signal is not None or self.late

    @property
    def late(self) -> bool:
        """Whether the deadline is past."""
        return self.deadline is not None and time.time() > self.deadline

    def __enter__(self) -> "Interrupt":
        self.handlers = Handlers(self._note)
        return self

    def _note(self, which: int, frame: FrameType | None) -> None:
        self.signal = which
        if self.handlers is not None:
            self.handlers.kill_next_time()

    def __exit__(self, *exception: object) -> None:
        if self.handlers is not None:
            self.handlers.restore()


class Worker:
    """A worker process of a command (joblib's, submitit's), which hears of its command through a folder.

    A worker on another machine does not see the folder, and hears nothing.
    """

    def __init__(self, command: int, folder: Path) -> None:
        self.command, self.folder, self.parent = command, folder, _PARENT

    @classmethod
    def of_this_process(cls) -> "Worker | None":
        """None in the command's own process, in none of a command's, and on another machine."""
        command, _, folder = os.environ.get(_VARIABLE, "").partition(":")
        if not command.isdecimal() or int(command) == os.getpid() or not folder or not Path(folder).is_dir():
            return None
        return cls(int(command), Path(folder))

    def told(self) -> bool:
        """Whether the command was told to stop, or is no more."""
        return (self.folder / "stop").exists() or self.orphaned()

    def orphaned(self) -> bool:
        """Whether the command is no more."""
        return os.getppid() != self.parent or not _alive(self.command)


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # os.kill(process, 0) would send Ctrl-C; there a word in the folder is heard
        return True
    try:
        os.kill(process, 0)
    except OSError:  # none, or somebody else's by now
        return False
    return True


class Command:
    """A command from its first word to its exit status.

    The first signal ends it with 128 + signal: at once where nothing is being computed (a job that is, in this process,
    listens itself: ``Interrupt``), and after its worker processes have saved where there are any. The second one kills.
    """

    current: "Command | None" = None

    def __init__(self) -> None:
        self.signal: int | None = None
        self.folder: Path | None = None
        self.noted: set[int] = set()

    def __enter__(self) -> "Command":
        os.environ[_VARIABLE] = str(os.getpid())  # not that of a command which started this one
        Command.current = self
        self.handlers = Handlers(self._hear)
        return self

    def expect_workers(self) -> None:
        """From here on it may have worker processes, which hear of it through a folder."""
        with contextlib.suppress(OSError):  # without a folder, workers hear of our end alone
            self.folder = Path(tempfile.mkdtemp(prefix="aseqdip-"))
            (self.folder / "go").touch()
            os.environ[_VARIABLE] = f"{os.getpid()}:{self.folder}"

    def note(self, status: int) -> None:
        """How a part of it ended."""
        self.noted.add(status)

    def _hear(self, which: int, frame: FrameType | None) -> None:
        self.signal = which
        self.handlers.kill_next_time()
        if self.folder is None or not multiprocessing.active_children():
            raise SystemExit(SIGNALLED + which)
        (self.folder / "go").rename(self.folder / "stop")  # needs no space on a full disk
        with contextlib.suppress(OSError):
            os.write(2, b"Waiting for the running jobs to save; a second signal kills.\n")

    def status(self) -> int:
        """What to exit with: a signal comes before bad input, that before a failure, that before what is unfinished."""
        if self.signal is not None:
            return SIGNALLED + self.signal
        noted = set(self.noted)
        if self.folder is not None:
            noted |= {int(path.name[5:]) for path in self.folder.glob("exit-*")}
        signalled = [code for code in noted if code > SIGNALLED]
        return next((code for code in (*signalled, BAD_INPUT, FAILED, UNFINISHED) if code in noted), DONE)

    def __exit__(self, *exception: object) -> None:
        self.handlers.restore()
        Command.current = None
        os.environ.pop(_VARIABLE, None)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def end_job(status: int) -> None:
    """Note how one of the command's jobs ended.

    A signal in the command's own process ends that: raises SystemExit. A worker whose command is no more ends itself.
    """
    worker = Worker.of_this_process()
    if worker is not None:
        with contextlib.suppress(OSError):
            (worker.folder / f"exit-{status}").touch()
        if worker.orphaned():  # joblib would have it wait minutes for its next job
            logging.shutdown()
            os._exit(status)
    elif Command.current is not None:
        Command.current.note(status)
    if worker is None and status > SIGNALLED:
        raise SystemExit(status)


def leave_signals_to_the_command() -> None:
    """In a worker process: Ctrl-C and a hang-up reach the whole terminal; the command gives its workers the word."""
    if Worker.of_this_process() is not None:
        for which in _SIGNALS:
            if which != signal.SIGTERM:
                with contextlib.suppress(ValueError):
                    signal.signal(which, signal.SIG_IGN)
