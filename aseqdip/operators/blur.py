"""Blur by a random camera trajectory, in pixel values (linear) or in linear light (non-linear)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator, linear_map, values_of


def trajectory_kernel(size: int, generator: torch.Generator) -> Tensor:
    """A random camera-shake kernel, shape (size, size), non-negative, sum 1, size odd.

    The trajectory is a particle with randomly changing velocity, centred and scaled to fill about two thirds of
    the kernel, drawn with bilinear weights.
    """
    count = 400
    velocity = torch.zeros(2)
    steps = []
    for _ in range(count):  # momentum 0.95: smooth, with a few bends
        velocity = 0.95 * velocity + torch.randn(2, generator=generator)
        steps.append(velocity)
    path = torch.stack(steps).cumsum(0)
    path = path - (path.amax(0) + path.amin(0)) / 2
    path = path / path.abs().max() * (size // 2) * 2 / 3 + size // 2
    low = path.floor()
    kernel = torch.zeros(size + 1, size + 1)
    for corner in torch.tensor([(0, 0), (0, 1), (1, 0), (1, 1)]):
        weight = (1 - (path - low - corner).abs()).prod(1)
        row, column = (low + corner).long().unbind(1)
        kernel.index_put_((row, column), weight, accumulate=True)
    kernel = kernel[:size, :size]
    return kernel / kernel.sum()


class MotionBlur(Operator):
    """``A x = k * x`` with reflected borders, each channel alone.

    Args:
        kernel: k, shape (size, size), size odd, sum 1.

    Image and measurement: (batch, channels, height, width). Raises UserError for a kernel of even size or another sum,
    or an image not larger than half the kernel (the reflection would not fit).
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        kernel = values_of(kernel).float()
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
            raise UserError(f"A blur kernel must be square with an odd side; found {tuple(kernel.shape)}.")
        if abs((total := float(kernel.sum())) - 1) > 1e-3:  # a blurred image is taken to be as bright
            raise UserError(f"A blur kernel must have the sum 1; found {total:g}: divide it by its sum.")
        self.register_buffer("kernel", kernel)
        self.radius = kernel.shape[0] // 2

    def forward(self, image: Tensor) -> Tensor:
        return linear_map(image, self._convolve, self._convolve_adjoint)

    def adjoint(self, measurements: Tensor) -> Tensor:
        return linear_map(measurements, self._convolve_adjoint, self._convolve)

    def direct(self, measurements: Tensor) -> Tensor:
        return measurements

    def correction(self, residual: Tensor) -> Tensor:
        """``A^H`` of it: added as it is, time after time, it would grow at frequencies that the kernel turns round."""
        return self.adjoint(residual)

    def _spectrum(self, height: int, width: int) -> Tensor:
        """Transfer function on the padded grid, the kernel's centre at the origin."""
        padded = F.pad(self.kernel, (0, width - self.kernel.shape[1], 0, height - self.kernel.shape[0]))
        return torch.fft.rfft2(padded.roll((-self.radius, -self.radius), (0, 1)))

    def _convolve(self, image: Tensor) -> Tensor:
        r = self.radius
        if min(image.shape[-2:]) <= r:
            raise UserError(
                f"The image is {image.shape[-2]} x {image.shape[-1]}, too small for a blur kernel "
                f"of {2 * r + 1} pixels: lower kernel_size or use a larger image."
            )
        padded = F.pad(image, (r, r, r, r), mode="reflect")
        grid = padded.shape[-2:]
        blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * self._spectrum(*grid), s=grid)
        return blurred[..., r : r + image.shape[-2], r : r + image.shape[-1]]

    def _convolve_adjoint(self, measurements: Tensor) -> Tensor:
        r = self.radius
        padded = F.pad(measurements, (r, r, r, r))
        grid = padded.shape[-2:]
        spread = torch.fft.irfft2(torch.fft.rfft2(padded) * self._spectrum(*grid).conj(), s=grid)
        # the adjoint of reflect-padding folds the borders back
        folded: Tensor = torch.ops.aten.reflection_pad2d_backward(spread, measurements, [r, r, r, r])
        return folded


class CameraBlur(Operator):
    """``y = (k * x^g)^(1/g)``: blur happens in linear light, the camera's response is applied after it.

    x and y are display values in [0, 1]. Both powers are continued oddly to negative values, so that a network's
    output below zero keeps a gradient. Below light of ``toe`` (y of 0.0053 for g = 2.2) the root is a straight line
    through black, so that its slope stays finite; above it is exact.

    Args:
        kernel: k, shape (size, size), size odd, sum 1.
        exponent: g.
    """

    linear = False
    toe = 1e-5

    def __init__(self, kernel: Tensor, exponent: float) -> None:
        super().__init__()
        self.blur, self.exponent = MotionBlur(kernel), exponent

    def forward(self, image: Tensor) -> Tensor:
        light = self.blur(image.sign() * image.abs() ** self.exponent)
        y: Tensor = light * light.abs().clamp_min(self.toe) ** (1 / self.exponent - 1)
        return y

    def adjoint(self, measurements: Tensor) -> Tensor:
        raise UserError("The blur through a camera response (kernel=nonlinear) is not linear: it has no adjoint.")

    def direct(self, measurements: Tensor) -> Tensor:
        return measurements
