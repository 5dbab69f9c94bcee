"""The engine: graphs that cannot be recorded, rates, shares of the device."""

import logging

import pytest
import torch

from aseqdip.engine import Engine, Graph


def test_what_cannot_be_recorded_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("recorded there: see test_gpu.py")
    calls = []
    graph = Graph(lambda: calls.append(1) or len(calls), ())
    with caplog.at_level(logging.INFO):
        assert [graph() for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert caplog.text.count("No CUDA graph") == 1


def test_a_cpu_repeats_the_function_itself() -> None:
    def function() -> int:
        return 3

    assert Engine("cpu", "fp32").repeat(function) is function


def test_rates_in_numbers_and_in_tensors() -> None:
    engine = Engine("cpu", "fp32")
    weight = torch.nn.Parameter(torch.ones(2))
    plain = engine.adam([{"params": [weight], "lr": 0.1}])
    engine.set_rate(plain, 0.05)
    assert plain.param_groups[0]["lr"] == 0.05
    held = torch.tensor(0.1)
    recorded = torch.optim.Adam([{"params": [weight], "lr": held}])
    engine.set_rate(recorded, 0.05)
    assert held.item() == pytest.approx(0.05)
    assert recorded.param_groups[0]["lr"] is held, "in place: a recorded step reads the same tensor"


def test_images_at_a_time() -> None:
    engine = Engine("cpu", "fp32")
    assert engine.workers("1", 10) == 1
    assert engine.workers("3", 10) == 3
    assert engine.workers("8", 2) == 2
    engine.threads = 2
    assert engine.workers("auto", 10) == 2
    engine.threads = 64
    assert engine.workers("auto", 10) == 4
