"""Parallel-beam CT against scikit-image, against its own adjoint, and on torch's sparse matrices."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators import ct
from aseqdip.operators.base import Map
from aseqdip.operators.ct import ParallelBeam

Array = NDArray[np.float64]

SIZES_AND_VIEWS = [(64, 1), (64, 30), (65, 7), (65, 18), (128, 7), (128, 30)]


def angles(views: int) -> Array:
    return np.linspace(0, 180, views, endpoint=False)


def phantom(size: int) -> Array:
    image: Array = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    return image


def smooth(size: int) -> Array:
    noise = np.random.default_rng(1).standard_normal((size, size))
    image: Array = gaussian_filter(noise, 2)
    return image


@cache
def sinogram_of(image: Callable[[int], Array], size: int, views: int) -> Array:
    sinogram: Array = radon(image(size), angles(views), circle=False)
    return sinogram


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(array: Array) -> Tensor:
    return torch.from_numpy(array).float()[None, None]


def relative(found: Tensor, expected: Array) -> float:
    return float(np.linalg.norm(found[0, 0].numpy() - expected) / np.linalg.norm(expected))


def dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


@pytest.fixture(params=["scipy", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both sparse products; that of other devices is forced onto the CPU."""
    if request.param == "torch":
        monkeypatch.setattr(ct, "_binning", torch_binning)
    return str(request.param)


def torch_binning(size: int, views: int, device: torch.device) -> tuple[Map, Map]:
    scatter, gather = (ct._to_torch(matrix, device) for matrix in ct._matrices(size, views))
    return partial(ct._torch_product, scatter), partial(ct._torch_product, gather)


@pytest.mark.parametrize(("size", "views"), SIZES_AND_VIEWS)
@pytest.mark.parametrize("image", [phantom, smooth])
def test_forward_agrees_with_skimage(image: Callable[[int], Array], size: int, views: int) -> None:
    operator = ParallelBeam(size=size, views=views, normalise=False)
    expected = sinogram_of(image, size, views)
    sinogram = operator(tensor(image(size)))
    assert sinogram.shape == (1, 1, *expected.shape)
    assert relative(sinogram, expected) < 0.01


@pytest.mark.parametrize(("size", "views"), SIZES_AND_VIEWS)
@pytest.mark.parametrize("image", [phantom, smooth])
def test_fbp_agrees_with_skimage(image: Callable[[int], Array], size: int, views: int) -> None:
    operator = ParallelBeam(size=size, views=views)
    sinogram = sinogram_of(image, size, views)
    expected = iradon(sinogram, angles(views), output_size=size, filter_name="ramp", circle=False)
    assert relative(operator.direct(operator.scale * tensor(sinogram)), expected) < 0.01


def test_axis_aligned_views_are_plain_sums() -> None:
    image = torch.rand(1, 1, 33, 33, generator=rng(0))
    sinogram = ParallelBeam(size=33, views=2, normalise=False)(image)[0, 0]
    first = 47 // 2 - 33 // 2
    torch.testing.assert_close(sinogram[first : first + 33, 0], image[0, 0].sum(0), rtol=1e-4, atol=1e-3)
    # at 90 degrees t = -Y: rows from the last to the first
    torch.testing.assert_close(sinogram[first : first + 33, 1], image[0, 0].sum(1).flip(0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "views"), [(1, 1), (2, 3), (33, 7), (64, 30), (65, 18), (96, 1)])
def test_adjointness(backend: str, size: int, views: int) -> None:
    operator = ParallelBeam(size=size, views=views)
    x = torch.randn(2, 1, size, size, generator=rng(2))
    y = torch.randn(2, 1, operator.detectors, views, generator=rng(3))
    scale = float(operator(x).norm() * y.norm())
    assert abs(dot(operator(x), y) - dot(x, operator.adjoint(y))) < 1e-5 * scale


def test_linearity(backend: str) -> None:
    operator = ParallelBeam(size=40, views=9)
    x, z = (torch.randn(1, 1, 40, 40, generator=rng(seed)) for seed in (4, 5))
    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * operator(x) - 3 * operator(z), rtol=1e-4, atol=1e-5)


def test_gradient_is_the_adjoint_of_the_residual(backend: str) -> None:
    operator = ParallelBeam(size=40, views=9)
    x = torch.randn(2, 1, 40, 40, generator=rng(6), requires_grad=True)
    y = torch.randn(2, 1, operator.detectors, 9, generator=rng(7))
    (operator(x) - y).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * operator.adjoint(operator(x) - y).detach(), rtol=1e-4, atol=1e-5)


