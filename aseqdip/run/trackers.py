"""Sinks for curves. Files are the source of truth (``records.py``); these mirror them, and hold up or fail no run."""

import atexit
import contextlib
import importlib.util
import itertools
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aseqdip.config import Config, make_task
from aseqdip.identity import digest, identity
from aseqdip.records import COLUMNS, Record, Rows
from aseqdip.run.terminal import Steady

log = logging.getLogger(__name__)


class Tracker:
    """Receives a reconstruction's rows (``COLUMNS``) as they come, then its record. This one ignores them."""

    def rows(self, rows: Rows) -> None:
        """New iterations, in order."""

    def finish(self, record: Record | None, preview: Path | None) -> None:
        """The end: the record, or None if the reconstruction did not complete."""


class ProgressBar(Tracker):
    """Step, it/s and time left, loss, PSNR where it is known; of ``done`` steps it was another process's pace."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        from tqdm import tqdm

        interval = 0.5 if sys.stderr.isatty() else 30  # a log file is not to fill with redrawn bars
        # an error in writing would leave tqdm's lock taken, and every other thread's bar waiting for it
        file: Any = Steady(sys.stderr)
        self.bar = tqdm(
            total=total, initial=done, desc=title, unit="it", mininterval=interval, dynamic_ncols=True, leave=False,
            file=file,
        )  # fmt: skip

    def rows(self, rows: Rows) -> None:
        last = dict(zip(COLUMNS, rows[-1], strict=True))
        shown = {"loss": f"{last['loss']:.3g}"}
        if last["psnr"] == last["psnr"]:
            shown["PSNR"] = f"{last['psnr']:.2f} dB"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(int(last["iteration"]) - self.bar.n)  # the first rows of a continued run are all that it had

    def finish(self, record: Record | None, preview: Path | None) -> None:
        self.bar.close()


class Estimate(Tracker):
    """The paper's budget on a CPU: says once, by its first steps, how long it takes; one may prefer preset=quick."""

    steps = 3  # to measure by: the very first one also allocates

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.begin: tuple[float, float] | None = None

    def rows(self, rows: Rows) -> None:
        step, now = rows[-1][0], time.perf_counter()
        if self.begin is None:
            self.begin = step, now
        elif self.total and step >= self.begin[0] + self.steps:
            minutes = (now - self.begin[1]) / (step - self.begin[0]) * (self.total - step) / 60
            with _beside_the_bar():
                log.info(
                    "%s: about %.0f min on this CPU at the paper's budget (%d steps); preset=quick takes a few "
                    "minutes.",
                    *(self.title, minutes, self.total),
                )
            self.total = 0


@contextlib.contextmanager
def _beside_the_bar() -> Iterator[None]:
    """Lines written inside do not end up in the middle of a progress bar."""
    cleared = contextlib.ExitStack()
    with contextlib.suppress(Exception):  # no tqdm, or a bar that cannot be drawn
        from tqdm import tqdm

        cleared.enter_context(tqdm.external_write_mode())
    yield
    with contextlib.suppress(Exception):
        cleared.close()


class Guarded(Tracker):
    """A tracker that is dropped at its first error, with one warning: no mirror is worth a reconstruction."""

    def __init__(self, what: str, make: Callable[[], Tracker]) -> None:
        self.what = what
        self.tracker: Tracker | None = None
        with self._surviving():
            self.tracker = make()

    def rows(self, rows: Rows) -> None:
        with self._surviving():
            if self.tracker is not None:
                self.tracker.rows(rows)

    def finish(self, record: Record | None, preview: Path | None) -> None:
        with self._surviving():
            if self.tracker is not None:
                self.tracker.finish(record, preview)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.tracker = None
            log.warning(
                "%s stopped (%s: %s); the results are complete without it.", *(self.what, type(error).__name__, error)
            )


