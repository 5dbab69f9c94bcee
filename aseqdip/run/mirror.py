"""W&B's own process, which may hang or die: ``trackers.Mirror`` runs this file, and never waits for it long.

Messages come in as lines of JSON: {"do": "start" | "rows" | "finish", "key": which run, ...}. What went wrong goes out
as lines of text. At the end of the messages it finishes what is open and exits, within ``LIMIT`` seconds whatever
happens.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: seconds for the last uploads once there is nothing more to come
LIMIT = 60
#: seconds in which a server has to answer at all
PATIENCE = 3
#: nothing about the machine, its user, the program or its folder; names that an older W&B does not know are left out
QUIET = {
    **{"silent": True, "console": "off", "symlink": False, "reinit": "create_new", "init_timeout": 15},
    **{"x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False},
    **{"disable_git": True, "disable_code": True, "save_code": False, "disable_job_creation": True},
    **{"host": "", "username": "", "email": "", "program": "aseqdip", "x_executable": "python"},
}


class Runs:
    """The runs that are open, by key."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say
        self.open: dict[str, Any] = {}
        self.online: bool | None = None  # not known before the first run asks for it

    def take(self, message: dict[str, Any]) -> None:
        """One message; what goes wrong with a run is said, and the end of that run."""
        key, action = message.pop("key"), message.pop("do")
        try:
            if action == "start":
                self.open[key] = self.start(**message)
            elif key in self.open:
                getattr(self, action)(self.open[key], **message)
                if action == "finish":
                    del self.open[key]
        except Exception as error:  # W&B raises many kinds
            self.open.pop(key, None)
            self.say(f"could not {action}: {type(error).__name__}: {error}")

    def start(self, folder: str, mode: str, **about: Any) -> Any:
        if mode == "online" and self.online is None:
            self.online = self._answers()
        if mode == "online" and self.online:
            before = set(Path(folder).glob("wandb/run-*"))
            try:
                return self._init(folder, mode="online", resume="allow", **about)
            except Exception as error:  # a key, a project, a server that turns us down: so it will for the next one
                self.online = False
                self.say(f"goes on without its server ({type(error).__name__}: {error})")
            _wandb().teardown()  # else the same id is taken
            self.open.clear()
            for begun in set(Path(folder).glob("wandb/run-*")) - before:
                shutil.rmtree(begun, ignore_errors=True)
        return self._init(folder, mode="offline", **about)

    def _answers(self) -> bool:
        """Whether the server says anything; a W&B that waits for one would hold up all runs."""
        url = _wandb().setup().settings.base_url
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError) as error:
            self.say(f"goes on without its server ({url}: {error})")
            return False
        return True

    def _init(self, folder: str, **about: Any) -> Any:
        wandb = _wandb()
        for old in Path(folder).glob(f"wandb/offline-run-*-{about['id']}"):
            shutil.rmtree(old, ignore_errors=True)  # of an interrupted reconstruction, whose rows come again
        known = getattr(wandb.Settings, "model_fields", QUIET)
        settings = wandb.Settings(**{name: value for name, value in QUIET.items() if name in known})
        return wandb.init(dir=folder, settings=settings, **about)

    def rows(self, run: Any, rows: list[dict[str, float]]) -> None:
        for row in rows:
            run.log(row, step=int(row.pop("iteration")))

    def finish(self, run: Any, scores: dict[str, float] | None, picture: str | None) -> None:
        if scores is not None:
            run.summary.update(scores)
        if picture is not None:
            run.log({"preview": _wandb().Image(picture)})
        self._close(run, 0 if scores is not None else 1)

    def _close(self, run: Any, exit_code: int) -> None:
        logs = Path(run.dir).parent / "logs"
        run.finish(exit_code=exit_code)
        shutil.rmtree(logs, ignore_errors=True)  # they name folders and the machine's user

    def close(self) -> None:
        """What is open did not complete."""
        for run in self.open.values():
            with contextlib.suppress(Exception):
                self._close(run, 1)


def _wandb() -> Any:
    import wandb

    return wandb


def _kill_helpers(states: str) -> None:
    """W&B's own processes that are in one of these states; they have sessions of their own. On Linux."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            state, parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state in states:
                os.kill(int(path.parent.name), signal.SIGKILL)


def _give_up() -> None:
    _kill_helpers("RSDT")
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Take messages from standard input until it ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # its end is that of the messages
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # W&B's helper inherits the standard streams: not these two, whose other end is waited for
    messages, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            answers.write(" ".join(text.split()) + "\n")
            answers.flush()

    runs = Runs(say)
    for line in messages:
        runs.take(json.loads(line))
    timer = threading.Timer(LIMIT, _give_up)
    timer.daemon = True
    timer.start()
    try:
        runs.close()
        if "wandb" in sys.modules:
            _wandb().teardown()
    finally:
        _kill_helpers("T")  # a stopped one would stay for ever


if __name__ == "__main__":
    main()
