"""The command line: check the words, compose the configuration, run, say how it ended."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from aseqdip.config import GROUPS, METHOD_NAMES, Config, check_override, config_folder, knobs, typed_config
from aseqdip.errors import UserError
from aseqdip.files import check_writable

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``aseqdip`` and ``run.py``; exits with 0, 1 (an image failed), 2 (bad input), 128 + signal."""
    os.environ["ASEQDIP_STARTED"] = str(time.time())  # for budget_minutes, in worker processes too
    words = [write_list(expand_home(word)) for word in (sys.argv[1:] if argv is None else argv)]
    if any(word in ("-h", "--help") for word in words):
        sys.stdout.write(help_text())
        return
    try:
        check_words(words)
        if "-m" in words or "--multirun" in words:  # Hydra itself writes there before our first job starts
            check_writable(Path(next((w[8:] for w in words if w.startswith("outputs=")), "outputs")))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    # Hydra reads its flags only where they stand before the overrides
    sweeps = [word for word in words if word in ("-m", "--multirun")]
    sys.argv[1:] = sweeps + [word for word in words if word not in sweeps]
    hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(_job)()


def write_list(word: str) -> str:
    """``seeds=0,1,2`` as the list it means; Hydra reads bare commas as a sweep."""
    bare = word.startswith("seeds=") and "[" not in word and word != "seeds=null"
    return f"seeds=[{word[6:]}]" if bare else word


def expand_home(word: str) -> str:
    """``outputs=~/x`` with the home folder filled in, which a shell does not do behind an equals sign."""
    name, equals, value = word.partition("=")
    # not pathlib's: that raises where there is no such user
    return f"{name}={os.path.expanduser(value)}" if equals and value.startswith("~") else word  # noqa: PTH111


def register() -> None:
    """Make the schema and the resolver known to Hydra, before anything is composed."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in cells().items():
        store.store(group="cell", name=name, node=node, package="_global_")
    OmegaConf.register_new_resolver("by_preset", _by_preset, replace=True)
    OmegaConf.register_new_resolver("by_task", _by_task, replace=True)
    OmegaConf.register_new_resolver("rounds", _rounds, replace=True)


#: the settings of the paper's tables
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "mri": {"accel4": {"accel": 4}, "accel8": {"accel": 8}},
    "ct": {"views30": {"views": 30}, "views18": {"views": 18}},
    "denoising": {"sigma15": {"sigma": 15}, "sigma30": {"sigma": 30}},
    "inpainting": {"hiar0.1": {"hiar": 0.1}, "hiar0.25": {"hiar": 0.25}},
    "deblurring": {"nonlinear": {"kernel": "nonlinear"}},
}


def cells() -> dict[str, dict[str, Any]]:
    """Cells of the paper's tables, "task-setting-method", each as the config it stands for.

    A sweep over ``cell`` visits the pairs of task and method that a table has, where a sweep over both would visit all.
    """
    return {
        f"{task}-{name}-{method}": {
            "defaults": [{"override /task": task}, {"override /method": method}, "_self_"],
            **values,
        }
        for task, settings in SETTINGS.items()
        for name, values in settings.items()
        for method in METHOD_NAMES
        if method != "rethinking_dip" or task == "denoising"
    }


def _by_preset(paper: Any, quick: Any, smoke: Any, *, _root_: DictConfig) -> Any:
    """``${by_preset:a,b,c}``: an experiment's value under preset=paper, quick and smoke."""
    return {"paper": paper, "quick": quick, "smoke": smoke}[_root_.preset.name]


def _by_task(*values: Any, _root_: DictConfig) -> Any:
    """``${by_task:a,b,c,d,e}``: a value for each task; with three, the last is that of all picture tasks."""
    place = list(SETTINGS).index(_root_.task.name)
    return values[min(place, len(values) - 1)]


def _rounds(count: int, *, _root_: DictConfig) -> str:
    """``${rounds:20}``: an experiment's images, as a sweep over rounds: one, then four more, then the others."""
    return "0,1" if _root_.preset.name == "smoke" else f"0,1:5,5:{count}"


def _job(composed: DictConfig) -> dict[str, Any]:
    """One composed config: what Hydra calls, once or for each job of a sweep."""
    # the parts that need torch only once the words are known to be good
    from aseqdip import calibration, runner, signal

    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        cfg = typed_config(OmegaConf.to_container(composed, resolve=True))
        if multirun and cfg.device == "auto":
            cfg.device = runner.sweep_device(HydraConfig.get().job.num)
        if cfg.study == "calibration":
            summary = calibration.run(cfg, HydraConfig.get().overrides.task)
        else:
            summary = signal.run(cfg) if cfg.study == "fig6" else runner.run(cfg)
    except UserError as error:
        if multirun:
            sys.tracebacklimit = 0  # a sweep goes on with its other jobs, then reports: the message is enough
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    if summary.interrupted is not None:
        sys.exit(128 + summary.interrupted)
    done = len(summary.records)
    if summary.late:
        log.info("Out of time (budget_minutes) with %d done: the same command continues.", done)
    elif done == 0 and not summary.failed and not summary.elsewhere:
        if summary.skipped:
            log.info("Nothing to do: all %d image(s) were finished before.", len(summary.skipped))
        else:
            log.info("Nothing to do: dataset=%s ends before images=%s.", cfg.dataset.name, cfg.images)
    else:
        log.info(
            "%d done, %d skipped, %d failed. Results: %s",
            done,
            len(summary.skipped),
            len(summary.failed),
            summary.folder,
        )
    if summary.failed:
        message = "; ".join(f"{name}: {text}" for name, text in summary.failed.items())
        if multirun:
            sys.tracebacklimit = 0
            raise UserError(f"{len(summary.failed)} image(s) failed: {message}")
        sys.exit(1)
    return {"folder": str(summary.folder), "done": done, "skipped": len(summary.skipped)}


