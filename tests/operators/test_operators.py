"""Every operator: adjointness, linearity, gradient; then what is particular to each."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator
from aseqdip.operators.blur import CameraBlur, MotionBlur, trajectory_kernel
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.espirit import _corner
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask, center_hole, random_hole
from aseqdip.operators.mri import (
    MultiCoilMRI,
    cartesian_mask,
    center_width,
    centre_side,
    fft2c,
    ifft2c,
    to_channels,
    to_complex,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(coils: int, height: int, width: int) -> Tensor:
    raw = torch.view_as_complex(torch.randn(coils, height, width, 2, generator=rng(1)))
    return raw / (raw.abs() ** 2).sum(0).sqrt()


def columns(width: int) -> Tensor:
    return torch.rand(width, generator=rng(2)) < 0.4


def mri(height: int, width: int) -> Operator:
    return MultiCoilMRI(maps(5, height, width), columns(width))


OPERATORS: dict[str, tuple[Callable[[], Operator], tuple[int, ...]]] = {
    "mri": (lambda: mri(32, 24), (2, 2, 32, 24)),
    "mri, odd sides": (lambda: mri(31, 25), (1, 2, 31, 25)),
    "ct": (lambda: ParallelBeam(size=48, views=18), (1, 1, 48, 48)),
    "ct, odd side": (lambda: ParallelBeam(size=33, views=7), (1, 1, 33, 33)),
    "identity": (Identity, (1, 3, 20, 30)),
    "hole": (lambda: Mask(center_hole(20, 30, 0.1)), (1, 3, 20, 30)),
    "random hole": (lambda: Mask(random_hole(20, 30, 0.97, rng())), (2, 3, 20, 30)),
    "motion": (lambda: MotionBlur(trajectory_kernel(9, rng())), (2, 3, 20, 31)),
}


@pytest.fixture(params=list(OPERATORS))
def operator_and_shape(request: pytest.FixtureRequest) -> tuple[Operator, tuple[int, ...]]:
    make, shape = OPERATORS[request.param]
    return make(), shape


def inner(a: Tensor, b: Tensor) -> float:
    """Re<a, b> in double precision."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    return float((a.to(wide).conj() * b.to(wide)).sum().real)


def random_like(y: Tensor, seed: int) -> Tensor:
    return torch.randn(y.shape, generator=rng(seed), dtype=y.dtype)


def test_adjointness(operator_and_shape: tuple[Operator, tuple[int, ...]]) -> None:
    operator, shape = operator_and_shape
    x = torch.randn(shape, generator=rng(3))
    y = random_like(operator(x), 4)
    left, right = inner(operator(x), y), inner(x, operator.adjoint(y))
    assert abs(left - right) < 1e-5 * float(operator(x).norm() * y.norm())


def test_linearity(operator_and_shape: tuple[Operator, tuple[int, ...]]) -> None:
    operator, shape = operator_and_shape
    x, z = torch.randn(shape, generator=rng(3)), torch.randn(shape, generator=rng(4))
    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * operator(x) - 3 * operator(z), rtol=1e-4, atol=1e-5)


def test_gradient_is_the_adjoint_of_the_residual(
    operator_and_shape: tuple[Operator, tuple[int, ...]],
) -> None:
    operator, shape = operator_and_shape
    x = torch.randn(shape, generator=rng(3), requires_grad=True)
    y = random_like(operator(x).detach(), 4)
    (operator(x) - y).abs().square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * operator.adjoint(operator(x) - y).detach(), rtol=1e-4, atol=1e-4)


def test_norm_is_the_largest_singular_value() -> None:
    operator = mri(6, 8)
    basis = torch.eye(96).reshape(96, 2, 6, 8)
    matrix = torch.view_as_real(operator(basis)).reshape(96, -1)
    exact = float(torch.linalg.matrix_norm(matrix, ord=2))
    assert operator.norm((1, 2, 6, 8), iterations=200) == pytest.approx(exact, rel=1e-3)
    assert exact <= 1 + 1e-5, "unit maps and an orthonormal FFT cannot amplify"


def test_adjoint_can_be_differentiated_too() -> None:
    operator = mri(12, 10)
    y = random_like(operator(torch.zeros(1, 2, 12, 10)), 5).requires_grad_()
    target = torch.randn(1, 2, 12, 10, generator=rng(6))
    (operator.adjoint(y) * target).sum().backward()
    torch.testing.assert_close(y.grad, operator(target))


@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_mri_is_mask_fourier_sensitivity(shape: tuple[int, int]) -> None:
    s, mask = maps(3, *shape), columns(shape[1])
    x = torch.randn(1, 2, *shape, generator=rng(7))
    expected = fft2c(s * to_complex(x))[..., mask]
    torch.testing.assert_close(MultiCoilMRI(s, mask)(x), expected, rtol=1e-4, atol=1e-5)


def test_ffts_agree_with_fastmri() -> None:
    fastmri = pytest.importorskip("fastmri")
    x = torch.randn(3, 15, 16, 2, generator=rng(8))
    torch.testing.assert_close(torch.view_as_real(fft2c(torch.view_as_complex(x))), fastmri.fft2c(x))
    torch.testing.assert_close(torch.view_as_real(ifft2c(torch.view_as_complex(x))), fastmri.ifft2c(x))


