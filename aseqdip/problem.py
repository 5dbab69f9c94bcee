"""What a method may see of one reconstruction: measurements, operator, start image. Never the truth."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aseqdip.operators.base import Operator


def generator(*purpose: object) -> torch.Generator:
    """A CPU generator seeded by a hash of (seed, image, purpose): independent streams, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass
class Problem:
    """One inverse problem ``y = A x (+ noise)``.

    Attributes:
        y: measurements, in the operator's units (possibly complex).
        operator: A, scaled so that images are of order one and ``||A||`` is about one.
        z0: the start image, shape (1, channels, height, width): zero-filled, clipped FBP, or y itself.
        image: name of the image; names its random streams.
        seed: the run's seed.
        noise_std: standard deviation of the noise in y per real component, if known.
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
