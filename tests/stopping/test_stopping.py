"""Stopping rules: the minimum of a stream with a known answer, without the truth, resumable."""

import pytest
import torch
from cases import Configure
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators.identity import Identity
from aseqdip.problem import Problem
from aseqdip.run.runner import run
from aseqdip.stopping.base import MinimumRule, StoppingRule
from aseqdip.stopping.discrepancy import Discrepancy, noise_energy
from aseqdip.stopping.emv import ExponentialVariance
from aseqdip.stopping.wmv import WindowedVariance
from aseqdip.stopping.zero import Zero

LOSS = torch.ones(())


def wmv(window: int, patience: int) -> WindowedVariance:
    return WindowedVariance(WindowedVariance.Options(window=window, patience=patience))


def emv(patience: int, signed: bool) -> ExponentialVariance:
    return ExponentialVariance(ExponentialVariance.Options(patience=patience), signed)


def stream(length: int, calm: int) -> list[Tensor]:
    """Images that move less and less until step ``calm`` and then more and more."""
    rng = torch.Generator().manual_seed(0)
    base = torch.rand(1, 1, 8, 8, generator=rng)
    steps = range(1, length + 1)
    return [base + 0.01 * (0.02 + abs(t - calm) / calm) * torch.randn(base.shape, generator=rng) for t in steps]


def feed(rule: StoppingRule, images: list[Tensor], first: int = 1) -> int | None:
    """Feed images until the rule stops; the step at which it did."""
    for step, image in enumerate(images, start=first):
        rule.add(image, step, LOSS)
        if rule.stopped(step):
            return step
    return None


def test_windowed_variance_is_its_definition() -> None:
    images = stream(30, 10)
    rule = wmv(8, 1000)
    values = [rule.statistic(image, step) for step, image in enumerate(images, start=1)]
    assert all(v is None for v in values[:7])
    for step in range(8, 31):
        window = torch.stack(images[step - 8 : step]).double()
        exact = (window - window.mean(0)).square().flatten(1).mean(1).mean()
        value = values[step - 1]
        assert float(value) == pytest.approx(float(exact), rel=1e-6)


def test_exponential_variance_is_its_definition() -> None:
    """EMV(t) = (1 - a) (EMV(t-1) + a ||x_t - EMA(t-1)||^2), a = 0.1."""
    images, rule = stream(120, 40), emv(1000, True)
    mean, variance = images[0], 0.0
    for step, image in enumerate(images, start=1):
        value = rule.statistic(image, step)
        variance = 0.9 * (variance + 0.1 * float((image - mean).square().sum()))
        mean = 0.9 * mean + 0.1 * image
        assert value is None or float(value) == pytest.approx(variance, rel=1e-4)


class Given(MinimumRule):
    """A rule whose statistic is the image's value."""

    name, title = "given", "given"

    def statistic(self, image: Tensor, step: int) -> Tensor | None:
        return None if step == 1 else image.mean()


@pytest.mark.parametrize(("lower", "kept"), [(5, 5), (6, 6), (7, 2)])
def test_a_minimum_counts_until_patience_is_exhausted(lower: int, kept: int) -> None:
    rule = Given(Given.Options(patience=4))
    for step in range(1, 9):
        rule.add(torch.full((1, 1, 2, 2), {2: 1.0, lower: 0.5}.get(step, 2.0)), step, LOSS)
        assert rule.stopped(step) == (step > rule.step + 4)
    assert rule.step == kept


@pytest.mark.parametrize("rule", [wmv(10, 60), emv(60, True)])
def test_the_calm_part_is_found_and_kept(rule: StoppingRule) -> None:
    images = stream(400, 150)
    ended = feed(rule, images)
    assert ended == rule.step + 61, "patience, then stop"
    assert 140 <= rule.step <= 175
    assert torch.equal(rule.image, images[rule.step - 1]), "the iterate itself, kept when it was seen"


def test_the_exponential_mean_stays_in_range_where_images_do() -> None:
    for signed, expected in ((True, 1.3), (False, 1.0)):
        rule = emv(60, signed)
        for step in range(1, 90):
            rule.add(torch.full((1, 1, 4, 4), 1.3), step, LOSS)
        assert float(rule.tensors["mean"].max()) == pytest.approx(expected)


def test_the_exponential_variance_is_looked_at_from_the_102nd_iterate_on() -> None:
    """The authors' loop counts from 0 and asks after iteration 100 is past."""
    rule = emv(60, True)
    images = stream(110, 40)
    values = [rule.statistic(image, step) for step, image in enumerate(images, start=1)]
    assert [v is None for v in values] == [True] * 101 + [False] * 9


