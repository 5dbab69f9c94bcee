"""Forward operators, each usable alone: ``A(x)``, ``A.adjoint(y)``, ``A.direct(y)``."""

from aseqdip.operators.base import Functions, Operator
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI

__all__ = [
    "CameraBlur",
    "Functions",
    "Identity",
    "Mask",
    "MotionBlur",
    "MultiCoilMRI",
    "Operator",
    "ParallelBeam",
]