def test_adjoint_and_second_derivative(backend: str) -> None:
    operator = ParallelBeam(size=20, views=6)
    x, v = (torch.randn(1, 1, 20, 20, generator=rng(seed)) for seed in (8, 9))
    y = operator(x).requires_grad_()
    (gradient,) = torch.autograd.grad(dot_tensor(operator.adjoint(y), v), y)
    torch.testing.assert_close(gradient, operator(v))
    # the Hessian of ||A x||^2 / 2 is A^T A
    x.requires_grad_()
    (first,) = torch.autograd.grad(operator(x).square().sum() / 2, x, create_graph=True)
    (second,) = torch.autograd.grad(dot_tensor(first, v), x)
    torch.testing.assert_close(second, operator.adjoint(operator(v)))


def dot_tensor(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def test_fbp_can_be_differentiated() -> None:
    operator = ParallelBeam(size=24, views=8)
    y, u = (torch.randn(1, 1, operator.detectors, 8, generator=rng(seed)) for seed in (10, 11))
    v = torch.randn(1, 1, 24, 24, generator=rng(12))
    (gradient,) = torch.autograd.grad(dot_tensor(operator.direct(y.requires_grad_()), v), y)
    assert dot(gradient, u) == pytest.approx(dot(v, operator.direct(u)), rel=1e-4)


@pytest.mark.parametrize(("size", "views"), [(16, 1), (16, 12)])
def test_norm_is_one_after_normalisation(size: int, views: int) -> None:
    operator = ParallelBeam(size=size, views=views)
    plain = ParallelBeam(size=size, views=views, normalise=False)
    assert operator.scale == 1 / operator.radon_norm
    assert plain.scale == 1
    assert operator.norm((1, 1, size, size)) == pytest.approx(1, rel=0.01)
    basis = torch.eye(size**2).reshape(-1, 1, size, size)
    largest = float(torch.linalg.matrix_norm(plain(basis).flatten(1), ord=2))
    assert plain.radon_norm == pytest.approx(largest, rel=0.01)


def test_both_backends_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 1, 48, 48, generator=rng(13))
    operator = ParallelBeam(size=48, views=10)
    y = operator(x)
    expected = y, operator.adjoint(y), operator.direct(y)
    monkeypatch.setattr(ct, "_binning", torch_binning)
    operator = ParallelBeam(size=48, views=10)
    for found, wanted in zip((operator(x), operator.adjoint(y), operator.direct(y)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_batch_is_image_by_image(backend: str) -> None:
    operator = ParallelBeam(size=30, views=5)
    x = torch.randn(3, 1, 30, 30, generator=rng(14))
    y = operator(x)
    for method, batch in ((operator, x), (operator.adjoint, y), (operator.direct, y)):
        torch.testing.assert_close(method(batch), torch.cat([method(one[None]) for one in batch]))


def test_autocast_leaves_fp32_alone(backend: str) -> None:
    operator = ParallelBeam(size=30, views=5)
    x = torch.randn(1, 1, 30, 30, generator=rng(15))
    expected = operator.adjoint(operator(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = operator.adjoint(operator(x))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("size", "views", "message"), [(8, 0, "views >= 1, found views=0"), (0, 8, "size >= 1")])
def test_empty_geometry_is_refused(size: int, views: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ParallelBeam(size=size, views=views)


def test_angles_are_as_many_as_views_and_radians() -> None:
    with pytest.raises(UserError, match="30 views and 20 angles"):
        ParallelBeam(size=16, views=30, angles=[0.1] * 20)
    with pytest.raises(UserError, match="in radians, within a turn; found 174: numpy.deg2rad"):
        ParallelBeam(size=16, views=30, angles=[6.0 * i for i in range(30)])


@pytest.mark.parametrize("turn", [1.0, 2.0, 0.5, 0.1])
def test_corrections_let_no_error_grow_wherever_the_views_are(turn: float) -> None:
    """In 18 degrees as over a turn; evenly over the half-turn it is completion by zeros."""
    angles = turn * np.pi * np.arange(60) / 60
    operator = ParallelBeam(size=32, views=60, angles=angles.tolist())
    error = first = torch.randn(1, 1, 32, 32, generator=rng(0))
    for _ in range(20):
        error = error - operator.correction(operator(error))
    assert error.norm() < first.norm()
    if turn == 1:
        y = operator(first)
        torch.testing.assert_close(operator.correction(y), operator.direct(y) / 3)


@pytest.mark.parametrize("shape", [(1, 1, 16, 17), (1, 2, 16, 16), (16, 16)])
def test_wrong_image_is_refused(shape: tuple[int, ...]) -> None:
    message = rf"image of shape \(batch, 1, 16, 16\), found \({', '.join(map(str, shape))}\)"
    with pytest.raises(UserError, match=message):
        ParallelBeam(size=16, views=4)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 4, 23), (1, 1, 23, 5), (23, 4)])
def test_wrong_sinogram_is_refused(shape: tuple[int, ...]) -> None:
    operator = ParallelBeam(size=16, views=4)
    message = rf"sinogram of shape \(batch, 1, 23, 4\), found \({', '.join(map(str, shape))}\)"
    for method in (operator.adjoint, operator.direct):
        with pytest.raises(UserError, match=message):
            method(torch.zeros(shape))
