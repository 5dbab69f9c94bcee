"""Data sets: what is in them, and how an image is read. One reader a file, named like its ``reader:`` word."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from aseqdip.data._files import load_array_or_none, printable
from aseqdip.data.base import FileReader, Items, Reader, Sample, VolumeReader, select
from aseqdip.errors import UserError
from aseqdip.parts import Registry, check_value

__all__ = [
    "READERS", "FileReader", "Items", "Reader", "Sample", "VolumeReader", "load_array_or_none", "make_reader",
    "open_dataset", "printable", "select",
]  # fmt: skip

READERS = Registry(Reader, __name__, "dataset.reader")  # type: ignore[type-abstract]


def make_reader(
    name: str,
    root: Path | str = "data",
    folder: str = "",
    files: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    size: str = "native",
    dataset: str = "",
) -> Reader:
    """A reader with the values of its knobs (others stay at their defaults). Raises UserError for one it has not."""
    part = READERS[name]
    known = {f.name: f for f in fields(part.Options)}
    for key, value in (options or {}).items():
        if key not in known:
            raise UserError(f"dataset.{key}: reader {name} has no such setting; it has {', '.join(known) or 'none'}.")
        check_value(f"dataset.{key}", known[key], value)
    return part(part.Options(**(options or {})), Path(root), folder, files, size, dataset)


def open_dataset(cfg: Any) -> Items:
    """The images of ``cfg.dataset``, by name and in order; nothing is read yet. UserError if there is none."""
    data = cfg.dataset
    make = data.reader.part
    reader: Reader = make(data.reader.options, Path(cfg.data_root), data.folder, data.files, cfg.size, data.name)
    named = any(word.startswith("dataset.folder=") for word in cfg.words)
    folder = Path(cfg.data_root).expanduser() / data.folder
    if isinstance(reader, FileReader) and named and reader.data_folder() != folder:
        raise UserError(f"dataset.folder={data.folder}: there is no such folder: {printable(folder)}.")
    return reader.items()
