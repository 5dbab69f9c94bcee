"""Tasks by name: each a class in the file of its name."""

from aseqdip.parts import Registry
from aseqdip.tasks.base import Task

TASKS = Registry(Task, __name__, "task")  # type: ignore[type-abstract]
