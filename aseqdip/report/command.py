"""The command that makes a reconstruction again."""

import dataclasses
import shlex
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aseqdip.cli import choices
from aseqdip.config import Config, config_folder, knobs, typed_config
from aseqdip.errors import UserError

#: what must be said of a run beside its identity
EXTRAS = ("dataset.folder", "dataset.files", "pool", "stop")


def composed(words: list[str]) -> Config:
    """The typed config of a command's words. Raises UserError where they make none."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
            return typed_config(OmegaConf.to_container(compose("config", words), resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error


@cache
def _defaults(groups: tuple[str, ...]) -> dict[str, Any]:
    """Every knob by its dotted name, as the groups alone set it; empty where they make no config (any more)."""
    try:
        config = dataclasses.asdict(composed(list(groups)))
    except UserError:
        return {}
    return {name: _leaf(config, name) for name, _ in knobs()}


def _leaf(config: dict[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def recorded(record: dict[str, Any]) -> dict[str, Any]:
    """The knobs that a record's result depends on, by dotted name; empty for a record that does not hold them."""
    identity, config = record.get("identity"), record.get("config")
    if not isinstance(identity, dict) or not isinstance(config, dict):
        return {}
    extras = {}
    for name in EXTRAS:
        try:
            extras[name] = _leaf(config, name)
        except (KeyError, TypeError):
            continue
    if config.get("input") != "reference":
        extras.pop("pool", None)
    if (data := (config.get("data") or {}).get("name", "builtin")) != "builtin":
        extras["data.name"] = data
    return {**extras, **{name: value for name, value in identity.items() if name != "folders"}}


def run_words(knobs_of_run: dict[str, Any], preset: str, recipe: str) -> list[str]:
    """The words behind ``python run.py`` for all images of a run: groups, then the knobs they leave to be said."""
    task, method = str(knobs_of_run.get("task.name")), str(knobs_of_run.get("method.name"))
    groups = [f"task={task}", f"method={method}"]
    if preset != "paper":
        groups.append(f"preset={preset}")
    if recipe != "matched":
        groups.append(f"recipe={recipe}")
    if "data.name" in knobs_of_run:
        groups.append(f"data={knobs_of_run['data.name']}")
    dataset = str(knobs_of_run.get("dataset.name"))
    defaults = _defaults(tuple(groups))
    if defaults.get("dataset.name") != dataset and dataset in choices("dataset"):
        groups.append(f"dataset={dataset}")
        defaults = _defaults(tuple(groups))
    words = groups.copy()
    for name, value in knobs_of_run.items():
        # where data_root is read, its default depends on the environment: always said
        if name == "data_root" or name not in defaults or defaults[name] != value:
            words.append(word(name, value))
    return words


def word(name: str, value: Any) -> str:
    """``name=value`` as Hydra reads it back to that value."""
    if not isinstance(value, str):
        plain = {"None": "null", "True": "true", "False": "false"}
        return f"{name}={plain.get(str(value), value)}"
    quoted = [value.replace('"', '\\"'), value.replace("\\", "\\\\").replace('"', '\\"')]
    candidates = [f"{name}={value}", *(f'{name}="{text}"' for text in quoted)]
    return next((c for c in candidates if _reads(c, value)), candidates[-1])


def _reads(override: str, text: str) -> bool:
    """Whether Hydra takes an override for this text (or for a number that is written the same)."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    value = None if parsed.is_sweep_override() else parsed.value()
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value) == text


def run_command(record: dict[str, Any]) -> str:
    """The shell line for the run that a record belongs to, up to its image; "" if the record does not hold its settings."""
    settings = recorded(record)
    if not settings:
        return ""
    words = run_words(settings, str(record.get("preset")), str(record.get("recipe")))
    return " ".join(["python run.py", *map(shlex.quote, words)])


def image_word(image: str) -> str:
    """The word that names one image, as a shell takes it."""
    return shlex.quote(word("images", image))


def command(record: dict[str, Any]) -> str:
    """A shell line that makes this record's reconstruction again; "" if the record does not hold its settings."""
    line = run_command(record)
    return f"{line} {image_word(record['image'])}" if line else ""
