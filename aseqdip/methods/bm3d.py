"""Block matching and 3-D filtering."""

from importlib.util import find_spec

from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._pictures import Denoiser, as_array, as_tensor
from aseqdip.problem import Problem


class BM3D(Denoiser):
    """Similar patches are stacked and shrunk together; by its authors' package, whose licence is non-commercial.

    Colours are filtered as luma and chroma, matched by luma.
    """

    name = "bm3d"
    title = "BM3D"
    paper = "Dabov, Foi, Katkovnik, Egiazarian: Image denoising by sparse 3-D transform-domain collaborative filtering, IEEE TIP 2007"

    def denoise(self, problem: Problem, sigma: float) -> Tensor:
        if find_spec("bm3d") is None:
            raise UserError(
                "method=bm3d needs the package of its authors, which is free for non-commercial use alone: "
                "pip install 'aseqdip[bm3d]', or use method=nlm."
            )
        import bm3d

        noisy = as_array(problem.y)
        if noisy.shape[-1] == 3:
            return as_tensor(bm3d.bm3d_rgb(noisy, sigma))
        return as_tensor(bm3d.bm3d(noisy, sigma).reshape(noisy.shape))
