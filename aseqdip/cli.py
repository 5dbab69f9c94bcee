"""The command line: check the words, compose the configuration, run, say how it ended."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from aseqdip.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aseqdip.config import Config
    from aseqdip.run.runner import Summary


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``aseqdip`` and ``run.py``; exits with 0, 1 (an image failed), 2 (bad input), 128 + signal."""
    os.environ["ASEQDIP_STARTED"] = str(time.time())  # for budget_minutes, in worker processes too
    given = sys.argv[1:] if argv is None else argv
    try:
        _main(given)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:  # before or after the images, which have a handler of their own
        sys.exit(130)


def _main(given: list[str]) -> None:
    if "--version" in given:
        from aseqdip import __version__

        sys.stdout.write(f"aseqdip {__version__}\n")
        return
    # what takes its time to be imported only now, so that Ctrl-C meanwhile is answered
    from aseqdip import compose, usage, words

    if "-h" in given or "--help" in given:
        topics = [word for word in given if not word.startswith("-")]
        sys.stdout.write(usage.text(topics))
        return
    ready = words.written(given)
    if not any(word in ("-sc", "--shell-completion", "--hydra-help", "--info", "-i") for word in given):
        words.check(ready)
        for line in words.rehearse(ready):
            sys.stderr.write(f"{line}\n")
    if words.sweeps(ready):  # Hydra itself writes there before our first job starts
        from pathlib import Path

        from aseqdip.files import check_writable

        check_writable(Path(next((w[8:].strip("\"'") for w in ready if w.startswith("outputs=")), "outputs")))
    flags, settings = words.split(ready)
    sys.argv[1:] = flags + settings  # Hydra reads its flags only where they stand before the settings
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions as they are: what a user must read is said by us
    import hydra

    try:
        hydra.main(config_path=str(compose.config_folder()), config_name="config", version_base="1.3")(job)()
    except UserError:  # of a sweep's job, which has said it
        sys.exit(1)


def job(composed: "DictConfig") -> dict[str, Any]:
    """One composed config: what Hydra calls, once or for each job of a sweep, there perhaps in another process."""
    import logging

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from aseqdip import compose, config
    from aseqdip.run import runner

    log = logging.getLogger(__name__)
    running = HydraConfig.get()
    multirun = running.mode == RunMode.MULTIRUN
    try:
        cfg = config.typed(compose.plain(composed), list(running.overrides.task))
        if multirun and cfg.device == "auto":
            cfg.device = runner.sweep_device(running.job.num)
        summary = _study(cfg) if cfg.study != "none" else runner.run(cfg)
    except UserError as error:
        if not multirun:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
        log.error("%s", error)
        raise  # the sweep goes on with its other jobs
    if summary.interrupted is not None:
        sys.exit(128 + summary.interrupted)
    log.info("%s", ending(cfg, summary))
    if summary.failed:
        if multirun:
            raise UserError(f"{len(summary.failed)} image(s) failed: " + "; ".join(summary.failed))
        sys.exit(1)
    return {"folder": str(summary.folder), "done": len(summary.records), "skipped": len(summary.skipped)}


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
        return f"{done} done, {skipped} skipped, {failed} failed. Results: {summary.folder}"
    if summary.skipped:
        return f"Nothing to do: all {len(summary.skipped)} image(s) were finished before."
    return f"Nothing to do: dataset={cfg.dataset.name} ends before images={cfg.images}."
