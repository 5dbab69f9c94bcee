"""The words of a command: as Hydra must have them, checked before anything is computed, and those without effect."""

import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override, QuotedString, ValueType
from hydra.errors import HydraException

from aseqdip import compose
from aseqdip.config import GROUPS, REGISTRIES, Config, catalogue, chosen, idle_knobs, in_force, unknown
from aseqdip.errors import UserError, near
from aseqdip.files import config_folder

SWEEP = ("-m", "--multirun")
#: Hydra's flags that take the next word as their value
TAKE_NEXT = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c")
#: those that show something instead of running
SHOW = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
LISTS = ("seeds", "images")


def sweeps(words: Sequence[str]) -> bool:
    """Whether the command asks for a sweep."""
    return any(word in SWEEP or word == "hydra.mode=MULTIRUN" for word in words)


def shows(words: Sequence[str]) -> bool:
    """Whether Hydra is to show something instead of running."""
    return any(word.split("=")[0] in SHOW for word in words)


def user_folder(words: Sequence[str]) -> str | None:
    """The folder of a user's own configs: ``--config-dir``; of several the last, as Hydra takes it."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("--config-dir", "-cd"):
            found = following
        elif word.startswith("--config-dir="):
            found = word.partition("=")[2]
    return found


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with their values, and the words that set something."""
    flags = {i for i, word in enumerate(words) if word.startswith("-")}
    flags |= {i + 1 for i, word in enumerate(words) if word in TAKE_NEXT}
    flags |= {i + 1 for i, word in enumerate(words[:-1]) if word in ("--info", "-i") and "=" not in words[i + 1]}
    return [w for i, w in enumerate(words) if i in flags], [w for i, w in enumerate(words) if i not in flags]


def settings(words: Sequence[str]) -> list[str]:
    """The words that set something: all but flags and their values."""
    return split(words)[1]


# --- as Hydra must have them -------------------------------------------------------------------------------------


def written(words: Sequence[str]) -> list[str]:
    """The words as Hydra understands what a person means: home folders, lists, and texts that need quotes."""
    multirun, own = sweeps(words), set(settings(words))
    return [_quoted(_list(_home(word), multirun), multirun) if word in own else word for word in words]


def _home(word: str) -> str:
    """``outputs=~/x`` with the home folder filled in, which a shell does not do behind an equals sign."""
    name, equals, value = word.partition("=")
    if not equals or not value.startswith("~"):
        return word
    full = os.path.expanduser(value)  # noqa: PTH111 - pathlib's raises where there is no such user
    if full.startswith("~"):
        raise UserError(f"{word}: there is no user {value.split('/')[0][1:]}; write the folder in full.")
    return f"{name}={full}"


def _list(word: str, multirun: bool) -> str:
    """``seeds=0,1,2`` and ``images=0,cat`` as the lists they mean; Hydra reads bare commas as a sweep."""
    name, _, value = word.partition("=")
    if name not in LISTS or "," not in value and name != "seeds" or value[:1] in ("[", '"', "'") or value == "null":
        return word
    if name == "images" and (multirun or "(" in value):  # there it is a sweep, which comes to the same
        return word
    return f"{name}=[{','.join(_text(part) for part in value.split(','))}]"


def _quoted(word: str, multirun: bool) -> str:
    """A path or name that Hydra's grammar does not take as it stands, in quotes."""
    name, equals, value = word.partition("=")
    known = catalogue().get(name, [])
    texts = [k for k in known if k.kind in (str, str | None, Any) and not k.field.metadata["choices"]]
    parsed = _parses(word)
    literal = ('"', "'", "[") if name in LISTS else ('"', "'")
    if not equals or not texts or "${" in value or value.startswith(literal) and parsed is not None:
        return word
    if parsed is not None and (parsed.is_sweep_override() and multirun or _reads(parsed, value)):
        return word
    return f"{name}={_text(value, always=True)}"


def _text(value: str, always: bool = False) -> str:
    """A value as Hydra reads it back to the same text, in quotes where it needs them."""
    if not always and (parsed := _parses(f"x={value}")) is not None and _reads(parsed, value):
        return value
    # in its quotes, what escapes is a backslash before a quote, or before the end
    return '"' + re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), value) + '"'


def _parses(word: str) -> Override | None:
    try:
        return compose.parse(word)
    except HydraException:
        return None


