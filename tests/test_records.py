"""What is kept of a curve inside a record."""

import pytest

from aseqdip.records import COLUMNS, thin


def rows(psnr: list[float]) -> list[list[float]]:
    at = COLUMNS.index("psnr")
    return [[float(i)] + [p if c == at else 0.0 for c in range(1, len(COLUMNS))] for i, p in enumerate(psnr, 1)]


def test_a_short_curve_is_kept_whole() -> None:
    assert thin(rows([20, 21.5, 21]))["psnr"] == [20, 21.5, 21]
    assert thin(rows([20, 21.5, 21]))["every"] == 1
    assert thin([]) == {"every": 1, "psnr": [], "psnr_ema": []}


@pytest.mark.parametrize(("steps", "every"), [(200, 1), (201, 2), (4000, 20), (4001, 21)])
def test_a_long_curve_is_averaged_in_at_most_200_blocks(steps: int, every: int) -> None:
    kept = thin(rows([float(i) for i in range(steps)]))
    assert kept["every"] == every
    assert len(kept["psnr"]) == -(-steps // every) <= 200
    assert kept["psnr"][0] == pytest.approx((every - 1) / 2)
    last = range((len(kept["psnr"]) - 1) * every, steps)
    assert kept["psnr"][-1] == pytest.approx(sum(last) / len(last))
