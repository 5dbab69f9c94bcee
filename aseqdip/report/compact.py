"""Results in few files: the records of a setting, with small pictures, as one file of JSON lines: ``mri/accel4.jsonl``.

Left out are arrays, whole curves and checkpoints. ``records.scan`` reads the file as the folder ``mri/accel4``.
"""

import base64
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from aseqdip.errors import UserError, in_short
from aseqdip.files import write_text
from aseqdip.plain import dumps, loads
from aseqdip.records import Record, Trace, scan
from aseqdip.thumbnails import arrays_of, draw

SIDE, QUALITY = 152, 38  # pixels of a picture's longer side, and how well they are kept


def compact(folders: Iterable[Path], target: Path, methods: Collection[str] = ()) -> list[Path]:
    """Write ``target/task/setting.jsonl`` for all that is finished below the folders; returns the files.

    What a target's file holds already stays, and a later campaign adds to it: of two of one name the newer is kept.
    Raises UserError where something cannot be read, since what is left out of the compact form may be deleted next.

    Args:
        methods: of these alone, if any are named.
    """
    found: dict[Path, dict[str, Trace]] = {}
    for root in folders:
        for trace in scan([root]):
            if trace.state == "damaged":
                raise UserError(f"{trace.folder}: {trace.error}. Mend or delete it first.")
            if trace.record is not None and (not methods or trace.record.method in methods):
                *place, run, image = _named(trace.folder)
                below = place[len(_named(root)) :]  # task and setting, at least
                name = "/".join(below if len(below) > 1 else (trace.record.task, trace.record.setting))
                here = found.setdefault(target / f"{name}.jsonl", {})
                if (other := here.get(f"{run}/{image}")) is None or _age(trace.record) >= _age(other.record):
                    here[f"{run}/{image}"] = trace
    drawn: set[tuple[Any, ...]] = set()
    for file, traces in sorted(found.items()):
        lines = _kept(file)
        for name, trace in sorted(traces.items()):
            if name in lines and (trace.lines == file or not _better(trace, loads(lines[name]))):
                continue
            if trace.lines is None:
                lines[name] = dumps({"folder": name, "record": trace.record, "pictures": _pictures(trace, drawn)})
            elif trace.lines != file:
                lines[name] = _kept(trace.lines)[name]
        text = "".join(line + "\n" for line in lines.values())
        write_text(file, text)
    return sorted(found)


def _age(record: Record | dict[str, Any] | None) -> list[int]:
    """What is larger of a record that was made later; it may be as it was read."""
    values = record if isinstance(record, dict) else vars(record)
    return [values.get(date, 0) for date in ("results_version", "finished")]


def _named(path: Path) -> tuple[str, ...]:
    """The parts of a whole path; links keep the name that they have."""
    return Path(os.path.normpath(path.absolute())).parts


def _better(trace: Trace, kept: dict[str, Any]) -> bool:
    """Whether it is newer than a line; of the same age, whether it has pictures that the line may lack."""
    if (age := _age(trace.record)) != (before := _age(kept["record"])):
        return age > before
    return trace.pictured or (trace.folder / "reconstruction.npz").is_file() or not kept.get("pictures")


def _kept(file: Path) -> dict[str, str]:
    """The lines of a file by the names of their folders. UserError for one that holds anything else."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        try:
            content = loads(line)
            found[str(content["folder"])] = line
            if not content["record"]:
                raise ValueError("no record")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}: line {number} is no record: mend or delete it, or take another folder."
            ) from error
    return found


def _pictures(trace: Trace, drawn: set[tuple[Any, ...]]) -> dict[str, str]:
    """The result's picture; the start's and the truth's too, the first time that they are met."""
    if trace.record is None or not (trace.folder / "reconstruction.npz").is_file():
        return {}
    r = trace.record
    try:
        found = draw(arrays_of(trace.folder), SIDE, QUALITY)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{trace.folder}: its reconstruction.npz cannot be read ({in_short(error)}): compute it again with "
            "redo=true, or delete it, if records alone are enough."
        ) from error
    problem = r.task, r.setting, r.image, r.content, r.seed, dumps(r.problem)
    if problem in drawn:
        found = {"result": found["result"]}
    drawn.add(problem)
    return {name: base64.b64encode(file).decode() for name, file in found.items()}