class Mirror:
    """W&B in a process of its own (``mirror.py``), one for all reconstructions of this process.

    ``send`` never waits. ``close`` waits ``patience`` seconds for the process to finish what it was sent, and again
    while it is seen to work, which on a busy machine takes longer; then it is killed, or, if it uploads, left to itself
    for the minute that it has.
    """

    patience = 5.0
    waits = 12  # times, at most
    backlog = 10_000  # messages, about an hour of nobody taking them

    def __init__(self, online: bool) -> None:
        self.online = online
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.process: subprocess.Popen[bytes] | None = None
        self.dead = False
        try:
            self.process = _start_process()  # not by a thread, which would start it after the end
        except OSError as error:
            self._give_up(f"could not be started ({error})")
            return
        self.threads = [
            threading.Thread(target=work, args=(self.process,), daemon=True) for work in (self._pass_on, self._listen)
        ]
        for thread in self.threads:
            thread.start()

    def send(self, message: dict[str, Any]) -> None:
        """Hand a message over."""
        if self.dead:
            return
        if self.messages.qsize() > self.backlog:
            self._give_up("takes nothing any more")
        self.messages.put(message)

    def close(self) -> None:
        """The end of all messages."""
        if self.dead or self.process is None:
            return
        self.messages.put(None)
        if self._ended(self.process):
            for thread in self.threads:  # its last words
                thread.join(1)
        elif not self.online or _stopped(self.process.pid):
            self._give_up(f"did not finish within {self.patience:.0f} s")
        else:
            log.warning(
                "W&B is still uploading; if it does not end, `wandb sync` sends what it wrote beside the results."
            )

    def _ended(self, process: "subprocess.Popen[bytes]") -> bool:
        """Whether it does so in the time that it has; one that uploads may do that alone."""
        for _ in range(1 if self.online else self.waits):
            before = _worked(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.patience)
                return True
            # what hangs still looks now and then whether it does
            if _worked(process.pid) - before < self.patience / 20:
                break
        return False

    def _pass_on(self, process: "subprocess.Popen[bytes]") -> None:
        """A thread's work: write to the process, however long that takes."""
        try:
            assert process.stdin is not None
            with process.stdin as pipe:
                while (message := self.messages.get()) is not None:
                    pipe.write(json.dumps(message).encode() + b"\n")
                    if self.messages.empty():
                        pipe.flush()
        except (OSError, ValueError) as error:
            self._give_up(f"stopped ({error})")

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            _warn(line.decode(errors="replace").strip())

    def _give_up(self, why: str) -> None:
        if not self.dead:
            self.dead = True
            if self.process is not None:
                _kill(self.process)
            _warn(why)


_warned = threading.Event()


def _warn(what: str) -> None:
    """Once a process: the next run's trouble is the same."""
    if not _warned.is_set():
        _warned.set()
        with _beside_the_bar():
            log.warning("W&B %s; the results are complete without it. tracker=none switches it off.", what)


