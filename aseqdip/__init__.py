"""Image reconstruction without training data: aSeqDIP, and the methods it was compared with."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aseqdip.run.front import Result, reconstruct

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "reconstruct"]


def __getattr__(name: str) -> Any:
    if name in ("Result", "reconstruct"):  # not before they are asked for: they need torch
        from aseqdip.run import front

        return getattr(front, name)
    raise AttributeError(f"module 'aseqdip' has no attribute '{name}'")
