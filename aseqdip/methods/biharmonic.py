"""In-painting by the smoothest surface."""

from typing import Any

from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import OneStep, bare
from aseqdip.methods._pictures import as_array, as_tensor
from aseqdip.methods.base import Shared
from aseqdip.operators.mask import Mask
from aseqdip.problem import Kind, Problem


class Biharmonic(OneStep):
    """The hole is filled with the solution of the biharmonic equation; scikit-image's. Known pixels stay."""

    name = "biharmonic"
    title = "Biharmonic"
    instead = "it takes the measurement"
    paper = "Damelin, Hoang: On surface completion and image inpainting by biharmonic functions, 2018"

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not kind.hole:
            raise UserError(
                f"method=biharmonic fills in missing pixels: it is for task=inpainting, not task={kind.task}."
            )

    def solve(self, problem: Problem) -> Tensor:
        from skimage.restoration import inpaint_biharmonic

        A = bare(problem.operator)
        assert isinstance(A, Mask)
        hole = A.mask[0, 0].cpu().numpy() == 0
        return as_tensor(inpaint_biharmonic(as_array(problem.y), hole, split_into_regions=True, channel_axis=-1))
