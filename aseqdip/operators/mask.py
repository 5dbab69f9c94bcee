"""In-painting: known pixels and a hole."""

import math

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator, values_of


class Mask(Operator):
    """``A x = m * x``: in-painting; the hole is zero in the measurement.

    Args:
        mask: 0 in the hole, True, 1 or 255 where a pixel is known; shape (1, 1, height, width), the same for all
            channels.

    Raises UserError for another shape, for weights between pixels, and if no pixel is known.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        mask = values_of(mask)
        if mask.dim() != 4 or mask.shape[:2] != (1, 1):
            raise UserError(
                "The in-painting mask must be (1, 1, height, width), the same for all channels; found "
                f"{tuple(mask.shape)}: mask[None, None] makes it of (height, width)."
            )
        if not mask.any():
            raise UserError("The in-painting mask keeps no pixel: at least one must be known.")
        known = mask != 0
        if (found := mask[known].unique().tolist()) not in ([1], [255]):
            raise UserError(
                f"The in-painting mask holds {', '.join(f'{value:g}' for value in found[:3])}"
                f"{' ...' * (len(found) > 3)} besides 0: a pixel is known, 1 or 255, or it is not; threshold it."
            )
        self.register_buffer("mask", known.float())

    def forward(self, image: Tensor) -> Tensor:
        return self.mask * image

    def adjoint(self, measurements: Tensor) -> Tensor:
        return self.mask * measurements


def center_hole(height: int, width: int, hiar: float) -> Tensor:
    """Mask with a central square hole covering ``hiar`` (0..1) of the image; shape (1, 1, height, width).

    The side is round(sqrt(hiar * height * width)): 162 and 256 pixels at 512 x 512 for 0.1 and 0.25.
    Raises UserError if the square does not fit.
    """
    side = round(math.sqrt(hiar * height * width))
    if side >= min(height, width):
        raise UserError(
            f"hiar={hiar:g} needs a hole {side} pixels wide, but the image is {height} x {width}: lower hiar."
        )
    mask = torch.ones(1, 1, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    mask[..., top : top + side, left : left + side] = 0
    return mask


def random_hole(height: int, width: int, missing: float, generator: torch.Generator) -> Tensor:
    """Mask without a fraction ``missing`` (0..1) of the pixel positions, drawn without replacement."""
    order = torch.randperm(height * width, generator=generator)
    mask = torch.ones(height * width)
    mask[order[: round(missing * height * width)]] = 0
    return mask.reshape(1, 1, height, width)
