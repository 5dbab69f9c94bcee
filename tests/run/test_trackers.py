"""Trackers: what W&B holds is what the files hold, and W&B can never fail or hang a run."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aseqdip.config import Config
from aseqdip.identity import identity
from aseqdip.records import COLUMNS, Rows, read_curve
from aseqdip.run import trackers
from aseqdip.run.runner import run
from aseqdip.run.trackers import (
    Estimate,
    Guarded,
    Mirror,
    ProgressBar,
    Tracker,
    WandB,
    group_of,
    make_trackers,
    tags_of,
)

ROOT = Path(__file__).parent.parent.parent
Configure = Callable[..., Config]


def offline_records(path: Path) -> Iterator[Any]:
    """The protobuf records of a ``.wandb`` file: LevelDB's log format, 32 kB blocks, after a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(folder: Path) -> dict[str, dict[int, float]]:
    """Metric -> step -> value, and the run itself under "run"."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for record in offline_records(path):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                key = item.key or ".".join(item.nested_key)
                if key in ("psnr", "ssim", "loss", "data", "autoencoding", "psnr_ema"):
                    values[key][int(record.history.step.num)] = json.loads(item.value_json)
    return values


@pytest.fixture(autouse=True)
def on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's helper may take long to start; tests of what is not waited for say their own patience."""
    monkeypatch.setattr(Mirror, "patience", 60)


def stands_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, patience: float) -> None:
    """This code is what a helper imports as wandb, and so long it is waited for, in seconds."""
    (folder / "wandb.py").write_text(code)
    monkeypatch.setattr("sys.path", [str(folder), *sys.path])
    monkeypatch.setattr(Mirror, "patience", patience)


@pytest.fixture
def mirrored() -> Iterator[None]:
    """A process for W&B of the test's own, which is gone at its end."""
    trackers.close_mirrors()
    trackers._warned.clear()
    yield
    trackers.close_mirrors()


@pytest.mark.usefixtures("pictures")
@pytest.mark.slow
@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize("words", [("parallel=1",), ("parallel=2", "tracker.pictures=true")])
def test_offline_file_holds_every_iteration(
    configure: Configure, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mirror, "patience", 60)  # a busy machine
    summary = run(configure("tracker=wandb", "steps=30", "images=0:2", *words))
    trackers.close_mirrors()
    assert len(summary.records) == 2
    for record in summary.records:
        folder = summary.folder / record.image
        curve, stored = read_curve(folder / "curve.csv"), history(folder)
        for name in ("loss", "psnr", "ssim", "psnr_ema", "autoencoding"):
            assert sorted(stored[name]) == list(range(1, 31)), name
            assert np.allclose([stored[name][i] for i in range(1, 31)], curve[name], rtol=1e-6)
        pictures = list(folder.glob("wandb/offline-run-*/files/media/images/preview*.png"))
        assert len(pictures) == len(words) - 1, "only if told"


def test_images_and_seeds_share_a_group_and_nothing_else_does(configure: Configure) -> None:
    def groups(*words: str) -> set[str]:
        found = set()
        folder = run(configure("tracker=wandb", "steps=2", *words)).folder
        trackers.close_mirrors()
        for path in sorted(folder.rglob("*.wandb")):
            stored = next(r.run for r in offline_records(path) if r.WhichOneof("record_type") == "run")
            assert {"mri", "accel4", "brain", "smoke"} <= set(stored.tags)
            assert (stored.project, stored.job_type) == ("aseqdip", "smoke")
            found.add(stored.run_group)
        return found

    (group,) = groups("images=0:2", "seeds=[0,1]")
    assert group.startswith("mri/accel4/aseqdip matched smoke ")
    cfg = configure("steps=2")
    others = [
        configure("steps=2", word) for word in ("lam=2", "noise=0.1", "method=es_dip", "size=32", "recipe=original")
    ]
    assert len({group, *(group_of(each, identity(each)) for each in (cfg, *others))}) == 1 + len(others)


def test_experiment_is_a_tag(configure: Configure) -> None:
    assert tags_of(configure()) == ["mri", "accel4", "aseqdip", "brain", "matched", "smoke"]
    assert "fig4" in tags_of(replace(configure(), words=["task=mri", "experiment=fig4"]))


