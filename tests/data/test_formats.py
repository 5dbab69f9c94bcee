"""Readers of other programs' files: axes, units, and what is none of theirs."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from aseqdip.data import Sample, make_reader
from aseqdip.data.mat import Mat
from aseqdip.errors import UserError

RNG = np.random.default_rng(0)
VOLUME = RNG.random((3, 20, 16))  # slices, rows, columns


def load(reader: str, path: Path, **options: Any) -> list[Sample]:
    return [item() for item in make_reader(reader, path.parent, files=[path.name], options=options).items().values()]


def test_nifti(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii.gz"
    array = VOLUME[:, ::-1].transpose(2, 1, 0) * 900 - 100
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    samples = load("nifti", path, slice="all")
    assert [s.origin.slice for s in samples] == [0, 1, 2] and samples[0].origin.volume == "a"
    high, low = array.max(), array.min()
    for sample, image in zip(samples, VOLUME, strict=True):
        assert np.allclose(sample.image[0] * (high - low) + low, image * 900 - 100, atol=1e-3)
        assert (sample.origin.low, sample.origin.high) == pytest.approx((low, high))
    assert load("nifti", path)[0].source == "a.nii.gz, slice 1"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)), tmp_path / "series.nii")
    with pytest.raises(UserError, match=r"series.nii has shape \(4, 4, 4, 2\).*save one volume of it"):
        load("nifti", tmp_path / "series.nii")
    (tmp_path / "bad.nii").write_bytes(b"bad")
    with pytest.raises(UserError, match="bad.nii could not be read"):
        load("nifti", tmp_path / "bad.nii")


def test_mat(tmp_path: Path) -> None:
    complex_ = VOLUME + 1j * VOLUME[::-1]
    savemat(tmp_path / "old.mat", {"image": complex_.transpose(1, 2, 0), "more": 1})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        kind = np.dtype([("real", "f8"), ("imag", "f8")])
        stored = np.empty((3, 16, 20), kind)  # in the file, MATLAB's axes are in reverse order
        stored["real"], stored["imag"] = complex_.real.swapaxes(1, 2), complex_.imag.swapaxes(1, 2)
        file["image"] = stored
    with (tmp_path / "new.mat").open("r+b") as out:
        out.write(b"MATLAB 7.3 MAT-file".ljust(128))
    for name in ("old.mat", "new.mat"):
        for sample, image in zip(load("mat", tmp_path / name, slice="all"), complex_, strict=True):
            assert np.allclose(sample.image[0], image, atol=1e-6), name
    savemat(tmp_path / "other.mat", {"kdata": 1})
    with pytest.raises(UserError, match="found nothing of that name"):
        load("mat", tmp_path / "other.mat")


def write_cfl(path: Path, array: np.ndarray) -> Path:
    dims = " ".join(map(str, (*array.shape, *[1] * (16 - array.ndim))))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n# Command\nphantom\n")
    path.write_bytes(array.astype(np.complex64).tobytes(order="F"))
    return path


def test_bart(tmp_path: Path) -> None:
    kspace = RNG.standard_normal((4, 20, 16)) + 1j * RNG.standard_normal((4, 20, 16))
    kspace[..., ::2] = 0
    kspace[..., 6:10] = 1
    (sample,) = load("bart", write_cfl(tmp_path / "a.cfl", kspace.transpose(1, 2, 0)[:, :, None]))
    assert np.allclose(sample.kspace, kspace.astype(np.complex64))
    assert int(sample.mask.sum()) == 10
    stack = np.stack([kspace, 2 * kspace]).transpose(2, 3, 1, 0)[:, :, None].reshape(20, 16, 1, 4, *[1] * 9, 2)
    assert np.allclose(load("bart", write_cfl(tmp_path / "b.cfl", stack), slice="1")[0].kspace, 2 * kspace)
    full = RNG.standard_normal((8, 20, 16, 4)) + 0j  # readout, phase, phase 2, coils
    points = RNG.random((20, 16)) < 0.5
    three_d = load("bart", write_cfl(tmp_path / "c.cfl", full * points[..., None]), slice="all")
    assert len(three_d) == 8 and np.array_equal(three_d[3].mask, points)
    images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(full, 0), axis=0, norm="ortho"), 0)
    assert np.allclose(three_d[3].kspace, (images[3] * points[..., None]).transpose(2, 0, 1), atol=1e-5)
    for name, change in {"d": lambda t: t.replace("20 16", "21 16"), "e": lambda t: "nothing"}.items():
        path = write_cfl(tmp_path / f"{name}.cfl", kspace.transpose(1, 2, 0)[:, :, None])
        path.with_suffix(".hdr").write_text(change(path.with_suffix(".hdr").read_text()))
        with pytest.raises(UserError, match=rf"{name}\.(cfl|hdr).*BART's k-space"):
            load("bart", path)


def write_ismrmrd(path: Path, kspace: np.ndarray, centre: int, oversample: int = 2) -> None:
    """A file of (slices, coils, rows, columns): readouts with oversampling, a noise scan before them."""
    slices, coils, rows, columns = kspace.shape
    wide = np.zeros((slices, coils, rows * oversample, columns), complex)
    place = slice((wide.shape[2] - rows) // 2, (wide.shape[2] - rows) // 2 + rows)
    wide[:, :, place] = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, 2), axis=2, norm="ortho"), 2)
    wide = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(wide, 2), axis=2, norm="ortho"), 2)
    names = (
        "kspace_encode_step_1",
        "kspace_encode_step_2",
        "average",
        "slice",
        "contrast",
        "phase",
        "repetition",
        "set",
    )
    counters = np.dtype([(name, "u2") for name in names])
    head = np.dtype([("flags", "u8"), ("active_channels", "u2"), ("center_sample", "u2"), ("idx", counters)])
    kind = np.dtype([("head", head), ("data", h5py.vlen_dtype(np.float32))])
    table = [(1 << 18, 0, 0, np.ones((coils, 5), np.complex64))]
    table += [(0, s, c, wide[s, :, :, c]) for s in range(slices) for c in range(columns) if kspace[s, :, :, c].any()]
    stored = np.zeros(len(table), kind)
    for row, (flags, s, c, values) in zip(stored, table, strict=True):
        row["head"]["flags"], row["head"]["active_channels"] = flags, coils
        row["head"]["center_sample"] = rows * oversample // 2
        row["head"]["idx"]["slice"], row["head"]["idx"]["kspace_encode_step_1"] = s, c
        row["data"] = np.ascontiguousarray(values.astype(np.complex64)).view(np.float32).ravel()
    size = "<matrixSize><x>{}</x><y>{}</y><z>1</z></matrixSize>"
    text = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><trajectory>cartesian</trajectory><encodedSpace>'
        + size.format(rows * oversample, columns)
        + "</encodedSpace><reconSpace>"
        + size.format(rows, columns)
        + f"</reconSpace><encodingLimits><kspace_encoding_step_1><center>{centre}</center></kspace_encoding_step_1>"
        + "</encodingLimits></encoding></ismrmrdHeader>"
    )
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/xml", data=[text], dtype=h5py.string_dtype())
        file["dataset/data"] = stored


def test_ismrmrd(tmp_path: Path) -> None:
    kspace = RNG.standard_normal((2, 3, 20, 16)) + 1j * RNG.standard_normal((2, 3, 20, 16))
    kspace[..., 1::2] = 0
    kspace[..., 6:10] = 1
    write_ismrmrd(tmp_path / "a.h5", kspace, 8)
    samples = load("ismrmrd", tmp_path / "a.h5", slice="all")
    for sample, expected in zip(samples, kspace, strict=True):
        assert np.allclose(sample.kspace, expected, atol=1e-5)
        assert int(sample.mask.sum()) == 10
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(b"cartesian", b"spiral")
    with pytest.raises(UserError, match="its trajectory is .spiral."):
        load("ismrmrd", tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = kspace
    with pytest.raises(UserError, match="b.h5.*expected an ISMRMRD file"):
        load("ismrmrd", tmp_path / "b.h5")


COUNTERS = ("kspace_encode_step_1", "kspace_encode_step_2", "slice", "contrast", "phase", "repetition", "set")


def write_readouts(
    path: Path, size: tuple[int, int, int], readouts: list[tuple[dict[str, int], np.ndarray]], recon: str = ""
) -> None:
    """A file of readouts, (coils, samples), each with the fields of its head; of an encoded matrix of this size."""
    fields = ("active_channels", "center_sample", "encoding_space_ref", "discard_pre", "discard_post")
    head = np.dtype([("flags", "u8"), *((f, "u2") for f in fields), ("idx", [(c, "u2") for c in COUNTERS])])
    stored = np.zeros(len(readouts), [("head", head), ("data", h5py.vlen_dtype(np.float32))])
    for row, (said, values) in zip(stored, readouts, strict=True):
        row["head"]["active_channels"], row["head"]["center_sample"] = len(values), values.shape[1] // 2
        for name, value in said.items():
            (row["head"]["idx"] if name in COUNTERS else row["head"])[name] = value
        row["data"] = np.ascontiguousarray(values.astype(np.complex64)).view(np.float32).ravel()
    matrix = "<matrixSize><x>{}</x><y>{}</y><z>{}</z></matrixSize>".format(*size)
    encoded = f"<encodedSpace>{matrix}<fieldOfView_mm><x>300</x></fieldOfView_mm></encodedSpace>"
    recon = f"<reconSpace>{recon or matrix}</reconSpace>"
    text = f"<ismrmrdHeader><encoding><trajectory>cartesian</trajectory>{encoded}{recon}</encoding></ismrmrdHeader>"
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/xml", data=[text], dtype=h5py.string_dtype())
        file["dataset/data"] = stored


def lines_of(kspace: np.ndarray) -> list[tuple[dict[str, int], np.ndarray]]:
    """The readouts of (coils, x, y, z)."""
    places = [(y, z) for z in range(kspace.shape[3]) for y in range(kspace.shape[2])]
    return [({"kspace_encode_step_1": y, "kspace_encode_step_2": z}, kspace[:, :, y, z]) for y, z in places]


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


@pytest.mark.parametrize("size", [(8, 6, 10), (8, 10, 6)])
def test_both_phase_encoded_axes_of_ismrmrd_are_kept_whole(tmp_path: Path, size: tuple[int, int, int]) -> None:
    kspace = noise(2, *size)
    write_readouts(tmp_path / "a.h5", size, lines_of(kspace))
    images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, 1), axis=1, norm="ortho"), 1)
    samples = load("ismrmrd", tmp_path / "a.h5", slice="all")
    assert np.allclose([sample.kspace for sample in samples], images.transpose(1, 0, 2, 3), atol=1e-5)
    more = [({**said, "slice": 1}, values) for said, values in lines_of(kspace)]
    write_readouts(tmp_path / "b.h5", size, lines_of(kspace) + more)
    slabs = load("ismrmrd", tmp_path / "b.h5", slice="0")[0]
    assert slabs.notes == ["only the first slab was taken"] and np.array_equal(slabs.kspace, samples[0].kspace)


@pytest.mark.parametrize("length", [9, 12])
def test_reversed_readouts_of_ismrmrd_are_turned_round(tmp_path: Path, length: int) -> None:
    kspace = noise(2, length, 6, 1)
    readouts = lines_of(kspace)
    readouts[1::2] = [({**said, "flags": 1 << 21}, values[:, ::-1]) for said, values in readouts[1::2]]
    write_readouts(tmp_path / "a.h5", (length, 6, 1), readouts)
    (sample,) = load("ismrmrd", tmp_path / "a.h5")
    assert np.allclose(sample.kspace, kspace[..., 0], atol=1e-5)
    assert sample.notes == ["3 readouts that the file says run backwards were turned round"]
    readouts[1] = ({**readouts[1][0], "center_sample": 2}, readouts[1][1][:, :-2])
    write_readouts(tmp_path / "b.h5", (length, 6, 1), readouts)
    with pytest.raises(UserError, match="runs backwards and has its centre at sample 2 of .*expected the middle one"):
        load("ismrmrd", tmp_path / "b.h5")


def test_what_is_no_line_of_the_image_is_left_out_of_ismrmrd(tmp_path: Path) -> None:
    kspace = noise(2, 12, 6, 1)
    readouts, wrong = lines_of(kspace), noise(2, 12)
    stabilization = ({"flags": 1 << 30, "kspace_encode_step_1": 3}, wrong)
    write_readouts(tmp_path / "a.h5", (12, 6, 1), [*readouts, stabilization])
    (sample,) = load("ismrmrd", tmp_path / "a.h5")
    assert np.allclose(sample.kspace, kspace[..., 0], atol=1e-5) and not sample.notes
    elsewhere = ({"encoding_space_ref": 1, "kspace_encode_step_1": 3}, wrong)
    write_readouts(tmp_path / "b.h5", (12, 6, 1), [*readouts, elsewhere])
    (sample,) = load("ismrmrd", tmp_path / "b.h5")
    assert np.allclose(sample.kspace, kspace[..., 0], atol=1e-5)
    assert sample.notes == ["1 readouts of other encoded spaces than the first were left out"]
    said = {"discard_pre": 3, "discard_post": 2, "center_sample": 9}
    padded = [({**head, **said}, np.hstack([wrong[:, :3], values, wrong[:, 3:5]])) for head, values in lines_of(kspace)]
    write_readouts(tmp_path / "c.h5", (12, 6, 1), padded)
    (sample,) = load("ismrmrd", tmp_path / "c.h5")
    assert np.allclose(sample.kspace, kspace[..., 0], atol=1e-5)


@pytest.mark.parametrize(("rows", "field", "kept"), [(6, 300, 12), (12, 150, 6), (8, 150, 6), (6, 0, 6)])
def test_oversampling_of_ismrmrd_is_a_matter_of_the_field_of_view(
    tmp_path: Path, rows: int, field: int, kept: int
) -> None:
    """An image of fewer or more rows over the same field is interpolated: its rows do not say what to cut off."""
    kspace = noise(2, 12, 6, 1)
    recon = f"<matrixSize><x>{rows}</x></matrixSize>" + f"<fieldOfView_mm><x>{field}</x></fieldOfView_mm>" * (field > 0)
    write_readouts(tmp_path / "a.h5", (12, 6, 1), lines_of(kspace), recon)
    assert load("ismrmrd", tmp_path / "a.h5")[0].kspace.shape == (2, kept, 6)


def test_sinogram(tmp_path: Path) -> None:
    y, angles = RNG.random((30, 12)), np.linspace(0, 165, 12)
    np.savez(tmp_path / "a.npz", sinogram=y, angles=angles)
    (sample,) = load("sinogram", tmp_path / "a.npz")
    assert np.allclose(sample.sinogram, y) and np.allclose(sample.angles, np.deg2rad(angles)) and not sample.notes
    angles = 2 * angles  # around a whole turn
    np.savez(tmp_path / "b.npz", sinogram=y.T, angles=np.deg2rad(angles))
    (turned,) = load("sinogram", tmp_path / "b.npz")
    assert np.allclose(turned.sinogram, y) and np.allclose(turned.angles, np.deg2rad(angles)) and len(turned.notes) == 2
    for more, message in (
        ({"geometry": "fan"}, "has geometry 'fan': only a parallel beam"),
        ({"SOD": 500}, "has a 'SOD': only a parallel beam"),
        ({"angles": angles[:5]}, "expected an .npz file with arrays 'sinogram'"),
    ):
        np.savez(tmp_path / "c.npz", **{"sinogram": y, "angles": angles, **more})
        with pytest.raises(UserError, match=message):
            load("sinogram", tmp_path / "c.npz")


def test_a_volume_is_read_once_for_its_slices_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], Mat._array
    monkeypatch.setattr(Mat, "_array", lambda self, path: (reads.append(path), read(self, path))[1])
    savemat(tmp_path / "a.mat", {"image": np.full((8, 8, 3), 0.5)})
    items = make_reader("mat", tmp_path, options={"slice": "all"}).items()
    assert [float(load().image.abs().max()) for load in items.values()] == [0.5] * 3
    assert len(reads) == 1
    savemat(tmp_path / "a.mat", {"image": np.full((8, 8, 3), 0.25)})
    os.utime(tmp_path / "a.mat", ns=(1, 1))
    assert [float(load().image.abs().max()) for load in items.values()] == [0.25] * 3
    assert len(reads) == 2


def test_angles_that_leave_a_gap_are_told(tmp_path: Path) -> None:
    golden, y = np.arange(60) * 111.246, RNG.random((32, 60))
    for name, angles in {"degrees": golden, "radians": np.deg2rad(golden), "limited": np.arange(0, 120, 2)}.items():
        np.savez(tmp_path / f"{name}.npz", sinogram=y, angles=angles)
        (sample,) = load("sinogram", tmp_path / f"{name}.npz")
        assert any("taken as degrees, from 0 to" in note for note in sample.notes) == (name != "degrees")


def test_slices_that_come_last_are_noticed(tmp_path: Path) -> None:
    for shape, said in (((64, 60, 12), True), ((12, 64, 60), False)):
        np.savez(tmp_path / "a.npz", image=RNG.random(shape) + 1j)
        sample = load("complex", tmp_path / "a.npz", slice="1")[0]
        assert any("slices come first: 64 x 60 x 12" in note for note in sample.notes) == said
