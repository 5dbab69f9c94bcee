"""From words to a configuration: what knows Hydra. Nodes for every part, resolvers for YAML, the jobs of a sweep."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aseqdip.config import GROUPS, Config, catalogue, parts, shared_knobs, typed
from aseqdip.errors import UserError
from aseqdip.files import config_folder
from aseqdip.methods import METHODS
from aseqdip.networks import NETWORKS
from aseqdip.priors.published import usual_place

# --- what Hydra is told ------------------------------------------------------------------------------------------


def register() -> None:
    """Make every part and the resolvers known to Hydra, before anything is composed."""
    # Hydra copies its sources at each composition, and with them this one store of hundreds of nodes, most of the time
    # that it takes; a node is copied again where it is loaded
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    store.store(name="schema", node=schema())
    for kind, name, part in parts():
        for group, node in _nodes(kind, name, part).items():
            if not (config_folder() / group / f"{name}.yaml").is_file():
                package = None if group in ("network", "dataset") else "_global_"
                store.store(group=group, name=name, node=node, package=package)
    for name, node in cells().items():
        store.store(group="cell", name=name, node=node, package="_global_")
    OmegaConf.register_new_resolver("by_task", _by_task, replace=True)
    OmegaConf.register_new_resolver("by_preset", _by_preset, replace=True)
    OmegaConf.register_new_resolver("rounds", _rounds, replace=True)
    OmegaConf.register_new_resolver("tenth", _tenth, replace=True)
    OmegaConf.register_new_resolver("weights", _weights, replace=True)


def schema() -> dict[str, Any]:
    """Every knob there is: those of every run at their defaults, those of parts null until a part is chosen."""
    root: dict[str, Any] = {group: {"name": None} for group in GROUPS if group not in ("experiment", "cell")}
    root["dataset"]["reader"] = None
    defaults = {known.name: known.field.default for known in shared_knobs() if "." not in known.name}
    for name in catalogue():
        head, dot, tail = name.partition(".")
        if dot:
            root[head][tail] = None
        else:
            root[name] = defaults.get(name)
    return root


def _nodes(kind: str, name: str, part: Any) -> dict[str, dict[str, Any]]:
    """The configs that stand for a part, by group, where ``configs/`` has none of its own.

    ``task=NAME`` and ``method=NAME`` are a pair: the defaults of its knobs and what it has otherwise than others, under
    ``knobs``, which a YAML file of the same name includes in its own defaults list; and the choice itself.
    """
    if kind == "network":
        return {"network": {"name": name}}
    if kind == "dataset.reader":
        return {"dataset": {"name": name, "reader": name}}
    if kind == "stop":
        return {}
    own = dict(part.defaults)
    choices = [{f"override /{group}": own.pop(group)} for group in ("dataset", "network") if group in own]
    values = {f.name: _default(f) for f in dataclasses.fields(part.Options)}
    knobs = {"defaults": [*choices, "_self_"], **values, **own}
    return {f"knobs/{kind}": knobs, kind: {"defaults": [f"/knobs/{kind}/{name}", "_self_"], kind: {"name": name}}}


def _default(knob: dataclasses.Field[Any]) -> Any:
    """Its default, or a choice of one by task or preset."""
    for who in ("by_task", "by_preset"):
        if others := knob.metadata[who]:
            values = {**others, "default": knob.default}
            pairs = ",".join(f"{name}:{'null' if value is None else value}" for name, value in values.items())
            return f"${{{who}:{{{pairs}}}}}"
    return knob.default


#: the settings of the paper's tables
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "mri": {"accel4": {"accel": 4}, "accel8": {"accel": 8}},
    "ct": {"views30": {"views": 30}, "views18": {"views": 18}},
    "denoising": {"sigma15": {"sigma": 15}, "sigma30": {"sigma": 30}},
    "inpainting": {"hiar0.1": {"hiar": 0.1}, "hiar0.25": {"hiar": 0.25}, "mask-random": {"mask": "random"}},
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
        for method in METHODS
        if method != "rethinking_dip" or task == "denoising"
    }


def _pick(what: str, name: str, values: Mapping[str, Any]) -> Any:
    if name in values or "default" in values:
        return values.get(name, values.get("default"))
    raise UserError(f"${{by_{what}:...}} says nothing for {what}={name}: add {name}: or default: to it.")


def _by_task(values: DictConfig, *, _root_: DictConfig) -> Any:
    """``${by_task:{mri:10,ct:2,default:5}}``: a value for each task; an error for one that is not named."""
    return _pick("task", _root_.task.name, values)


def _by_preset(values: DictConfig, *, _root_: DictConfig) -> Any:
    """``${by_preset:{paper:4000,quick:1000,smoke:20}}``: a value for each preset."""
    return _pick("preset", _root_.preset.name, values)


def _rounds(count: int, *, _root_: DictConfig) -> str:
    """``${rounds:20}``: an experiment's images, as a sweep over rounds: one, then four more, then the others."""
    return "0,1" if _root_.preset.name == "smoke" else f"0,1:5,5:{count}"


