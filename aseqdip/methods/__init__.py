"""Reconstruction methods by name: each a class in the file of its name."""

from typing import Any

from aseqdip.methods.base import Method
from aseqdip.parts import Registry

METHODS: Registry[Method[Any]] = Registry(Method, __name__, "method")  # type: ignore[type-abstract]


def start_methods() -> list[str]:
    """Those whose image another method may start from: the classical ones that do more than the task's own start."""
    return [name for name in METHODS if METHODS[name].group == "classical" and name != "direct"]
