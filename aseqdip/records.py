"""What one reconstruction leaves on disk, and how a folder of them is read again: one writer, one reader, one type."""

import csv
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from aseqdip.files import without_folders, write_atomically, write_text
from aseqdip.plain import dumps, loads, typed

SCHEMA = 2
#: rows of a curve, each with one number for each of COLUMNS; NaN where there is no value
Rows = Sequence[Sequence[float]]
#: a curve's columns, in order; PSNR in dB; psnr_ema is that of the running average of the iterates (decay 0.99);
#: statistic is what a stopping rule wants lowest: the held-out error, a variance of the iterates
COLUMNS = ("iteration", "loss", "data", "autoencoding", "regulariser", "psnr", "ssim", "psnr_ema", "statistic")
LARGEST = 64 * 2**20  # bytes of a record; what is larger is none


@dataclass
class Score:
    """One image's scores. psnr_db and ssim: None where there is no truth; an exact image has infinite PSNR.

    Attributes:
        step: the iteration it is from, where that is not the last one.
        extras: further scores of the task by name with unit: hole_psnr_db, composited_psnr_db.
    """

    psnr_db: float | None = None
    ssim: float | None = None
    step: int | None = None
    extras: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Curve:
    """A thinned curve: each value is the mean of ``every`` iterations (the last of what is left).

    Attributes:
        psnr, psnr_ema: in dB; like ssim empty where there is no truth. loss: only there.
    """

    every: int = 1
    psnr: list[float] = field(default_factory=list)
    psnr_ema: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Record:
    """All that is to be known of one reconstruction without its arrays.

    Attributes:
        image: its name. content: digest of the data it was read from, "" where they are generated or bundled.
        source: name of the file, and which slice of it; never an absolute path.
        setting: the task's, in one word: accel4. titles: task, setting, method and start image as printed.
        result: which of the scores is the reconstruction's: "last", "ema" or "stopped"; never "best".
        scores: start, last, best (an oracle), ema, and stopped where a rule chose.
        seconds: by purpose: start (the start image), method, scoring, saving.
        noise_std: standard deviation of the measurements' noise, where it is known.
        facts: what the task and the method say of this run: coils, where maps come from, scale, the chosen reference.
        departures: knobs whose value is not the paper's.
        problem: the knobs that the measurements depend on (the task's, the reader's, size, truth), without the seed.
        settings: all other knobs that the result depends on (the method's, the network's, steps ...).
        origin: where in which kind of file it stands (kind, volume, slice, slices), what of the file's image it shows
            (region: top, left, rows, columns), what maps displayed values v back: low + (high - low) v, in unit; and
            digests of the bytes of its file (digest) and of all files of its volume (volume_digest).
        command: the words that compute this image again, without absolute paths; empty where they are not known.
        identity, input, code: digests of all that the result depends on, of measurements and start image as computed,
            and of the method's code; "" in older records.
        results_version: raised whenever the same words give other numbers.
        finished: when it was written, in seconds since 1970; 0 in older records.
    """

    image: str
    task: str
    setting: str
    method: str
    content: str = ""
    source: str = ""
    dataset: str = ""
    preset: str = ""
    recipe: str = ""
    titles: dict[str, str] = field(default_factory=dict)
    result: str = "last"
    scores: dict[str, Score] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)
    steps: int = 0
    network_parameters: int = 0
    passes_per_step: float = 0.0
    flops_per_step: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    threads: int = 0
    precision: str = ""
    seed: int = 0
    noise_std: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    departures: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    identity: str = ""
    input: str = ""
    code: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    results_version: int = 0
    finished: int = 0
    schema: int = SCHEMA

    @property
    def score(self) -> Score:
        """The reconstruction's own."""
        return self.scores.get(self.result, Score())

    @property
    def fitted(self) -> bool:
        """Whether a network was: only its steps are as many as a running average takes to forget the first."""
        return "network" in self.settings

    @property
    def classical(self) -> bool:
        """Whether preset and recipe, which are for networks, say nothing of it but when it was made."""
        return self.method == "direct" or self.titles.get("group") == "classical"

    @property
    def trained_on(self) -> str:
        """What the weights of a learned method are; "" of any other method."""
        facts = self.facts
        if facts.get("prior_source"):
            return "official weights"
        if images := facts.get("prior_images"):
            said = {"denoiser": "own prior, {} images", "unrolled": "own, {} images, not E2E-VarNet"}
            return said.get(str(facts.get("prior_family")), "own network, {} images").format(images)
        return f"prior {facts['prior_name']}" if "prior_name" in facts else ""

    @property
    def known(self) -> bool:
        """Whether there was a truth to score against."""
        return self.score.psnr_db is not None


