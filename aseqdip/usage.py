"""--help, in layers: a screen of what to begin with; the knobs of one part; those of every run."""

import textwrap
from collections.abc import Iterable, Sequence

from aseqdip import compose, config
from aseqdip.config import PREFIX, REGISTRIES, Known, knobs_of, shared_knobs
from aseqdip.errors import UserError

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
        return _section("Settings of every run", shared_knobs())
    found = [
        _section(f"{kind}={word}  {part.title}" + (f"  ({part.paper})" if part.paper else ""), known)
        for kind, registry in REGISTRIES.items()
        if word in registry
        for part in [registry[word]]
        for known in [list(knobs_of(part.Options, PREFIX[kind]))]
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
    default = known.field.default
    return _wrapped(known.name, " ".join(said) + ("" if default in (None, "") else f" [{_shown(default)}]"), 26)


def _brief(known: Known) -> str:
    """A knob's meaning on one line."""
    meaning = known.field.metadata["help"].partition(";")[0]
    default = known.field.default
    return meaning + ("" if default in (None, "") else f" [{_shown(default)}]")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(name: str, meaning: str, column: int = 12) -> str:
    lines = textwrap.wrap(meaning, WIDTH - column - 3, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"  {name if i == 0 else '':<{column}} {line}" for i, line in enumerate(lines))
