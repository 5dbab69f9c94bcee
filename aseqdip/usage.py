"""--help, in layers: a screen of what to begin with; the knobs of one part; those of every run."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from aseqdip import compose, config
from aseqdip.config import PREFIX, REGISTRIES, Known, knobs_of, parts, shared_knobs
from aseqdip.errors import UserError
from aseqdip.files import config_folder

WIDTH = 118

SHORT = """\
aseqdip: image reconstruction without training data (aSeqDIP and the methods it was compared with)

  python run.py                                       4x MRI of the built-in phantom, the paper's protocol
  python run.py preset=quick                          the same in a few minutes on a laptop
  python run.py task=ct method=tv_dip views=18        another task, another method, another setting
  python run.py -m lam=0.5,1,2                        a sweep: every combination of comma-separated values
  python run.py -m experiment=table2 data=public      a named sweep, on a named list of images
  python run.py task=denoising dataset=folder data_root=~/pictures images=all

Finished images are skipped, interrupted ones continued: a command can be repeated at any time.

Choices (name=choice):
{choices}

Settings most often set (name=value):
{often}

More:
  python run.py --help mri | --help settings          the settings of one task, method, network ...; those of every run
  python run.py ... --cfg job                         what a command would run with
  python run.py --version | --hydra-help              tab completion: eval "$(python run.py -sc install=bash)"
"""
OFTEN = ("steps", "lr", "stop", "ema", "size", "images", "seeds", "data_root", "outputs", "device", "parallel", "redo")
GROUPS = tuple(group for group in config.GROUPS if group != "cell")


def text(topics: Sequence[str]) -> str:
    """What ``--help`` and the words after it ask for. UserError for a word that names nothing."""
    if not topics:
        return short()
    return "\n".join(page(topic) for topic in topics)


def short() -> str:
    """The first page; fits a screen."""
    groups = [_wrapped(group, ", ".join(compose.choices(group))) for group in GROUPS]
    groups.append(_wrapped("stop", ", ".join(("none", *REGISTRIES["stop"]))))
    shared = {known.name: known for known in shared_knobs()}
    often = [_wrapped(name, _brief(shared[name])) for name in OFTEN]
    return SHORT.format(choices="\n".join(groups), often="\n".join(often))


def page(topic: str) -> str:
    """The settings of one part, or those of every run."""
    word = topic.partition("=")[2] or topic
    if word == "settings":
        return _section(
            "Settings of every run (in brackets: of preset=paper, without recipe or list of images)", shared_knobs()
        )
    found = [
        _section(f"{kind}={word}  {part.title}" + (f"  ({part.paper})" if part.paper else ""), known)
        for kind, registry in REGISTRIES.items()
        if word in registry
        for part in [registry[word]]
        for known in [list(knobs_of(part.Options, PREFIX[kind], f"{kind}={word}"))]
    ]
    if not found:
        known = ", ".join(name for registry in REGISTRIES.values() for name in registry)
        raise UserError(f"--help {topic}: expected settings, or one of {known}.")
    return "\n".join(found)


def _section(title: str, knobs: Iterable[Known]) -> str:
    lines = [_described(known) for known in knobs]
    return "\n".join([f"{title}:", *(lines or ["  no settings of its own"]), ""])


def _described(known: Known) -> str:
    """A knob's meaning, range and default."""
    meta = known.field.metadata
    said = [meta["help"]]
    if meta["choices"]:
        said.append(f"({' | '.join(meta['choices'])})")
    else:
        bounds = (("low", "at least"), ("above", "more than"), ("high", "at most"))
        if limits := [f"{words} {meta[key]:g}" for key, words in bounds if meta[key] is not None]:
            said.append(f"({', '.join(limits)})")
    return _wrapped(known.name, " ".join(said) + _default(known), 26)


def _brief(known: Known) -> str:
    """A knob's meaning on one line."""
    return known.field.metadata["help"].partition(";")[0] + _default(known)


def _default(known: Known) -> str:
    """What a knob is where nobody sets it, in brackets: the usual value first, then whose is another."""
    usual, others = known.field.default, _others(known)
    if not known.owner and others:
        kind = _chooser(known)
        every = Counter(_shown(others.get(name, usual)) for part_kind, name, _ in parts() if part_kind == kind)
        if _shown(usual) not in every:
            usual = every.most_common(1)[0][0]
    more = [f"{name} {_shown(value)}" for name, value in others.items() if _shown(value) != _shown(usual)]
    said = ["" if usual in (None, "") else _shown(usual), ", ".join(more)]
    return f" [{'; '.join(filter(None, said))}]" if any(said) else ""


def _chooser(known: Known) -> str:
    """The kind of parts that may have a default of their own for a knob of every run; "" for none."""
    head, dot, tail = known.name.rpartition(".")
    kinds = ("task", "method") if not dot else ("network",) if head == "network" else ()
    found = (kind for kind, _, part in parts() if kind in kinds and tail in getattr(part, "defaults", {}))
    return next(found, "")


def _others(known: Known) -> dict[str, Any]:
    """Defaults that a part, or the config of one, has instead: by task, method, network, preset or data set."""
    kind, _, name = known.owner.partition("=")
    if not kind:
        tail, chooser = known.name.rpartition(".")[2], _chooser(known)
        own = {name: getattr(part, "defaults", {}) for kind, name, part in parts() if kind == chooser}
        return {name: values[tail] for name, values in own.items() if tail in values}
    if kind == "dataset.reader":
        files = sorted((config_folder() / "dataset").glob("*.yaml"))
        of_files = {f"dataset={path.stem}": _config(f"dataset/{path.stem}") for path in files}
        mine = {word: values for word, values in of_files.items() if values.get("reader") == name}
        return {word: values[known.field.name] for word, values in mine.items() if known.field.name in values}
    return {**known.field.metadata["by_task"], **known.field.metadata["by_preset"]}


@cache
def _config(name: str) -> dict[Any, Any]:
    """What a YAML file of the package says; nothing where there is none."""
    path = config_folder() / f"{name}.yaml"
    return dict(OmegaConf.to_container(OmegaConf.load(path))) if path.is_file() else {}  # type: ignore[arg-type]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(name: str, meaning: str, column: int = 12) -> str:
    lines = textwrap.wrap(meaning, WIDTH - column - 3, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"  {name if i == 0 else '':<{column}} {line}" for i, line in enumerate(lines))