def test_the_bar_of_a_continued_run_tells_the_pace_of_its_own_steps() -> None:
    bar = ProgressBar("a", 100, 60)
    bar.rows([[step] + [0.0] * (len(COLUMNS) - 1) for step in range(1, 61)])  # as it has them from the checkpoint
    assert (bar.bar.n, bar.bar.initial) == (60, 60)
    bar.rows([[61.0] + [0.0] * (len(COLUMNS) - 1)])
    assert str(bar.bar).split("[")[0].split("|")[-1].strip() == "61/100"
    bar.finish(None, None)


class Explodes(Tracker):
    """A tracker whose every call raises."""

    def rows(self, rows: Rows) -> None:
        raise RuntimeError("a bad day")

    def finish(self, record: Any, preview: Path | None) -> None:
        raise RuntimeError("a bad day")


def test_a_raising_tracker_costs_one_warning(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "ProgressBar", lambda *args: Explodes())
    assert len(run(configure()).records) == 1
    assert caplog.text.count("The progress bar stopped (RuntimeError: a bad day)") == 1


class ClosedPipe:
    """Standard error whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    flush = isatty = lambda self: False


def test_a_progress_bar_that_cannot_be_drawn_is_no_loss(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", ClosedPipe())
    assert len(run(configure("images=0:2")).records) == 2


@pytest.mark.usefixtures("mirrored")
def test_wandb_that_cannot_be_imported(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('no W&B here')")
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    assert len(run(configure("tracker=wandb", "images=0:2")).records) == 2
    trackers.close_mirrors()
    assert caplog.text.count("W&B could not start: ImportError: no W&B here; the results are complete without it") == 1


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
SLEEPS = "import time\ntime.sleep(60)"
STOPS = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"


@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize("body", [SLEEPS, STOPS])
def test_a_hanging_wandb_is_waited_for_once_and_killed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, body: str
) -> None:
    stands_in(monkeypatch, tmp_path, body, 0.5)
    assert len(run(configure("tracker=wandb", "images=0:2")).records) == 2
    process = trackers.mirror(False).process
    begin = time.monotonic()
    trackers.close_mirrors()
    assert 0.4 < time.monotonic() - begin < 2
    assert caplog.text.count("W&B did not finish within") == 1
    assert process is not None
    assert process.wait(5) == -signal.SIGKILL


WORKS = """
import pathlib, time
while time.process_time() < 2: pass
(pathlib.Path(__file__).parent / "done").touch()
teardown = lambda: None
"""


@needs_proc
@pytest.mark.usefixtures("mirrored")
def test_a_helper_that_works_is_waited_for_longer_than_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    stands_in(monkeypatch, tmp_path, WORKS, 1)
    mirror = Mirror(online=False)
    mirror.send({"do": "start", "key": "a", "folder": str(tmp_path), "mode": "offline", "id": "a"})
    mirror.close()
    assert (tmp_path / "done").exists()
    assert "did not finish" not in caplog.text


@pytest.mark.usefixtures("mirrored")
def test_a_helper_that_is_slow_to_start_does_not_outlive_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stands_in(monkeypatch, tmp_path, STOPS, 0.1)
    begun, started, start = threading.Event(), [], trackers._start_process

    def slowly() -> "subprocess.Popen[bytes]":
        time.sleep(0.5)
        started.append(start())
        begun.set()
        return started[0]

    monkeypatch.setattr(trackers, "_start_process", slowly)
    mirror = Mirror(online=False)
    mirror.send({"do": "start", "key": "a", "folder": str(tmp_path), "mode": "offline"})
    mirror.close()
    assert begun.wait(10)
    try:
        assert started[0].wait(10) == -signal.SIGKILL
    finally:
        started[0].kill()


@needs_proc
@pytest.mark.usefixtures("mirrored")
def test_a_stopped_helper_that_uploads_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stands_in(monkeypatch, tmp_path, STOPS, 0.2)
    mirror = Mirror(online=True)
    assert mirror.process is not None
    mirror.send({"do": "start", "key": "a", "folder": str(tmp_path), "mode": "online"})
    deadline = time.monotonic() + 60
    while not trackers._stopped(mirror.process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    mirror.close()
    assert mirror.process.wait(5) == -signal.SIGKILL


LEAVES = """
import os, pathlib, signal, subprocess
helper = subprocess.Popen(["sleep", "60"], start_new_session=True)
os.kill(helper.pid, signal.SIGSTOP)
(pathlib.Path(__file__).parent / "helper").write_text(str(helper.pid))
teardown = lambda: None
"""


@needs_proc
@pytest.mark.usefixtures("mirrored")
def test_a_stopped_process_of_wandb_s_own_is_killed_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stands_in(monkeypatch, tmp_path, LEAVES, 30)
    mirror = Mirror(online=False)
    mirror.send({"do": "start", "key": "a", "folder": str(tmp_path), "mode": "offline", "id": "a"})
    mirror.close()
    helper = int((tmp_path / "helper").read_text())
    try:
        assert gone(helper)
    finally:
        with contextlib.suppress(OSError):
            os.kill(helper, signal.SIGKILL)


def test_a_helper_that_cannot_be_started_costs_one_warning(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> "subprocess.Popen[bytes]":
        raise OSError(11, "Resource temporarily unavailable")

    trackers.close_mirrors()
    trackers._warned.clear()
    monkeypatch.setattr(trackers, "_start_process", refused)
    assert len(run(configure("tracker=wandb", "images=0:2")).records) == 2
    trackers.close_mirrors()
    assert caplog.text.count("W&B could not be started") == 1


@pytest.mark.usefixtures("mirrored")
def test_what_nobody_takes_is_not_kept_for_ever(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "wandb.py").write_text(STOPS)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(Mirror, "backlog", 50)
    tracker = WandB(configure(), "image", "id", tmp_path)
    row = [1.0] * len(COLUMNS)
    for _ in range(200):
        tracker.rows([row] * 200)
    assert "W&B takes nothing any more" in caplog.text
    begin = time.monotonic()
    trackers.close_mirrors()
    assert time.monotonic() - begin < 6  # it is waited for 5 s at most


def test_nothing_is_online_unless_told(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(trackers, "mirror", lambda online: SimpleNamespace(send=sent.append))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    cases = [((), None), ((), "online"), (("tracker.mode=online",), "offline"), (("tracker.mode=online",), None)]
    for words, variable in cases:
        with monkeypatch.context() as patch:
            if variable is not None:
                patch.setenv("WANDB_MODE", variable)
            WandB(configure("tracker=wandb", *words), "image", "id", tmp_path)
    assert [message["mode"] for message in sent] == ["offline", "offline", "offline", "online"]


def test_the_environment_switches_it_off(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(WandB, "__init__", lambda *a: pytest.fail("W&B was started"))
    make_trackers(configure("tracker=wandb"), "image", "id", tmp_path, 4, True)


def test_pictures_only_if_told(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(trackers, "mirror", lambda online: SimpleNamespace(send=sent.append))
    preview = tmp_path / "preview.png"
    for word in ("tracker.pictures=false", "tracker.pictures=true"):
        tracker = WandB(configure("tracker=wandb", word), "image", "id", tmp_path)
        tracker.finish(SimpleNamespace(scores={}), preview)  # type: ignore[arg-type]
    pictures = [message["picture"] for message in sent if message["do"] == "finish"]
    assert pictures == [None, str(preview)]


def test_without_a_tracker_wandb_is_not_touched(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WandB, "__init__", lambda *a: pytest.fail("W&B was started"))
    assert len(run(configure("tracker=none")).records) == 1


def unguarded(made: list[Tracker]) -> list[Tracker | None]:
    return [each.tracker for each in made if isinstance(each, Guarded)]


def test_a_long_run_on_a_cpu_is_announced_once(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cfg = configure("preset=paper", "tracker=none")
    made = unguarded(make_trackers(cfg, "brain00", "id", tmp_path, 4000, True))
    (estimate,) = (tracker for tracker in made if type(tracker) is Estimate)
    for step, seconds in ((1, 100.0), (2, 101.0), (11, 110.0), (12, 111.0)):
        monkeypatch.setattr("time.perf_counter", lambda seconds=seconds: seconds)
        estimate.rows([[float(step)] + [0.0] * (len(COLUMNS) - 1)])
    said = [r.message for r in caplog.records]
    assert said == [
        "brain00: about 66 min on this CPU at the paper's budget (4000 steps); preset=quick takes a few minutes."
    ], "one second a step, measured from the first rows on"
    for other in (
        make_trackers(cfg, "a", "id", tmp_path, 4000, False),
        make_trackers(configure("tracker=none"), "a", "id", tmp_path, 4, True),
        make_trackers(configure("preset=paper", "method=tv", "tracker=none"), "a", "id", tmp_path, 300, True),
    ):
        assert Estimate not in map(type, unguarded(other)), "a GPU, another preset, or no network"


SMALL = ("size=32", "coils=4", "network.width=4", "network.depth=2")


class Running:
    """A real command with W&B, in a folder of its own."""

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        self.folder = folder
        common = ("preset=smoke", "device=cpu", "precision=fp32", "tracker=wandb", "images=0:2", *SMALL)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "run.py"), *common, *words],
                cwd=folder,
                env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables},
                stdout=log,
                stderr=log,
            )

    def helpers(self) -> dict[str, int]:
        """Our process for W&B, and W&B's own, once both are there."""
        deadline = time.monotonic() + 60 * busy()
        while time.monotonic() < deadline:
            for mirror in trackers._children(self.process.pid):
                for core in trackers._children(mirror):
                    with contextlib.suppress(OSError):  # it may be gone by now
                        if b"wandb-core" in Path(f"/proc/{core}/cmdline").read_bytes():
                            return {"mirror": mirror, "core": core}
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(self.log.read_text())

    def done(self) -> float:
        """Wait for its end, and check what it leaves; returns the seconds since the last record."""
        assert self.process.wait(120 * busy()) == 0, self.log.read_text()
        end = time.time()
        records = [path.stat().st_mtime for path in self.folder.rglob("record.json")]
        assert len(records) == 2, self.log.read_text()
        return end - max(records)


