"""A table in slots of a few minutes, on a machine that is lent: tests, benchmark, reconstructions, and small records to take home.

    python scripts/campaign.py --minutes 9 --out OUT preset=paper data=public data_root=DATA
    python scripts/campaign.py --merge OUT/records.zip [...]

The first form runs what results/ lacks: the tests marked gpu and the benchmark (where there is a GPU), then
experiment=table2 with the settings given, until the time is up. OUT then holds records.zip (the new records, and a small
picture of each table cell's first image), gpu-tests.txt and benchmark.json. The second form puts them into results/; the next slot
goes on from there. Nothing is downloaded; PyTorch, NumPy, SciPy, scikit-image, h5py, matplotlib, hydra-core and omegaconf are needed.
"""

import argparse
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RESERVE = 40  # seconds for packing
THUMBNAIL = 192  # pixels
KEPT = ("record.json", "failure.json", "shown.jpg", "start.jpg", "truth.jpg")


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
        minutes = (end - RESERVE - time.time()) / 60
        if minutes > 0:
            words = [f"experiment={experiment}", f"outputs={results}", f"budget_minutes={minutes:.2f}"]
            execute(["run.py", "-m", *words, "tracker=none", "parallel=auto", *settings], end - RESERVE / 2)
    finally:
        for folder in first_images(results):
            thumbnails(folder)
        new = [file for file in small_files(results) if file not in before]
        pack(new, results, out / "records.zip")
        sys.stdout.write(f"{len(new)} new files in {out / 'records.zip'}\n")


def checks(end: float, out: Path, results: Path) -> None:
    """Tests and benchmark of the GPU, once: each has at most a third of the time left."""
    benchmark = [
        "scripts/benchmark.py",
        "--devices",
        "cuda",
        "--json",
        str((out / "benchmark.json").resolve()),
    ]
    commands = {"gpu-tests.txt": ["-m", "pytest", "-m", "gpu", "-q"], "benchmark.json": benchmark}
    for name, command in commands.items():
        if not (results / name).exists():
            printed = execute(command, time.time() + (end - time.time()) / 3)
            (out / Path(name).with_suffix(".txt")).write_text(printed)


def execute(command: list[str], deadline: float) -> str:
    """Run Python on ``command`` in the checkout until the deadline; returns what it printed, which is shown, too."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=max(1, deadline - time.time()))
    except subprocess.TimeoutExpired:
        process.terminate()  # a reconstruction under way is saved
        try:
            printed, _ = process.communicate(timeout=RESERVE / 4)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
    sys.stdout.write(printed)
    return printed


def small_files(results: Path) -> Iterable[Path]:
    """What is taken home of a folder of results."""
    return (file for name in KEPT for file in sorted(results.rglob(name)))


def first_images(results: Path) -> Iterable[Path]:
    """One finished image of each method's folder: the first by name, the same in all of them."""
    methods = {record.parent.parent for record in results.rglob("record.json")}
    return (min(record.parent for record in method.glob("*/record.json")) for method in sorted(methods))


def thumbnails(folder: Path) -> None:
    """Small pictures of a reconstruction's arrays, for the report's galleries."""
    arrays = folder / "reconstruction.npz"
    if not arrays.exists():
        return
    with np.load(arrays, allow_pickle=False) as kept:
        for name in ("shown", "start", "truth"):
            target = folder / f"{name}.jpg"
            if name in kept and not target.exists():
                image = kept[name][0] / max(float(kept["truth" if "truth" in kept else name].max()), 1e-12)
                pixels = np.moveaxis((255 * image.clip(0, 1)).round().astype(np.uint8), 0, -1).squeeze()
                picture = Image.fromarray(pixels)
                picture.thumbnail((THUMBNAIL, THUMBNAIL))
                picture.save(target, quality=86)


def pack(files: Iterable[Path], results: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file, file.relative_to(results).as_posix())


def merge(archive: Path, results: Path) -> int:
    """Unpack the records that are not there yet; the tests' and the benchmark's files beside the archive, too."""
    for name in ("gpu-tests.txt", "benchmark.json"):
        if (archive.parent / name).exists():
            results.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive.parent / name, results / name)
    count = 0
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name)
            if path.name not in KEPT or path.is_absolute() or ".." in path.parts:
                sys.exit(f"{archive} holds {name}: not a slot's records.")
            target = results / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(name))
                count += 1
    return count


if __name__ == "__main__":
    main()