def _start_process() -> "subprocess.Popen[bytes]":
    """``mirror.py``, in a session of its own (Ctrl-C is not for it), knowing nothing that W&B could pass on."""
    kept = ("API_KEY", "BASE_URL", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "INSECURE_DISABLE_SSL", "CONFIG_DIR")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("WANDB_") or name.removeprefix("WANDB_") in kept
    }
    environment |= {"WANDB_ERROR_REPORTING": "false", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("mirror.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).anchor,  # no folder of the user's, no git repository
        env=environment,
        start_new_session=True,
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The process and its helpers, stopped ones too."""
    for helper in _children(process.pid):
        with contextlib.suppress(OSError):
            os.kill(helper, signal.SIGKILL)
    process.kill()


def _stat(process: int | str) -> list[str]:
    """A process's state, parent ...; on Linux alone: elsewhere W&B's helper sees for itself that its parent is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []


def _children(parent: int) -> list[int]:
    """Process ids, on Linux."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _stat(path.name)[1:2] == [str(parent)]]


def _worked(process: int) -> float:
    """Seconds of CPU of the process and its helpers, on Linux; 0 elsewhere."""
    ticks = [int(n) for one in (process, *_children(process)) for n in _stat(one)[11:15]]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def _stopped(process: int) -> bool:
    """Whether it, or a helper of it, was stopped and will not end by itself."""
    return any(_stat(each)[:1] == ["T"] for each in (process, *_children(process)))


_mirrors: dict[bool, Mirror] = {}
_starting = threading.Lock()


def mirror(online: bool) -> Mirror:
    """This process's mirror; it is closed when the process ends."""
    with _starting:
        if online not in _mirrors:
            if not _mirrors:
                atexit.register(close_mirrors)
            _mirrors[online] = Mirror(online)
        return _mirrors[online]


def close_mirrors() -> None:
    """Wait for W&B, but not long: once a command."""
    with _starting:
        for each in _mirrors.values():
            each.close()
        _mirrors.clear()
    atexit.unregister(close_mirrors)


class WandB(Tracker):
    """One Weights & Biases run for each reconstruction; those that differ in image and seed alone share a group.

    Grouped plots so show the mean over images and seeds, and its band. Curves and scores only, into a folder ``wandb``
    beside the results; on to a server only with tracker.mode=online, pictures only with tracker.pictures=true.
    """

    counter = itertools.count()

    def __init__(self, cfg: Config, image: str, run_id: str, folder: Path) -> None:
        online = cfg.tracker.mode == "online" and os.environ.get("WANDB_MODE", "online") == "online"
        self.mirror, self.pictures = mirror(online), cfg.tracker.pictures
        self.key = f"{run_id} {next(self.counter)}"
        known = identity(cfg)
        about = {
            "id": run_id,
            "name": f"{cfg.method.name} {image} seed {cfg.seed}",
            "project": cfg.tracker.project,
            "entity": cfg.tracker.entity,
            "group": group_of(cfg, known),
            "job_type": cfg.preset,
            "tags": tags_of(cfg),
            "config": settings_of(cfg, known),
        }
        self._send("start", folder=str(folder.absolute()), mode="online" if online else "offline", **about)

    def _send(self, what: str, **values: Any) -> None:
        self.mirror.send({"do": what, "key": self.key, **values})

    def rows(self, rows: Rows) -> None:
        named = (zip(COLUMNS, row, strict=True) for row in rows)
        self._send("rows", rows=[{name: float(value) for name, value in row if value == value} for row in named])

    def finish(self, record: Record | None, preview: Path | None) -> None:
        picture = str(preview.absolute()) if self.pictures and preview is not None else None
        self._send("finish", scores=None if record is None else scores_of(record), picture=picture)


def scores_of(record: Record) -> dict[str, float]:
    """ "last/psnr" and so on -> what is known of it."""
    found: dict[str, float | None] = {}
    for which, score in record.scores.items():
        known = {"psnr": score.psnr_db, "ssim": score.ssim, "step": score.step, **score.extras}
        found |= {f"{which}/{name}": value for name, value in known.items()}
    return {name: value for name, value in found.items() if value is not None}


def settings_of(cfg: Config, known: dict[str, Any]) -> dict[str, Any]:
    """The knobs that decide the result, and the names of what set them; nothing that names a file or folder."""
    names = {"preset": cfg.preset, "recipe": cfg.recipe, "setting": make_task(cfg).setting}
    return {name: value for name, value in {**known, **names}.items() if not _is_path(value)}


def _is_path(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_path, value))
    return isinstance(value, str) and ("/" in value or "\\" in value)


def group_of(cfg: Config, known: dict[str, Any]) -> str:
    """What W&B groups by: task/setting/method, recipe, preset, a hash of all that decides the result but the seed."""
    shared = {name: value for name, value in known.items() if name != "seed"}
    setting = make_task(cfg).setting
    return f"{cfg.task.name}/{setting}/{cfg.method.name} {cfg.recipe} {cfg.preset} {digest(shared)[:6]}"


def tags_of(cfg: Config) -> list[str]:
    """Words to filter by: task, setting, method, data set, preset, and the named experiment if there is one."""
    words = [cfg.task.name, make_task(cfg).setting, cfg.method.name, cfg.dataset.name, cfg.recipe, cfg.preset]
    words += [word.partition("=")[2] for word in cfg.words if word.startswith("experiment=")]
    return list(dict.fromkeys(word[:64] for word in words if word))


def make_trackers(
    cfg: Config, image: str, run_id: str, folder: Path, total: int, on_cpu: bool, done: int = 0
) -> list[Tracker]:
    """The bar over ``total`` steps (where tqdm is installed), W&B if the config names it, a word on long runs.

    done: steps that an interrupted run has made.
    """
    trackers: list[Tracker] = []
    if cfg.tracker.name == "wandb" and os.environ.get("WANDB_MODE") != "disabled":
        trackers.append(Guarded("W&B", lambda: WandB(cfg, image, run_id, folder)))
    if cfg.preset == "paper" and on_cpu and cfg.method.part.learns:
        trackers.append(Guarded("The estimate", lambda: Estimate(image, total)))
    if importlib.util.find_spec("tqdm") is not None and sys.stderr is not None:
        trackers.append(Guarded("The progress bar", lambda: ProgressBar(image, total, done)))
    return trackers
