"""ESPIRiT against known maps on the brain phantom, and on two measured scans where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aseqdip.data.brain import brain
from aseqdip.errors import UserError
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.espirit import _corner, espirit
from aseqdip.operators.mri import centre_side

DATA = Path(os.environ.get("ASEQDIP_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def _centred(transform: Callable[..., Tensor], x: Tensor) -> Tensor:
    shifted = transform(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho")
    result: Tensor = torch.fft.fftshift(shifted, dim=(-2, -1))
    return result


def _residual(kspace: Tensor, maps: Tensor) -> float:
    """``||(I - S S^H) x|| / ||x||`` of the coil images x."""
    images = _centred(torch.fft.ifft2, kspace)
    return float((images - maps * (maps.conj() * images).sum(0)).norm() / images.norm())


def _scan(coils: int, size: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    """A phantom, its maps and its k-space."""
    image, maps = brain(size), simulated_coils(coils, (size, size), torch.Generator().manual_seed(5))
    return image, maps, _centred(torch.fft.fft2, maps * image)


@pytest.mark.parametrize("coils", [2, 8])
def test_known_maps_are_recovered_up_to_a_phase(coils: int) -> None:
    image, truth, kspace = _scan(coils)
    maps = espirit(kspace)
    assert maps.dtype == torch.complex64
    torch.testing.assert_close((maps.abs() ** 2).sum(0), torch.ones(96, 96), atol=1e-5, rtol=0)
    assert _residual(kspace, maps) < 0.02
    common = (maps.conj() * truth).sum(0)
    error = (maps * common / common.abs() - truth).norm(dim=0)[image.abs() > 0.05]
    assert float(error.square().mean().sqrt()) < 0.02
    assert float(error.quantile(0.99)) < 0.05


def test_the_free_phase_follows_the_first_principal_component() -> None:
    _, _, kspace = _scan(8)
    maps = espirit(kspace)
    block = kspace[:, 36:60, 36:60].flatten(1)
    principal = torch.linalg.eigh(block @ block.mH)[1][:, -1]
    projection = (principal.conj()[:, None, None] * maps).sum(0)
    assert float(projection.imag.abs().max()) < 1e-4 and float(projection.real.min()) > -1e-4


def test_one_coil_has_a_map_of_one() -> None:
    _, _, kspace = _scan(1, 48)
    torch.testing.assert_close(espirit(kspace), torch.ones(1, 48, 48, dtype=torch.complex64))


def test_only_the_central_block_matters() -> None:
    """Zeroed lines outside the calibration region change nothing, wherever the size puts the centre."""
    scan = _scan(3, 48)[2]
    for height, width in ((40, 40), (39, 41), (40, 39)):
        full = scan[:, 4 : 4 + height, 4 : 4 + width]
        centre = torch.zeros_like(full)
        top, left = (height - 20 + 1) // 2, (width - 14 + 1) // 2
        centre[:, top : top + 20, left : left + 14] = full[:, top : top + 20, left : left + 14]
        torch.testing.assert_close(espirit(centre, calibration=(20, 14)), espirit(full, calibration=(20, 14)))


def test_power_iteration_agrees_with_more_of_it() -> None:
    image, _, kspace = _scan(4, 64)
    few, many = espirit(kspace), espirit(kspace, iterations=200)
    assert float((few - many).norm(dim=0)[image.abs() > 0.05].max()) < 0.01


def test_crop_removes_pixels_without_signal_and_nothing_else() -> None:
    image, _, kspace = _scan(8)
    noise = torch.randn(kspace.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    power = (espirit(kspace + 1e-3 * noise, crop=0.9).abs() ** 2).sum(0)
    kept = power > 0.5
    torch.testing.assert_close(power, kept.float(), atol=1e-5, rtol=0)
    assert float(kept[image.abs() > 0.1].float().mean()) > 0.98
    assert float(kept[image.abs() == 0].float().mean()) < 0.8


def _broken(kind: str) -> Tensor:
    kspace = _scan(2, 32)[2]
    if kind == "nan":
        kspace[0, 0, 0] = float("nan")
    return {"rank": kspace[0], "real": kspace.real, "zero": torch.zeros_like(kspace)}.get(kind, kspace)


@pytest.mark.parametrize(
    ("kind", "calibration", "message"),
    [
        ("rank", 24, r"shape \(coils, height, width\).*shape \(32, 32\)"),
        ("real", 24, "complex k-space.*float32"),
        ("nan", 24, "NaN"),
        ("zero", 24, "all 0"),
        ("small", 4, r"4 x 4, smaller than the 6 x 6 kernel"),
        ("narrow", (24, 5), r"24 x 5, smaller"),
    ],
)
def test_unusable_input_is_refused(kind: str, calibration: int | tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        espirit(_broken(kind), calibration=calibration)


# a single set of maps leaves 0.4 % and 1.2 % of the energy of these scans: their noise, mostly
@pytest.mark.parametrize(
    ("name", "energy"), [("brain_mprage_loraks_4ch.h5", 0.006), ("brain_t1_espirit_8ch.h5", 0.015)]
)
def test_measured_scans_are_explained_by_one_set_of_maps(name: str, energy: float) -> None:
    file = DATA / "mri" / "kspace" / name
    if not file.exists():
        pytest.skip(f"no measured scan at {file}: set ASEQDIP_TEST_DATA to the folder that holds mri/kspace")
    h5py = pytest.importorskip("h5py")
    with h5py.File(file) as opened:
        kspace = torch.from_numpy(opened["kspace"][0])
    maps = espirit(kspace)
    assert _residual(kspace, maps) ** 2 < energy
    assert _residual(kspace, torch.roll(maps, 1, dims=0)) ** 2 > 0.1  # the figure can fail: wrong coil order


@pytest.mark.parametrize("shape", [(64, 64), (65, 65), (65, 64)])
@pytest.mark.parametrize("side", [12, 13])
def test_the_calibration_block_is_what_is_fully_sampled(shape: tuple[int, int], side: int) -> None:
    top, left = _corner(shape, (side, side))
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    assert centre_side(mask) == side