def busy() -> float:
    """By how much everything takes longer, on a machine that has other things to do."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def gone(process: int) -> bool:
    """Whether it is, or is about to be within some seconds."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if trackers._stat(process)[:1] in ([], ["Z"]):
            return True
        time.sleep(0.1)
    return False


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("stopped", [("core",), ("mirror", "core")])
def test_a_stopped_helper_holds_nothing_up(tmp_path: Path, stopped: tuple[str, ...]) -> None:
    running = Running(tmp_path, "steps=1000")  # long enough for W&B to begin on a busy machine, too
    helpers = running.helpers()
    for which in stopped:
        os.kill(helpers[which], signal.SIGSTOP)
    assert running.done() < 10 * busy()
    assert running.log.read_text().count("W&B did not finish within 5 s") == 1
    assert gone(helpers["mirror"])
    assert gone(helpers["core"])


@needs_proc
@pytest.mark.slow
def test_a_killed_command_leaves_no_helper_and_a_file(tmp_path: Path) -> None:
    running = Running(tmp_path, "steps=20000")
    helpers = running.helpers()
    time.sleep(3)
    running.process.kill()
    running.process.wait()
    assert gone(helpers["mirror"])
    assert gone(helpers["core"])
    assert len(history(next(tmp_path.rglob("brain00")))["psnr"]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["never", "refused", "401"])
