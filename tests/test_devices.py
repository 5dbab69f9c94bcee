"""Nothing of a step stays on the CPU when its image is moved: on the "meta" device, which has shapes and no numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import load_script
from torch.utils._python_dispatch import TorchDispatchMode

from aseqdip import engine, kernels
from aseqdip.case import Scoring
from aseqdip.engine import Engine
from aseqdip.operators import ct
from aseqdip.run import reconstruction

benchmark, emulation, gpu_check = (load_script(name) for name in ("benchmark", "emulation", "gpu_check"))
SETUP = gpu_check.Setup("cpu", tiny=True)
META = torch.device("meta")


class NotOnTheCPU(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if left := [tuple(t.shape) for t in emulation.dense((args, kwargs, result)) if t.device.type == "cpu"]:
            raise RuntimeError(f"{func}: a tensor of shape {left[0]} is on the CPU")
        return result


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """An engine on the meta device, for which some things of PyTorch are not made."""
    stand_ins: dict[Any, dict[str, Any]] = {
        engine: {"pick_device": lambda name: META},
        Engine: {
            "generator": lambda self, seed: None,
            "adam": lambda self, groups, rectified=False: torch.optim.SGD(groups),
        },
        reconstruction: {"fingerprint": lambda *tensors: ""},  # needs the numbers
        ct: {
            "_to_torch": lambda matrix, device: matrix.shape,
            "_torch_product": lambda shape, rows: rows.new_zeros(len(rows), shape[0]),
        },
        kernels: {"constants": {}},
        torch: {
            "is_autocast_enabled": lambda *device: False,
            "autocast": lambda *args, **options: contextlib.nullcontext(),
        },
    }
    with contextlib.ExitStack() as stack:
        for owner, names in stand_ins.items():
            stack.enter_context(mock.patch.multiple(owner, **names))
        yield


def steps(*words: str) -> None:
    cfg = SETUP.config(*words)
    run = benchmark.prepared(cfg, benchmark.load(cfg).to(META))
    run.flushed = float("inf")  # fetches rows
    for _ in range(2):  # make constants, which come from the host
        run.advance()
    with NotOnTheCPU():
        for _ in range(4):
            run.advance()


@pytest.mark.parametrize(
    "words",
    [
        ("task=mri", "stop=wmv", "ema=0.9", "input_update=data_consistent"),
        ("task=ct", "stop=emv", "score_every=3"),
        ("task=inpainting", "method=sgld_dip"),
        ("task=deblurring", "method=self_guided_dip"),
        ("task=denoising", "method=rethinking_dip", "network=s2s", "network.width=4", "network.depth=3"),
        ("task=denoising", "method=tv_dip", "perturb=0.03"),
    ],
    ids=" ".join,
)
def test_a_step_and_its_scores_are_where_the_image_is(elsewhere: None, words: tuple[str, ...]) -> None:
    steps(*words)


def test_what_is_left_behind_is_seen(elsewhere: None) -> None:
    stays = mock.patch.object(Scoring, "to", lambda self, device: self)
    with stays, pytest.raises(RuntimeError, match="on the CPU|on the expected device"):
        steps("task=denoising")
