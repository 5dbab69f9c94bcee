"""Sinks for curves. Files are the source of truth (``records.py``); these mirror them and can never fail a run."""

import contextlib
import importlib.util
import logging
import netrc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from aseqdip.config import Config, make_task
from aseqdip.identity import digest, identity
from aseqdip.records import COLUMNS, Record, Rows

log = logging.getLogger(__name__)


class Tracker:
    """Receives a reconstruction's rows (``COLUMNS``) as they come, then its record. This one ignores them."""

    def rows(self, rows: Rows) -> None:
        """New iterations, in order."""

    def finish(self, record: Record | None, preview: Path | None) -> None:
        """The end: the record, or None if the reconstruction did not complete."""


class ProgressBar(Tracker):
    """Step, it/s, time left, loss, and PSNR where the truth is known."""

    def __init__(self, title: str, total: int) -> None:
        from tqdm import tqdm

        interval = 0.5 if sys.stderr.isatty() else 30  # a log file is not to fill with redrawn bars
        self.bar = tqdm(total=total, desc=title, unit="it", mininterval=interval, dynamic_ncols=True, leave=False)

    def rows(self, rows: Rows) -> None:
        last = dict(zip(COLUMNS, rows[-1], strict=True))
        shown = {"loss": f"{last['loss']:.3g}"}
        if last["psnr"] == last["psnr"]:
            shown["PSNR"] = f"{last['psnr']:.2f} dB"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(len(rows))

    def finish(self, record: Record | None, preview: Path | None) -> None:
        self.bar.close()


class Estimate(Tracker):
    """The paper's budget on a CPU: says once how long it takes, from the first steps; the user may prefer preset=quick."""

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
                    "%s: about %.0f min on this CPU at the paper's budget (%d steps); preset=quick takes a few minutes.",
                    *(self.title, minutes, self.total),
                )
            self.total = 0


def _beside_the_bar() -> contextlib.AbstractContextManager[None]:
    """Lines written inside do not end up in the middle of a progress bar."""
    if importlib.util.find_spec("tqdm") is None:
        return contextlib.nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode()


class WandB(Tracker):
    """One Weights & Biases run for each reconstruction; those that differ in image and seed alone share a group.

    Grouped plots so show the mean over images and seeds, and its band.
    Online if a key is at hand, else offline (``wandb sync`` uploads later). Any failure switches it off with one
    warning; a network that hangs is waited for at most ``patience`` seconds.
    """

    patience = 60.0

    def __init__(self, cfg: Config, name: str, run_id: str, folder: Path) -> None:
        self.run: Any = None
        self.awaited = ""
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        for attempt in dict.fromkeys((mode, "offline")):
            self.awaited = attempt
            if self._guard("start", lambda m=attempt: self._start(cfg, name, run_id, folder, m)):  # type: ignore[misc]
                return
        self.awaited = ""

    def _start(self, cfg: Config, name: str, run_id: str, folder: Path, mode: str) -> None:
        import wandb

        settings = wandb.Settings(
            init_timeout=30, silent=True, console="off", x_disable_stats=True, reinit="create_new"
        )
        run = wandb.init(
            project=cfg.tracker.project,
            entity=cfg.tracker.entity,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            id=run_id,
            resume=None if mode == "offline" else "allow",
            name=name,
            group=group_of(cfg),
            job_type=cfg.preset,
            tags=tags_of(cfg),
            config=identity(cfg),
            settings=settings,
        )
        if self.awaited == mode:
            self.run = run
        else:  # too late: another is in its place
            run.finish()

    def rows(self, rows: Rows) -> None:
        def send() -> None:
            for row in rows:
                values = {k: v for k, v in zip(COLUMNS, row, strict=True) if v == v}
                self.run.log(values, step=int(values.pop("iteration")))

        if self.run is not None:
            self._guard("log", send)

    def finish(self, record: Record | None, preview: Path | None) -> None:
        def close() -> None:
            import wandb

            if record is not None:
                for which, score in record.scores.items():
                    if score.psnr_db is not None:
                        self.run.summary.update({f"{which}/psnr": score.psnr_db, f"{which}/ssim": score.ssim})
                if preview is not None:
                    self.run.log({"preview": wandb.Image(str(preview))})
            self.run.finish(exit_code=0 if record is not None else 1)

        if self.run is not None:
            self._guard("finish", close)

    def _guard(self, what: str, action: Callable[[], None]) -> bool:
        """Run an action that must neither raise nor hang; switch the tracker off if it does."""
        failure: list[str] = []

        def run() -> None:
            try:
                action()
            except BaseException as error:  # W&B raises many kinds, all of them ours to survive
                failure.append(f"{type(error).__name__}: {error}")

        if what == "log":  # only hands rows to W&B's own process: cheap enough without a thread
            run()
        else:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(self.patience)
            if thread.is_alive():
                failure.append(f"no answer within {self.patience:.0f} s")
        if failure:
            self.run = None
            log.warning(
                "W&B could not %s (%s); the files are complete without it. tracker=none switches it off.",
                what,
                failure[0],
            )
        return not failure


def group_of(cfg: Config) -> str:
    """What W&B groups by: task/setting/method, recipe, preset, and a hash of all that decides the result but the seed."""
    shared = {name: value for name, value in identity(cfg).items() if name != "seed"}
    setting = make_task(cfg).setting
    return f"{cfg.task.name}/{setting}/{cfg.method.name} {cfg.recipe} {cfg.preset} {digest(shared)[:6]}"


def tags_of(cfg: Config) -> list[str]:
    """Words to filter by: task, setting, method, data set, preset, and the named experiment if there is one."""
    experiment = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
    words = (
        cfg.task.name,
        make_task(cfg).setting,
        cfg.method.name,
        cfg.dataset.name,
        cfg.recipe,
        cfg.preset,
        experiment,
    )
    return list(dict.fromkeys(word[:64] for word in words if word))


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_trackers(cfg: Config, image: str, run_id: str, folder: Path, total: int, on_cpu: bool) -> list[Tracker]:
    """The progress bar over ``total`` steps (if tqdm is installed), W&B if the config names it, and a word on long runs."""
    trackers: list[Tracker] = []
    if cfg.tracker.name == "wandb":
        trackers.append(WandB(cfg, f"{cfg.method.name} {image} seed {cfg.seed}", run_id, folder))
    if cfg.preset == "paper" and on_cpu and total > 1:
        trackers.append(Estimate(image, total))
    if importlib.util.find_spec("tqdm") is not None:
        trackers.append(ProgressBar(image, total))
    return trackers