def test_a_server_that_cannot_be_used_leaves_files(tmp_path: Path, answer: str) -> None:
    with Server(answer) as url:
        running = Running(
            tmp_path, "steps=100", "tracker.mode=online", WANDB_BASE_URL=url, WANDB_API_KEY="0123456789" * 4
        )
        assert running.done() < 10 * busy()
    said = running.log.read_text()
    found, late = said.count("W&B goes on without its server"), said.count("W&B is still uploading")
    assert found == 1 or (found, late) == (0, 1), "a busy machine may end before it finds out"
    for name in ("brain00", "brain01"):
        assert rows_there_are(next(tmp_path.rglob(name)), 100) == 100
    assert not list(tmp_path.rglob("wandb/run-*")), "nor halves"


def rows_there_are(folder: Path, wanted: int) -> int:
    """In the file of a run, once a helper that may still be writing has had its time."""
    deadline, found = time.monotonic() + 60 * busy(), 0
    while found < wanted and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # no file yet, or half a record
            found = len(history(folder)["psnr"])
        time.sleep(0.2)
    return found


class Server:
    """One that accepts and never answers, one that is not there, or one that turns everybody down."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []

    def __enter__(self) -> str:
        host, port = self.socket.getsockname()
        if self.answer == "refused":
            self.socket.close()
        else:
            threading.Thread(target=self._serve, daemon=True).start()
        return f"http://{host}:{port}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.accepted.append(connection)
                if self.answer == "401":
                    threading.Thread(target=self._refuse, args=(connection,), daemon=True).start()

    def _refuse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def __exit__(self, *exception: object) -> None:
        self.socket.close()
        for connection in self.accepted:
            connection.close()