def check_words(words: list[str]) -> None:
    """Check every override before anything is computed, each value of a sweep too. Raises UserError."""
    overrides = [w for w in words if "=" in w and not w.startswith("-") and not w.split("=")[0].startswith("hydra")]
    stray = [w for w in words if "=" not in w and not w.startswith(("-", "~"))]
    values_of_options = {words[i + 1] for i, w in enumerate(words[:-1]) if w in _OPTIONS_WITH_VALUE}
    for word in stray:
        if word not in values_of_options:
            raise UserError(
                f"'{word}' is not a setting: write name=value, as in task=mri. All settings: python run.py --help"
            )
    given = dict(word.split("=", 1) for word in overrides)
    if "dataset" in given and given.get("data", "builtin") != "builtin":
        raise UserError(
            f"dataset={given['dataset']} and data={given['data']} both say which images to use: give one of them."
        )
    for word in overrides:
        if not word.startswith(("+", "~")):
            try:
                parsed = OverridesParser.create().parse_override(word)
            except HydraException as error:
                detail = str(error).splitlines()[0]
                raise UserError(
                    f"{word}: this value cannot be read ({detail}). Quote special characters: 'name=\"a b\"'."
                ) from error
            _check_parsed(parsed)


_OPTIONS_WITH_VALUE = (
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--config-dir",
    "-cd",
    "--package",
    "-p",
    "--info",
    "-i",
    "--cfg",
    "-c",
    "--shell-completion",
    "-sc",
    "--experimental-rerun",
)


def _check_parsed(parsed: Override) -> None:
    key = parsed.key_or_group
    if parsed.is_sweep_override():
        if parsed.value_type not in (
            ValueType.CHOICE_SWEEP,
            ValueType.SIMPLE_CHOICE_SWEEP,
            ValueType.RANGE_SWEEP,
        ):
            return  # a glob over a group's choices, or drawn by a sweeper's own rules
        values: list[Any] = list(parsed.sweep_iterator())
    else:
        values = [parsed.value()]
    for value in values:
        if key in GROUPS:
            check_choice(key, value)
        else:
            value = value.text if hasattr(value, "text") else value
            check_override(key, value)


def choices(group: str) -> list[str]:
    """The configs of a group."""
    if group == "cell":
        return list(cells())
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def check_choice(group: str, value: Any) -> None:
    """Raise UserError unless ``value`` is one of the group's configs (or null for an optional one)."""
    if value is None and group in ("experiment", "cell"):
        return
    if str(value) not in choices(group):
        raise UserError(f"{group}={value}: expected one of {', '.join(choices(group))}.")


def help_text() -> str:
    """--help, written from the schema and the folders of ``configs/``."""
    lines = [
        "aseqdip: image reconstruction without training data (aSeqDIP and the methods it was compared with)",
        "",
        "  python run.py                                     4x MRI of the built-in phantom, the paper's protocol",
        "  python run.py preset=quick                        the same in a few minutes on a laptop",
        "  python run.py task=ct method=aseqdip views=18     another task, another setting",
        "  python run.py -m lam=0.5,1,2                      a sweep: every combination of comma-separated values",
        "  python run.py -m experiment=table2 data=public    a named sweep, on a named list of images",
        "  python run.py task=denoising dataset=folder data_root=~/pictures images=all",
        "",
        "Finished images are skipped, interrupted ones continued: a command can be repeated at any time.",
        "",
        "Groups (group=choice):",
    ]
    lines += [f"  {group:<12} {', '.join(choices(group))}" for group in GROUPS if group != "cell"]
    lines.append(f"  {'cell':<12} task-setting-method of a published table, as in {next(iter(cells()))}")
    lines += [
        "",
        "Settings (name=value; the paper's in brackets; task, method, recipe and preset set some of them otherwise):",
    ]
    defaults = OmegaConf.load(config_folder() / "config.yaml")
    for name, f in knobs():
        if name.endswith(".name"):
            continue
        meta = f.metadata
        value = OmegaConf.to_container(defaults, resolve=False).get(name)  # type: ignore[union-attr]
        shown = (
            "" if value is None else f" [{value}]".replace("${oc.env:ASEQDIP_DATA,data}", "$ASEQDIP_DATA, else data")
        )
        options = f" ({' | '.join(meta['choices'])})" if meta["choices"] else ""
        lines.append(f"  {name:<26} {meta['help']}{options}{shown}")
    return "\n".join([*lines, "", "Hydra's own options: python run.py --hydra-help", ""])


register()  # at import, so that a launcher's worker processes know them too
