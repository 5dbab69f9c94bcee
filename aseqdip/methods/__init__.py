"""Reconstruction methods by name: each a class in the file of its name."""

from dataclasses import fields
from typing import Any

from aseqdip.errors import UserError
from aseqdip.methods.base import Method
from aseqdip.parts import Registry


class Methods(Registry[Method[Any]]):
    """Methods; one without a network has a budget of its own, since ``steps`` is no part of its results' identity."""

    def checked(self, name: str, part: type[Method[Any]], where: str) -> type[Method[Any]]:
        from aseqdip.methods._classical import Classical

        part = super().checked(name, part, where)
        own = issubclass(part, Classical) and "iterations" in {field.name for field in fields(part.Options)}
        own = own or part.steps is not Method.steps
        if part.iterative and not part.learns and not own:
            raise UserError(
                f"{where}: {part.__name__} iterates and fits no network, for which presets set steps, lr and residual: "
                "extend aseqdip.methods._classical.Classical, and let its Options have iterations: int = knob(...), "
                "which is its self.steps; or define steps."
            )
        return part


METHODS = Methods(Method, __name__, "method")  # type: ignore[type-abstract]


def start_methods() -> list[str]:
    """Those whose image another method may start from: the classical ones that do more than the task's own start."""
    return [name for name in METHODS if METHODS[name].group == "classical" and name != "direct"]
