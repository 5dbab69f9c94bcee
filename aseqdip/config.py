"""A run's settings: the knobs that every run has, and those of its parts; what there is to set, and who says so."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from aseqdip.data import READERS
from aseqdip.errors import UserError, near
from aseqdip.methods import METHODS
from aseqdip.methods.base import Method, Shared
from aseqdip.networks import NETWORKS
from aseqdip.networks.base import NetworkSettings
from aseqdip.parts import Chosen, Part, Registry, convert, knob, make_options
from aseqdip.stopping import STOPPING
from aseqdip.stopping.base import StoppingRule
from aseqdip.tasks import TASKS
from aseqdip.tasks.base import Task

log = logging.getLogger(__name__)


@dataclass
class DatasetSettings:
    """Where images come from."""

    reader: Chosen[Any]
    name: str = knob("name of the data set, as in the results", "own")
    folder: str = knob("sub-folder of data_root; data_root itself is read where there is none", "", result=False)
    files: list[str] | None = knob(
        "the images of this data set, by file below its folder, in order; default: every file", None, result=False
    )


@dataclass
class TrackerSettings:
    """Where curves go besides the files."""

    name: str = knob("where curves go besides the files", "wandb", choices=("wandb", "none"), result=False)
    project: str = knob("W&B project", "aseqdip", result=False)
    entity: str | None = knob("W&B team or user; default: the key's own", None, result=False)
    mode: str = knob(
        "offline: beside the results, nothing leaves this machine; online: to W&B's server",
        "offline",
        choices=("offline", "online"),
        result=False,
    )
    pictures: bool = knob("whether pictures of the data go to W&B, too", False, result=False)


@dataclass(kw_only=True)
class Config(Shared):
    """All that a run is: its parts with their options, and the knobs that every run has."""

    task: Chosen[Task]
    method: Chosen[Method[Any]]
    dataset: DatasetSettings
    rule: Chosen[StoppingRule] | None = None
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    data: str = "builtin"
    preset: str = "paper"
    recipe: str = "matched"
    words: list[str] = field(default_factory=list)
    configs: str | None = None  # a user's own folder of them: --config-dir

    stop: str = knob(
        "rule that picks the result without the truth; none: the last iterate", "none", choices=("none", *STOPPING)
    )
    ema: float = knob(
        "decay of the running average of iterates given as the result; 0: no averaging", 0.0, low=0, high=0.9999
    )
    size: str = knob("image side: MRI crops to it, others resize to it (paper: 320 and 512); or native", "native")
    truth: str = knob(
        "known: measurements are simulated and scored; none: the file itself is the measurement", "known",
        choices=("known", "none"),
    )  # fmt: skip
    start: str = knob(
        "z0: paper, the task's own (zero-filled, filtered back-projection, the measurement); adjoint (ct); mean "
        "(inpainting); or the image of a classical method: tv, cg, wavelet ...",
        "paper",
    )
    warm: str | None = knob(
        "slice: in a volume (images=all), a slice begins with the network's weights of the one before it",
        None,
        choices=("slice",),
    )
    warm_steps: int | None = knob("warm=slice: steps of all slices but the first; default: as many", None, low=1)
    precision: str = knob(
        "of the network: auto is bf16 where the hardware has it", "auto", choices=("auto", "fp32", "bf16")
    )
    seed: int = knob("seed of all random numbers: masks, noise, weights", 0, low=0)
    seeds: list[int] | None = knob(
        "several seeds, one after another: seeds=0,1,2; wins over seed", None, low=0, result=False
    )
    images: Any = knob("which: an index or name, a range 0:5, a list 0,3, or all", 0, result=False)
    data_root: str = knob("folder that holds the data; default: $ASEQDIP_DATA, else data", "data", result=False)
    outputs: str = knob("folder that results go to", "outputs", result=False)
    device: str = knob("auto, cpu, cuda, cuda:1 ...", "auto", result=False)
    parallel: str = knob(
        "images at a time on this device, each on its share of it: a number, or auto", "1", result=False
    )
    redo: bool = knob("compute again what is finished", False, result=False)
    budget_minutes: float | None = knob(
        "stop cleanly after this time, counted from the start of the command; the same command then continues",
        None,
        above=0,
        result=False,
    )
    score_every: int = knob(
        "PSNR and SSIM of every so many iterates (and the first and last); the result is the same, the best is sought "
        "among them",
        1,
        low=1,
        result=False,
    )
    checkpoint_minutes: float = knob("how often an unfinished reconstruction is saved", 2.0, above=0, result=False)
    study: str = knob(
        "an experiment of its own: fig6, the paper's 1-D network (Appendix A.2); calibration, which reading of the "
        "paper reproduces it (docs/reproduction.md)",
        "none",
        choices=("none", "fig6", "calibration"),
        result=False,
    )

    def shared(self) -> Shared:
        """What a method is given beside its own options."""
        return Shared(self.steps, self.lr, self.residual, self.network)

    @property
    def learns(self) -> bool:
        """Whether a network is fitted, to which steps, learning rate and precision mean something."""
        return self.method.part.learns


#: a part's knobs are written with this before them
PREFIX = {"task": "", "method": "", "stop": "", "network": "network.", "dataset.reader": "dataset."}
REGISTRIES: dict[str, Registry[Any]] = {
    "task": TASKS,
    "method": METHODS,
    "stop": STOPPING,
    "network": NETWORKS,
    "dataset.reader": READERS,
}
LARGEST_SIDE = 16384  # pixels: a picture of that side takes 3 GiB, what is computed of it many times that
#: what only the fit of a network uses, and what only a method with iterates does
LEARNING, ITERATING = ("steps", "lr", "residual", "precision", "warm", "warm_steps"), ("ema", "stop")


@dataclass(frozen=True)
class Known:
    """A knob as somebody declares it.

    Attributes:
        name: as a user writes it: rho, network.width.
        owner: how its part is chosen: "method=tv_dip"; "" for what every run has.
    """

    name: str
    owner: str
    field: dataclasses.Field[Any]
    kind: Any

    @property
    def part_kind(self) -> str:
        """The kind of its owner: "method"; "" for what every run has."""
        return self.owner.partition("=")[0]

    def typed(self, value: Any) -> Any:
        """A value of it; UserError if it is none."""
        return convert(self.name, self.field, self.kind, value)


def knobs_of(cls: type, prefix: str = "", owner: str = "") -> Iterator[Known]:
    """The knobs that a dataclass declares."""
    kinds = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if "help" in f.metadata:
            yield Known(prefix + f.name, owner, f, kinds[f.name])


def shared_knobs() -> list[Known]:
    """What every run has."""
    nested = {"network.": NetworkSettings, "dataset.": DatasetSettings, "tracker.": TrackerSettings}
    found = [known for prefix, cls in nested.items() for known in knobs_of(cls, prefix)]
    choices = ("network.name", "tracker.name")  # by network=..., tracker=...
    return [*knobs_of(Config), *(known for known in found if known.name not in choices)]


def parts() -> Iterator[tuple[str, str, type[Part]]]:
    """Every part: its kind, name and class. One of another package that cannot be loaded is left out, and said."""
    for kind, registry in REGISTRIES.items():
        for name in registry:
            try:
                yield kind, name, registry[name]
            except Exception as error:
                if not registry.foreign(name):
                    raise
                log.warning("%s=%s is left out, its package cannot be used: %s", kind, name, error)


@cache
def catalogue() -> dict[str, list[Known]]:
    """Every knob by its name, with all who declare it. UserError where one name would mean two things."""
    found: dict[str, list[Known]] = {known.name: [known] for known in shared_knobs()}
    for kind, name, part in parts():
        for known in knobs_of(part.Options, PREFIX[kind], f"{kind}={name}"):
            for other in found.get(known.name, []):
                if other.part_kind != kind:
                    whose = f"of {other.owner}" if other.owner else "that every run has"
                    raise UserError(
                        f"The knob '{known.name}' of {known.owner} has the name of one {whose}: give it another name."
                    )
            found.setdefault(known.name, []).append(known)
    return found


GROUPS = ("task", "method", "network", "dataset", "data", "preset", "recipe", "tracker", "experiment", "cell")


def unknown(key: str) -> UserError:
    """The error for a name that nobody declares, with how it is written now, or the nearest names there are."""
    head, _, tail = key.partition(".")
    new = {"method.noise": "weight_noise"}.get(key, tail)
    if head in ("method", "operator") and new in catalogue():
        return UserError(f"'{key}' is written without its first word: {new}=...")
    if head == "operator":
        return UserError(
            f"There is no '{key}': a task has its own operator, and its settings are written bare: coils=8."
        )
    if tail == "name" and head in GROUPS:
        return UserError(f"'{key}' is chosen by its first word alone: {head}=...")
    close = near(key, [*catalogue(), *GROUPS])
    hint = f"Did you mean {close}? " if close else ""
    return UserError(f"There is no setting '{key}'. {hint}All settings: python run.py --help settings")


def chosen(cfg: Config) -> dict[str, str]:
    """The parts of this run by their kind, as their knobs' owner is named: "task": "task=mri"."""
    names = {
        "task": cfg.task.name,
        "method": cfg.method.name,
        "stop": cfg.stop,
        "network": cfg.network.name,
        "dataset.reader": cfg.dataset.reader.name,
    }
    return {kind: f"{kind}={name}" for kind, name in names.items()}


