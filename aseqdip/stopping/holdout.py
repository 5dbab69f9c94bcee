"""Self-validation: measurements that no method sees judge its iterates (ZS-SSL, Yaman et al., ICLR 2022)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.methods._classical import filled
from aseqdip.operators.base import Operator, Restricted, Scaled
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI, centre_side
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem
from aseqdip.stopping.base import MinimumRule

COLUMNS, POSITIONS = 0.1, 0.05  # parts held out where none is given
#: of a k-space sampled without a gap, the part in the middle that counts as its centre
CENTRE = 0.08


class Holdout(MinimumRule):
    """The iterate that predicts best what it was not fitted to: a random part of the measurements.

    Held out are k-space columns (none of the fully sampled centre), detector bins, or pixels of all colours. Neither
    the data term nor the start image has them, and the split is the same for all methods on one image and seed.
    """

    name = "holdout"
    title = "held-out measurements"
    paper = "Yaman, Hosseini, Akcakaya: Zero-shot self-supervised learning for MRI reconstruction, ICLR 2022"
    needs = ("residual", "keeps measurements out of the term ||A x - y||^2")

    @dataclass
    class Options(MinimumRule.Options):
        patience: int = knob("iterates without a new minimum before it stops", 500, low=1)
        holdout_fraction: float | None = knob(
            "part of the measurements that is held out; default: 0.1 of the k-space columns outside the centre, 0.05 "
            "of all else",
            None,
            above=0,
            high=0.5,
        )
        holdout_every: int = knob("the held-out error of every so many iterates (each costs one A)", 1, low=1)
        holdout_refit: bool = knob(
            "then begin anew with all measurements and end where it was chosen: the result is the iterate there",
            False,
        )

    def begin(self, problem: Problem, squared: bool) -> None:
        """Take the whole problem: its operator predicts the held-out values. UserError where these are all zero."""
        if self.options.holdout_every > self.options.patience:
            raise UserError(
                f"holdout_every={self.options.holdout_every} patience={self.options.patience}: it would stop before it "
                "looks again; use a larger patience."
            )
        kept = split(problem, self.options.holdout_fraction)
        self.operator, self.y, self.held = problem.operator, problem.y, ~kept
        self.size = float((self.held * self.y).norm())
        if not self.size:
            raise UserError(
                f"stop=holdout: all {int(self.held.sum())} measurements that were held out are zero: no image can be "
                "judged by them; use another holdout_fraction or seed."
            )

    def add(self, image: Tensor, step: int, term: Tensor, result: Tensor | None = None) -> None:
        """Judge what is kept, be it an average."""
        judged = image if result is None else result
        if not self.tensors:
            first, number = judged.clone(), image.new_full((), float(step))
            self.tensors.update(minimum=image.new_full((), torch.inf), image=first, step=number)
        super().add(judged, step, term)

    @property
    def judges_from(self) -> int:
        return int(self.options.holdout_every)

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        if step < self.judges_from:
            return None  # nothing was judged yet: the latest stays
        if step % self.options.holdout_every:
            return image.new_full((), torch.nan)  # never a minimum
        return self.error(image)

    def error(self, image: Tensor) -> Tensor:
        """||A x - y|| / ||y|| over the held-out values."""
        return (self.held * (self.operator(image) - self.y)).norm() / self.size


def kind_of_part(kind: Kind) -> Kind:
    """What is left of a problem's kind once values are held out: no image is measured whole."""
    return replace(kind, image=False, identity=False, hole=kind.hole or kind.identity)


def split(problem: Problem, fraction: float | None) -> Tensor:
    """Which measurements are kept, boolean, to be multiplied with y: drawn from the problem's own stream "holdout".

    Raises UserError where there are too few to hold any out.
    """
    y, A = problem.y, _inner(problem.operator)
    if isinstance(A, MultiCoilMRI) and A.mask.dim() == 1:
        mask = A.mask.cpu()
        candidates, share = outer_columns(mask)[mask], fraction or COLUMNS
    else:  # what is not measured is exactly 0 in y; all coils or colours of a position go together
        grid = y.shape[-2:] if y.ndim > 2 else y.shape
        candidates, share = (y.reshape(-1, *grid) != 0).any(0).cpu(), fraction or POSITIONS
        if isinstance(A, MultiCoilMRI) and (side := centre_side(A.mask)):  # coil maps may be estimated from it
            top, left = ((n - side + 1) // 2 for n in grid)
            candidates[top : top + side, left : left + side] = False
    places = candidates.flatten().nonzero().squeeze(1)
    if len(places) < 2:
        raise UserError(f"stop=holdout: {problem.image} has too few measurements to hold any out; use stop=wmv.")
    order = torch.randperm(len(places), generator=problem.generator("holdout"))
    kept = torch.ones(candidates.numel(), dtype=torch.bool)
    kept[places[order[: max(1, round(share * len(places)))]]] = False
    return kept.reshape(candidates.shape).to(y.device)


def outer_columns(mask: Tensor) -> Tensor:
    """The sampled columns outside the fully sampled block in the middle, which coil maps may be estimated from."""
    n, centre, at = len(mask), len(mask) // 2, torch.arange(len(mask))
    gaps = (~mask).nonzero().squeeze(1)
    below, above = gaps[gaps < centre], gaps[gaps >= centre]
    low = int(below.max()) + 1 if len(below) else 0
    high = int(above.min()) if len(above) else n
    outer = mask & ((at < low) | (at >= high))
    if bool(outer.any()):
        return outer
    half = max(1, round(CENTRE * n / 2))  # sampled without a gap
    return mask & ((at < centre - half) | (at >= centre + half))


def part_of(problem: Problem, fraction: float | None) -> Problem:
    """The problem without its held-out values: measurements, operator and start image know nothing of them."""
    kept = split(problem, fraction)
    A = restricted(problem.operator, kept)
    y = problem.y[..., kept] if _by_columns(_inner(A)) else problem.y * kept
    return replace(problem, y=y, operator=A, z0=start_image(problem, A, y, kept))


def start_image(problem: Problem, A: Operator, y: Tensor, kept: Tensor) -> Tensor:
    """z0 of what is kept; of a picture, held-out pixels are interpolated: they are unknown, not black."""
    if not problem.kind().image:
        return A.direct(y)
    known = kept * (problem.y != 0).any(1, keepdim=True)  # a hole of the task's own stays what it is in z0
    return torch.where(kept, A.direct(y), filled(y, known.to(y)))


def restricted(A: Operator, kept: Tensor) -> Operator:
    """A without its held-out measurements; of a kind of its own where there is one, so that methods still know it."""
    inner, factor = _inner(A), A.factor if isinstance(A, Scaled) else 1.0
    if isinstance(inner, MultiCoilMRI):
        mask = inner.mask.clone()
        if mask.dim() == 1:
            mask[inner.mask] = kept
        else:
            mask &= kept
        part: Operator = MultiCoilMRI(inner.maps, mask)
    elif isinstance(inner, (Identity, Mask)):
        before = inner.mask if isinstance(inner, Mask) else torch.ones_like(kept).float()
        part = Mask(kept[None, None] * before)
    elif isinstance(inner, ParallelBeam):
        part = inner.without(kept)
    else:
        return Restricted(inner, kept, factor)
    return part if factor == 1 else Scaled(part, factor)


def _by_columns(A: Operator) -> bool:
    """Whether whole columns of k-space are measured."""
    return isinstance(A, MultiCoilMRI) and A.mask.dim() == 1


def _inner(A: Operator) -> Operator:
    return A.operator if isinstance(A, Scaled) else A
