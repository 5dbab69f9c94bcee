"""Pictures of one reconstruction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aseqdip import figures


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("channels", "grey"), [(1, 191), (3, 64)])
def test_one_bright_spot_does_not_darken_a_scan(tmp_path: Path, channels: int, grey: int) -> None:
    """A knee of 0.4 and 0.3 with a spot of 1.2 below a coil; a picture's brightest spot is its white."""
    image = torch.full((1, channels, 64, 64), 0.3)
    image[..., 32:, :], image[..., :5, :5] = 0.4, 1.2
    figures.preview(tmp_path / "preview.png", image, image, image, {}, "title", "start", "last")
    with Image.open(tmp_path / "preview.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    values, counts = np.unique(pixels[(pixels > 5) & (pixels < 250)], return_counts=True)
    assert any(abs(int(value) - grey) <= 1 for value in values[np.argsort(-counts)[:2]])
