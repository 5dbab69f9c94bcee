"""The command line: check the words, compose the configuration, run, say how it ended."""

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aseqdip.errors import UserError
from aseqdip.run import interrupt
from aseqdip.run.interrupt import BAD_INPUT, DONE, FAILED, SIGNALLED, UNFINISHED, Command
from aseqdip.run.terminal import about, steady_streams

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aseqdip.config import Config
    from aseqdip.run.runner import Summary


#: what launchers raise once a worker is gone
LOST_WORKERS = ("TerminatedWorkerError", "BrokenProcessPool")

#: how a sweep ends of which not all came to its end
NOT_ALL = {
    BAD_INPUT: "Some jobs could not run: what is wrong with each stands above.",
    FAILED: "Some images failed: why stands above, and in failure.json in their folders.",
}


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``aseqdip`` and ``run.py``.

    Exits with 0 (all done), 1 (an image failed), 2 (bad input), 3 (unfinished: out of time, or another process is at
    work on an image), 128 + signal.
    """
    steady_streams()
    os.environ["ASEQDIP_STARTED"] = str(time.time())  # for budget_minutes, in worker processes too
    with Command() as command:
        try:
            _main(sys.argv[1:] if argv is None else argv, command)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            command.note(BAD_INPUT)
        if status := command.status():
            sys.exit(status)


def _main(given: list[str], command: Command) -> None:
    if "--version" in given:
        from aseqdip import __version__

        sys.stdout.write(f"aseqdip {__version__}\n")
        return
    if given[:1] == ["export"]:
        from aseqdip import export

        export.main(given[1:])
        return
    with importing():  # what takes its time only now, when signals are heard
        from aseqdip import usage, words
        from aseqdip.files import check_writable, config_folder

    if given[:1] == ["recommend"]:
        from aseqdip import recommend

        recommend.main(words.written(given[1:]))
        return
    if "-h" in given or "--help" in given:
        place = min(given.index(flag) for flag in ("-h", "--help") if flag in given)
        asked = [word for i, word in enumerate(given) if i > place or "=" not in word]
        topics = [word for word in asked if not word.startswith("-")]
        sys.stdout.write(usage.text(topics))
        return
    ready = words.written(given)
    if not any(word in ("-sc", "--shell-completion", "--hydra-help", "--info", "-i") for word in given):
        words.check(ready)
        ready = words.narrowed(ready)
        for line in words.rehearse(ready):
            sys.stderr.write(f"{line}\n")
    words.check_flags(ready)
    if words.sweeps(ready):
        command.expect_workers()
        os.environ["ASEQDIP_JOBS"] = str(words.jobs(ready))
        if any(word.startswith("hydra/launcher=") and ("slurm" in word or "submitit" in word) for word in ready):
            sys.stderr.write("Logs of the jobs: .submitit below hydra.sweep.dir (outputs/.sweeps/.submitit).\n")
        # Hydra itself writes there before our first job starts
        check_writable(Path(next((w[8:].strip("\"'") for w in ready if w.startswith("outputs=")), "outputs")))
    flags, settings = words.split(ready)
    sys.argv[1:] = flags + settings  # Hydra reads its flags only where they stand before the settings
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions as they are: what a user must read is said by us
    import hydra

    try:
        hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(job)()
    except Exception as error:
        if type(error).__name__ not in LOST_WORKERS:  # of packages that may not be there
            raise
        sys.stderr.write("A worker process was killed (memory that ran out?). The same command goes on from here.\n")
        command.note(UNFINISHED)
    if words.sweeps(ready) and (status := command.status()) in NOT_ALL:
        sys.stderr.write(f"{NOT_ALL[status]}\n")


@contextmanager
def importing() -> Iterator[None]:
    """Imports make objects by the hundred thousand that stay: to look for garbage among them is a fifth of a start."""
    first = "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if first:  # later there may be garbage, which would stay as well
            gc.freeze()
        gc.enable()


def job(composed: "DictConfig") -> dict[str, Any]:
    """One composed config: what Hydra calls, once or for each job of a sweep, there perhaps in another process."""
    import logging

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    with importing():
        from aseqdip import compose
        from aseqdip.run import runner

    log = logging.getLogger(__name__)
    running = HydraConfig.get()
    multirun = running.mode == RunMode.MULTIRUN
    try:
        own = next((str(s.path) for s in running.runtime.config_sources if s.provider == "command-line"), None)
        cfg = compose.configured(composed, list(running.overrides.task), own)
        if multirun:
            log.info("%s", progress(running.job.num))
        if multirun and cfg.device == "auto":
            cfg.device = runner.sweep_device(running.job.num)
        summary = _study(cfg) if cfg.study != "none" else runner.run(cfg)
    except UserError as error:
        if multirun:
            log.error("%s", error)  # the sweep goes on with its other jobs
        else:
            sys.stderr.write(f"{error}\n")
        interrupt.end_job(BAD_INPUT)
        return {}
    if summary.interrupted is None:
        log.info("%s", ending(cfg, summary))
    interrupt.end_job(status_of(summary))
    return {"folder": str(summary.folder), "done": len(summary.records), "skipped": len(summary.skipped)}


def progress(number: int) -> str:
    """Which job of the sweep this is, and how long the others take if they go on at the pace so far."""
    count = int(os.environ.get("ASEQDIP_JOBS", 0))
    if not count:
        return f"Job {number + 1}"
    spent = time.time() - float(os.environ.get("ASEQDIP_STARTED", time.time()))
    left = f", about {about(spent / number * (count - number))} left" if number else ""
    return f"Job {number + 1} of {count}{left}"


def status_of(summary: "Summary") -> int:
    """What a command exits with that ended like this."""
    if summary.interrupted is not None:
        return SIGNALLED + summary.interrupted
    if summary.failed:
        return FAILED
    return UNFINISHED if summary.late or summary.elsewhere else DONE


def _study(cfg: "Config") -> "Summary":
    if cfg.study == "calibration":
        from aseqdip.studies import readings

        return readings.run(cfg, cfg.words)
    from aseqdip.studies import fig6

    return fig6.run(cfg)


def ending(cfg: "Config", summary: "Summary") -> str:
    """How a run ended, in one line."""
    done = len(summary.records)
    if summary.late:
        return f"Out of time (budget_minutes) with {done} done: the same command continues."
    if done or summary.failed or summary.elsewhere:
        skipped, failed = len(summary.skipped), len(summary.failed)
        elsewhere = f", {len(summary.elsewhere)} in another process" if summary.elsewhere else ""
        return f"{done} done, {skipped} skipped, {failed} failed{elsewhere}. Results: {summary.folder}"
    if summary.skipped:
        return f"Nothing to do: all {len(summary.skipped)} image(s) were finished before."
    return f"Nothing to do: dataset={cfg.dataset.name} ends before images={cfg.images}."


interrupt.leave_signals_to_the_command()  # at import: a launcher's worker processes import this to find their job
