"""What a method may see of one reconstruction: measurements, operator, start image. Never the truth."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aseqdip.operators.base import Operator, Scaled
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask


def generator(*purpose: object) -> torch.Generator:
    """A CPU generator seeded by a hash of (seed, image, purpose): independent streams, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def fingerprint(*tensors: Tensor) -> str:
    """A short digest of tensors' types, shapes and bits, wherever they are."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


@dataclass
class Problem:
    """One inverse problem ``y = A x (+ noise)``.

    Attributes:
        y: measurements, in the operator's units (possibly complex).
        operator: A, scaled so that images are of order one and ``||A||`` is about one.
        z0: the start image, shape (1, channels, height, width): zero-filled, clipped FBP, or y itself.
        image: name of the image; names its random streams.
        seed: the run's seed.
        noise_std: standard deviation of the noise in y per real component; 0 where there is none, None where it is not
            known.
        references: names and images of other objects, shaped like z0, for a method that wants a similar one.
    """

    y: Tensor
    operator: Operator
    z0: Tensor
    image: str
    seed: int
    noise_std: float | None = None
    references: Iterable[tuple[str, Tensor]] = ()

    def generator(self, purpose: str) -> torch.Generator:
        """This problem's random stream for one purpose ("network", "input", ...)."""
        return generator(self.seed, self.image, purpose)

    def kind(self) -> "Kind":
        """What its settings are checked against."""
        A = self.operator.operator if isinstance(self.operator, Scaled) else self.operator
        return Kind(
            "operator",
            A.linear,
            self._measures_an_image(),
            isinstance(A, Identity),
            isinstance(A, Mask),
            self.noise_std,
        )

    def _measures_an_image(self) -> bool:
        """Whether y is one: a transform may well have the shape of one, but is then not its own reconstruction."""
        if self.y.shape != self.z0.shape or self.y.is_complex() or not self.operator.linear:
            return self.y.shape == self.z0.shape and not self.y.is_complex()
        return torch.allclose(self.operator.direct(self.y), self.y, rtol=1e-3, atol=1e-3 * float(self.y.abs().max()))


@dataclass(frozen=True)
class Kind:
    """What is known of a problem before any data are read, so that a setting that cannot work is refused at once.

    Attributes:
        task: where it comes from, for messages: "mri", "denoising" ...; "operator" for one given in Python.
        linear: whether A is linear.
        image: whether measurements are images themselves, of the same shape.
        identity: whether A x = x, so that y is the image plus noise.
        hole: whether A leaves out pixels, and does nothing else.
        noise: standard deviation of the noise in y, in any unit; None or 0 where there is none or it is not known.
    """

    task: str
    linear: bool = True
    image: bool = False
    identity: bool = False
    hole: bool = False
    noise: float | None = None