def _tenth(number: Any) -> int:
    """``${tenth:${steps}}``: the largest divisor that is no more than a tenth of it, at least 1: an N for any steps."""
    return next(n for n in range(max(int(number) // 10, 1), 0, -1) if int(number) % n == 0)


def _weights(name: str) -> str | None:
    """``${weights:ffhq}``: that published prior where its file has been converted, else the one that is shipped."""
    return name if usual_place(name).is_file() else None


# --- composing ---------------------------------------------------------------------------------------------------

#: how the word begins that names a user's own folder of configs
SEARCHED = "hydra.searchpath=[file://"


def compose(words: Sequence[str]) -> Config:
    """The typed config of a command's words (no sweep). Raises UserError where they make none."""
    folder = next((w.removeprefix(SEARCHED).removesuffix("]") for w in words if w.startswith(SEARCHED)), None)
    return configured(_composed(words), [w for w in words if not w.startswith("hydra.searchpath")], folder)


def searched(folder: str) -> str:
    """The word by which a user's own folder of configs is among those that are composed."""
    return f"{SEARCHED}{Path(folder).resolve()}]"


def configured(composed: DictConfig, words: Sequence[str], folder: str | None = None) -> Config:
    """A composed config, typed. Raises UserError where it is none, or has another network than the words name.

    Args:
        folder: of a user's own configs.
    """
    cfg = typed(resolved(composed), words)
    cfg.configs = folder
    name = dict(word.partition("=")[::2] for word in words).get("network")
    if name is not None and network(name, folder).get("name", cfg.network.name) != cfg.network.name:
        raise UserError(
            f"network={name} and recipe={cfg.recipe}: the recipe has a network of its own, {cfg.network.name}. Leave "
            "one of them out, or change parts of the recipe's: network.width=..., network.depth=..."
        )
    return cfg


def network(name: str, folder: str | None = None) -> dict[str, Any]:
    """What a config of the group ``network`` says, by itself and those that it begins with.

    Args:
        folder: of a user's own configs.
    """
    paths = (Path(root, "network", f"{name}.yaml") for root in (config_folder(), folder) if root is not None)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {"name": name} if name in NETWORKS else {}
    own = dict(OmegaConf.load(path).items())
    first = [base for base in own.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return {key: value for part in [*(network(base, folder) for base in first), own] for key, value in part.items()}


def resolved(composed: DictConfig) -> dict[str, Any]:
    """A composed config as plain values. Raises UserError for what cannot be resolved."""
    try:
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise _said(error) from error


def _composed(words: Sequence[str], with_hydra: bool = False) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
            return hydra.compose("config", list(words), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise _said(error, words) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError(f"{' '.join(words)}: null stands where the name of a config is needed.") from error


def _said(error: Exception, words: Sequence[str] = ()) -> UserError:
    """What Hydra or OmegaConf found, in one line; what our own resolvers raised, as they say it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    if lines and lines[0].startswith("Could not "):  # override, append or delete: Hydra's words for a name it lacks
        name = lines[0].partition("'")[2].partition("'")[0]
        lines[0] = f"there is no setting {name!r} that this could change: --help settings names them."
    before = f"{where}: " if where else f"{' '.join(words)}: " if words else ""
    return UserError(f"{before}{lines[0] if lines else type(error).__name__}")


# --- choices -----------------------------------------------------------------------------------------------------


@cache
def choices(group: str, folder: str | None = None) -> list[str]:
    """The configs of a group, as Hydra lists them, and those of a user's ``--config-dir``."""
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        found = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
    own = sorted(path.stem for path in Path(folder, group).glob("*.yaml")) if folder else []
    return list(dict.fromkeys([*found, *own]))


# --- sweeps ------------------------------------------------------------------------------------------------------

#: sweeps whose values a word lists
LISTED = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)


def parse(word: str) -> Override:
    """An override as Hydra understands it. Raises HydraException."""
    return OverridesParser.create().parse_override(word)


def values_of(parsed: Override) -> list[str] | None:
    """The values a word sweeps over, each as Hydra writes it; None for one that only a sweeper of its own can draw."""
    if not parsed.is_sweep_override():
        return [parsed.get_value_element_as_str()]
    if parsed.value_type == ValueType.GLOB_CHOICE_SWEEP:
        glob: Any = parsed.value()
        return list(glob.filter(choices(parsed.key_or_group)))
    if parsed.value_type in LISTED:
        return [str(value) for value in parsed.sweep_string_iterator()]
    return None


def swept(words: Sequence[str]) -> dict[str, list[str]]:
    """What a command sweeps over and the values, in its words and in its experiment; without what no word can name."""
    found: dict[str, list[str]] = {}
    fixed = []
    for word in words:
        parsed = parse(word) if "=" in word and not word.startswith(("+", "~")) else None
        if parsed is None or not parsed.is_sweep_override():
            fixed.append(word)
        elif values := values_of(parsed):
            found[parsed.key_or_group] = values
            fixed.append(f"{parsed.key_or_group}={values[0]}")
    params = OmegaConf.select(_composed(fixed, with_hydra=True), "hydra.sweeper.params") or {}
    said = {word.partition("=")[0] for word in words}
    for name, text in params.items():
        if name not in said and (values := values_of(parse(f"{name}={text}"))):
            found[name] = values
    return found


def jobs(words: Sequence[str], over: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """The words of each job of a sweep over these values, the last name turning fastest."""
    fixed = [word for word in words if word.partition("=")[0] not in over]
    for values in product(*over.values()):
        yield [*fixed, *(f"{name}={value}" for name, value in zip(over, values, strict=True))]


register()  # at import, so that a launcher's worker processes know them too
