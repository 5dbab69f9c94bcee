"""Kill reconstructions at random moments, start them again, and compare with ones that nobody killed, bit by bit.

    python scripts/torture.py --kills 50 --seed 0

Every method, several images, seeds and jobs at a time, every local launcher; SIGTERM, SIGINT, SIGHUP and SIGKILL. After each
trial nothing may be left over: no checkpoint, no half-written file, no process.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
COMMON = (
    *("preset=smoke", "device=cpu", "precision=fp32", "size=32", "network.width=4", "network.depth=2", "steps=100"),
    "checkpoint_minutes=0.005",
)
CASES: dict[str, tuple[str, ...]] = {
    "aseqdip": ("method=aseqdip", "coils=4"),
    "vanilla_dip": ("method=vanilla_dip", "task=ct"),
    "tv_dip": ("method=tv_dip", "task=inpainting"),
    "es_dip": ("method=es_dip", "task=deblurring", "window=20", "patience=1000"),
    "sgld_dip": ("method=sgld_dip", "task=denoising", "thinning=5"),
    "self_guided_dip": ("method=self_guided_dip", "coils=4"),
    "ref_guided_dip": ("method=ref_guided_dip", "task=denoising"),
    "rethinking_dip": ("method=rethinking_dip", "task=denoising"),
    "average": ("method=aseqdip", "task=inpainting", "ema=0.9"),
    "W&B": ("method=aseqdip", "task=denoising", "tracker=wandb", "images=0:2"),
    "images at a time": ("method=aseqdip", "coils=4", "images=0:3", "parallel=2"),
    "seeds": ("method=vanilla_dip", "task=denoising", "seeds=0,1"),
    "sweep": ("-m", "method=aseqdip,vanilla_dip", "task=denoising"),
    "joblib": ("-m", "method=aseqdip,tv_dip", "coils=4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("-m", "method=aseqdip,tv_dip", "task=denoising", "hydra/launcher=submitit_local"),
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
#: seconds after which a process that should have ended did hang
PATIENCE = 300


class Wrong(Exception):
    """What a trial found."""


def start(words: tuple[str, ...], folder: Path) -> "subprocess.Popen[bytes]":
    """The command in a folder and a session of its own; what it says goes to ``folder/log``."""
    folder.mkdir(parents=True, exist_ok=True)
    # one thread: the order of summation, and so the last bit, is the number of threads'
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *COMMON, *words],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait(process: "subprocess.Popen[bytes]", what: str) -> int:
    """Its exit status."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Wrong(f"{what}: it did not end within {PATIENCE} s") from None


def begun(folder: Path, process: "subprocess.Popen[bytes]", before: int) -> float:
    """Wait until one more image is begun than before (or the end of the process); returns the time of that."""
    while process.poll() is None and images_begun(folder) <= before:
        time.sleep(0.02)
    return time.monotonic()


def images_begun(folder: Path) -> int:
    """How many times a job has said that it begins: in the command's log, or in those of submitit's workers."""
    logs = [folder / "log", *(folder / "outputs" / ".sweeps").rglob("*_log.out")]
    return sum(path.read_bytes().count(b", seed ") for path in logs if path.exists())


def results(folder: Path) -> dict[str, Any]:
    """Everything finished below a folder: scores, curve and arrays."""
    found = {}
    for path in sorted((folder / "outputs").rglob("record.json")):
        with np.load(path.parent / "reconstruction.npz", allow_pickle=False) as saved:
            arrays = {name: saved[name].tobytes() for name in saved.files}
        curve = (path.parent / "curve.csv").read_text()
        found[str(path.parent.relative_to(folder))] = json.loads(path.read_bytes())["scores"], curve, arrays
    return found


def leftovers(folder: Path) -> list[str]:
    """Checkpoints and half-written files."""
    return [str(p) for p in folder.rglob("*") if p.name.startswith("checkpoint") or p.match(".*.????????")]


def alive(folder: Path) -> list[str]:
    """Processes that work in the folder, on Linux."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink().is_relative_to(folder):
                found.append((path.parent / "cmdline").read_text().replace("\0", " ")[:80])
        except OSError:
            continue
    return found


@dataclass
class Whole:
    """A case nobody killed: what it gives, and how long its images take."""

    results: dict[str, Any]
    seconds: float


def whole(words: tuple[str, ...], folder: Path) -> Whole:
    process = start(words, folder)
    beginning = begun(folder, process, 0)
    if (status := wait(process, "uninterrupted")) != 0:
        raise SystemExit(f"{' '.join(words)}: status {status} without a kill:\n{(folder / 'log').read_text()}")
    return Whole(results(folder), time.monotonic() - beginning)


def trial(words: tuple[str, ...], folder: Path, expected: Whole, draw: random.Random) -> str:
    """Kill once or twice, start again until it is done, compare; returns what was done. Raises Wrong."""
    done = []
    for _ in range(draw.choice((1, 1, 2))):
        which = draw.choice(SIGNALS)
        group = which == signal.SIGINT and draw.random() < 0.5  # Ctrl-C reaches every process of the terminal
        starting = draw.random() < 0.1
        moment = draw.uniform(0, 3 if starting else expected.seconds)
        before = images_begun(folder)
        process = start(words, folder)
        if not starting:
            begun(folder, process, before)
        time.sleep(moment)
        done.append(
            f"{which.name}{' to all' if group else ''} after {moment:.2f} s{' of starting' if starting else ''}"
        )
        if process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, which)
        status = wait(process, done[-1])
        if status not in (0, -which, 128 + which):
            raise Wrong(f"{done[-1]}: status {status}")
        deadline = time.monotonic() + PATIENCE
        while left := alive(folder):  # a killed command's workers save first
            if time.monotonic() > deadline:
                raise Wrong(f"{done[-1]}: still there: {left}")
            time.sleep(0.1)
    said = ", ".join(done)
    if (status := wait(start(words, folder), "the last start")) != 0:
        raise Wrong(f"{said}: then status {status}")
    if (found := results(folder)) != expected.results:
        different = [name for name, value in expected.results.items() if found.get(name) != value]
        raise Wrong(f"{said}: other results in {different or sorted(found)}")
    if left := leftovers(folder):
        raise Wrong(f"{said}: left over: {left}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="trials, each with a kill or two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the cases with this in their name")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    arguments = parser.parse_args()
    names = [name for name in CASES if (arguments.only or "") in name]
    draw, expected, wrong = random.Random(arguments.seed), dict[str, Whole](), 0
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        for number in range(arguments.kills):
            name = names[number % len(names)]
            if name not in expected:
                expected[name] = whole(CASES[name], folder / name / "whole")
            try:
                said = trial(CASES[name], folder / name / f"trial{number}", expected[name], draw)
            except Wrong as error:
                wrong += 1
                said = f"WRONG: {error}"
            sys.stdout.write(f"{number + 1:3d} {name}: {said}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{arguments.kills - wrong} of {arguments.kills} identical\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
