"""Parts that describe themselves: methods, tasks, readers, networks, stopping rules; how they are found and checked.

A part is a class in a file of its own, named like the file: ``aseqdip/methods/tv_dip.py`` holds the method ``tv_dip``.
Nothing else lists it. Other packages add parts by entry point (``[project.entry-points."aseqdip.methods"]``).
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import math
import pkgutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from aseqdip.errors import UserError, near


def knob(
    help: str,  # noqa: A002 - reads as what it is
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    result: bool = True,
    file: bool = False,
    by_task: Mapping[str, Any] | None = None,
    by_preset: Mapping[str, Any] | None = None,
) -> Any:
    """A field with its one-line meaning and its range: low <= value <= high, value > above, or one of the choices.

    Args:
        result: whether its value can change a result. Only what is declared not to is left out of a result's identity,
            so that a knob somebody forgot computes again instead of taking another result for its own.
        file: its value may be the path of a file or folder; the identity then holds what is in it, not where it is.
        by_task: tasks that have another default.
        by_preset: presets that do; one of the two.
    """
    meta = {"help": help, "low": low, "above": above, "high": high, "choices": choices, "result": result, "file": file}
    return field(default=default, metadata={**meta, "by_task": by_task or {}, "by_preset": by_preset or {}})


def check_value(name: str, f: dataclasses.Field[Any], value: Any) -> None:
    """Raise UserError unless a value of the right type lies in its field's range."""
    meta = f.metadata
    if value is None:
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            check_value(name, f, part)
        return
    problem = None
    if meta["choices"] is not None and value not in meta["choices"]:
        problem = f"one of {', '.join(meta['choices'])}"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "a finite number"
    elif meta["low"] is not None and value < meta["low"]:
        problem = f"at least {meta['low']:g}"
    elif meta["above"] is not None and value <= meta["above"]:
        problem = f"more than {meta['above']:g}"
    elif meta["high"] is not None and value > meta["high"]:
        problem = f"at most {meta['high']:g}"
    if problem:
        raise UserError(f"{name}={value}: expected {problem} ({meta['help']}).")


@dataclass
class NoOptions:
    """For a part without knobs of its own."""


