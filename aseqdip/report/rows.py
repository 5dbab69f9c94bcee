"""A folder of records as one flat table: a row for each reconstruction."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.records import Trace, scan
from aseqdip.report.command import image_word, recorded, run_command

WHICH = ("start", "result", "last", "best", "ema", "stopped")


@dataclass(eq=False, slots=True)
class Run:
    """What all images of one run folder share.

    Attributes:
        settings: the knobs its results depend on, by dotted name (empty where the record holds none).
        deviations: the knobs whose value is not the paper's.
        command: the shell line without its image; "" where it is not known. Filled in by ``rows.commands``.
    """

    folder: str
    task: str
    setting: str
    dataset: str
    method: str
    recipe: str
    preset: str
    seed: int
    result: str
    settings: dict[str, Any]
    deviations: dict[str, Any]
    example: dict[str, Any]
    command: str | None = None


@dataclass(slots=True)
class Row:
    """One reconstruction.

    Attributes:
        numbers: PSNR (dB), SSIM, steps, seconds, costs, by column name; None where there is none.
        curve: (iterations for each value, PSNR in dB, iterations), or None.
    """

    run: Run
    image: str
    folder: Path
    numbers: dict[str, float | None]
    curve: tuple[int, np.ndarray, int] | None
    device: str
    precision: str


@dataclass
class Found:
    """Everything below the folders: reconstructions, and what there is instead of one."""

    rows: list[Row] = field(default_factory=list)
    failed: list[Trace] = field(default_factory=list)
    unfinished: list[Trace] = field(default_factory=list)
    damaged: list[Trace] = field(default_factory=list)


def load(folders: Iterable[Path]) -> Found:
    """Read every reconstruction below the folders; what cannot be read is listed, and stops nothing."""
    found, runs = Found(), dict[tuple[str, str], Run]()
    for trace in scan(folders):
        if trace.state == "done":
            try:
                found.rows.append(_row(trace, runs))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                message = f"record.json: not a record ({type(error).__name__}: {error})"
                found.damaged.append(Trace(trace.folder, "damaged", error=message))
        else:
            getattr(found, trace.state).append(trace)
    return found


def _row(trace: Trace, runs: dict[tuple[str, str], Run]) -> Row:
    record = trace.content
    settings = recorded(record)
    place = str(trace.folder.parent), json.dumps(settings, sort_keys=True)
    if place not in runs:
        runs[place] = _run(record, place[0], settings)
    return Row(
        runs[place],
        str(record["image"]),
        trace.folder,
        _numbers(record),
        _curve(record),
        str(record.get("device", "")),
        str(record.get("precision", "")),
    )


def _run(record: dict[str, Any], folder: str, settings: dict[str, Any]) -> Run:
    names = ("task", "setting", "dataset", "method", "recipe", "preset")
    return Run(
        folder=folder,
        **{name: str(record.get(name, "unknown")) for name in names},
        seed=int(record["seed"]),
        result=str(record["result"]),
        settings=settings,
        deviations=dict(record.get("deviations_from_paper") or {}),
        example={k: record.get(k) for k in ("identity", "config", "preset", "recipe")},
    )


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _numbers(record: dict[str, Any]) -> dict[str, float | None]:
    scores, seconds = record["scores"], record["seconds"]
    parts = {name: scores.get(record["result"] if name == "result" else name) or {} for name in WHICH}
    if not parts["result"]:
        raise ValueError(f"scores hold no '{record['result']}'")
    found: dict[str, Any] = {f"psnr_{name}": part.get("psnr") for name, part in parts.items()}
    found |= {f"ssim_{name}": part.get("ssim") for name, part in parts.items()}
    found |= {f"{name}_step": parts[name].get("step") for name in ("best", "stopped")}
    found |= {name: parts["result"].get(name) for name in ("hole_psnr", "composited_psnr")}
    found |= {name: record.get(name) for name in ("steps", "network_parameters", "passes_per_step", "flops_per_step")}
    found |= {f"seconds_{name}": seconds.get(name) for name in ("method", "scoring", "saving")}
    numbers = {name: _number(value) for name, value in found.items()}
    steps = numbers["steps"]
    for total, per_step, unit in (("passes", "passes_per_step", 1.0), ("tflop", "flops_per_step", 1e12)):
        rate = numbers[per_step]
        numbers[total] = None if rate is None or steps is None else rate * steps / unit
    return numbers


def _curve(record: dict[str, Any]) -> tuple[int, np.ndarray, int] | None:
    curve = record.get("curve")
    if not curve or not curve["psnr"] or None in curve["psnr"]:
        return None
    every, steps, values = int(curve["every"]), int(record["steps"]), np.asarray(curve["psnr"], np.float32)
    if every < 1 or len(values) != -(-steps // every) or steps < 2:
        return None
    return every, values, steps


def commands(rows: Iterable[Row]) -> None:
    """Fill in ``run.command`` of every run: the shell line up to its image."""
    for run in {id(row.run): row.run for row in rows}.values():
        if run.command is None:
            try:
                run.command = run_command(run.example)
            except (KeyError, TypeError, ValueError, AttributeError):  # settings of another shape than ours
                run.command = ""


def flat(row: Row) -> dict[str, Any]:
    """A row as plain values, one for each column of an exported table."""
    run = row.run
    names = ("task", "setting", "dataset", "method", "recipe", "preset")
    return {
        **{name: getattr(run, name) for name in names},
        "image": row.image,
        "seed": run.seed,
        "result": run.result,
        **row.numbers,
        "device": row.device,
        "precision": row.precision,
        "deviations": json.dumps(run.deviations, sort_keys=True),
        "command": f"{run.command} {image_word(row.image)}" if run.command else "",
        "folder": str(row.folder),
    }


def export(path: Path, rows: Sequence[Row]) -> None:
    """One line a reconstruction, as CSV or (with pyarrow) Parquet, by the file's suffix. Raises UserError for any other."""
    commands(rows)
    table = [flat(row) for row in rows]
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(table[0]) if table else [])
        writer.writeheader()
        writer.writerows(table)
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
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
