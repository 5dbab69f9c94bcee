"""Every task with every method runs end to end, tiny."""

from collections.abc import Callable

import numpy as np
import pytest

from aseqdip.cli import choices
from aseqdip.config import Config
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.records import TASK_KNOBS
from aseqdip.runner import run

Configure = Callable[..., Config]


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("task", sorted(TASK_KNOBS))
def test_every_task_with_every_method(configure: Configure, task: str, method: str) -> None:
    cfg = configure(f"task={task}", f"method={method}")
    if method == "rethinking_dip" and task != "denoising":
        with pytest.raises(UserError, match="Gaussian noise of known size"):
            run(cfg)
        return
    summary = run(cfg)
    assert not summary.failed
    (record,) = summary.records
    assert all(np.isfinite(record["scores"][which]["psnr"]) for which in ("start", "last", "best", "ema"))
    assert record["steps"] == (1 if method == "direct" else 4)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_original_recipe(configure: Configure, method: str) -> None:
    cfg = configure("task=denoising", f"method={method}", "recipe=original", "network.width=8")
    (record,) = run(cfg).records
    assert record["recipe"] == "original"


@pytest.mark.parametrize("words", [("kernel=motion",), ("kernel=nonlinear",)])
def test_both_blurs(configure: Configure, words: tuple[str, ...]) -> None:
    assert len(run(configure("task=deblurring", *words)).records) == 1


@pytest.mark.parametrize("network", choices("network"))
@pytest.mark.parametrize("task", ["mri", "denoising"])
def test_every_network(configure: Configure, network: str, task: str) -> None:
    assert len(run(configure(f"task={task}", f"network={network}")).records) == 1


@pytest.mark.parametrize("mask", ["random", "equispaced", "variable_density"])
def test_every_sampling(configure: Configure, mask: str) -> None:
    assert len(run(configure(f"mask={mask}", "accel=8")).records) == 1


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_in_bf16(configure: Configure, method: str) -> None:
    (record,) = run(configure("task=denoising", f"method={method}", "precision=bf16")).records
    assert record["precision"] == "bf16"


def test_single_coil(configure: Configure) -> None:
    (record,) = run(configure("operator.coils=1")).records
    assert record["coils"] == 1