class Part:
    """What every part says about itself.

    Attributes:
        name: as a user writes it; the name of its file.
        title: as a table or a picture prints it.
        paper: where it comes from, in one line; "" where it is nobody's.
        Options: a dataclass of its knobs, each a :func:`knob` with a default.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str] = ""
    Options: ClassVar[type] = NoOptions


P = TypeVar("P", bound=Part)
T = TypeVar("T")


class Registry(Mapping[str, type[P]], Generic[P]):
    """The parts of one kind by name, each imported only when it is asked for.

    Args:
        base: the class that all of them extend.
        package: the package whose modules are parts; ``base`` and names that begin with "_" are not.
        word: how a user chooses one: "method" in ``method=tv_dip``.
        helpers: other modules of the package that are no parts.

    Raises UserError for a name there is not, and for a part that leaves something out, with what to add.
    """

    def __init__(self, base: type[P], package: str, word: str, helpers: Sequence[str] = ()) -> None:
        self.base, self.package, self.word, self.helpers = base, package, word, ("base", *helpers)

    @cached_property
    def _sources(self) -> dict[str, importlib.metadata.EntryPoint | None]:
        folder = importlib.import_module(self.package).__path__
        own = sorted(m.name for m in pkgutil.iter_modules(folder) if m.name not in self.helpers and m.name[0] != "_")
        found: dict[str, importlib.metadata.EntryPoint | None] = dict.fromkeys(own)
        for entry in importlib.metadata.entry_points(group=self.package):
            found.setdefault(entry.name, entry)  # a name of our own is not replaced from outside
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __getitem__(self, name: str) -> type[P]:
        if name not in self._sources:
            close = near(name, self._sources)
            hint = f" Did you mean {close}?" if close else ""
            raise UserError(f"{self.word}={name}: expected one of {', '.join(self)}.{hint}")
        entry = self._sources[name]
        if entry is not None:
            try:
                part = entry.load()
            except Exception as error:
                raise UserError(
                    f"{self.word}={name} is said to be {entry.value}, which cannot be imported: {error}."
                ) from error
            return self.checked(name, part, entry.value)
        module = self._module(name)
        here = [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, self.base) and c.__module__ == module.__name__
        ]
        named = [c for c in here if c.__dict__.get("name") == name]
        if len(named) != 1:
            raise UserError(
                f"{module.__file__} is to hold one class that extends {self.base.__name__} and says name = '{name}', "
                f"like its file; found {', '.join(c.__name__ for c in here) or 'no such class'}."
            )
        return self.checked(name, named[0], str(module.__file__))

    def _module(self, name: str) -> ModuleType:
        try:
            return importlib.import_module(f"{self.package}.{name}")
        except UserError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{self.package.replace('.', '/')}/{name}.py cannot be imported: {type(error).__name__}: {error} "
                f"({Path(where.filename).name}, line {where.lineno})."
            ) from error

    def foreign(self, name: str) -> bool:
        """Whether another package brings it."""
        return self._sources.get(name) is not None

    def checked(self, name: str, part: type[P], where: str) -> type[P]:
        """The part, if it says all it must; UserError, which begins with ``where``, if not."""
        if not (isinstance(part, type) and issubclass(part, self.base)):
            raise UserError(f"{where}: {self.word} '{name}' must be a class that extends {self.base.__name__}.")
        said = {name: kind for c in reversed(part.__mro__) for name, kind in vars(c).get("__annotations__", {}).items()}
        missing = [name for name, kind in said.items() if "ClassVar" in str(kind) and not hasattr(part, name)]
        if missing:
            raise UserError(f"{where}: {part.__name__} does not say its {' and '.join(missing)}.")
        if part.name != name:
            raise UserError(f"{where}: {part.__name__} says name = '{part.name}', but is known as '{name}'.")
        if abstract := getattr(part, "__abstractmethods__", None):
            raise UserError(f"{where}: {part.__name__} does not define {', '.join(sorted(abstract))}.")
        signature = inspect.signature(self.base.__init__).parameters.values()
        kept = [p.name for p in signature if p.kind is p.POSITIONAL_OR_KEYWORD]  # as attributes, before any method
        own = [c for c in part.__mro__ if issubclass(c, self.base) and c is not self.base]
        if hidden := sorted(name for c in own for name, v in vars(c).items() if name in kept and callable(v)):
            raise UserError(
                f"{where}: {part.__name__}.{hidden[0]} would never be called: {self.base.__name__} keeps a "
                "value of that name."
            )
        # a class that extends a dataclass is one, but its own fields count only if it says so itself
        fields = {f.name for f in dataclasses.fields(part.Options)} if dataclasses.is_dataclass(part.Options) else set()
        if not dataclasses.is_dataclass(part.Options) or set(vars(part.Options).get("__annotations__", {})) - fields:
            raise UserError(f"{where}: {part.__name__}.Options must be a dataclass: write @dataclass before it.")
        for f in dataclasses.fields(part.Options):
            if "help" not in f.metadata or f.default is dataclasses.MISSING:
                raise UserError(
                    f"{where}: {part.__name__}.Options.{f.name} must say what it means and its default: "
                    f"{f.name}: ... = knob('what it means', default)."
                )
        return part


@dataclass
class Chosen(Generic[P]):
    """A part that was chosen, and the values of its knobs (an instance of ``part.Options``)."""

    name: str
    part: type[P]
    options: Any


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def make_options(cls: type[T], values: Mapping[str, Any], prefix: str = "", *, task: str = "", preset: str = "") -> T:
    """An instance of a dataclass of knobs, from values as a user or a YAML file writes them; None means the default.

    Args:
        prefix: before the knobs' names in messages: "network." in ``network.width``.
        task, preset: those whose defaults hold, where a knob has another for them.

    Raises UserError for a value of the wrong type or out of range.
    """
    kinds = get_type_hints(cls)
    given = {}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        others = {**f.metadata.get("by_preset", {}), **f.metadata.get("by_task", {})}
        own = next((others[name] for name in (task, preset) if name in others), None)
        value = values[f.name] if values.get(f.name) is not None else own
        if value is not None:
            given[f.name] = convert(prefix + f.name, f, kinds[f.name], value)
    return cls(**given)


def convert(name: str, f: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    """A value in its field's type and range; UserError if it is not."""
    try:
        typed = _typed(kind, value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}={value}: expected {_said(kind)} ({f.metadata['help']}).") from error
    check_value(name, f, typed)
    return typed


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _typed(kind: Any, value: Any) -> Any:
    """The value as this type, where it says the same; ValueError or TypeError where it does not."""
    kinds = _alternatives(kind)
    if value is None and (type(None) in kinds or kind is Any):
        return None
    kind = next(k for k in kinds if k is not type(None))
    if get_origin(kind) in (list, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError
        parts = [_typed(get_args(kind)[0], part) for part in value]
        return tuple(parts) if get_origin(kind) is tuple else parts
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, (str, int, float)):
        return {"True": "true", "False": "false"}.get(str(value), str(value))
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError
        if kind is float or isinstance(value, int):
            return kind(value)
        if not float(value).is_integer():
            raise ValueError
        return int(float(value))
    if kind is Any:
        return value
    raise TypeError


def _said(kind: Any) -> str:
    """What a value must be, in words."""
    kinds = _alternatives(kind)
    wanted = next(k for k in kinds if k is not type(None))
    if get_origin(wanted) in (list, tuple):
        return f"a list, each {_said(get_args(wanted)[0])}"
    return _KINDS.get(wanted, "a value") + (" or null" if type(None) in kinds else "")
