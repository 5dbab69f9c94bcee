"""Deblurring by a filter whose strength is estimated from the picture."""

from typing import Any

import numpy as np
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import OneStep, bare
from aseqdip.methods._pictures import as_array, as_tensor
from aseqdip.methods.base import Shared
from aseqdip.operators.blur import MotionBlur
from aseqdip.problem import Kind, Problem


class Wiener(OneStep):
    """The Wiener-Hunt filter, with the powers of noise and image sampled from their posterior; scikit-image's.

    It takes the picture for periodic: its borders are continued by reflection, fading into one another.
    """

    name = "wiener"
    title = "Wiener"
    instead = "it takes the measurement"
    paper = (
        "Orieux, Giovannelli, Rodet: Bayesian estimation of regularization and point spread function "
        "parameters for Wiener-Hunt deconvolution, JOSA A 2010"
    )

    @classmethod
    def check(cls, options: Any, shared: Shared, kind: Kind) -> None:
        if not (kind.image and kind.linear) or kind.hole or kind.identity:
            raise UserError(
                "method=wiener undoes a linear blur: it is for task=deblurring with kernel=motion, not "
                f"task={kind.task}."
            )

    def solve(self, problem: Problem) -> Tensor:
        from skimage.restoration import unsupervised_wiener

        A = bare(problem.operator)
        if not isinstance(A, MotionBlur):
            raise UserError("method=wiener needs the kernel of a blur: an operator of aseqdip.operators.MotionBlur.")
        margin = 2 * A.radius
        blurred = continued(as_array(problem.y), margin)
        seed = problem.generator("powers").initial_seed() % 2**32
        found = [
            unsupervised_wiener(channel, A.kernel.cpu().numpy(), clip=False, rng=np.random.default_rng(seed))[0]
            for channel in np.moveaxis(blurred, -1, 0)
        ]
        inside = (slice(margin, -margin or None),) * 2
        return as_tensor(np.stack(found, axis=-1)[inside])


def continued(picture: np.ndarray[Any, Any], margin: int) -> np.ndarray[Any, Any]:
    """A picture with reflected margins that fade into those of the opposite border: (height, width, channels)."""
    widths = ((margin, margin), (margin, margin), (0, 0))
    wide = np.pad(picture, widths, mode="symmetric")
    for axis in (0, 1):
        size = wide.shape[axis]
        distance = np.minimum(np.arange(size), np.arange(size)[::-1])  # from the border
        share = np.clip((distance + 0.5) / margin, 0, 1) / 2 + 0.5  # of itself; one half where it meets the other side
        share = share.reshape([-1 if a == axis else 1 for a in range(3)])
        wide = share * wide + (1 - share) * np.flip(wide, axis)
    return wide
