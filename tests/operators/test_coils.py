"""Simulated coil maps: normalised, smooth, distinct and reproducible."""

import pytest
import torch

from aseqdip.errors import UserError
from aseqdip.operators.coils import simulated_coils, smooth_phase


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 2, 8, 15])
@pytest.mark.parametrize("shape", [(64, 64), (61, 96)])
def test_sum_of_squares_is_one_at_every_pixel(count: int, shape: tuple[int, int]) -> None:
    maps = simulated_coils(count, shape, _generator())
    assert maps.shape == (count, *shape) and maps.dtype == torch.complex64
    torch.testing.assert_close((maps.abs() ** 2).sum(0), torch.ones(shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 8, 15])
def test_maps_are_smooth(count: int) -> None:
    """Neighbouring pixels differ little, and the differences themselves change slowly."""
    maps = simulated_coils(count, (128, 128), _generator(3))
    for axis in (1, 2):
        assert float(maps.diff(dim=axis).abs().max()) < 0.06
        assert float(maps.diff(n=2, dim=axis).abs().max()) < 0.01


def test_each_coil_looks_at_its_own_side() -> None:
    maps = simulated_coils(8, (64, 64), _generator()).abs()
    peaks = {int(m.argmax()) for m in maps}
    assert len(peaks) == 8
    assert float((maps.flatten(1).amax(1) / maps.flatten(1).mean(1)).min()) > 1.4


def test_the_generator_alone_decides() -> None:
    state = torch.get_rng_state()
    first = simulated_coils(4, (32, 32), _generator(1))
    assert torch.equal(first, simulated_coils(4, (32, 32), _generator(1)))
    assert not torch.equal(first, simulated_coils(4, (32, 32), _generator(2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("count", "shape"), [(0, (8, 8)), (4, (0, 8))])
def test_impossible_requests_are_refused(count: int, shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"found {count} coils"):
        simulated_coils(count, shape, _generator())


def test_smooth_phase_is_smooth_and_spans_half_a_turn() -> None:
    phase = smooth_phase((64, 48), _generator())
    assert phase.shape == (64, 48)
    torch.testing.assert_close(phase.abs(), torch.ones(64, 48))
    assert max(float(phase.diff(dim=axis).abs().max()) for axis in (0, 1)) < 0.3
    assert float(phase.angle().max() - phase.angle().min()) > 3
    assert torch.equal(phase, smooth_phase((64, 48), _generator()))
    assert not torch.equal(phase, smooth_phase((64, 48), _generator(1)))
