"""What must hold on a CUDA device: the checks of scripts/gpu_check.py, one test each. Skipped where there is none."""

from collections.abc import Iterator

import pytest
import torch
from conftest import load_script

load_script("emulation")
gpu_check = load_script("gpu_check")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SETUP = gpu_check.Setup("cuda", tiny=False)


def checks() -> Iterator[tuple[str, tuple[str, ...]]]:
    for stage, (_, combined) in gpu_check.STAGES.items():
        for words in combined(SETUP):
            yield stage, words


@pytest.mark.parametrize(
    ("stage", "words"), checks(), ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_gpu(stage: str, words: tuple[str, ...]) -> None:
    check, _ = gpu_check.STAGES[stage]
    assert check(SETUP, *words)
