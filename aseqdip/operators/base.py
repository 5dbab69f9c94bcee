"""What every forward operator offers: ``A(x)``, its exact adjoint, a one-step reconstruction, its norm."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aseqdip.errors import UserError

Map = Callable[[Tensor], Tensor]


def values_of(array: Any) -> Tensor:
    """Of a tensor its values, without its graph; of an array, in whatever order of axes and bytes, a copy."""
    if isinstance(array, np.ndarray):
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
    return torch.as_tensor(array).detach()


class _LinearMap(torch.autograd.Function):
    """``x -> A x`` whose derivative is ``A^H``, without autograd recording what happens inside A."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Map, adjoint: Map) -> Tensor:
        ctx.maps = apply, adjoint
        return apply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        apply, adjoint = ctx.maps
        return linear_map(grads[0], adjoint, apply), None, None


def linear_map(x: Tensor, apply: Map, adjoint: Map) -> Tensor:
    """``apply(x)``, differentiated through its adjoint; saves autograd's memory and time inside A."""
    result: Tensor = _LinearMap.apply(x, apply, adjoint)  # type: ignore[no-untyped-call]
    return result


class Operator(nn.Module, ABC):
    """A forward operator ``A: image -> measurements``.

    Images are real tensors of shape ``(batch, channels, height, width)``; a complex image carries its
    real and imaginary part as two channels. Measurements may be complex. Constant tensors (masks, maps,
    kernels) are buffers, so ``operator.to(device)`` moves everything.
    """

    #: whether A is linear; only then does it have an adjoint
    linear: bool = True

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Measurements ``A x`` of an image."""

    @abstractmethod
    def adjoint(self, measurements: Tensor) -> Tensor:
        """``A^H y``: the exact adjoint, ``Re<A x, y> = <x, A^H y>``. Raises UserError if A is not linear."""

    def direct(self, measurements: Tensor) -> Tensor:
        """The field's one-step reconstruction (zero-filled, FBP, the measurement itself); default ``A^H y``."""
        return self.adjoint(measurements)

    def correction(self, residual: Tensor) -> Tensor:
        """What a residual ``y - A x`` says of x's error: of unit size where A sees it, 0 elsewhere; ``direct``."""
        return self.direct(residual)

    def norm(self, image_shape: tuple[int, ...], iterations: int = 12) -> float:
        """Spectral norm ``||A||`` by power iteration on ``A^H A``, for images of the given shape.

        The start vector comes from a generator of its own, so the figure is reproducible. Raises
        UserError if A is not linear.
        """
        if not self.linear:
            raise UserError(f"{type(self).__name__} is not linear: it has no operator norm.")
        device = next(self.buffers(), torch.empty(0)).device
        x = torch.randn(image_shape, generator=torch.Generator().manual_seed(0)).to(device)
        x = x / x.norm()
        for _ in range(iterations):
            x = self.adjoint(self(x))
            squared = x.norm()  # ||A^H A x|| for a unit x
            x = x / squared.clamp_min(torch.finfo(x.dtype).tiny)
        return float(squared.sqrt())


class Functions(Operator):
    """A linear operator from two functions: an image's measurements, and the adjoint.

    Args:
        apply: A, (batch, channels, height, width) to measurements of any shape.
        adjoint: A^H, back to images.
    """

    def __init__(self, apply: Map, adjoint: Map) -> None:
        super().__init__()
        self.apply_, self.adjoint_ = apply, adjoint

    def forward(self, image: Tensor) -> Tensor:
        return linear_map(image, self._apply_a, self._apply_adjoint)

    def adjoint(self, measurements: Tensor) -> Tensor:
        return linear_map(measurements, self._apply_adjoint, self._apply_a)

    def _apply_a(self, image: Tensor) -> Tensor:
        return _no_finer(self.apply_(image), image)

    def _apply_adjoint(self, measurements: Tensor) -> Tensor:
        return _no_finer(self.adjoint_(measurements), measurements)


def _no_finer(found: Any, given: Tensor) -> Any:
    """What a function found, in single precision where it was given that: NumPy's constants make it double."""
    if isinstance(found, Tensor) and given.dtype in (torch.float32, torch.complex64):
        return found.to(torch.complex64 if found.is_complex() else torch.float32)
    return found


class Scaled(Operator):
    """``factor * A`` for a linear A."""

    def __init__(self, operator: Operator, factor: float) -> None:
        super().__init__()
        self.operator, self.factor = operator, factor

    def forward(self, image: Tensor) -> Tensor:
        scaled: Tensor = self.factor * self.operator(image)
        return scaled

    def adjoint(self, measurements: Tensor) -> Tensor:
        return self.factor * self.operator.adjoint(measurements)

    def direct(self, measurements: Tensor) -> Tensor:
        if type(self.operator).direct is Operator.direct:  # the adjoint, which undoes no scale: that of the product
            return self.adjoint(measurements)
        return self.operator.direct(measurements / self.factor)

    def correction(self, residual: Tensor) -> Tensor:
        if type(self.operator).correction is Operator.correction:
            return self.direct(residual)
        return self.operator.correction(residual / self.factor)


class Restricted(Scaled):
    """``factor * W A`` with W = 1 for measurements that are kept and 0 for all others.

    Args:
        kept: W, boolean; any shape that can be multiplied with measurements.
    """

    kept: Tensor

    def __init__(self, operator: Operator, kept: Tensor, factor: float = 1.0) -> None:
        super().__init__(operator, factor)
        self.linear = operator.linear
        self.register_buffer("kept", kept)

    def forward(self, image: Tensor) -> Tensor:
        return self.kept * super().forward(image)

    def adjoint(self, measurements: Tensor) -> Tensor:
        return super().adjoint(self.kept * measurements)

    def direct(self, measurements: Tensor) -> Tensor:
        return super().direct(self.kept * measurements)

    def correction(self, residual: Tensor) -> Tensor:
        return super().correction(self.kept * residual)
