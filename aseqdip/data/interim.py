"""Readers as parts, until each has a file of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

from aseqdip.errors import UserError
from aseqdip.parts import Part, knob


class Reader(Part):
    generated: ClassVar[bool] = False
    gives: ClassVar[str] = "image"


@dataclass
class SliceOptions:
    slice: str = knob("slice of a volume: middle, all, or an index", "middle")


@dataclass
class WindowOptions:
    hu_low: float = knob("Hounsfield units shown as 0", -1024.0)
    hu_high: float = knob("Hounsfield units shown as 1", 2000.0)

    def __post_init__(self) -> None:
        if self.hu_low >= self.hu_high:
            raise UserError(f"dataset.hu_low={self.hu_low:g} must be below dataset.hu_high={self.hu_high:g}.")


def _reader(word: str, **own: Any) -> type[Reader]:
    return type(word, (Reader,), {"name": word, "title": word, **own})


class Readers(dict[str, type[Reader]]):
    def __missing__(self, name: str) -> type[Reader]:
        raise UserError(f"dataset.reader={name}: expected one of {', '.join(self)}.")

    def foreign(self, name: str) -> bool:
        return False


READERS = Readers(
    brain=_reader("brain", generated=True),
    body=_reader("body", generated=True),
    photos=_reader("photos", generated=True),
    picture=_reader("picture"),
    kspace=_reader("kspace", Options=SliceOptions, gives="kspace"),
    complex=_reader("complex"),
    ct=_reader("ct", Options=WindowOptions),
)
