"""What tests with random damage share: how often they try, how bytes are damaged, what is counted and printed."""

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

#: seconds that one case may take; a busy machine's, too
LIMIT = 60
#: words of a library, or of Python, that no answer of ours holds
RAW = re.compile(
    r"Traceback|Error:|omegaconf|Could not override|no viable|full_key|object_type|HYDRA_FULL|object has no|NoneType|"
    r"codec can't|Expecting |unsupported operand|too large to convert|unhashable|<class |inline_container"
)


def tries(few: int) -> int:
    """How many damages to try: ``ASEQDIP_FUZZ`` of them, else a few."""
    return int(os.environ.get("ASEQDIP_FUZZ", few))


class Hang(BaseException):
    """A case took longer than its limit; nothing on the way up takes it for an error of its own."""


class Cases:
    """The cases of one test, counted: what raised, what hung, and whose answer was a library's own message."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(("cases", "tracebacks", "hangs", "raw library messages"), 0))
        self.wrong: list[str] = []

    @contextmanager
    def case(self, what: object) -> Iterator[Callable[[str], None]]:
        """One case. What is raised inside is noted, and ends no other case; yields what an answer is handed to."""
        self.counts["cases"] += 1
        alarm = hasattr(signal, "SIGALRM")
        previous = signal.signal(signal.SIGALRM, _hang) if alarm else None
        if alarm:
            signal.alarm(LIMIT)
        try:
            yield lambda answer: self._answer(what, answer)
        except Hang:
            self._note("hangs", what, f"more than {LIMIT} s")
        except Exception as error:
            self._note("tracebacks", what, f"{type(error).__name__}: {error}")
        finally:
            if alarm:
                signal.alarm(0)
                signal.signal(signal.SIGALRM, previous)

    def _answer(self, what: object, answer: str) -> None:
        if not answer.strip() or RAW.search(answer):
            self._note("raw library messages", what, answer)

    def _note(self, kind: str, what: object, found: str) -> None:
        self.counts[kind] += 1
        self.wrong.append(f"{kind}: {what!r:.200}: {found:.500}")


def _hang(which: int, frame: FrameType | None) -> None:
    raise Hang


@contextmanager
def fuzzed(family: str, record_property: Callable[[str, object], None]) -> Iterator[Cases]:
    """The cases of a test, whose counts are printed at the end of all tests; it fails if any of them went wrong."""
    cases = Cases()
    yield cases
    record_property("fuzz", (family, dict(cases.counts)))
    assert not cases.wrong, "\n".join(cases.wrong)


def summary(found: list[tuple[str, Mapping[str, int]]]) -> list[str]:
    """A line for each family of cases."""
    families: dict[str, Counter[str]] = {}
    for family, counts in found:
        families.setdefault(family, Counter()).update(counts)
    return [f"{name}: " + ", ".join(f"{n} {what}" for what, n in c.items()) for name, c in families.items()]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with a few bytes changed, eight in a row set alike, or cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 10))):
        place = min(int(rng.expovariate(4 / len(changed))), len(changed) - 1)  # headers come first
        kind = rng.randrange(6)
        if kind < 4:
            changed[place] = rng.choice((0, 255, 127, 128, changed[place] ^ 1 << rng.randrange(8), rng.randrange(256)))
        elif kind == 4:
            changed[place : place + 8] = rng.choice((b"\xff", b"\0", b"\x7f")) * 8
        else:
            del changed[rng.randrange(1, len(changed) + 1) :]
    return bytes(changed)