def test_the_choice_stands_once_patience_is_exhausted() -> None:
    rule = wmv(10, 20)
    images = stream(100, 40)
    feed(rule, images)
    chosen = rule.step
    still = torch.zeros_like(images[0])
    for step in range(101, 140):  # perfectly calm, but too late
        rule.add(still, step, LOSS)
    assert rule.step == chosen


def test_before_the_window_is_full_nothing_is_decided() -> None:
    rule = wmv(50, 5)
    images = stream(40, 10)
    assert feed(rule, images) is None
    assert rule.step == 40
    assert torch.equal(rule.image, images[-1]), "the last iterate until there is a better reason"


def test_state_is_kept() -> None:
    images = stream(200, 80)
    whole, first, second = (wmv(10, 1000) for _ in range(3))
    feed(whole, images)
    feed(first, images[:90])
    second.load_state_dict(first.state_dict())
    feed(second, images[90:], first=91)
    assert (second.step, torch.equal(second.image, whole.image)) == (whole.step, True)


def test_a_run_stops_early_and_the_record_says_where(configure: Configure) -> None:
    (record,) = run(
        configure("task=denoising", "method=es_dip", "window=5", "patience=20", "steps=400", "lr=0.01")
    ).records
    stopped = record.scores["stopped"]
    assert 5 <= stopped.step < record.steps < 400
    assert record.steps % 25 == 0
    assert stopped.psnr_db is not None
    assert record.settings["stop"] == "wmv"


def test_rules_go_with_any_method(configure: Configure) -> None:
    (record,) = run(configure("stop=emv", "method=aseqdip")).records
    assert record.scores["stopped"].step == 4, "four steps are too few to decide: then it is the last"
    assert record.result == "stopped"


def test_zero_crossing_keeps_the_iterate_before() -> None:
    rule, images = Zero(), stream(5, 2)
    for step, (image, loss) in enumerate(zip(images, (3.0, 1.0, 0.2, -0.1, 0.5), strict=True), start=1):
        rule.add(image, step, torch.tensor(loss))
        assert rule.stopped(step) == (step >= 4)
    assert rule.step == 3
    assert torch.equal(rule.image, images[2])


def test_where_the_first_iterate_is_below_it_is_kept_and_named() -> None:
    rule = Zero()
    for step, loss in enumerate((-1.0, 2.0), start=1):
        rule.add(torch.full((1, 1, 2, 2), float(step)), step, torch.tensor(loss))
    assert (rule.step, float(rule.image.mean())) == (1, 1.0)


def test_a_rule_can_keep_the_average_instead(configure: Configure) -> None:
    rule, images = Zero(), stream(3, 2)
    for step, image in enumerate(images, start=1):
        rule.add(image, step, LOSS, result=-image)
    assert torch.equal(rule.image, -images[2])
    (record,) = run(configure("task=denoising", "method=rethinking_dip")).records
    assert record.scores["stopped"].psnr_db == pytest.approx(record.scores["ema"].psnr_db, abs=1e-3)


def test_discrepancy_stops_where_the_data_fit_to_within_the_noise(configure: Configure) -> None:
    words = ("task=denoising", "sigma=30", "method=vanilla_dip", "network.width=32", "lr=0.01", "steps=500")
    (record,) = run(configure(*words, "stop=discrepancy")).records
    stopped, scores = record.scores["stopped"], record.scores
    assert record.settings["stop"] == "discrepancy"
    assert record.steps - 25 <= stopped.step < record.steps < 500
    assert stopped.psnr_db > scores["start"].psnr_db + 1


def test_noise_energy_counts_what_is_measured() -> None:
    operator = Identity()
    y = torch.tensor([[[[1.0, 0.0], [2.0, 3.0]]]])
    assert noise_energy(Problem(y, operator, y, "a", 0, noise_std=2.0)) == 3 * 4
    assert noise_energy(Problem(torch.complex(y, y), operator, y, "a", 0, noise_std=2.0)) == 6 * 4
    rule = Discrepancy()
    for squared, threshold in ((True, 12.0), (False, 12**0.5)):
        rule.begin(Problem(y, operator, y, "a", 0, noise_std=2.0), squared)
        assert rule.threshold == pytest.approx(threshold), "that of the data term, which is a squared norm or a norm"
    for unknown, advice in ((None, "no setting tells it"), (0.0, "give a level")):
        with pytest.raises(UserError, match=f"its level must be known; that of a is not: .*{advice}"):
            noise_energy(Problem(y, operator, y, "a", 0, noise_std=unknown))


def test_discrepancy_needs_a_method_with_a_data_term(configure: Configure) -> None:
    with pytest.raises(UserError, match="which method=rethinking_dip does not have"):
        run(configure("task=denoising", "method=rethinking_dip", "stop=discrepancy"))