@pytest.mark.parametrize("kind", ["random", "equispaced"])
@pytest.mark.parametrize(
    ("width", "accel", "fraction"), [(320, 4, 0.08), (320, 8, 0.04), (368, 4, 0.08), (64, 4, 0.08)]
)
def test_masks_agree_with_fastmri(kind: str, width: int, accel: int, fraction: float) -> None:
    subsample = pytest.importorskip("fastmri.data.subsample")
    cls = {"random": subsample.RandomMaskFunc, "equispaced": subsample.EquispacedMaskFractionFunc}[kind]
    theirs = cls([fraction], [accel])
    theirs.rng = np.random.RandomState(5)
    low = round(width * fraction)
    centre = np.zeros(width, dtype=bool)
    centre[(width - low + 1) // 2 :][:low] = True
    expected = centre | theirs.calculate_acceleration_mask(width, accel, None, low).astype(bool)
    ours = cartesian_mask(kind, width, accel, fraction, np.random.RandomState(5))
    assert (ours.numpy() == expected).all()


@pytest.mark.parametrize("kind", ["random", "equispaced", "variable_density"])
def test_masks_reach_the_acceleration(kind: str) -> None:
    counts = [int(cartesian_mask(kind, 320, 4, 0.08, np.random.RandomState(s)).sum()) for s in range(200)]
    assert np.mean(counts) == pytest.approx(80, rel=0.03)
    assert kind != "variable_density" or set(counts) == {80}


def test_a_mask_of_the_centre_alone() -> None:
    for kind in ("random", "equispaced", "variable_density"):
        mask = cartesian_mask(kind, 400, 4, 0.25, np.random.RandomState(0))
        assert mask.nonzero().flatten().tolist() == list(range(150, 250))


def test_variable_density_falls_with_the_square_of_the_distance_from_the_border() -> None:
    seeds = range(400)
    masks = [cartesian_mask("variable_density", 320, 8, 0.01, np.random.RandomState(s)) for s in seeds]
    share = torch.stack(masks).float().mean(0)
    # outside a centre of 3 columns: at 5/8 of the way from border to centre, and at 3/8
    near, far = (float(share[a:b].mean()) for a, b in ((90, 110), (50, 70)))
    assert near / far == pytest.approx((100 / 60) ** 2, rel=0.2)


@pytest.mark.parametrize("side", [24, 25])
@pytest.mark.parametrize("block", [4, 5])
def test_the_fully_sampled_centre_is_found_where_masks_put_it(side: int, block: int) -> None:
    columns = cartesian_mask("random", side, side / block, block / side, np.random.RandomState(0))
    assert int(columns.sum()) == center_width(columns) == block
    for earlier in (0, 1):  # where ESPIRiT takes its block, as those masks do; or one point before that
        points, top = torch.zeros(side, side + 2, dtype=torch.bool), (side - block + 1) // 2 - earlier
        points[top : top + block, top + 1 : top + 1 + block] = True
        found = centre_side(points)
        corner = _corner(points.shape, (found, found))
        assert points[corner[0] :, corner[1] :][:found, :found].all() and block - earlier * 2 <= found <= block
        assert earlier or found == block


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("points", [False, True])
def test_a_sampling_mask_may_be_of_numbers(kind: torch.dtype, points: bool) -> None:
    mask = columns(24)[None].repeat(32, 1) if points else columns(24)
    x = torch.randn(1, 2, 32, 24, generator=rng(7))
    A, same = (MultiCoilMRI(maps(3, 32, 24), m) for m in (mask, mask.to(kind)))
    assert torch.equal(same(x), A(x))
    assert torch.equal(same.adjoint(A(x)), A.adjoint(A(x)))


def test_mask_and_kspace_must_agree() -> None:
    with pytest.raises(UserError, match="mask has 5 columns, the k-space has 8"):
        MultiCoilMRI(maps(2, 8, 8), torch.ones(5, dtype=torch.bool))
    with pytest.raises(UserError, match="samples no column"):
        MultiCoilMRI(maps(2, 8, 8), torch.zeros(8, dtype=torch.bool))
    with pytest.raises(UserError, match="lower center_fraction or accel"):
        cartesian_mask("random", 320, 4, 0.5, np.random.RandomState(0))


@pytest.mark.parametrize(("hiar", "side"), [(0.1, 162), (0.25, 256)])
def test_hole_has_the_papers_size(hiar: float, side: int) -> None:
    mask = center_hole(512, 512, hiar)
    rows = (mask[0, 0] == 0).any(1).nonzero().squeeze()
    assert len(rows) == side
    assert int(rows[0]) == 512 - 1 - int(rows[-1]), "central"
    assert 1 - float(mask.mean()) == pytest.approx(hiar, abs=2e-3)


def test_random_hole_keeps_three_percent() -> None:
    assert float(random_hole(100, 100, 0.97, rng()).sum()) == 300


def test_kernel_is_a_centred_blur() -> None:
    kernel = trajectory_kernel(31, rng())
    assert kernel.shape == (31, 31)
    assert float(kernel.sum()) == pytest.approx(1)
    assert float(kernel.min()) >= 0
    assert int((kernel > 0).sum()) > 31, "a trajectory, not a point"
    spans = [int(kernel.any(axis).nonzero().max() - kernel.any(axis).nonzero().min()) for axis in (0, 1)]
    assert max(spans) in (20, 21), "two thirds of its side"


def test_motion_blur_is_a_convolution() -> None:
    kernel = trajectory_kernel(7, rng())
    x = torch.randn(1, 2, 16, 17, generator=rng(9))
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3), mode="reflect")
    flipped = kernel.flip(0, 1)[None, None].expand(2, 1, 7, 7)
    expected = torch.nn.functional.conv2d(padded, flipped, groups=2)
    torch.testing.assert_close(MotionBlur(kernel)(x), expected, rtol=1e-4, atol=1e-5)