@dataclass
class Failure:
    """Why there is no record of an image."""

    image: str
    error: str
    after_step: int = 0
    traceback: str = ""


@dataclass
class Trace:
    """What was found of one reconstruction.

    Attributes:
        state: "done" (record is there), "failed" (failure is there), "unfinished" (begun, with no end on disk), or
            "damaged" (something that cannot be read; error says why).
        lines: the file of JSON lines that holds it, where it has no folder of its own.
        pictured: whether that file keeps its pictures.
    """

    folder: Path
    state: str
    record: Record | None = None
    failure: Failure | None = None
    error: str = ""
    lines: Path | None = None
    pictured: bool = False


# --- writing -------------------------------------------------------------------------------------------------------


def write(folder: Path, record: Record) -> None:
    """``folder/record.json``, written last of all: an image that has one is finished."""
    parts = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    lines = [f" {json.dumps(name)}: {dumps(value)}" for name, value in parts.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_text(folder / "record.json", text)


def write_failure(folder: Path, failure: Failure) -> None:
    """``folder/failure.json``, in place of a record."""
    write_json(folder / "failure.json", failure)


def write_json(path: Path, content: Any) -> None:
    """A JSON file of plain values and dataclasses, indented."""
    write_text(path, dumps(content, indent=1) + "\n")


def write_curve(path: Path, rows: Rows) -> None:
    """``curve.csv``: one row an iteration, columns ``COLUMNS``; empty where there is no value."""
    lines = [",".join(COLUMNS)]
    lines += [f"{int(row[0])}," + ",".join("" if math.isnan(v) else f"{v:.9g}" for v in row[1:]) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``curve.csv``; NaN where there is no value."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row.get(name) or "nan") for row in rows]) for name in COLUMNS}


def thin(rows: Rows) -> Curve:
    """A curve in at most 200 means over "every" iterations each; the last block may be shorter.

    Small enough to live in the record itself, so that curves can be drawn from records alone.
    """
    table = np.asarray(rows, dtype=float).reshape(-1, len(COLUMNS))
    scored = np.flatnonzero(~np.isnan(table[:, COLUMNS.index("psnr")]))  # score_every leaves some out
    known = bool(len(scored))
    every = max(1, -(-len(rows) // 200), int(np.diff(scored, prepend=-1).max(initial=0)))
    starts = np.arange(0, len(table), every)
    curve = Curve(every)
    for name, digits in {"psnr": 3, "psnr_ema": 3, "ssim": 4}.items() if known else {"loss": 0}.items():
        if len(starts):
            column = table[:, COLUMNS.index(name)]
            there = ~np.isnan(column)
            sums, counts = (np.add.reduceat(part, starts) for part in (np.where(there, column, 0), there.astype(float)))
            means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
            if len(means) > 1 and not counts[-1]:  # of a run that a rule ended between two scores
                means[-1] = means[-2]
            setattr(curve, name, [round(v, digits) if known else float(f"{v:.6g}") for v in means])
    return curve


def write_arrays(path: Path, **arrays: Any) -> None:
    """Compressed ``.npz`` of the arrays (NumPy's or tensors) that are not None."""
    kept = {k: a if isinstance(a, np.ndarray) else a.detach().cpu().numpy() for k, a in arrays.items() if a is not None}
    write_atomically(path, lambda file: np.savez_compressed(file, **kept))  # type: ignore[arg-type]


@cache
def environment() -> dict[str, str]:
    """Versions that a result may depend on."""
    names = ("aseqdip", "torch", "numpy", "scipy", "scikit-image", "hydra-core")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from aseqdip import __version__

            found[name] = __version__ if name == "aseqdip" else "unknown"
    return {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor(), **found}


def _processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


@cache
def commit() -> str:
    """The commit of the checkout this code runs from, "-dirty" where it was edited since; "" where it is none."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():  # installed: a repository around it would be somebody else's
        return ""
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


# --- reading -------------------------------------------------------------------------------------------------------


def finished(folder: Path) -> bool:
    """Whether this image's reconstruction is complete: its record is written last."""
    return (folder / "record.json").is_file()


def scan(folders: Iterable[Path]) -> Iterator[Trace]:
    """Every reconstruction below the folders, finished or not, in order; each once, however the folders overlap.

    Results may be there in the compact form of ``python -m aseqdip.report FOLDER --compact TARGET``: the file
    ``mri/accel4.jsonl`` is read as the folder ``mri/accel4`` would be. Nothing that cannot be read ends the scan.
    """
    seen: set[str] = set()
    for folder in folders:
        for trace in _below(Path(folder)):
            if (real := os.path.realpath(trace.folder)) not in seen or trace.lines is None and trace.state == "damaged":
                seen.add(real)
                yield trace


def _below(folder: Path) -> Iterator[Trace]:
    if folder.suffix == ".jsonl" and folder.is_file():
        yield from _read_lines(folder)
        return
    refused: list[Trace] = []

    def refuse(error: OSError) -> None:
        refused.append(Trace(Path(error.filename), "damaged", error=f"cannot be listed: {error.strerror}"))

    entered: set[str] = set()
    for root, below, files in os.walk(folder, onerror=refuse, followlinks=True):
        # as the runner does: results may have been moved to another disk; a link to a folder above it ends here
        if (real := os.path.realpath(root)) in entered:
            below.clear()
            continue
        entered.add(real)
        below.sort()
        trace = read(Path(root), files)
        if trace is not None:
            yield trace
        for name in sorted(files):
            if name.endswith(".jsonl"):
                yield from _read_lines(Path(root) / name)
    yield from refused


def read(folder: Path, files: Iterable[str] | None = None) -> Trace | None:
    """What one image's folder holds; None for a folder of something else.

    Args:
        files: the names in it, where they are known.
    """
    try:
        there = files if files is not None else [path.name for path in folder.iterdir()]
        names = {"record.json", "failure.json", ".claim", "checkpoint.pt", "curve.csv"}.intersection(there)
        for name in ("record.json", "failure.json"):
            if name in names:
                content = loads(_bytes(folder / name))
                if name == "failure.json":
                    return Trace(folder, "failed", failure=typed(content, Failure, "failure"))
                # a figure of a theorem was once a record without an image
                return None if "study" in content else Trace(folder, "done", parse(content))
    except _UNREADABLE as error:
        return Trace(folder, "damaged", error=_reason(error))
    return Trace(folder, "unfinished") if names else None


_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, RecursionError):
        return "not a record: nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not a record: its byte {error.start} is no UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not a record: no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, OverflowError):
        return "not a record: it holds a number that is too large"
    return f"not a record: {error}" if str(error) else f"not a record: {type(error).__name__}"


def _bytes(path: Path) -> bytes:
    _check_regular(path)
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{size} bytes are more than any record has")
    return path.read_bytes()


def _check_regular(path: Path) -> None:
    """Others than regular files would be waited for, or never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("expected a regular file")


def _read_lines(path: Path) -> Iterator[Trace]:
    """The reconstructions of a file of JSON lines, as those in a folder of its name."""
    try:
        _check_regular(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                folder = path.with_suffix("") / f"line {number}"
                try:
                    content = loads(line)
                    if not {"folder", "record"} & content.keys():
                        continue  # of another file of JSON lines, a benchmark's
                    name = PurePath(content["folder"])
                    if name.is_absolute() or ".." in name.parts or b"\0" in os.fsencode(name):  # UnicodeEncodeError too
                        raise ValueError(f"folder: expected one below {path.stem}, found '{name}'")
                    record = parse(content["record"])
                    folder = path.with_suffix("") / name
                    yield Trace(folder, "done", record, lines=path, pictured=bool(content.get("pictures")))
                except _UNREADABLE as error:
                    yield Trace(folder, "damaged", error=_reason(error), lines=path)
    except (OSError, ValueError) as error:
        yield Trace(path, "damaged", error=_reason(error), lines=path)


def parse(content: dict[str, Any]) -> Record:
    """A record from what JSON made of it. Raises ValueError for what is none of this schema."""
    schema = content.get("schema")
    if schema == 1:
        raise ValueError("schema: 1 was written by an older version, which reads it; this one computes it again")
    if schema != SCHEMA:
        raise ValueError(f"schema: expected {SCHEMA}, found {schema!r}; a newer version wrote it, or it is none")
    record: Record = typed(content, Record, "record")
    if record.result not in record.scores:
        raise ValueError(f"scores: hold no '{record.result}', which is said to be the result")
    if record.curve.every < 1:
        raise ValueError(f"curve.every: expected at least 1, found {record.curve.every}")
    record.command = list(map(without_folders, record.command))
    return record
