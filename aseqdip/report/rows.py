"""Folders of records as one flat table: a row for each reconstruction."""

import csv
import io
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.errors import UserError
from aseqdip.files import place, write_atomically, write_text
from aseqdip.records import Curve, Record, Score, Trace, scan

WHICH = ("start", "result", "last", "best", "ema", "stopped")
SHARED = ("titles", "departures", "problem", "settings", "versions")


@dataclass(eq=False, slots=True)
class Row:
    """One reconstruction.

    Attributes:
        record: without its curve. lines: the file it is a line of, if it is; pictured: whether that keeps pictures.
        every, curve: iterations for each value; PSNR in dB where there is a truth, else the loss; may be empty.
        reached, ssim: PSNR of what would be the result there (the average, where that is it), and SSIM; may be empty.
        label: the image as printed; with its content's digest where two images of one name meet.
        place: its folder as printed.
    """

    record: Record
    folder: Path
    lines: Path | None
    pictured: bool
    every: int
    curve: np.ndarray
    reached: np.ndarray
    ssim: np.ndarray
    label: str
    place: str

    @property
    def image(self) -> tuple[str, str]:
        """What makes it the same image: its name alone does not."""
        return self.record.image, self.record.content

    def score(self, which: str) -> Score:
        """Its "start", "last" ...; "result" is the reconstruction's own."""
        return self.record.score if which == "result" else self.record.scores.get(which, Score())

    def number(self, column: str) -> float | None:
        """One of NUMBERS: result_psnr_db, best_ssim, stopped_step, method_seconds, tflop, steps ..."""
        which, _, what = column.partition("_")
        if what in ("psnr_db", "ssim", "step") and which in WHICH:
            found = getattr(self.score(which), what)
            return None if found is None else float(found)
        if what == "seconds":
            return self.record.seconds.get(which)
        record = self.record
        if column == "heldout":
            error = record.facts.get("heldout")
            return float(error) if isinstance(error, (int, float)) else None
        if column in ("passes", "tflop"):
            return record.steps * (record.passes_per_step if column == "passes" else record.flops_per_step / 1e12)
        return float(getattr(record, column))


NUMBERS = (
    *(f"{which}_{what}" for which in WHICH for what in ("psnr_db", "ssim")),
    *("heldout", "best_step", "stopped_step", "steps", "network_parameters", "passes", "tflop"),
    *("start_seconds", "method_seconds", "scoring_seconds", "saving_seconds"),
)


@dataclass
class Found:
    """Everything below the folders: reconstructions, and what there is instead of one."""

    folders: list[Path] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    failed: list[Trace] = field(default_factory=list)
    unfinished: list[Trace] = field(default_factory=list)
    damaged: list[Trace] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """A path below the folders as printed."""
        return place(path, self.folders)


def load(folders: Iterable[Path]) -> Found:
    """Read every reconstruction below the folders; what cannot be read is listed, and stops nothing."""
    found, shared = Found(list(folders)), dict[str, Any]()
    for trace in scan(found.folders):
        if trace.record is None:
            getattr(found, trace.state).append(trace)
        else:
            found.rows.append(_row(trace, trace.record, found.place(trace.folder), shared))
    return found


def _row(trace: Trace, record: Record, place: str, shared: dict[str, Any]) -> Row:
    """A thousand records of one sweep say most things alike: what is alike is kept once, and curves as arrays."""
    for name in SHARED:
        value = getattr(record, name)
        setattr(record, name, shared.setdefault(repr(value), value))
    curve, record.curve = record.curve, Curve()
    every, blocks = curve.every, -(-record.steps // curve.every)

    def array(values: list[float]) -> np.ndarray:
        found = np.asarray(values, np.float32)
        whole = len(found) == blocks and record.steps > 1 and np.isfinite(found).all()
        return found if whole else np.empty(0, np.float32)

    values = array(curve.psnr if record.known else curve.loss)
    averaged = record.result == "ema"  # whose SSIM along the way is not known
    reached, ssim = array(curve.psnr_ema) if averaged else values, array([] if averaged else curve.ssim)
    return Row(record, trace.folder, trace.lines, trace.pictured, every, values, reached, ssim, record.image, place)


def command(record: Record) -> str:
    """The shell line that computes this image again; "" where the record does not hold it."""
    return shlex.join(["python", "run.py", *record.command]) if record.command else ""


def clean(text: str) -> str:
    """A text that can be written as UTF-8: names of files may hold bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


def flat(row: Row) -> dict[str, Any]:
    """A row as plain values, one for each column of an exported table."""
    record = row.record
    texts = ("task", "setting", "dataset", "method", "recipe", "preset", "image", "content", "source", "result")
    return {
        **{name: clean(getattr(record, name)) for name in texts},
        "seed": record.seed,
        **{name: row.number(name) for name in NUMBERS},
        "hole_psnr_db": record.score.extras.get("hole_psnr_db"),
        **{name: clean(getattr(record, name)) for name in ("device", "precision", "identity", "commit")},
        **{name: clean(json.dumps(getattr(record, name), sort_keys=True)) for name in ("departures", "settings")},
        "command": clean(command(record)),
        "folder": clean(row.place),
    }


def harmless(value: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def export(path: Path, rows: Sequence[Row]) -> None:
    """A line for each reconstruction, as CSV or (with pyarrow) Parquet. Raises UserError for any other suffix."""
    table = [flat(row) for row in rows]
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(table[0]) if table else [])
        writer.writeheader()
        writer.writerows({name: harmless(value) for name, value in line.items()} for line in table)
        write_text(path, text.getvalue())
    elif path.suffix == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UserError(
                f"{path} needs pyarrow, which is not installed: pip install pyarrow, or write a .csv file."
            ) from error
        columns = pyarrow.Table.from_pylist(table)
        write_atomically(path, lambda file: pyarrow.parquet.write_table(columns, file))
    else:
        raise UserError(f"--export {path}: expected a file that ends in .csv or .parquet.")