def test_camera_blur_follows_its_formula_and_has_finite_gradients() -> None:
    kernel = trajectory_kernel(7, rng())
    operator = CameraBlur(kernel, 2.2)
    x = torch.rand(1, 3, 20, 20, generator=rng(10))
    torch.testing.assert_close(operator(x), MotionBlur(kernel)(x**2.2) ** (1 / 2.2))
    dark = torch.full((1, 1, 20, 20), 0.006)
    torch.testing.assert_close(operator(dark), dark, rtol=1e-3, atol=0)  # exact down to the toe
    torch.testing.assert_close(operator(-x), -operator(x))
    darker = torch.linspace(0, 0.006, 50)[:, None, None, None].expand(50, 1, 20, 20)
    assert float((operator(darker) - darker).abs().max()) < 0.002, "a chord of the root below it"
    black = torch.zeros(1, 1, 20, 20, requires_grad=True)
    (operator(black) - 0.5).square().sum().backward()
    assert black.grad is not None
    assert bool(torch.isfinite(black.grad).all())
    with pytest.raises(UserError, match="not linear"):
        operator.adjoint(x)


def test_camera_blur_gradient_agrees_with_finite_differences() -> None:
    operator = CameraBlur(trajectory_kernel(5, rng()).double(), 2.2)
    x = torch.rand(1, 1, 8, 8, generator=rng(11), dtype=torch.float64) * 0.8 + 0.1
    assert torch.autograd.gradcheck(operator, x.requires_grad_())


def test_a_kernel_of_one_pixel_is_no_blur() -> None:
    x, A = torch.rand(1, 1, 6, 7, generator=rng(10)), MotionBlur(torch.ones(1, 1))
    torch.testing.assert_close(A(x), x)
    torch.testing.assert_close(A.adjoint(x), x)


def test_a_kernel_that_makes_images_brighter_is_refused() -> None:
    with pytest.raises(UserError, match="must have the sum 1; found 25: divide"):
        MotionBlur(torch.ones(5, 5))


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 3, 8, 8)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"must be \(1, 1, height, width\), the same for all channels; found \("):
        Mask(torch.ones(shape))


def test_small_image_for_a_large_kernel() -> None:
    with pytest.raises(UserError, match="lower kernel_size"):
        MotionBlur(trajectory_kernel(31, rng()))(torch.zeros(1, 1, 12, 12))


def test_channels_round_trip() -> None:
    x = torch.randn(2, 2, 4, 5, generator=rng(12))
    assert torch.equal(to_channels(to_complex(x)), x)


@pytest.mark.parametrize("known", [True, 1, 255])
def test_an_in_painting_mask_says_what_is_known_in_any_number(known: float) -> None:
    hole = center_hole(20, 30, 0.1)
    image = torch.rand(1, 3, 20, 30, generator=rng())
    assert torch.equal(Mask(hole * known)(image), Mask(hole)(image))
    weights = hole.clone()
    weights[..., 0] = 0.5
    for found, said in ((weights, "holds 0.5, 1 besides 0"), (hole * 0.5, "holds 0.5 besides 0")):
        with pytest.raises(UserError, match=said):
            Mask(found)


def test_operators_take_arrays_of_numpy_s_precision() -> None:
    kernel = np.full((3, 3), 1 / 9)
    image = torch.rand(1, 1, 20, 30, generator=rng())
    assert torch.equal(MotionBlur(kernel)(image), MotionBlur(torch.tensor(kernel).float())(image))
    A = MultiCoilMRI(np.full((2, 20, 30), 0.5**0.5), np.arange(30) % 2 == 0)
    kspace = np.ones((1, 2, 20, 30), complex)
    assert A.sample(kspace).shape == A(torch.zeros(1, 2, 20, 30)).shape
    assert A.sample(torch.ones(1, 2, 20, 30, dtype=torch.complex64, requires_grad=True)).requires_grad
    assert torch.equal(MultiCoilMRI(A.maps[None], A.mask).maps, A.maps)
    with pytest.raises(UserError, match=r"Coil maps are \(coils, height, width\); found \(20, 30\)"):
        MultiCoilMRI(np.ones((20, 30)), np.arange(30) % 2 == 0)
