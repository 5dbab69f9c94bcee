"""What a stopping rule is, and the two kinds there are: the minimum of a statistic, and a threshold that is crossed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.parts import Part, knob
from aseqdip.problem import Kind, Problem


class StoppingRule(Part, ABC):
    """Watches the iterates, keeps the one it would give as the result, and says when to stop.

    Everything stays on the device: nothing here waits for it but :meth:`stopped`.

    Args:
        options: its own knobs, an instance of its ``Options``.
        signed: whether images may leave [0, 1] (complex MRI; of unknown range).

    Attributes:
        image: the result it keeps, the latest iterate while it has no choice yet; step: that iterate's number.
        value: the statistic after the latest iterate, 0-d; None where there is none.
        watches: the term of the objective that it is given.
        needs: what a method must offer for it ("residual", "error"), and why, in words; "" if nothing.
    """

    watches: ClassVar[str] = "loss"
    needs: ClassVar[tuple[str, str]] = ("", "")
    value: Tensor | None = None

    def __init__(self, options: Any = None, signed: bool = False) -> None:
        self.options, self.signed = self.Options() if options is None else options, signed
        self.tensors: dict[str, Tensor] = {}

    @classmethod
    def check(cls, method: str, offers: frozenset[str], kind: Kind) -> None:
        """Raise UserError unless a method offers what the rule needs, for a problem of this kind."""
        needed, why = cls.needs
        if needed and needed not in offers:
            raise UserError(f"stop={cls.name} {why}, which method={method} does not have: use stop=wmv or stop=emv.")

    def begin(self, problem: Problem, squared: bool) -> None:
        """Take from the problem what the rule must know. UserError where it does not go with it.

        Args:
            squared: whether the terms of the objective are squared norms.
        """

    @abstractmethod
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        """Look at the next iterate and the term it watches.

        ``result`` is what is kept of it where that is not ``image`` itself (an average).
        """

    @abstractmethod
    def stopped(self, step: int) -> bool:
        """Whether to stop at ``step``; waits for the device."""

    def ending(self, steps: int) -> str:
        """Its choice among so many iterates, in words."""
        if steps < self.judges_from:
            return f"the last: too few steps for {self.name} to judge any"
        return f"the last: {self.name} found no end" if self.step == steps else f"chosen by {self.name}"

    @property
    def judges_from(self) -> int:
        """The first iterate that it has anything to say of."""
        return 1

    @property
    def image(self) -> Tensor:
        return self.tensors["image"]

    @property
    def step(self) -> int:
        return int(self.tensors["step"])

    def state_dict(self) -> dict[str, Any]:
        return dict(self.tensors)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.tensors = dict(saved)


class MinimumRule(StoppingRule):
    """Keeps the iterate where a statistic is lowest; stops after ``patience`` iterates without a new minimum."""

    @dataclass
    class Options:
        patience: int = knob("iterates without a new minimum before it stops", 1000, low=1)

    @abstractmethod
    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        """The 0-d value to minimise after this iterate; None while there is none."""

    @torch.no_grad()
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        result = image if result is None else result
        value = self.value = self.statistic(image, step)
        kept = self.tensors
        if "image" not in kept:
            kept["minimum"] = image.new_full((), torch.inf)
        if value is None:
            kept.update(image=result.clone(), step=image.new_full((), float(step)))
            return
        # once patience is exhausted the choice stands, however long the loop runs on before it asks
        better = (value < kept["minimum"]) & (step - kept["step"] <= self.options.patience)
        kept["image"] = torch.where(better, result, kept["image"])
        kept["minimum"] = torch.where(better, value.to(image.dtype), kept["minimum"])
        kept["step"] = torch.where(better, float(step), kept["step"])

    def stopped(self, step: int) -> bool:
        kept = self.tensors
        return "step" in kept and step - float(kept["step"]) > self.options.patience


class Crossing(StoppingRule):
    """Keeps the last iterate before a term of the objective first falls below a threshold, and stops there.

    Where already the first one's does, there is none before it: that one is kept.

    Attributes:
        threshold: known at the latest after :meth:`begin`.
    """

    threshold: float = 0.0

    @torch.no_grad()
    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        result = image if result is None else result
        kept = self.tensors
        if "image" not in kept:
            first = image.new_full((), float(step))
            kept.update(image=result.clone(), step=first, crossed=torch.zeros_like(term).bool())
        kept["crossed"] = kept["crossed"] | (term < self.threshold)
        kept["image"] = torch.where(kept["crossed"], kept["image"], result)
        kept["step"] = torch.where(kept["crossed"], kept["step"], float(step))

    def stopped(self, step: int) -> bool:
        return "crossed" in self.tensors and bool(self.tensors["crossed"])
