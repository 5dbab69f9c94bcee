"""Stopping rules that need no ground truth, by name; each can be given to any method (``stop=wmv``)."""

from aseqdip.parts import Registry
from aseqdip.stopping.base import StoppingRule

STOPPING = Registry(StoppingRule, __name__, "stop")  # type: ignore[type-abstract]