def _reads(parsed: Override, text: str) -> bool:
    """Whether Hydra takes an override for this text, or for a number or word that is written the same."""
    value = None if parsed.is_sweep_override() else parsed.value()
    return (
        value is None
        and text in ("", "null")
        or isinstance(value, (str, int, float))
        and str(value) in (text, text.capitalize())
    )


def narrowed(words: Sequence[str]) -> list[str]:
    """``cell=glob(ct-*)`` beside an experiment: those of its own cells that match, not of all that there are.

    UserError where none does.
    """
    globs = {word: parsed for word in settings(words) if (parsed := _glob(word)) is not None}
    if not globs:
        return list(words)
    listed = compose.swept([word for word in _located(words) if word not in globs])
    found: dict[str, str] = {}
    for word, parsed in globs.items():
        values, pattern = listed.get(parsed.key_or_group), parsed.value()
        if values is not None and isinstance(pattern, Glob):
            if not (kept := pattern.filter(values)):
                raise UserError(f"{word}: the experiment has none of these; it has {', '.join(values)}.")
            found[word] = f"{parsed.key_or_group}={','.join(kept)}"
    return [found.get(word, word) for word in words]


def _glob(word: str) -> Override | None:
    parsed = _parses(word) if "=glob(" in word and not word.startswith(("+", "~")) else None
    return parsed if parsed is not None and parsed.value_type == ValueType.GLOB_CHOICE_SWEEP else None


# --- checked -----------------------------------------------------------------------------------------------------


def check(words: Sequence[str]) -> None:
    """Check every word before anything is computed, each value of a sweep too. Raises UserError."""
    multirun, folder = sweeps(words), user_folder(words)
    if folder is not None:
        _check_folder(folder)
    for word in settings(words):
        if "=" not in word and not word.startswith("~"):
            raise UserError(
                f"'{word}' is not a setting: write name=value, as in task=mri. All settings: --help settings"
            )
        if word.startswith(("+", "~")):
            continue
        try:
            parsed = compose.parse(word)
        except HydraException as error:
            name = word.partition("=")[0]
            raise UserError(
                f"{word}: this value cannot be read: a quote, bracket or brace that does not close, or a character "
                f"that needs quotes, as in {name}='\"a b\"'."
            ) from error
        if parsed.is_sweep_override() and not multirun:
            raise UserError(f"{word} has several values, which is a sweep: add -m, as in python run.py -m {word}")
        _check_parsed(parsed, folder)
    given = {word.partition("=")[0]: word.partition("=")[2] for word in settings(words)}
    if "dataset" in given and given.get("data", "builtin") != "builtin":
        raise UserError(
            f"dataset={given['dataset']} and data={given['data']} both say which images to use: give one of them."
        )
    if multirun and shows(words) and any(word.split("=")[0] in ("--cfg", "-c") for word in words):
        raise UserError(
            "--cfg shows the settings of one run: leave out -m, and give one value of each (cell=..., lam=1)."
        )


def check_flags(words: Sequence[str]) -> None:
    """Raise UserError for flags that Hydra does not take together, or that lead to another configuration."""
    given = {word.split("=")[0] for word in split(words)[0]}
    if other := sorted(given & {"--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"}):
        raise UserError(f"{other[0]}: the configuration is the package's own; --config-dir FOLDER adds to it.")
    modes = [names[0] for names in (("--run", "-r"), ("--cfg", "-c"), ("--info", "-i"), SWEEP) if given & {*names}]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} each say what to do: give one of them.")
    if "--resolve" in given and not given & {"--cfg", "-c"}:
        raise UserError("--resolve says how --cfg shows the settings: write --cfg job --resolve.")


def _check_parsed(parsed: Override, folder: str | None) -> None:
    key = parsed.key_or_group
    if parsed.package is not None:
        raise UserError(f"{parsed.input_line}: a name has no @ here: write {key}=value.")
    if key.startswith(("hydra.", "hydra/")):
        if key == "hydra/launcher":
            _check_launcher(str(parsed.value()))
        return
    if not parsed.is_sweep_override():
        values: list[Any] = [parsed.value()]
    elif parsed.value_type in compose.LISTED:
        values = list(parsed.sweep_iterator())
    else:
        return  # a glob over a group's choices, or drawn by a sweeper's own rules
    for value in values:
        text = value.text if isinstance(value, QuotedString) else value
        if key in GROUPS:
            check_choice(key, text, folder)
        else:
            check_value(key, text)


