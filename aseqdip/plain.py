"""JSON of plain values and dataclasses, with infinities; read again by type, and what is of another is refused."""

import dataclasses
import json
import math
import types
import typing
from functools import cache
from typing import Any


def dumps(content: Any, indent: int | None = None) -> str:
    """JSON with null for NaN, and infinities as the texts "inf" and "-inf"."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if type(value) in (str, int, bool, type(None)):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        if {*map(type, value)} <= {float} and math.isfinite(sum(value)):  # a curve, nearly always
            return value
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def loads(text: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else, its own NaN and infinities among it."""
    content = json.loads(text, parse_constant=_refuse)
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found {_shown(content)}")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


#: types of values that stay as JSON gave them, by what is declared
_AS_THEY_ARE: dict[Any, set[type]] = {str: {str}, int: {int}, Any: {str, int, bool, type(None)}}


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Type of each field of a dataclass, and whether it must be given."""
    hints = typing.get_type_hints(kind)
    absent = dataclasses.MISSING
    return {f.name: (hints[f.name], f.default is f.default_factory is absent) for f in dataclasses.fields(kind)}


@cache
def _shape(kind: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """list[float] as list and (float,); and whether it is a dataclass."""
    return typing.get_origin(kind), typing.get_args(kind), dataclasses.is_dataclass(kind)


def typed(value: Any, kind: Any, where: str) -> Any:
    """The value as its type says. Raises ValueError, with the place, for one that is of another."""
    if type(value) is kind and kind in (str, int, bool):  # isinstance would take a bool for an int
        return value
    if kind is float:
        return _number(value, where)
    if kind is Any:
        return _scalar(value, where)
    origin, inner, compound = _shape(kind)
    if compound:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, found {_shown(value)}")
        fields = _fields(kind)
        if missing := [name for name, (_, needed) in fields.items() if needed and name not in value]:
            raise ValueError(f"{where}: {missing[0]} is missing")
        place = "" if where == "record" else f"{where}."
        given = {name: typed(value[name], fields[name][0], place + name) for name in fields if name in value}
        return kind(**given)
    if origin is types.UnionType:
        return None if value is None else typed(value, inner[0], where)
    if origin is dict and isinstance(value, dict):
        (_, item) = inner
        if {*map(type, value.values())} <= _AS_THEY_ARE.get(item, set()):  # nearly always
            return value
        return {name: typed(v, item, f"{where}.{name}") for name, v in value.items()}
    if origin is list and isinstance(value, list):
        (item,) = inner
        if item is float:
            if {*map(type, value)} <= {float} and math.isfinite(sum(value)):  # nearly always
                return value
            return [math.nan if v is None else _number(v, where) for v in value]
        if {*map(type, value)} <= _AS_THEY_ARE.get(item, set()):
            return value
        return [typed(v, item, where) for v in value]
    raise ValueError(f"{where}: expected {getattr(origin or kind, '__name__', kind)}, found {_shown(value)}")


def _number(value: Any, where: str) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int:
        return float(value)
    if value == "inf" or value == "-inf":
        return float(value)
    raise ValueError(f"{where}: expected a finite number or 'inf', found {_shown(value)}")


def _scalar(value: Any, where: str) -> Any:
    """A plain value, or a list of them."""
    if isinstance(value, list) and not any(isinstance(v, list) for v in value):
        return [_scalar(v, where) for v in value]
    if value is None or type(value) in (str, int, bool) or type(value) is float and math.isfinite(value):
        return value
    raise ValueError(f"{where}: expected a plain value, found {_shown(value)}")


def _shown(value: Any) -> str:
    text = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]} ..."
