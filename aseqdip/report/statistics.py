"""Differences between methods on the same images, with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Paired:
    """A method against a reference, image by image.

    Attributes:
        n: pairs. wins: pairs in which the method is ahead.
        mean: mean difference, method minus reference; low, high: its 95 % interval (NaN for a single pair).
    """

    n: int
    wins: int
    mean: float
    low: float
    high: float


def paired(method: Sequence[float], reference: Sequence[float], draws: int = 10_000) -> Paired:
    """Mean difference and its 95 % percentile-bootstrap interval over pairs; the same every time.

    Raises ValueError if the two do not pair up.
    """
    if len(method) != len(reference) or not method:
        raise ValueError(f"pairs are needed; found {len(method)} and {len(reference)} values.")
    difference = np.subtract(method, reference)
    n = len(difference)
    low = high = float("nan")
    if n > 1:
        picks = np.random.default_rng(0).integers(n, size=(draws, n))
        low, high = np.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
    return Paired(n, int((difference > 0).sum()), float(difference.mean()), float(low), float(high))
