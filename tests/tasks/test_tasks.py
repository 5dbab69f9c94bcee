"""Tasks: measurements, start image, scoring window and data range, for each of the five."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from cases import Configure, case_of, iterates, sampled
from PIL import Image

from aseqdip.config import make_task
from aseqdip.data import open_dataset
from aseqdip.data.base import Sample, center_crop
from aseqdip.errors import UserError
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.espirit import espirit
from aseqdip.operators.mri import cartesian_mask, fft2c, ifft2c, to_complex
from aseqdip.problem import generator
from aseqdip.tasks._pictures import resized


def test_mri_is_scaled_by_its_own_zero_filled_image(configure: Configure) -> None:
    case = case_of(configure("size=96"))
    magnitude = to_complex(case.problem.z0).abs()
    assert float(torch.quantile(magnitude.flatten(), 0.999)) == pytest.approx(1, rel=1e-4)
    assert case.problem.z0.shape == (1, 2, 96, 96)
    assert case.scoring.data_range == pytest.approx(float(case.scoring.truth.max()))
    assert case.facts["coils"] == 15


def test_mri_truth_fits_its_measurements(configure: Configure) -> None:
    cfg = configure("size=64", "accel=2")
    _, sample, case = sampled(cfg)
    truth = torch.cat((sample.image.real, sample.image.imag))[None] * case.facts["scale"]
    residual = case.problem.operator(truth) - case.problem.y
    assert float(residual.norm() / case.problem.y.norm()) < 1e-5


def test_mri_noise_is_relative_to_the_peak(configure: Configure) -> None:
    clean, noisy = case_of(configure("size=96")), case_of(configure("size=96", "noise=0.05"))
    difference = noisy.problem.y / noisy.facts["scale"] - clean.problem.y / clean.facts["scale"]
    image = next(iter(open_dataset(configure("size=96")).values()))().image
    peak = float((simulated_coils(15, (96, 96), generator(0, "brain00", "coils")) * image).abs().max())
    assert float(difference.abs().square().mean().sqrt()) == pytest.approx(0.05 * peak, rel=0.03)
    assert noisy.problem.noise_std == pytest.approx(0.05 * peak * noisy.facts["scale"] / 2**0.5, rel=1e-4)
    assert clean.problem.noise_std == 0


@pytest.mark.parametrize(("accel", "fraction"), [(4, 0.08), (8, 0.04)])
def test_the_sampled_centre_is_smaller_at_higher_acceleration(
    configure: Configure, accel: int, fraction: float
) -> None:
    mask = case_of(configure(f"accel={accel}", "size=96")).problem.operator.mask
    rng = np.random.RandomState(generator(0, "brain00", "mask").initial_seed() % 2**32)
    assert torch.equal(mask, cartesian_mask("random", 96, accel, fraction, rng))


def write_scan(path: Path, size: int = 48, **extra: np.ndarray) -> np.ndarray:
    """A simulated fastMRI-format file, 6 coils; returns its k-space."""
    from aseqdip.data.brain import brain

    maps = simulated_coils(6, (size, size), generator("scan"))
    kspace = fft2c(maps * brain(size))[None].numpy()
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        for name, value in extra.items():
            file[name] = value
    return kspace


def test_one_mask_for_all_slices_of_a_scan(configure: Configure, tmp_path: Path) -> None:
    kspace = write_scan(tmp_path / "b.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.concatenate([kspace] * 3)
    masks = {}
    for which in ("all", "middle"):
        cfg = configure("dataset=kspace", f"data_root={tmp_path}", f"dataset.slice={which}")
        for name, read in open_dataset(cfg).items():
            masks[which, name] = make_task(cfg).make(name, read()).problem.operator.mask.tolist()
    whole = masks.pop(("middle", "a"))
    assert [name for (_, name), mask in masks.items() if mask == whole] == ["a_s000", "a_s001", "a_s002"]


def test_noise_added_to_a_scan_is_told_with_the_scan_s_own(configure: Configure, tmp_path: Path) -> None:
    clean = write_scan(tmp_path / "a.h5", 160)
    peak = float(ifft2c(torch.from_numpy(clean)).abs().max())
    drawn = torch.randn(clean.shape, generator=generator("own"), dtype=torch.complex64).numpy()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = clean + np.float32(0.04 * peak) * drawn
    for added, whole in ((0.001, 0.04), (0.04, 0.04 * 2**0.5)):
        case = case_of(configure("dataset=kspace", f"data_root={tmp_path}", f"noise={added}"))
        expected = whole * peak / 2**0.5 * case.facts["scale"]  # of one component
        assert case.problem.noise_std == pytest.approx(expected, rel=0.15), "texture and a noisy peak raise it"


@pytest.mark.parametrize("size", [64, 32])
def test_kspace_is_cropped_in_image_space(configure: Configure, tmp_path: Path, size: int) -> None:
    write_scan(tmp_path / "a.h5", 80)
    case = case_of(configure("dataset=kspace", f"data_root={tmp_path}", f"size={size}"))
    assert case.problem.z0.shape == (1, 2, size, size)
    assert case.facts["maps"] == "espirit"
    assert case.problem.noise_std is None, "a scan has noise of its own"
    more = case_of(configure("dataset=kspace", f"data_root={tmp_path}", f"size={size}", "noise=0.01"))
    assert more.problem.noise_std and not torch.equal(more.problem.y, case.problem.y)
    from aseqdip.data.brain import brain

    expected = center_crop(brain(80).abs(), size, size)
    error = case.scoring.truth[0, 0] / case.facts["scale"] - expected
    assert float(error.norm() / expected.norm()) < 0.05
    A, y = case.problem.operator, case.problem.y
    assert float((A(case.truth) - y).norm() / y.norm()) < 0.01, "objects that a crop cuts through do not spoil the maps"


def test_espirit_maps_are_cached(configure: Configure, tmp_path: Path) -> None:
    write_scan(tmp_path / "a.h5")
    cfg = configure("dataset=kspace", f"data_root={tmp_path}")
    first = case_of(cfg)
    (cached,) = (Path(cfg.outputs) / "cache").iterdir()
    before = cached.stat().st_mtime_ns
    again = case_of(cfg)
    assert cached.stat().st_mtime_ns == before
    assert torch.equal(first.problem.z0, again.problem.z0)
    changed = configure("dataset=kspace", f"data_root={tmp_path}", "calibration=16")
    case_of(changed)
    assert len(list(cached.parent.iterdir())) == 2


def test_prospective_scan_has_no_truth(configure: Configure, tmp_path: Path) -> None:
    mask = np.arange(48) % 3 == 0
    mask[16:32] = True
    write_scan(tmp_path / "a.h5", mask=mask)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["kspace"][...] = measured = np.where(mask, file["kspace"], 0)
    case = case_of(configure("dataset=kspace", f"data_root={tmp_path}", "noise=0.02", "size=32"))
    assert case.scoring is None
    assert case.facts["sampled_columns"] == mask.sum()
    assert case.facts["prospective"] is True
    assert case.problem.z0.shape == (1, 2, 32, 48), "its columns have gaps: only the readout is cropped"
    kspace = torch.from_numpy(measured[0])
    maps = espirit(kspace, calibration=(24, 16))[:, 8:40]
    assert torch.allclose(case.problem.operator.maps, maps, atol=1e-5), "of columns without a gap, then cropped"
    peak = float(ifft2c(kspace)[:, 8:40].abs().max())
    assert case.problem.noise_std == pytest.approx(0.02 * peak * case.facts["scale"] / 2**0.5, rel=1e-4)


def test_stored_maps_are_normalised(configure: Configure, tmp_path: Path) -> None:
    maps = 3 * simulated_coils(6, (48, 48), generator("scan")).numpy()
    maps[:, :5] = 0
    write_scan(tmp_path / "a.h5", sens_maps=maps[None])
    case = case_of(configure("dataset=kspace", f"data_root={tmp_path}"))
    assert case.facts["maps"] == "stored"
    read = sampled(configure("dataset=kspace", f"data_root={tmp_path}", "calibration=12"))[1]
    assert "calibration has no effect" in read.notes[-1]
    assert case.facts["operator_norm"] <= 1 + 1e-4
    assert not case.show(torch.ones(1, 2, 48, 48))[..., :5, :].any(), "scored on the support of the maps"


def test_ct_operator_has_unit_norm_and_a_clipped_start(configure: Configure) -> None:
    case = case_of(configure("task=ct", "size=64"))
    assert case.problem.operator.norm((1, 1, 64, 64)) == pytest.approx(1, abs=0.01)
    assert case.facts["operator_norm"] > 10
    assert case.problem.y.shape == (1, 1, math.ceil(math.sqrt(2) * 64), 30)
    assert float(case.problem.z0.min()) >= 0
    assert float(case.problem.z0.max()) <= 1
    assert case.scoring.data_range == 1.0


def test_ct_photon_noise_falls_with_the_dose(configure: Configure) -> None:
    known = case_of(configure("task=ct")).problem
    clean = known.y
    assert known.noise_std == 0
    errors = [
        float((case_of(configure("task=ct", f"photons={n}")).problem.y - clean).norm() / clean.norm())
        for n in (1e3, 1e5)
    ]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.5)
    assert errors[1] > 0


def test_ct_photons_are_counted_by_the_law_of_beer_and_lambert(configure: Configure) -> None:
    """Counts N leave noise of 1 / sqrt(N) in the attenuation; a ray without any is taken to have one."""
    name, sample, case = sampled(configure("task=ct", "photons=1e5"))
    assert case.problem.noise_std is None, "it differs from ray to ray"
    attenuation = 0.02 * sample.hu_width / 1000 * 350 / 64 * case.facts["operator_norm"]
    clean = attenuation * case.problem.operator(case.truth)
    spread = (attenuation * case.problem.y - clean) * (1e5 * torch.exp(-clean)).sqrt()
    assert float(spread.std()) == pytest.approx(1, rel=0.1)
    few = make_task(configure("task=ct", "photons=5")).make(name, sample)
    assert float(few.problem.y.max()) == pytest.approx(math.log(5) / attenuation, rel=1e-4)


def test_denoising_noise_is_not_clipped(configure: Configure) -> None:
    case = case_of(configure("task=denoising", "sigma=30", "size=256"))
    noise = case.problem.y - case.scoring.truth
    assert float(noise.std()) == pytest.approx(30 / 255, rel=0.01)
    assert float(case.problem.y.min()) < 0
    assert torch.equal(case.problem.z0, case.problem.y)
    unclipped_psnr = 10 * math.log10(1 / (30 / 255) ** 2)
    assert unclipped_psnr < float(case.scoring.psnr(case.show(case.problem.z0))), "scored after clipping to [0, 1]"


def test_ct_may_start_from_the_adjoint_scaled_to_the_data(configure: Configure) -> None:
    case = case_of(configure("task=ct", "start=adjoint"))
    A, y, z = case.problem.operator, case.problem.y, case.problem.z0
    back = A.adjoint(y)
    inside = (z > 0) & (z < 1)
    scale = (z / back)[inside]
    assert torch.allclose(scale, scale.mean().expand_as(scale), rtol=1e-4)
    worse = [float((A(back * scale.mean() * c) - y).norm()) for c in (0.98, 1, 1.02)]
    assert worse[1] == min(worse)


def test_inpainting_may_start_from_the_mean_of_the_known_pixels(configure: Configure) -> None:
    plain, filled = (case_of(configure("task=inpainting", f"start={s}")) for s in ("paper", "mean"))
    hole = plain.scoring.hole[0, 0] > 0
    mean = plain.problem.y[0][:, ~hole].mean(1)
    assert torch.allclose(filled.problem.z0[0][:, hole], mean[:, None].expand(-1, int(hole.sum())), atol=1e-5)
    assert torch.equal(filled.problem.z0[0][:, ~hole], plain.problem.z0[0][:, ~hole])
    assert not plain.problem.z0[0][:, hole].any()


def test_inpainting_scores_the_hole_too(configure: Configure) -> None:
    case = case_of(configure("task=inpainting", "hiar=0.25"))
    assert float((case.problem.z0 == 0).all(1).float().mean()) >= 0.25 - 0.01
    extras = case.scoring.extras(case.problem.z0, case.problem.y)
    assert extras["hole_psnr_db"] < extras["composited_psnr_db"]
    perfect = case.scoring.extras(case.scoring.truth, case.problem.y)
    assert perfect["hole_psnr_db"] == perfect["composited_psnr_db"] == float("inf")


def test_values_outside_the_range_of_images_are_refused(configure: Configure, tmp_path: Path) -> None:
    np.save(tmp_path / "magnitude.npy", np.linspace(0, 4000, 64 * 64).reshape(64, 64))
    for task in ("denoising", "ct"):
        with pytest.raises(UserError, match="values from 0 to 4000.*rescale"):
            case_of(configure(f"task={task}", "dataset=complex", f"data_root={tmp_path}"))
    noisy = ("task=denoising", "dataset=complex", f"data_root={tmp_path}", "truth=none", "sigma=25")
    with pytest.raises(UserError, match="values from 0 to 4000.*rescale"):
        case_of(configure(*noisy))
    np.save(tmp_path / "magnitude.npy", np.linspace(-0.4, 1.4, 64 * 64).reshape(64, 64))
    noisy = ("task=denoising", "dataset=complex", f"data_root={tmp_path}", "truth=none", "sigma=25")
    for size in ("size=64", "size=48"):
        assert float(case_of(configure(*noisy, size)).problem.y.min()) < -0.3, "a measurement is not clipped"


def test_known_pixels_are_put_back_with_their_noise(configure: Configure) -> None:
    case = case_of(configure("task=inpainting", "sigma=25"))
    assert 18 < case.scoring.extras(case.scoring.truth, case.problem.y)["composited_psnr_db"] < 25


def test_inpainting_with_a_mask_file(configure: Configure, tmp_path: Path) -> None:
    mask = np.full((64, 64), 255, dtype=np.uint8)
    mask[10:20, 30:50] = 0
    mask[10:20, 40:50] = 100  # nearer to black
    Image.fromarray(mask).save(tmp_path / "mask.png")
    case = case_of(configure("task=inpainting", f"mask={tmp_path / 'mask.png'}"))
    assert float(case.problem.operator.mask.sum()) == 64 * 64 - 200
    with pytest.raises(UserError, match="64 x 64, the image 48 x 48"):
        case_of(configure("task=inpainting", f"mask={tmp_path / 'mask.png'}", "size=48"))
    for low, high, name in ((0, 1, "numbers"), (255, 255, "whole"), (0, 0, "empty")):
        Image.fromarray(np.where(mask == 255, high, low).astype(np.uint8)).save(tmp_path / f"{name}.png")
    numbers = case_of(configure("task=inpainting", f"mask={tmp_path / 'numbers.png'}"))
    assert torch.equal(numbers.problem.operator.mask, case.problem.operator.mask), "0 and 1 of 255"
    for name, message in (("whole", "has no hole: white is known"), ("empty", "at least one must be known")):
        with pytest.raises(UserError, match=message):
            case_of(configure("task=inpainting", f"mask={tmp_path / name}.png"))
    with pytest.raises(UserError, match="expected center, random, or a picture file"):
        case_of(configure("task=inpainting", "mask=nowhere.png"))


def test_photons_need_an_image_whose_zero_is_air(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", hu=np.linspace(-1000, 500, 64 * 64).reshape(64, 64))
    words = ("task=ct", "dataset=ct", f"data_root={tmp_path}", "photons=1e5")
    with pytest.raises(UserError, match=r"0 in a.npz is -160 Hounsfield units.*dataset.hu_low=-1024"):
        case_of(configure(*words, "dataset.hu_low=-160", "dataset.hu_high=240"))
    case_of(configure(*words, "dataset.hu_high=240"))
    Image.new("L", (64, 64), 90).save(tmp_path / "a.png")
    _, sample, _ = sampled(configure("task=ct", "dataset=folder", f"data_root={tmp_path}", "photons=1e5"))
    assert any("taken for -1024 to 2000 Hounsfield units" in note for note in sample.notes)
    assert not sampled(configure("task=ct", "photons=1e5"))[1].notes, "the bundled body is in them"


def test_deblurring_blurs(configure: Configure) -> None:
    for kernel in ("nonlinear", "motion"):
        case = case_of(configure("task=deblurring", f"kernel={kernel}"))
        assert float((case.problem.y - case.scoring.truth).norm()) > 0.01
        assert torch.equal(case.problem.y, case.problem.operator(case.scoring.truth))
        assert case.problem.noise_std == 0, "known to be none"


def test_a_picture_can_be_the_measurement(configure: Configure, tmp_path: Path) -> None:
    Image.new("RGB", (70, 66), (90, 20, 200)).save(tmp_path / "a.png")
    case = case_of(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}", "truth=none", "size=native"))
    assert case.scoring is None
    assert case.problem.y.shape == (1, 3, 66, 70)
    assert torch.allclose(case.problem.y[0, :, 0, 0], torch.tensor([90, 20, 200]) / 255)


def test_resizing_a_noisy_measurement_is_warned_of(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (70, 66), (90, 20, 200)).save(tmp_path / "a.png")
    case_of(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}", "truth=none", "sigma=25"))
    assert "use size=native" in caplog.text


def test_resizing_leaves_no_value_beyond_black_and_white() -> None:
    stripes = (torch.arange(50) // 5 % 2).float().expand(1, 1, 50, 50)
    small = resized(stripes, 32)
    assert (small.shape, float(small.min()), float(small.max())) == ((1, 1, 32, 32), 0, 1)


def test_images_have_noise_of_their_own(configure: Configure) -> None:
    cfg = configure("task=denoising")
    _, sample, _ = sampled(cfg)
    a, b = (make_task(cfg).make(name, sample).problem.y for name in "ab")
    assert float((a - b).std()) == pytest.approx(2**0.5 * 15 / 255, rel=0.05)


def test_same_seed_same_measurements(configure: Configure) -> None:
    random = {"mri": "noise=0.01", "ct": "photons=1e4", "denoising": "sigma=15", "inpainting": "mask=random"}
    for task, word in {**random, "deblurring": "sigma=15"}.items():
        words = [f"task={task}", word]
        first, again = case_of(configure(*words)), case_of(configure(*words))
        assert torch.equal(first.problem.y, again.problem.y)
        other = case_of(configure(*words, "seed=1"))
        assert not torch.equal(first.problem.y, other.problem.y)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=ct", "dataset=kspace"), "task=ct is made of image or sinogram, but dataset=kspace holds kspace"),
        (("mask=center",), "expected one of random, equispaced"),
        (("task=deblurring", "truth=none"), "kernel that blurred it must be known"),
        (("task=ct", "truth=none"), "truth=none is for pictures"),
        (("accel=64",), "accel=64: of size=64 columns one or none would be sampled"),
        (("task=denoising", "size=100000"), "size=100000: expected at most 16384 pixels"),
        (("accel=63", "center_fraction=0.5"), "fully sampled centre alone has 32"),
        (("stop=discrepancy",), r"its level must be known; that of task=mri is not: give a level \(sigma .*, noise "),
        (("task=ct", "stop=discrepancy"), r"that of task=ct is not: no setting tells it\. Use stop=wmv\.$"),
        (("task=deblurring", "kernel_size=201"), "kernel_size=201 is too large for size=64"),
        (("input_update=reflection",), "needs measurements that are an image"),
        (("task=deblurring", "input_update=data_consistent"), "needs a linear operator"),
        (("task=denoising", "size=32"), "32 pixels on its short side.*and more on the other"),
        (("task=denoising", "size=16"), "16 pixels on its short side.*needs at least 32"),
        (("task=denoising", "dataset=brain"), "needs real images"),
        (("task=ct", "start=mean"), "start=mean: expected paper, adjoint, "),
    ],
)
def test_combinations_that_cannot_work(configure: Configure, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cfg = configure(*words)
        iterates(cfg, case_of(cfg))


def test_settings_in_a_word(configure: Configure) -> None:
    words = {
        "accel8": ("accel=8",),
        "views18": ("task=ct", "views=18"),
        "sigma30": ("task=denoising", "sigma=30"),
        "hiar0.25": ("task=inpainting", "hiar=0.25"),
        "mask-random": ("task=inpainting", "mask=random"),
        "motion": ("task=deblurring", "kernel=motion"),
    }
    assert {name: make_task(configure(*w)).setting for name, w in words.items()} == {name: name for name in words}


def test_all_zero_scan(configure: Configure) -> None:
    zeros = torch.zeros(3, 64, 64, dtype=torch.complex64)
    with pytest.raises(UserError, match="zero everywhere"):
        make_task(configure()).make("a", Sample("nothing", kspace=zeros, maps=zeros + 1))
    with pytest.raises(UserError, match="is the k-space centred"):
        make_task(configure()).make("a", Sample("nothing", kspace=zeros))


@pytest.mark.parametrize(("sigma", "said"), [(50, []), (30, []), (15, ["which looks like 49"]), (150, ["like 49"])])
def test_a_measured_picture_s_noise_is_held_against_what_is_said_of_it(
    configure: Configure, tmp_path: Path, sigma: int, said: list[str]
) -> None:
    noisy = 128 + 50 * np.random.default_rng(0).standard_normal((64, 64))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}", "truth=none", "size=native")
    notes = sampled(configure(*words, f"sigma={sigma}"))[1].notes
    assert len(notes) == len(said) and all(word in note for word, note in zip(said, notes, strict=True))


def test_strong_noise_is_no_other_scale(configure: Configure, tmp_path: Path) -> None:
    noisy = 0.5 + 100 / 255 * np.random.default_rng(0).standard_normal((64, 64))
    words = ("task=denoising", "dataset=complex", f"data_root={tmp_path}", "truth=none", "size=native", "sigma=100")
    np.save(tmp_path / "a.npy", noisy * 1.3)
    assert case_of(configure(*words)).problem.y.max() > 1.5
    np.save(tmp_path / "a.npy", 20 * noisy)
    with pytest.raises(UserError, match="needs 0 to 1, but for the noise: rescale it"):
        case_of(configure(*words))
