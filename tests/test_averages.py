"""Statistics on known answers: means and spreads over images and seeds, intervals, mean curves, onsets."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import stdtrit

from aseqdip.averages import FEWEST, MeanCurve, both, falls, interval, mean_curve, onset, paired, summary


def student(images: int) -> float:
    """Half of the width of a 95 % interval in standard errors, these being of the spread over n, not over n - 1."""
    return float(stdtrit(images - 1, 0.975)) * (images / (images - 1)) ** 0.5


def names(count: int) -> list[str]:
    return [f"image{number}" for number in range(count)]


def test_spread_over_images_is_apart_from_that_over_seeds() -> None:
    #  image a: 30, 32 -> 31;  b: 20, 24 -> 22;  c: 25
    found = summary([30, 32, 20, 24, 25], ["a", "a", "b", "b", "c"])
    assert (found.images, found.n) == (3, 5)
    assert found.mean == pytest.approx((31 + 22 + 25) / 3)
    assert found.over_images == pytest.approx(np.std([31, 22, 25], ddof=1))
    assert found.over_seeds == pytest.approx((2 / 2**0.5 + 4 / 2**0.5) / 2), "c has one seed and says nothing"


def test_one_score_has_no_spread() -> None:
    found = summary([30.0], ["a"])
    assert found.mean == 30
    assert math.isnan(found.over_images) and math.isnan(found.over_seeds)
    with pytest.raises(ValueError, match="at least one"):
        summary([], [])


def test_an_exact_image_makes_the_mean_infinite() -> None:
    found = summary([30.0, math.inf], ["a", "b"])
    assert found.mean == math.inf and math.isnan(found.over_images)
    versus = paired([math.inf, math.inf, 31.0], [math.inf, 30.0, 30.0], ["a", "b", "c"])
    assert (versus.mean, versus.wins, versus.n) == (math.inf, 2, 3)


def test_few_images_have_no_interval() -> None:
    values = np.arange(FEWEST, dtype=float)
    assert interval(values[:-1]) is None
    found = interval(values)
    assert found is not None and 0 < found[0] < values.mean() < found[1] < FEWEST - 1


@pytest.mark.parametrize("images", [6, 10, 20])
def test_95_of_100_intervals_have_the_mean(images: int) -> None:
    rng, draws = np.random.default_rng(4), 2000
    found = [both(rng.standard_normal(images), np.arange(images), draws) for _ in range(400)]
    assert 0.92 < np.mean([low < 0 < high for low, high in found]) < 0.98
    bands = interval(rng.standard_normal((images, 400)), draws)
    assert bands is not None
    assert 0.92 < np.mean((bands[0] < 0) & (bands[1] > 0)) < 0.98


def test_seeds_of_one_image_are_no_independent_pairs() -> None:
    rng = np.random.default_rng(2)
    images = [name for name in names(12) for _ in range(10)]
    difference = np.repeat(rng.normal(0.5, 0.4, 12), 10) + rng.normal(0, 0.01, 120)
    reference = rng.normal(30, 3, 120)
    by_image = paired(list(reference + difference), list(reference), images)
    by_pair = paired(list(reference + difference), list(reference), names(120))
    assert by_image.mean == pytest.approx(by_pair.mean)
    wide, narrow = by_image.high - by_image.low, by_pair.high - by_pair.low
    assert wide == pytest.approx(2 * student(12) * np.std(difference[::10]) / 12**0.5, rel=0.15)
    assert wide > 2.5 * narrow


def test_an_image_with_more_seeds_counts_no_more_than_others() -> None:
    found = paired([31, 31, 31, 30], [30, 30, 30, 30], ["a", "a", "a", "b"])
    assert (found.mean, found.wins, found.n) == (0.5, 3, 4)


def test_paired_difference() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(30, 3, 40)
    method = reference + rng.normal(0.5, 0.2, 40)
    found = paired(list(method), list(reference), names(40))
    assert found.n == 40
    assert found.wins > 35
    assert found.low < 0.5 < found.high, "pairing removes the spread of the images"
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2 / 40**0.5, rel=0.35)
    assert paired(list(method), list(reference), names(40)) == found, "the same every time"
    with pytest.raises(ValueError, match="pairs"):
        paired([1.0], [], ["a"])


def curve_of(each: np.ndarray, every: int = 1) -> MeanCurve:
    """A mean curve without its interval, which takes time."""
    length = each.shape[1]
    return MeanCurve(
        every, np.arange(length) * every, length * every, each, each.mean(axis=0), None, None, len(each), False
    )


def plateaus(rng: np.random.Generator, colour: str, images: int, length: int = 200) -> np.ndarray:
    """Curves that rise fast and stay level, under noise of a colour."""
    white = rng.normal(size=(images, length + 300))
    if colour == "walk":
        noise = white.cumsum(axis=1)
    elif colour == "heavy tails":
        noise = rng.standard_t(2, size=white.shape)
    elif colour == "1/f":
        spectrum = np.fft.rfft(white)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1)))
    else:
        noise = lfilter([1], [1, -float(colour)], white, axis=1)
    return 30 - 8 * np.exp(-np.arange(length) / 12) + 0.3 * noise[:, 300:]


@pytest.mark.parametrize("colour", ["0", "0.5", "0.9", "0.98", "1/f", "walk", "heavy tails"])
@pytest.mark.parametrize("images", [6, 20])
def test_of_flat_noisy_plateaus_at_most_one_in_twenty_is_said_to_fall(images: int, colour: str) -> None:
    rng, draws = np.random.default_rng(2), 400
    alarms = sum(falls(curve_of(plateaus(rng, colour, images))) for _ in range(draws))
    assert alarms / draws <= 0.05


def test_a_fall_is_found_in_noise_that_hides_it_on_a_single_image() -> None:
    rng, found = np.random.default_rng(3), []
    for _ in range(50):
        sloping = plateaus(rng, "0.5", 6) - 0.006 * np.maximum(np.arange(200) - 60, 0)  # 0.84 dB at the end
        found.append(onset(curve_of(sloping, every=20)))
    assert sum(at is not None for at in found) > 45
    assert all(at is None or 500 <= at <= 3000 for at in found)
    assert onset(curve_of(plateaus(rng, "0.5", 5) - np.arange(200))) is None, "too few images to tell"


@pytest.mark.parametrize("every", [1, 10, 20])
def test_onset_of_a_tent_is_just_past_its_peak(every: int) -> None:
    at = np.arange(1, 4001)
    curve = 30 - 0.002 * np.abs(at - 1000)  # smoothing takes the tip off; 0.05 dB is lost after 25 iterations more
    blocks = curve.reshape(-1, every).mean(axis=1)
    assert abs((onset(curve_of(np.tile(blocks, (6, 1)), every)) or 0) - 1025) <= 25


def test_a_curve_that_does_not_fall_has_no_onset() -> None:
    rising = np.tile(30 - 10 * np.exp(-np.arange(4000) / 500), (6, 1))
    assert onset(curve_of(rising)) is None
    assert onset(curve_of(rising + np.random.default_rng(0).normal(0, 0.2, rising.shape))) is None


@pytest.mark.parametrize(("back", "at"), [(30.0, 1500), (29.97, 1500), (29.93, 500)])
def test_onset_is_the_last_return_to_within_a_twentieth_of_a_db_of_the_maximum(back: float, at: int) -> None:
    dip = [30.0] * 500 + [29.0] * 500 + [back] * 500 + [28.0] * 500
    assert abs((onset(curve_of(np.array([dip] * 6))) or 0) - at) <= 25


def test_the_interval_of_a_difference_counts_seeds_and_images() -> None:
    rng = np.random.default_rng(4)
    images, seeds = np.repeat(names(8), 2), rng.normal(0, 1, 16)
    found = paired(list(1 + seeds), [0.0] * 16, list(images))
    means = seeds.reshape(8, 2).mean(axis=1)
    spread = math.sqrt(means.var() / 8 + seeds.reshape(8, 2).var(axis=1).mean() / 2 / 8)
    assert found.high - found.low == pytest.approx(2 * student(8) * spread, rel=0.1), "that of images alone is narrower"


def test_mean_curve_averages_seeds_before_images_and_ends_with_the_shortest() -> None:
    curves = [(1, np.full(100, 30.0), 100), (1, np.full(100, 32.0), 100), (1, np.full(60, 20.0), 60)]
    found = mean_curve(curves, ["a", "a", "b"])
    assert (found.end, len(found.mean), found.n, found.low) == (60, 60, 3, None)
    assert found.shortened
    assert found.mean == pytest.approx(np.full(60, 25.5)), "(31 + 20) / 2"
    found = mean_curve([(1, np.full(3, v), 3) for v in (20.0, 21.0, 31.0)], ["a", "b", "c"])
    assert found.mean == pytest.approx(np.full(3, 24.0))


def test_the_band_is_over_images() -> None:
    values = [float(v) for v in range(FEWEST) for _ in range(2)]
    found = mean_curve([(1, np.full(3, v), 3) for v in values], [name for name in names(FEWEST) for _ in range(2)])
    assert found.low is not None and found.high is not None
    assert np.all(found.low > 0.5) and np.all(found.high < FEWEST - 1.5) and np.all(found.low < found.high)
    many = np.random.default_rng(6).normal(30, 1, 100)
    found = mean_curve([(1, np.full(3, v), 3) for v in many], names(100))
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(np.full(3, 2 * 1.96 * many.std() / 10), rel=0.1), "95 %"


def test_mean_curve_of_curves_thinned_differently() -> None:
    steps = np.arange(1, 401) / 100
    fine = (2, steps.reshape(-1, 2).mean(1), 400)
    coarse = (20, steps.reshape(-1, 20).mean(1), 400)
    found = mean_curve([fine, coarse], ["a", "b"])
    assert found.every == 20
    assert found.mean == pytest.approx(coarse[1], abs=1e-6)
    assert found.at[0] == 10.5 and found.at[-1] == 390.5
    assert mean_curve([(2, np.arange(3.0), 5)], ["a"]).at.tolist() == [1.5, 3.5, 5], "its last block has one"
