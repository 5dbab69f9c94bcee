"""Reports: means, and differences with their uncertainty."""

from typing import Any

import numpy as np
import pytest

from aseqdip.report.__main__ import means
from aseqdip.report.statistics import paired


def record(method: str, image: str, psnr: float, seed: int = 0) -> dict[str, Any]:
    part = {"psnr": psnr, "ssim": 0.5}
    return {
        **{"task": "mri", "setting": "accel4", "method": method, "image": image, "seed": seed},
        **{"recipe": "matched", "preset": "quick", "result": "last", "steps": 10, "flops_per_step": 1e11},
        "scores": dict.fromkeys(("start", "last", "best", "ema"), part),
        "seconds": {"method": 3.0},
    }


def test_paired_difference() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(30, 3, 40)
    method = reference + rng.normal(0.5, 0.2, 40)
    found = paired(list(method), list(reference))
    assert found.n == 40
    assert found.wins > 35
    assert found.low < 0.5 < found.high, "pairing removes the spread of the images"
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2 / 40**0.5, rel=0.35)
    assert paired(list(method), list(reference)) == found, "the same every time"


def test_one_pair_has_no_interval() -> None:
    found = paired([31.0], [30.0])
    assert (found.mean, found.wins) == (1.0, 1)
    assert np.isnan(found.low)
    with pytest.raises(ValueError, match="pairs"):
        paired([1.0], [])


def split(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_means_are_compared_with_aseqdip_on_the_images_both_have() -> None:
    records = [record("aseqdip", image, 30 + i) for i, image in enumerate("abc")]
    records += [record("vanilla_dip", image, 29 + i) for i, image in enumerate("ab")]
    lines = means(records).splitlines()
    cells = [dict(zip(split(lines[0]), split(line), strict=True)) for line in lines[2:]]
    assert [c["result"] for c in cells] == ["31.00", "29.50"]
    assert [c["- aseqdip (95 %)"] for c in cells] == ["", "-1.00 (-1.00 to -1.00), 0 of 2"]
