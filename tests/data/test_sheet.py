"""The generated anatomies: ranges, determinism, and the same anatomy at every size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from aseqdip.data.body import body
from aseqdip.data.brain import brain
from aseqdip.errors import UserError

both = pytest.mark.parametrize("phantom", [brain, body])


def _hu(image: Tensor) -> Tensor:
    return image * 3024 - 1024


@pytest.mark.parametrize(("size", "index"), [(48, 0), (97, 1), (48, 2)])
def test_brain_is_a_normalised_complex_image_on_a_black_background(size: int, index: int) -> None:
    image = brain(size, index)
    assert image.shape == (size, size) and image.dtype == torch.complex64
    assert float(image.abs().max()) == pytest.approx(1, abs=1e-6)
    assert float(image.abs().min()) == 0
    border = torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
    assert float(border.abs().max()) == 0
    head = image.abs() > 0.02
    assert 0.3 < float(head.float().mean()) < 0.8
    phase = image.angle()[head]
    assert float(phase.abs().max()) <= np.pi / 2 + 0.02
    assert float(phase.max() - phase.min()) > 0.8 * np.pi


def test_brain_contrast_alternates_between_t1_and_t2() -> None:
    """Where the ventricles are, an even index is darker than its surroundings and an odd one brighter."""
    t1, t2 = brain(96, 0).abs(), brain(96, 1).abs()
    box = (slice(30, 70), slice(36, 60))
    assert float(t1[box].quantile(0.02)) < 0.5 * float(t1[box].median())
    assert float(t2[box].quantile(0.98)) > 1.5 * float(t2[box].median())


@pytest.mark.parametrize(("size", "index"), [(48, 0), (97, 1), (48, 2)])
def test_body_holds_air_lung_soft_tissue_and_bone(size: int, index: int) -> None:
    image = body(size, index)
    assert image.shape == (size, size) and image.dtype == torch.float32
    assert float(image.min()) >= 0 and float(image.max()) <= 1
    hu = _hu(image)
    assert float(hu[:4, :4].mean()) == pytest.approx(-1000, abs=0.1)
    for low, high, least in ((-900, -750, 0.04), (0, 130, 0.05), (-140, -60, 0.02), (180, 750, 0.004)):
        assert float(((hu > low) & (hu < high)).float().mean()) > least, f"too little between {low} and {high} HU"


@both
def test_an_index_is_one_image_and_another_index_another(phantom: Callable[[int, int], Tensor]) -> None:
    images = [phantom(64, index) for index in (0, 1, 2, 0)]
    assert torch.equal(images[0], images[3])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert float((images[a] - images[b]).abs().mean()) > 0.01


@both
@pytest.mark.parametrize("index", [0, 1])
def test_the_anatomy_is_the_same_at_every_size(phantom: Callable[[int, int], Tensor], index: int) -> None:
    large, small = phantom(320, index), phantom(80, index)
    averaged = large.reshape(80, 4, 80, 4).mean(dim=(1, 3))
    pair = torch.stack([averaged.abs().flatten(), small.abs().flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.95


@both
def test_the_global_random_state_is_left_alone(phantom: Callable[[int, int], Tensor]) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    phantom(48, 0)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)  # noqa: NPY002


@both
@pytest.mark.parametrize(("size", "index"), [(4, 0), (64, -1)])
def test_impossible_requests_are_refused(phantom: Callable[[int, int], Tensor], size: int, index: int) -> None:
    with pytest.raises(UserError, match=f"found size {size}, index {index}"):
        phantom(size, index)
