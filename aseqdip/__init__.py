"""Image reconstruction without training data: aSeqDIP, and the methods it was compared with."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aseqdip import operators
    from aseqdip.run.front import Result, reconstruct

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "operators", "reconstruct"]


def __getattr__(name: str) -> Any:
    if name in ("Result", "reconstruct"):  # not before it is asked for: all of this needs torch
        from aseqdip.run import front

        return getattr(front, name)
    if name == "operators":
        return importlib.import_module("aseqdip.operators")
    raise AttributeError(f"module 'aseqdip' has no attribute '{name}'")
