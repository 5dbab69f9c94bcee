"""Means over images and seeds, differences between methods on the same images, and when a curve starts to fall.

Images are what a claim is to hold for: seeds of one image are averaged first, and intervals come from drawing images.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

#: images from which an interval is given: the whole range of five numbers covers their median in 94 of 100 cases
FEWEST = 6
DRAWS = 10_000
NAN = float("nan")


@dataclass
class Summary:
    """A method's scores on several images with several seeds.

    Attributes:
        images, n: distinct images, and how many scores there are.
        mean: over images, of each image's mean over its seeds.
        over_images: standard deviation (n - 1) of those image means; NaN for one image.
        over_seeds: mean over images of the standard deviation (n - 1) across seeds; NaN where no image has two.
    """

    images: int
    n: int
    mean: float
    over_images: float
    over_seeds: float


def numbered(images: Sequence[Hashable]) -> np.ndarray:
    """The number of each image, in the order in which they first appear."""
    order = {image: number for number, image in enumerate(dict.fromkeys(images))}
    return np.array([order[image] for image in images])


def by_image(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Each image's mean over its seeds; values: (n, ...), which: of which image each is, (n,)."""
    counts = np.bincount(which)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, which, values)
    return sums / counts.reshape(-1, *(1,) * (values.ndim - 1))


def summary(values: Sequence[float], images: Sequence[Hashable]) -> Summary:
    """Mean and both spreads of the values, with the image of each. Raises ValueError if there is none."""
    if not len(values):
        raise ValueError("a summary needs at least one score.")
    scores, which = np.asarray(values, dtype=float), numbered(images)
    means, counts = by_image(scores, which), np.bincount(which)
    spread = over_seeds = NAN
    if np.isfinite(means).all():  # else an exact image is among them
        if len(means) > 1:
            spread = float(means.std(ddof=1))
        if (again := counts > 1).any():
            squares = np.bincount(which, (scores - means[which]) ** 2)
            over_seeds = float(np.sqrt(squares[again] / (counts[again] - 1)).mean())
    return Summary(len(means), len(scores), float(means.mean()), spread, over_seeds)


def interval(means: np.ndarray, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % percentile bootstrap of the mean over images, the same every time; None for fewer than FEWEST.

    Args:
        means: of each image, shape (images, ...).
    """
    if len(means) < FEWEST or not np.isfinite(means).all():
        return None
    from scipy.stats import bootstrap

    batch = max(1, 2_000_000 // means.size)  # bounds the memory
    options = {"n_resamples": draws, "batch": batch, "method": "percentile", "vectorized": True}
    found = bootstrap((means,), np.mean, axis=0, random_state=np.random.default_rng(0), **options)
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)


@dataclass
class Paired:
    """A method against a reference, image by image.

    Attributes:
        n: pairs. wins: pairs in which the method is ahead.
        mean: over images, of each image's mean difference, method minus reference.
        low, high: its 95 % interval; NaN with fewer than FEWEST images.
    """

    n: int
    wins: int
    mean: float
    low: float
    high: float


def paired(method: Sequence[float], reference: Sequence[float], images: Sequence[Hashable]) -> Paired:
    """Mean difference over images, and its interval. Raises ValueError if the two do not pair up."""
    if not len(method) == len(reference) == len(images) or not len(method):
        raise ValueError(f"pairs are needed; found {len(method)} and {len(reference)} values.")
    # two exact images differ by nothing, though their infinite PSNRs have no difference
    difference = np.array([0.0 if a == b else a - b for a, b in zip(method, reference, strict=True)])
    means = by_image(difference, numbered(images))
    low, high = (float(v) for v in interval(means) or (NAN, NAN))
    return Paired(len(difference), int((difference > 0).sum()), float(means.mean()), low, high)


@dataclass
class MeanCurve:
    """A curve against the iteration, averaged over images.

    Attributes:
        every: iterations for each value; at: the iteration each value is drawn at; end: the last iteration.
        mean: mean over images of each image's mean over its seeds.
        low, high: 95 % bootstrap interval of the mean over images; None with fewer than FEWEST images.
        n: curves; shortened: whether some curves went on longer than this mean.
    """

    every: int
    at: np.ndarray
    end: int
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    n: int
    shortened: bool


def mean_curve(curves: Sequence[tuple[int, np.ndarray, int]], images: Sequence[Hashable]) -> MeanCurve:
    """Average of thinned curves: (every, values, iterations), with the image of each.

    The mean ends where the shortest curve ends: beyond it, it would be one of other images.
    """
    every, end = max(c[0] for c in curves), min(c[2] for c in curves)
    at = np.arange(every, end + every, every) - (every - 1) / 2
    at[-1] = min(at[-1], (at[-1] - every / 2 + 0.5 + end) / 2)  # the last block may be shorter
    table = np.empty((len(curves), len(at)))
    for row, (step, values, steps) in zip(table, curves, strict=True):
        same = step == every and steps == end
        row[:] = values if same else np.interp(at, np.arange(len(values)) * step + (step + 1) / 2, values)
    means = by_image(table, numbered(images))
    low, high = interval(means, draws=500) or (None, None)
    shortened = max(c[2] for c in curves) > end
    return MeanCurve(every, at, end, means.mean(axis=0), low, high, len(curves), shortened)


def onset(curve: Sequence[float], every: int = 1, window: int = 50, within: float = 0.05) -> int:
    """The iteration at which a PSNR curve starts to fall: the last one within 0.05 dB of its maximum so far.

    Args:
        curve: PSNR in dB, each value a mean over ``every`` iterations.
        window: iterations over which the curve is smoothed first, half of them on either side.

    Returns len(curve) * every if the curve never falls. Raises ValueError for an empty curve.
    """
    values = np.asarray(curve, dtype=float)
    if not len(values):
        raise ValueError("an empty curve has no onset.")
    half = window // 2 // every
    total = np.concatenate(([0.0], np.cumsum(values)))
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    smooth = (total[last] - total[first]) / (last - first)
    near = np.flatnonzero(smooth >= np.maximum.accumulate(smooth) - within)
    return int(near[-1] + 1) * every


def finite(value: float | None) -> bool:
    """Whether it is a number that can be drawn."""
    return value is not None and math.isfinite(value)
