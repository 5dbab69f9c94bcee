"""Reconstruction methods by name: each a class in the file of its name."""

from typing import Any

from aseqdip.methods.base import Method
from aseqdip.parts import Registry

METHODS: Registry[Method[Any]] = Registry(Method, __name__, "method")  # type: ignore[type-abstract]
