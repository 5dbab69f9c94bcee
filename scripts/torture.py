"""Kill reconstructions at random moments, start them again, and compare with ones that nobody killed, bit by bit.

    python scripts/torture.py --kills 50 --seed 0

Every method, several images, seeds and jobs at a time, every local launcher; SIGTERM, SIGINT, SIGHUP and SIGKILL. A
trial counts once a kill has left work undone. After each nothing may be left over: no checkpoint, no half-written file,
no process.
"""

import argparse
import contextlib
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
    *("preset=smoke", "device=cpu", "precision=fp32", "size=32", "network.width=4", "network.depth=2", "steps=200"),
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
if os.name != "posix":
    sys.exit("These are the signals of Linux and macOS: Windows has no such thing.")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
#: how long a killed or continued command may take, in times of one that nobody killed; that one, in times of imports
PATIENCE, FIRST_PATIENCE = 20, 100
#: the variable by which every process of a trial is known, in whatever folder or session it works
MARK = "ASEQDIP_TORTURE"


class Wrong(Exception):
    """What a trial found."""


def start(words: tuple[str, ...], folder: Path) -> "subprocess.Popen[bytes]":
    """The command in a folder and a session of its own; what it says goes to ``folder/log``."""
    folder.mkdir(parents=True, exist_ok=True)
    # one thread: the order of summation, and so the last bit, is the number of threads'
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), MARK: str(folder)}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *COMMON, *words],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait(process: "subprocess.Popen[bytes]", what: str, limit: float) -> int:
    """Its exit status. Raises Wrong after ``limit`` seconds."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        raise Wrong(f"{what}: it did not end within {limit:.0f} s") from None


def wait_for_image(folder: Path, process: "subprocess.Popen[bytes]", before: int, limit: float) -> bool:
    """Wait until one more image is begun than before, and say so; False at the process's end. Raises Wrong."""
    end = time.monotonic() + limit
    while images_begun(folder) <= before:
        if process.poll() is not None:
            return False
        if time.monotonic() > end:
            raise Wrong(f"no image begun within {limit:.0f} s")
        time.sleep(0.02)
    return True


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
        curve = (path.parent / "curve.csv").read_text(encoding="utf-8")
        found[str(path.parent.relative_to(folder))] = json.loads(path.read_bytes())["scores"], curve, arrays
    return found


def leftovers(folder: Path) -> list[str]:
    """Checkpoints and half-written files."""
    return [str(p) for p in folder.rglob("*") if p.name.startswith("checkpoint") or p.match(".*.????????")]


def alive(folder: Path) -> dict[int, str]:
    """Processes begun for the folder, or one below it, by id, on Linux."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={folder}".encode() in path.read_bytes():
                found[int(path.parent.name)] = (
                    (path.parent / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")[:80]
                )
    return found


def wait_for_all(folder: Path, what: str, limit: float) -> None:
    """Until no process of the folder is there: a killed command's workers save first. Raises Wrong."""
    end = time.monotonic() + limit
    while left := alive(folder):
        if time.monotonic() > end:
            raise Wrong(f"{what}: still there after {limit:.0f} s: {', '.join(left.values())}")
        time.sleep(0.1)


def kill_all(folder: Path) -> None:
    while left := alive(folder):
        for process in left:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


@dataclass
class Whole:
    """A case nobody killed: what it gives; seconds before its first image, of all its images, and of everything."""

    results: dict[str, Any]
    before: float
    seconds: float
    total: float


def whole(words: tuple[str, ...], folder: Path, limit: float) -> Whole:
    """Raises Wrong if it does not end well within ``limit`` seconds."""
    begin = time.time()  # as file systems have it
    process = start(words, folder)
    wait_for_image(folder, process, 0, limit)
    first = time.time()
    if (status := wait(process, "without a kill", limit)) != 0:
        raise Wrong(f"without a kill: status {status}:\n{(folder / 'log').read_text(encoding='utf-8')}")
    last = max(path.stat().st_mtime for path in folder.rglob("record.json"))
    return Whole(results(folder), first - begin, last - first, time.time() - begin)


def trial(words: tuple[str, ...], folder: Path, expected: Whole, part: float, draw: random.Random) -> str | None:
    """Kill once or twice, start again until it is done, compare; returns what was done. Raises Wrong.

    None if no kill came before the end of the work, so that nothing was tried.

    Args:
        part: of the time that a clean run took, in which to kill.
    """
    done, counts, limit = [], False, PATIENCE * expected.total
    for _ in range(draw.choice((1, 1, 2))):
        which = draw.choice(SIGNALS)
        group = which == signal.SIGINT and draw.random() < 0.5  # Ctrl-C reaches every process of the terminal
        starting = draw.random() < 0.1
        moment = draw.uniform(0, part * (expected.before if starting else expected.seconds))
        before = images_begun(folder)
        process = start(words, folder)
        begun = not starting and wait_for_image(folder, process, before, limit)
        time.sleep(moment)
        done.append(
            f"{which.name}{' to all' if group else ''} after {moment:.2f} s{' of starting' if starting else ''}"
        )
        if process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, which)
        status = wait(process, done[-1], limit)
        if status not in (0, -which, 128 + which):
            raise Wrong(f"{done[-1]}: status {status}")
        wait_for_all(folder, done[-1], limit)
        counts |= begun and status != 0 and len(results(folder)) < len(expected.results)
    if not counts:
        return None
    said = ", ".join(done)
    if (status := wait(start(words, folder), f"{said}: the last start", limit)) != 0:
        raise Wrong(f"{said}: then status {status}")
    if (found := results(folder)) != expected.results:
        different = [name for name, value in expected.results.items() if found.get(name) != value]
        raise Wrong(f"{said}: other results in {different or sorted(found)}")
    if left := leftovers(folder):
        raise Wrong(f"{said}: left over: {left}")
    wait_for_all(folder, f"{said}: the last start", limit)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="trials, each with a kill or two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the cases with this in their name")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    arguments = parser.parse_args()
    for which in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        # in the background, or under nohup: what we start would ignore it
        if signal.getsignal(which) == signal.SIG_IGN:
            signal.signal(which, signal.SIG_DFL)
    names = [name for name in CASES if (arguments.only or "") in name]
    draw, expected, wrong, late = random.Random(arguments.seed), dict[str, Whole](), 0, 0
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import hydra, torch"], check=True)
    first_limit = FIRST_PATIENCE * (time.monotonic() - begin)
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        root = (arguments.folder or Path(temporary)).resolve()
        for number in range(arguments.kills):
            name = names[number % len(names)]
            folder, said, part = root / name, None, 1.0
            while said is None:
                try:
                    if name not in expected:
                        expected[name] = whole(CASES[name], folder / f"whole{number}", first_limit)
                    said = trial(CASES[name], folder / f"trial{number}-{part:g}", expected[name], part, draw)
                except Wrong as error:
                    wrong += 1
                    said = f"WRONG: {error}"
                finally:
                    kill_all(folder)
                late += said is None  # it is tried again
                part /= 2
            sys.stdout.write(f"{number + 1:3d} {name}: {said}\n")
            sys.stdout.flush()
    minutes = (time.monotonic() - begin) / 60
    sys.stdout.write(f"{arguments.kills - wrong} of {arguments.kills} identical, each killed with work undone; ")
    sys.stdout.write(f"{late} kills too late, {minutes:.0f} min\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
