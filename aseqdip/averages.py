"""Means over images and seeds, differences between methods on the same images, and when a curve starts to fall.

Images are what a claim is to hold for: seeds of one image are averaged first, and intervals come from drawing images.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

#: images from which an interval is given
FEWEST = 6
DRAWS = 10_000
LEVEL = 0.01  # of the test for a fall, by itself
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


def tail(images: int) -> float:
    """The share of a bootstrap's draws that 95 % intervals leave out on either side.

    It is less than 2.5 %, which would leave the mean of six images outside in 14 of 100 cases, not in 5: the expanded
    percentile interval of Hesterberg (The American Statistician 69, 2015, Sec. 5.3), nearly as wide as Student's.
    """
    return float(ndtr(-math.sqrt(images / (images - 1)) * stdtrit(images - 1, 0.975)))


def student(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's 95 % interval of the mean over images: a bootstrap's of few images has 0.93 of its width."""
    images = len(means)
    half = stdtrit(images - 1, 0.975) * means.std(axis=0, ddof=1) / math.sqrt(images)
    return means.mean(axis=0) - half, means.mean(axis=0) + half


def interval(means: np.ndarray, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % bootstrap interval of the mean over images, at least as wide as Student's; None for fewer than FEWEST.

    Args:
        means: of each image, shape (images, ...).
    """
    if len(means) < FEWEST or not np.isfinite(means).all():
        return None
    from scipy.stats import bootstrap

    batch = max(1, 2_000_000 // means.size)  # bounds the memory
    options = {"n_resamples": draws, "batch": batch, "method": "percentile", "vectorized": True}
    options["confidence_level"] = 1 - 2 * tail(len(means))
    found = bootstrap((means,), np.mean, axis=0, random_state=np.random.default_rng(0), **options)
    low, high = student(means)
    return np.minimum(found.confidence_interval.low, low), np.maximum(found.confidence_interval.high, high)


def both(values: np.ndarray, which: np.ndarray, draws: int = DRAWS) -> tuple[float, float]:
    """95 % interval of the mean over images by hierarchical bootstrap: images are drawn, and of each its seeds.

    At least as wide as Student's of the images' means.

    Args:
        values, which: (n,), and of which image each is. NaN for fewer than FEWEST images.
    """
    counts, rng = np.bincount(which), np.random.default_rng(0)
    if len(counts) < FEWEST or not np.isfinite(values).all():
        return NAN, NAN
    ordered, starts = values[np.argsort(which, kind="stable")], np.cumsum(counts) - counts
    images = rng.integers(len(counts), size=(draws, len(counts)))
    total, n = np.zeros(images.shape), counts[images]
    for number in range(counts.max()):
        drawn = ordered[starts[images] + rng.integers(n)]
        total += np.where(number < n, drawn, 0)
    out = tail(len(counts))
    drawn = np.quantile((total / n).mean(axis=1), (out, 1 - out))
    low, high = student(by_image(values, which))
    return float(min(drawn[0], low)), float(max(drawn[1], high))


@dataclass
class Paired:
    """A method against a reference, image by image.

    Attributes:
        n: pairs. wins: pairs in which the method is ahead.
        mean, median: over images, of each image's mean difference, method minus reference.
        low, high: 95 % interval of the mean; NaN with fewer than FEWEST images.
    """

    n: int
    wins: int
    mean: float
    median: float
    low: float
    high: float


def paired(method: Sequence[float], reference: Sequence[float], images: Sequence[Hashable]) -> Paired:
    """Mean difference over images, and its interval. Raises ValueError if the two do not pair up."""
    if not len(method) == len(reference) == len(images) or not len(method):
        raise ValueError(f"pairs are needed; found {len(method)} and {len(reference)} values.")
    # two exact images differ by nothing, though their infinite PSNRs have no difference
    difference = np.array([0.0 if a == b else a - b for a, b in zip(method, reference, strict=True)])
    which = numbered(images)
    each = by_image(difference, which)
    mean, median = float(each.mean()), float(np.median(each))
    return Paired(len(difference), int((difference > 0).sum()), mean, median, *both(difference, which))


@dataclass
class MeanCurve:
    """A curve against the iteration, averaged over images.

    Attributes:
        every: iterations for each value; at: the iteration each value is drawn at; end: the last iteration.
        each: each image's mean over its seeds, (images, values); mean: over images.
        low, high: 95 % bootstrap interval of the mean over images; None with fewer than FEWEST images.
        n: curves; shortened: whether some curves went on longer than this mean.
    """

    every: int
    at: np.ndarray
    end: int
    each: np.ndarray
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
    table, edges = np.empty((len(curves), len(at))), np.minimum(np.arange(len(at) + 1) * every, end)
    for row, (step, values, steps) in zip(table, curves, strict=True):
        own = np.minimum(np.arange(len(values) + 1) * step, steps)
        total = np.concatenate(([0.0], np.cumsum(values * np.diff(own))))  # a mean of finer blocks, not one of them
        whole = step == every and steps == end
        row[:] = values if whole else np.diff(np.interp(edges, own, total)) / np.diff(edges)
    means = by_image(table, numbered(images))
    low, high = interval(means, draws=500) or (None, None)
    shortened = max(c[2] for c in curves) > end
    return MeanCurve(every, at, end, means, means.mean(axis=0), low, high, len(curves), shortened)


def falls(curve: MeanCurve) -> bool:
    """Whether a PSNR falls towards its end by more than noise does; False for fewer than FEWEST images.

    Of each image, the mean over the last tenth of the run is held against that over the tenth in which the mean of
    all *other* images is highest: noise of its own, of whatever colour, cannot have chosen that place. One-sided t-test
    of the differences over images at LEVEL, which is below 5 % because the places, and so the differences, are not
    independent: on plateaus of white, autocorrelated (up to 0.98 from value to value), 1/f, heavy-tailed and Brownian
    noise, 6 to 20 images, alarms were false in at most 3.7 %.
    """
    images = len(curve.each)
    if images < FEWEST or not np.isfinite(curve.each).all():
        return False
    level = _levels(curve)
    highest = (level.sum(axis=0) - level).argmax(axis=1)
    drops = level[np.arange(images), highest] - level[:, -1]
    spread = drops.std(ddof=1) / math.sqrt(images)
    return bool(stdtr(images - 1, -drops.mean() / max(spread, 1e-12)) < LEVEL)


def _levels(curve: MeanCurve) -> np.ndarray:
    """Of each image, the mean over every tenth of the run: (images, places)."""
    width = max(1, curve.each.shape[1] // 10)
    sums = np.cumsum(np.pad(curve.each, ((0, 0), (1, 0))), axis=1)
    return np.asarray((sums[:, width:] - sums[:, :-width]) / width)


def lost(curve: MeanCurve) -> np.ndarray:
    """Of each image, by how much the last tenth of the run is below its highest tenth, at least 0: (images,)."""
    level = _levels(curve)
    return np.asarray(level.max(axis=1) - level[:, -1])


def onset(curve: MeanCurve, window: int = 50, within: float = 0.05) -> int | None:
    """The iteration at which the mean starts to fall: the last within 0.05 dB of its maximum so far; None if none does.

    Args:
        window: iterations over which the mean is smoothed first, half of them on either side.
    """
    if not falls(curve):
        return None
    half = window // 2 // curve.every
    total = np.concatenate(([0.0], np.cumsum(curve.mean)))
    at = np.arange(len(curve.mean))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(at))
    smooth = (total[last] - total[first]) / (last - first)
    near = int(np.flatnonzero(smooth >= np.maximum.accumulate(smooth) - within)[-1]) + 1
    return near * curve.every if near < len(at) else None


def finite(value: float | None) -> bool:
    """Whether it is a number that can be drawn."""
    return value is not None and math.isfinite(value)