def check_choice(group: str, value: Any, folder: str | None = None) -> None:
    """Raise UserError unless ``value`` is one of the group's configs."""
    if value is None:
        raise UserError(f"{group}=null: expected the name of a config, or no word at all.")
    known = compose.choices(group, folder)
    if str(value) not in known:
        if group in REGISTRIES:
            REGISTRIES[group][str(value)]  # says which are near
        if len(known) > 40:
            hint = near(str(value), known) or known[0]
            raise UserError(f"{group}={value}: expected one of {len(known)} names, such as {hint}.")
        raise UserError(f"{group}={value}: expected one of {', '.join(known)}.")


def check_value(key: str, value: Any) -> None:
    """Raise UserError if ``key=value`` names no knob, or suits none of those who declare it."""
    if key == "dataset.reader":
        REGISTRIES[key][str(value)]
        return
    declared = catalogue().get(key)
    if declared is None:
        raise unknown(key)
    if isinstance(value, str) and "${" in value:
        return  # known once composed
    errors = []
    for known in declared:
        try:
            known.typed(value)
        except UserError as error:
            errors.append(error)
    if len(errors) == len(declared):
        if value is None:
            raise UserError(f"{key}=null: give it a value, or leave it out: then the preset's holds, or its default.")
        raise errors[0]


def _check_folder(folder: str) -> None:
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder.")
    for path in sorted(Path(folder).rglob("*.yaml")):
        inside = path.relative_to(folder)
        group = inside.parent.as_posix()
        # Hydra would read the package's own in its place; a part may have a name without a file
        taken = (config_folder() / inside).is_file() or path.stem in (REGISTRIES.get(group) or compose.choices(group))
        if taken:
            raise UserError(
                f"{path} has the name of a {group} there is: give it another, and begin it with defaults: "
                f"[{path.stem}]."
            )


#: what a launcher is made of, and how to have it
LAUNCHERS = {"joblib": "hydra_joblib_launcher", "ray": "hydra_ray_launcher"}
LAUNCHERS |= dict.fromkeys(("submitit_local", "submitit_slurm", "slurm"), "hydra_submitit_launcher")


def _usable(launcher: str) -> bool:
    plugin = LAUNCHERS.get(launcher)
    return plugin is None or find_spec(f"hydra_plugins.{plugin}") is not None


def _check_launcher(name: str) -> None:
    """UserError for a launcher that cannot work here."""
    known = [launcher for launcher in compose.choices("hydra/launcher") if _usable(launcher)]
    if name not in (*known, *LAUNCHERS):
        raise UserError(f"hydra/launcher={name}: expected one of {', '.join(known)}.")
    plugin = LAUNCHERS.get(name)
    if plugin is not None and not _usable(name):
        package = plugin.replace("_", "-")
        raise UserError(f"hydra/launcher={name} needs {package}: pip install {package}.")
    if name in ("slurm", "submitit_slurm") and shutil.which("sbatch") is None:
        raise UserError(
            f"hydra/launcher={name}: there is no Slurm here (no command sbatch); run it on a machine of the cluster, "
            "or use hydra/launcher=joblib."
        )


def jobs(words: Sequence[str]) -> int:
    """How many jobs a sweep has."""
    return math.prod(len(values) for values in compose.swept(_located(words)).values())


def _located(words: Sequence[str]) -> list[str]:
    """The words that set something, and where a user's own configs are."""
    folder = user_folder(words)
    return settings(words) + ([] if folder is None else [compose.searched(folder)])


# --- composed once, before Hydra runs ----------------------------------------------------------------------------


#: the settings that a study reads whose task, method and network are its own; and those of every command
READ_BY = {"fig6": ("steps", "lr", "network.width", "network.init", "seed", "seeds")}
OF_ALL = (
    *("experiment", "preset", "outputs", "data_root", "device", "precision", "parallel", "redo"),
    *("budget_minutes", "checkpoint_minutes", "tracker"),
)


