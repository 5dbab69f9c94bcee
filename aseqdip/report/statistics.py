"""Means over images and seeds, differences between methods on the same images, and when a curve starts to fall."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PICKS = 2_000_000  # random indices held at a time: bounds the memory of a bootstrap


@dataclass
class Summary:
    """A method's scores on several images with several seeds.

    Attributes:
        images, seeds, n: distinct images and seeds, and how many scores there are.
        mean: over images, of each image's mean over its seeds.
        over_images: standard deviation (n - 1) of those image means; NaN for one image.
        over_seeds: mean over images of the standard deviation (n - 1) across seeds; NaN where no image has two.
    """

    images: int
    seeds: int
    n: int
    mean: float
    over_images: float
    over_seeds: float


def summary(values: Sequence[float], images: Sequence[str], seeds: Sequence[int]) -> Summary:
    """Mean and both spreads of finite ``values``, one for each (image, seed). Raises ValueError if there is none."""
    if not len(values):
        raise ValueError("a summary needs at least one score.")
    scores = np.asarray(values, dtype=float)
    _, which = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    count = np.bincount(which)
    means = np.bincount(which, scores) / count
    squares = np.bincount(which, (scores - means[which]) ** 2)
    repeated = count > 1
    nan = float("nan")
    return Summary(
        images=len(count),
        seeds=len(set(seeds)),
        n=len(scores),
        mean=float(means.mean()),
        over_images=float(means.std(ddof=1)) if len(means) > 1 else nan,
        over_seeds=float(np.sqrt(squares[repeated] / (count[repeated] - 1)).mean()) if repeated.any() else nan,
    )


@dataclass
class Paired:
    """A method against a reference, image by image.

    Attributes:
        n: pairs. wins: pairs in which the method is ahead.
        mean: mean over images of each image's mean difference, method minus reference.
        low, high: its 95 % interval (NaN for a single pair).
    """

    n: int
    wins: int
    mean: float
    low: float
    high: float


def paired(
    method: Sequence[float],
    reference: Sequence[float],
    draws: int = 10_000,
    images: Sequence[str] | None = None,
) -> Paired:
    """Mean difference and its 95 % percentile-bootstrap interval over pairs; the same every time.

    Args:
        images: the image of each pair. Seeds of one image are not independent, so whole images are drawn; with a single
            image its pairs are. None: every pair stands for itself.

    Raises ValueError if the two do not pair up.
    """
    if len(method) != len(reference) or not len(method):
        raise ValueError(f"pairs are needed; found {len(method)} and {len(reference)} values.")
    difference = np.subtract(method, reference)
    _, which = np.unique(np.asarray(images if images is not None else []), return_inverse=True)
    if len(set(which.tolist())) < 2:
        which = np.arange(len(difference))
    # an image with more seeds counts no more than others
    each = np.bincount(which, difference) / np.bincount(which)
    units = len(each)
    low = high = float("nan")
    if units > 1:
        rng, means = np.random.default_rng(0), np.empty(draws)
        block = max(1, PICKS // units)
        for start in range(0, draws, block):
            picks = rng.integers(units, size=(min(block, draws - start), units))
            means[start : start + block] = each[picks].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
    wins = int((difference > 0).sum())
    return Paired(len(difference), wins, float(each.mean()), float(low), float(high))


@dataclass
class MeanCurve:
    """PSNR against the iteration, averaged over images.

    Attributes:
        every: iterations for each value; at: the iteration each value is drawn at; end: the last iteration.
        mean: mean over images of each image's mean over its seeds, in dB.
        low, high: 95 % bootstrap interval of the mean over images; None for one image.
        n: curves; images: distinct ones; shortened: whether some curves went on longer than this mean.
    """

    every: int
    at: np.ndarray
    end: int
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    n: int
    images: int
    shortened: bool


def mean_curve(curves: Sequence[tuple[int, np.ndarray, int]], images: Sequence[str], draws: int = 1000) -> MeanCurve:
    """Average of ``records.thin`` curves: (every, values, iterations), with the image of each.

    The mean ends where the shortest curve ends: beyond it, it would be one of other images.
    """
    every, end = max(c[0] for c in curves), min(c[2] for c in curves)
    at = np.arange(every, end + every, every) - (every - 1) / 2
    at[-1] = min(at[-1], (at[-1] - every / 2 + 0.5 + end) / 2)  # the last block may be shorter
    table = np.empty((len(curves), len(at)))
    for row, (step, values, steps) in zip(table, curves, strict=True):
        if step == every and steps == end:
            row[:] = values
        else:
            row[:] = np.interp(at, np.arange(len(values)) * step + (step + 1) / 2, values)
    _, which = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    count = np.bincount(which)
    means = np.zeros((len(count), len(at)))
    np.add.at(means, which, table)
    means /= count[:, None]
    low = high = None
    if len(means) > 1:
        weights = np.random.default_rng(0).multinomial(len(means), np.full(len(means), 1 / len(means)), draws)
        low, high = np.percentile(weights @ means / len(means), [2.5, 97.5], axis=0)
    shortened = max(c[2] for c in curves) > end
    return MeanCurve(every, at, end, means.mean(axis=0), low, high, len(curves), len(count), shortened)


def onset(curve: Sequence[float], every: int = 1, window: int = 50, within: float = 0.05) -> int:
    """The iteration at which a PSNR curve starts to fall: the last one where it is within 0.05 dB of its maximum so far.

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
