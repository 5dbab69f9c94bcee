"""The identity: denoising."""

from torch import Tensor

from aseqdip.operators.base import Operator


class Identity(Operator):
    """``A x = x``: denoising. Image and measurement: (batch, channels, height, width)."""

    def forward(self, image: Tensor) -> Tensor:
        return image

    def adjoint(self, measurements: Tensor) -> Tensor:
        return measurements