def rehearse(words: Sequence[str]) -> list[str]:
    """The warnings that a command's words deserve: those without effect in any job. UserError for what cannot run.

    Jobs are composed one after another until each word has had an effect in one, mostly the first alone.
    """
    own = _located(words)
    over = compose.swept(own)
    said = {word.partition("=")[0].lstrip("+") for word in own}
    unsaid = [name for name in over if name not in said]
    if unsaid and not sweeps(words) and not shows(words):
        raise UserError(
            f"This is a sweep over {' and '.join(unsaid)}: add -m, as in python run.py -m {' '.join(settings(words))}; "
            f"or give one value of each."
        )
    _check_cells(own, over)
    if not sweeps(words):
        over = {}
    groups = {name: values for name, values in over.items() if name in (*GROUPS, "stop", "dataset.reader")}
    first = [f"{name}={values[0]}" for name, values in over.items() if name not in groups]
    idle: dict[str, str] | None = None
    for job in compose.jobs([w for w in own if w.partition("=")[0] not in over] + first, groups):
        here = without_effect(compose.compose(job), sorted(said))
        idle = here if idle is None else {name: why for name, why in idle.items() if name in here}
        if not idle:
            break
    return list((idle or {}).values())


def _check_cells(words: Sequence[str], over: Mapping[str, Sequence[str]]) -> None:
    """UserError for a task or a method beside a cell that is of another."""
    given = dict(word.partition("=")[::2] for word in words)
    cells = [cell.split("-") for cell in over.get("cell", [given.get("cell", "")]) if "-" in cell]
    for name, place in (("task", 0), ("method", -1)):
        if name in given and any({*over.get(name, [given[name]])} != {cell[place]} for cell in cells):
            pattern = f"{given[name]}-*" if name == "task" else f"*-{given[name]}"
            raise UserError(
                f"{name}={given[name]}: a cell says its {name} itself, and another: leave {name}= out, or name the "
                f"cells that are wanted, 'cell=glob({pattern})'."
            )


def without_effect(cfg: Config, names: Sequence[str]) -> dict[str, str]:
    """Of the knobs a user named, those that this run does not use, each with a line that says so."""
    if cfg.study in READ_BY:
        others = [
            name for name in names if name in {*catalogue(), *GROUPS} and name not in (*READ_BY[cfg.study], *OF_ALL)
        ]
        return {name: f"{name} has no effect: experiment={cfg.study} does not use it." for name in others}
    used, mine, found = in_force(cfg), chosen(cfg), _otherwise(cfg, names)
    idle = idle_knobs(cfg)
    gives = cfg.dataset.reader.part.gives
    if gives == "sinogram":
        idle |= dict.fromkeys(("size", "views", "photons"), "a measured sinogram has its own")
    elif cfg.task.name == "mri":
        idle |= {"coils": "k-space has its own"} if gives == "kspace" else {"calibration": "coils are simulated"}
    for name in names:
        if name in idle:
            shown = "is shown, and " if name == "start" else ""
            found[name] = f"{name} {shown}has no effect: {idle[name]}."
            continue
        declared = catalogue().get(name)
        if declared is None or name in used:
            continue
        kind, owners = declared[0].part_kind, [known.owner for known in declared]  # all are of one kind
        if not kind or mine[kind] in owners:
            if name != "precision":  # as much a matter of the machine as of the method
                found[name] = f"{name} has no effect: method={cfg.method.name} does not use it."
        else:
            found[name] = f"{name} has no effect: it belongs to {' and '.join(owners)}, and this is {mine[kind]}."
    return found


def _otherwise(cfg: Config, names: Sequence[str]) -> dict[str, str]:
    """Of a network that a user named, what the preset or recipe has otherwise, in a line."""
    name = dict(word.partition("=")[::2] for word in cfg.words).get("network")
    own = compose.network(name, cfg.configs) if name is not None else {}
    now = {key: getattr(cfg.network, key, getattr(cfg.network.options, key, None)) for key in own}
    other = {key: value for key, value in own.items() if value != now[key] and f"network.{key}" not in names}
    if not other:
        return {}
    changed = ", ".join(f"{key} {now[key]} instead of {value}" for key, value in other.items())
    wanted = " ".join(f"network.{key}={value}" for key, value in other.items())
    whose = f"preset={cfg.preset} recipe={cfg.recipe}"
    return {"network": f"network={name} has {changed}, by {whose}; for its own: {wanted}"}
