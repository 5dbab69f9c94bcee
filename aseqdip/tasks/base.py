"""What a task is: from an image or a measured scan to a problem and its scoring."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from aseqdip.case import Case
from aseqdip.data.base import Items, Sample
from aseqdip.errors import UserError
from aseqdip.parts import Part
from aseqdip.problem import Kind, Problem, generator

log = logging.getLogger(__name__)


class Task(Part, ABC):
    """An inverse problem: how measurements are simulated or taken, what a method starts from, what is compared.

    Args:
        options: its own knobs, an instance of its ``Options``.
        size: side of the images in pixels, or "native".
        seed: of all random numbers.
        truth: "known" where measurements are simulated and scored; "none" where the file itself is the measurement.
        cache: folder for what takes long and depends on the data alone; None to keep nothing.
        start: z0, one of ``starts``; what is none of them is for others to make, from a case with the paper's.

    Attributes:
        defaults: shared settings that this task has otherwise than others, by name: size, and the data set and network
            where none is chosen.
        starts: start images it has of its own; "paper" is the first.
        start_title: what that one is called.
        takes: what it can be made of: "image", "kspace", "sinogram".
        signed: whether its images take negative values.
    """

    defaults: ClassVar[dict[str, Any]] = {"size": "512", "dataset": "photos", "network": "skip"}
    starts: ClassVar[tuple[str, ...]] = ("paper",)
    start_title: ClassVar[str] = "measurement"
    takes: ClassVar[tuple[str, ...]] = ("image",)
    signed: ClassVar[bool] = False

    def __init__(
        self,
        options: Any,
        size: str = "native",
        seed: int = 0,
        truth: str = "known",
        cache: Path | None = None,
        start: str = "paper",
    ) -> None:
        self.options, self.seed, self.truth, self.cache, self.start = options, seed, truth, cache, start
        self.size = None if size == "native" else int(size)

    @property
    @abstractmethod
    def setting(self) -> str:
        """Its setting in one word, as in the name of a folder: accel4, sigma15."""

    @property
    def setting_title(self) -> str:
        """Its setting as a table prints it."""
        return self.setting

    def check(self) -> None:
        """Raise UserError for settings that cannot go together, before any data are read."""

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        """The knobs that others of its choices leave without effect, each with why: said to who sets one."""
        return {}

    def reads(self) -> tuple[Path, ...]:
        """Files that its measurements depend on, besides those that a knob gives the path of."""
        return ()

    def settled(self, sample: Sample) -> Any:
        """Its options as a sample leaves them: a measured one may have its own acceleration, or angles."""
        return self.options

    def kind(self) -> Kind:
        """What a method's settings are checked against, before any data are read."""
        return Kind(self.name)

    @abstractmethod
    def make(self, name: str, sample: Sample) -> Case:
        """The case of one sample, whose name is that of its random streams. UserError if it cannot be made of it."""

    @abstractmethod
    def reference(self, name: str, sample: Sample, like: Tensor) -> Tensor:
        """The image of another sample, made like the start image ``like`` of a case."""

    def references(self, sample: Sample, like: Tensor, pool: Items) -> Iterator[tuple[str, Tensor]]:
        """Names and images of a pool's other patients with the shape of ``like``; what cannot be read is left out."""
        for name, load in pool.items():
            try:
                other = load()
                same = (other.patient or other.source) == (sample.patient or sample.source)
                if same or other.mask is not None:
                    continue
                image = self.reference(name, other, like)
            except UserError as error:  # one bad file of a pool is no reason to refuse the others
                log.warning("%s cannot be a reference and is left out: %s", name, error)
                continue
            if image.shape == like.shape:
                yield name, image

    def rng(self, name: str, purpose: str) -> torch.Generator:
        """An image's random stream for one purpose."""
        return generator(self.seed, name, purpose)


def operator_norm(problem: Problem) -> float | None:
    """||A|| for a problem's images; None for a non-linear operator."""
    return problem.operator.norm(tuple(problem.z0.shape)) if problem.operator.linear else None