def idle_knobs(cfg: Config) -> dict[str, str]:
    """The knobs of task and method that others of their choices leave without effect, each with why."""
    return {**cfg.task.part.idle(cfg.task.options), **cfg.method.part.idle(cfg.method.options)}


def in_force(cfg: Config) -> dict[str, Known]:
    """The knobs that this run uses: its parts' and those of every run, without what its method ignores."""
    owners = {"": "", **chosen(cfg)}
    ignored: tuple[str, ...] = ()
    if not cfg.learns:
        del owners["network"]
        ignored += (*LEARNING, *(known.name for known in knobs_of(NetworkSettings, "network.")))
    if not cfg.method.part.iterative:
        del owners["stop"]
        ignored += ITERATING
    found = {name: known for name, all_ in catalogue().items() for known in all_ if known.owner in owners.values()}
    return {name: known for name, known in found.items() if name not in ignored}


def value_of(cfg: Config, known: Known) -> Any:
    """The value that a run gives a knob that is in force."""
    holders: dict[str, Any] = {
        "task": cfg.task.options, "method": cfg.method.options, "stop": cfg.rule and cfg.rule.options,
        "network": cfg.network.options, "dataset.reader": cfg.dataset.reader.options,
    }  # fmt: skip
    head, dot, _ = known.name.partition(".")
    holder = holders[known.part_kind] if known.owner else getattr(cfg, head) if dot else cfg
    return getattr(holder, known.field.name)


