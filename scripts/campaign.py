"""A table in slots of a few minutes, on a machine that is lent: tests, benchmark, reconstructions, and small records to
take home.

    python scripts/campaign.py --minutes 9 --out OUT preset=paper data=public data_root=DATA
    python scripts/campaign.py --merge OUT/records.zip [...]

The first form runs what results/ lacks: the checks and the benchmark of the GPU (where there is one), then
experiment=table2 with the settings given, MRI and CT first, then pictures, until the time is up. OUT then holds
records.zip (the new records, and preview.png of each table cell's first image), gpu-check.jsonl and
gpu-bench.jsonl. The second form puts them into results/; the next slot goes on from there, and repeats checks that
failed or were cut short. Nothing is downloaded; PyTorch, NumPy, SciPy, scikit-image, h5py, matplotlib, hydra-core and
omegaconf are needed.
"""

import argparse
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RESERVE = 40  # seconds for packing
CHECKS = {"gpu-check": 1 / 2, "gpu-bench": 1 / 3}  # scripts, and the part of the time left that each may take
RECORDS, PICTURE = ("record.json", "failure.json"), "preview.png"
OLD = ("shown.jpg", "start.jpg", "truth.jpg")  # in archives of earlier versions


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="length of the slot")
    parser.add_argument("--out", type=Path, help="folder for what the slot leaves")
    parser.add_argument("--experiment", default="table2")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is finished, and grows")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="ZIP", help="records of earlier slots")
    words, settings = parser.parse_known_args()
    if words.merge:
        count = sum(merge(archive, words.results) for archive in words.merge)
        sys.stdout.write(f"{count} new files in {words.results}\n")
    elif words.minutes is None or words.out is None:
        parser.error("give --minutes and --out, or --merge")
    else:
        slot(time.time() + 60 * words.minutes, words.out, words.results, words.experiment, settings)


def slot(end: float, out: Path, results: Path, experiment: str, settings: list[str]) -> None:
    """All that fits until ``end`` (a time.time()); whatever fails, what there is gets packed."""
    out.mkdir(parents=True, exist_ok=True)
    results = results.resolve()
    before = set(small_files(results))
    try:
        if torch.cuda.is_available():
            checks(end, out, results)
        for cells in parts(experiment, settings):
            minutes = (end - RESERVE - time.time()) / 60
            if minutes > 0:
                words = [f"experiment={experiment}", f"outputs={results}", f"budget_minutes={minutes:.2f}", *cells]
                execute(["run.py", "-m", *words, "tracker=none", "parallel=auto", *settings], end - RESERVE / 2)
    finally:
        new = [file for file in small_files(results) if file not in before]
        pack(new, results, out / "records.zip")
        sys.stdout.write(f"{len(new)} new files in {out / 'records.zip'}\n")


def parts(experiment: str, settings: list[str]) -> list[list[str]]:
    """The experiment's cells in the order of their worth: scans, pictures, and last a method whose steps take
    longest.
    """
    content: Any = OmegaConf.to_container(OmegaConf.load(ROOT / f"configs/experiment/{experiment}.yaml"))
    params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    cells = [cell.strip() for cell in params.get("cell", "").split(",") if cell.strip()]
    if not cells or any(word.startswith("cell=") for word in settings):
        return [[]]
    scans = [cell for cell in cells if cell.startswith(("mri-", "ct-"))]
    slow = [cell for cell in cells if cell.endswith("-rethinking_dip")]
    pictures = [cell for cell in cells if cell not in scans + slow]
    return [[f"cell={','.join(part)}"] for part in (scans, pictures, slow) if part]


def checks(end: float, out: Path, results: Path) -> None:
    """Checks and benchmark of the GPU, until each has once come to a good end; what they found is kept in any case."""
    for name, share in CHECKS.items():
        file = out / f"{name}.jsonl"
        if not passed(results / file.name):
            file.unlink(missing_ok=True)
            command = [f"scripts/{name.replace('-', '_')}.py", "--out", str(out.resolve())]
            execute(command, time.time() + (end - time.time()) * share)


def passed(file: Path) -> bool:
    """Whether the last line, which is about the whole, says PASS."""
    if not file.exists():
        return False
    *_, last = file.read_text(encoding="utf-8").splitlines() or [""]
    return f'"status": "PASS", "name": "{file.stem}"' in last


def execute(command: list[str], deadline: float) -> int:
    """Run Python on ``command`` in the checkout until the deadline, its output shown as it comes; returns the exit
    status.
    """
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    left = max(1.0, deadline - time.time())
    timers = threading.Timer(left, process.terminate), threading.Timer(left + RESERVE / 4, process.kill)
    for timer in timers:  # first a reconstruction under way is saved
        timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
    status = process.wait()
    for timer in timers:
        timer.cancel()
    return status


def small_files(results: Path) -> Iterator[Path]:
    """What is taken home of a folder of results: its records, and each method's first image to look at."""
    for name in RECORDS:
        yield from sorted(results.rglob(name))
    for method in sorted({record.parent.parent for record in results.rglob("record.json")}):
        yield from sorted(method.glob(f"*/{PICTURE}"))[:1]


def pack(files: Iterable[Path], results: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file, file.relative_to(results).as_posix())


def merge(archive: Path, results: Path) -> int:
    """Unpack the records that are not there yet; the checks' and the benchmark's files beside the archive, too."""
    for name in (f"{check}.jsonl" for check in CHECKS):
        if (archive.parent / name).exists() and not passed(results / name):
            results.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive.parent / name, results / name)
    count = 0
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name)
            if path.name in OLD:
                continue
            if path.name not in (*RECORDS, PICTURE) or path.is_absolute() or ".." in path.parts:
                sys.exit(f"{archive} holds {name}: not a slot's records.")
            target = results / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(name))
                count += 1
    return count


if __name__ == "__main__":
    main()
