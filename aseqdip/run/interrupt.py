"""Being told to stop: signals and a deadline."""

import signal
import time
from types import FrameType


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a flag, so that a step ends and is saved; the second one kills.

    Args:
        deadline: the time (``time.time()``) at which to stop as well; None for none.

    Attributes:
        signal: what was received, if anything.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.signal: int | None = None
        self.deadline = deadline

    @property
    def due(self) -> bool:
        """Whether to save and stop now."""
        return self.signal is not None or self.late

    @property
    def late(self) -> bool:
        """Whether the deadline is past."""
        return self.deadline is not None and time.time() > self.deadline

    def __enter__(self) -> "Interrupt":
        self.previous = {}
        try:
            for which in (signal.SIGINT, signal.SIGTERM):
                self.previous[which] = signal.signal(which, self._note)
        except ValueError:  # not the main thread: nobody sends us signals there
            pass
        return self

    def _note(self, which: int, frame: FrameType | None) -> None:
        self.signal = which
        signal.signal(which, self.previous[signal.Signals(which)])

    def __exit__(self, *exception: object) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)