def make_task(cfg: Config) -> Task:
    """The task of a run, with its options."""
    cache_folder = Path(cfg.outputs) / "cache"
    return cfg.task.part(
        cfg.task.options, size=cfg.size, seed=cfg.seed, truth=cfg.truth, cache=cache_folder, start=cfg.start
    )


def typed(values: Mapping[str, Any], words: Sequence[str] = ()) -> Config:
    """A composed configuration, as plain values, typed and checked. UserError for what is unknown or wrong."""
    _refuse_unknown(values)
    dataset, network = dict(values["dataset"]), dict(values["network"])
    part = NETWORKS[network["name"]]
    settings = {**part.defaults, **_plain(NetworkSettings, network, "network.")}
    holds = {group: str(values[group]["name"]) for group in ("task", "preset")}
    reader = _chosen("dataset.reader", dataset["reader"], dataset, holds)
    cfg = Config(
        **_plain(Config, values),
        task=_chosen("task", values["task"]["name"], values, holds),
        method=_chosen("method", values["method"]["name"], values, holds),
        rule=None if values["stop"] in (None, "none") else _chosen("stop", values["stop"], values, holds),
        network=NetworkSettings(**settings, options=make_options(part.Options, network, "network.")),
        dataset=DatasetSettings(reader, **_plain(DatasetSettings, dataset, "dataset.")),
        tracker=make_options(TrackerSettings, values["tracker"], "tracker."),
        data=str(values["data"]["name"]),
        preset=str(values["preset"]["name"]),
        recipe=str(values["recipe"]["name"]),
        words=list(words),
    )
    if getattr(reader.options, "slice", None) == "auto":  # said here, so that a result's identity has what was meant
        reader.options.slice = "all" if cfg.images == "all" and cfg.dataset.files is None else "middle"
    _check(cfg)
    return cfg


def _plain(cls: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What is given of a dataclass's knobs, typed."""
    own = ((known, values.get(known.field.name)) for known in knobs_of(cls, prefix))
    return {known.field.name: known.typed(value) for known, value in own if value is not None}


def _chosen(kind: str, name: str, values: Mapping[str, Any], holds: Mapping[str, str]) -> Chosen[Any]:
    """A part by name, with its options among the values; ``holds``: the task and preset, whose defaults hold."""
    part = REGISTRIES[kind][name]
    return Chosen(name, part, make_options(part.Options, values, PREFIX[kind], **holds))


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    """UserError for a key that nobody declares: a YAML file's, since words are checked before."""
    nested = ("network", "dataset", "tracker")
    names = [f"{head}.{tail}" for head in nested for tail in values[head]] + [k for k in values if k not in GROUPS]
    for name in names:
        if name not in catalogue() and name not in ("network.name", "tracker.name", "dataset.reader"):
            raise unknown(name)


def _check(cfg: Config) -> None:
    """Values of every run that do not go together. Raises UserError."""
    for name, word, example in (("size", "native", "pixels (512)"), ("parallel", "auto", "images (4)")):
        value = getattr(cfg, name)
        if value != word and not (value.isdigit() and int(value) > 0):
            raise UserError(f"{name}={value}: expected a number of {example} or {word}.")
    if cfg.size.isdigit() and int(cfg.size) > LARGEST_SIDE:
        raise UserError(f"size={cfg.size}: expected at most {LARGEST_SIDE} pixels a side, or native.")
    for name in ("seeds", "images"):
        if getattr(cfg, name) == []:
            raise UserError(f"{name}=[] names none: give at least one, as in {name}=0,1, or leave it out.")
    if cfg.data != "builtin" and not cfg.dataset.files:
        raise UserError(
            f"data={cfg.data} has no list of images for task={cfg.task.name}: use data=builtin, or dataset=... with "
            "data_root=... for images of your own."
        )
