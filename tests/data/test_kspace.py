"""fastMRI's HDF5 layout: slices, masks and maps; what contradicts itself is refused, what is a guess is said."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from aseqdip.data import Sample, make_reader
from aseqdip.errors import UserError


def kspace(slices: int = 3, coils: int = 4, rows: int = 24, columns: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (slices, coils, rows, columns)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def write_h5(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def load(path: Path, **options: Any) -> Sample:
    return next(iter(make_reader("kspace", path.parent, files=[path.name], options=options).items().values()))()


MASK = np.arange(20) % 2 == 0
SAMPLED = np.where(MASK, kspace(), 0)


@pytest.mark.parametrize(("choice", "index"), [("middle", 1), ("0", 0), ("2", 2)])
def test_slice_of_a_volume(tmp_path: Path, choice: str, index: int) -> None:
    sample = load(write_h5(tmp_path / "scan.h5", kspace=kspace()), slice=choice)
    assert np.array_equal(sample.kspace.numpy(), kspace()[index])
    assert sample.source == f"scan.h5, slice {index}"
    assert len(sample.notes) == (choice == "middle"), "that a slice was chosen for the user is said"


def test_all_slices(tmp_path: Path) -> None:
    write_h5(tmp_path / "scan.h5", kspace=kspace())
    items = make_reader("kspace", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["scan_s000", "scan_s001", "scan_s002"]
    assert [item().source[-1] for item in items.values()] == ["0", "1", "2"]


def test_bad_files_are_one_failing_item_each_among_all_slices(tmp_path: Path) -> None:
    write_h5(tmp_path / "good.h5", kspace=kspace(slices=2))
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    write_h5(tmp_path / "other.h5", data=1)
    (tmp_path / "gone.h5").symlink_to(tmp_path / "nowhere")
    items = make_reader("kspace", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["bad", "gone", "good_s000", "good_s001", "other"]
    for name, message in {
        "bad": "expected a complete HDF5 file",
        "gone": "No such file",
        "other": "holds data",
    }.items():
        with pytest.raises(UserError, match=f"{name}.h5.*{message}"):
            items[name]()


def test_stored_maps_and_mask(tmp_path: Path) -> None:
    sample = load(
        write_h5(tmp_path / "scan.h5", kspace=SAMPLED, sens_maps=kspace()[:1], mask=MASK.astype(np.float32)), slice="1"
    )
    assert np.array_equal(sample.mask.numpy(), MASK)
    assert np.array_equal(sample.maps.numpy(), kspace()[0])
    assert not sample.notes
    sample = load(write_h5(tmp_path / "each.h5", kspace=kspace(), sens_maps=kspace()), slice="1")
    assert np.array_equal(sample.maps.numpy(), kspace()[1]), "each slice has its own"


def compound(dtype: Any) -> np.ndarray:
    return np.zeros((3, 4, 24, 20), dtype)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"data": kspace()}, "holds data; expected a complex dataset 'kspace'"),
        ({}, "holds nothing"),
        ({"kspace": kspace()[0]}, r"shape \(4, 24, 20\).*expected a complex dataset"),
        ({"kspace": kspace().real}, "type float32; expected a complex dataset"),
        ({"kspace": "text"}, "expected a complex dataset"),
        ({"kspace": h5py.Empty("c8")}, "shape None.*expected a complex dataset"),
        ({"kspace": compound([("a", "f4"), ("b", "i2")])}, "expected a complex dataset"),
        ({"kspace/inner": kspace()}, "'kspace' is a group"),
        ({"kspace": kspace(slices=0)}, "it is empty"),
        ({"kspace": kspace(coils=0)}, "it is empty"),
        ({"kspace": kspace(columns=0)}, "it is empty"),
        ({"kspace": np.where(np.arange(20) == 3, np.nan, kspace())}, "NaN or infinite"),
        ({"kspace": kspace().astype(np.complex128) * 1e200}, "NaN or infinite"),
        ({"kspace": 0 * kspace()}, "0 everywhere"),
        ({"kspace": kspace(), "mask": np.ones(18)}, "'mask' has shape .*k-space has 20 columns"),
        ({"kspace": kspace(), "mask": np.ones((20, 24))}, "'mask' has shape"),
        ({"kspace": kspace(), "mask": np.full(20, -1)}, "'mask' holds -1; expected 0 and 1"),
        ({"kspace": kspace(), "mask": np.full(20, 0.4)}, "'mask' holds 0.4; expected 0 and 1"),
        ({"kspace": kspace(), "mask": np.array(["1", "0"] * 10, "S1")}, "'mask' holds .*expected 0 and 1"),
        ({"kspace": kspace(), "mask": ["no"] * 20}, "'mask' holds .*expected 0 and 1"),
        ({"kspace": kspace(), "mask": np.zeros(20)}, "no column was acquired"),
        ({"kspace": kspace(), "mask": MASK}, "10 columns that they were not acquired, but they hold data"),
        ({"kspace": kspace(), "sens_maps": kspace(coils=3)}, "coils, rows and columns must agree"),
        ({"kspace": kspace(), "sens_maps": kspace(slices=2)}, "and slices too"),
        ({"kspace": kspace(), "sens_maps": 1e-20 * kspace()}, "largest magnitude in 'sens_maps' is .*e-20"),
        ({"kspace": kspace(), "sens_maps": 0 * kspace()}, "largest magnitude in 'sens_maps' is 0"),
        ({"kspace": kspace(), "sens_maps": 1e10 * kspace()}, "largest magnitude in 'sens_maps'"),
        ({"kspace": kspace(), "sens_maps/a": 1}, "'sens_maps' is a group"),
    ],
)
def test_wrong_hdf5(tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    path = write_h5(tmp_path / "scan.h5", **datasets)
    with pytest.raises(UserError, match=f"scan.h5.*{message}"):
        load(path)


def test_truncated_and_empty_files(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", kspace=kspace())
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match="scan.h5 could not be read .*truncated"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="scan.h5 could not be read"):
        load(path)


def test_slice_that_there_is_not(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", kspace=kspace())
    with pytest.raises(UserError, match="slices 0 to 2"):
        load(path, slice="7")
    for choice in ("-1", "last", "1.5", ""):
        with pytest.raises(UserError, match="expected middle, all, or an index"):
            load(path, slice=choice)


# --- what a file says of itself is not believed ---


def declare(path: Path, shape: tuple[int, ...], **how: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", shape, "c8", **how)
    return path


def test_sizes_are_asked_before_memory_is_taken(tmp_path: Path) -> None:
    big = declare(tmp_path / "big.h5", (1, 15, 2**18, 2**18), chunks=(1, 1, 64, 64))
    with pytest.raises(UserError, match=r"takes 7.68e\+03 GiB, more than dataset.max_gib=2"):
        load(big)
    chunk = declare(tmp_path / "chunk.h5", (400, 1, 512, 512), chunks=(400, 1, 512, 512), compression="gzip")
    with pytest.raises(UserError, match="a chunk of 'kspace' .*max_gib=0.5"):
        load(chunk, max_gib=0.5)
    with pytest.raises(UserError, match="nothing of it was written"):
        load(declare(tmp_path / "hollow.h5", (1, 15, 640, 372), chunks=(1, 1, 64, 64)))


def test_a_larger_size_may_be_allowed(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", kspace=kspace())
    with pytest.raises(UserError, match="raise dataset.max_gib"):
        load(path, max_gib=1e-6)
    assert load(path, max_gib=1e-3).kspace is not None


def test_ten_million_declared_slices_are_one_failing_item(tmp_path: Path) -> None:
    path = declare(tmp_path / "scan.h5", (10**7, 1, 8, 8), chunks=(1, 1, 8, 8))
    items = make_reader("kspace", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["scan"]
    with pytest.raises(UserError, match="declares 10000000 slices"):
        items["scan"]()
    with pytest.raises(UserError, match="nothing of it was written"):
        load(path, slice="5")


def links(file: h5py.File, other: Path) -> dict[str, Callable[[], None]]:
    layout = h5py.VirtualLayout((3, 4, 24, 20), "c8")
    layout[:] = h5py.VirtualSource(str(other), "kspace", (3, 4, 24, 20))
    return {
        "external": lambda: file.__setitem__("kspace", h5py.ExternalLink(str(other), "/kspace")),
        "soft": lambda: file.__setitem__("kspace", h5py.SoftLink("/kspace")),
        "virtual": lambda: file.create_virtual_dataset("kspace", layout) and None,
        "raw": lambda: file.create_dataset("kspace", (3, 4, 24, 20), "c8", external=[(str(other), 0, 46080)]) and None,
    }


@pytest.mark.parametrize("kind", ["external", "soft", "virtual", "raw"])
def test_links_out_of_a_file_are_not_followed(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe.h5")  # would hang
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        links(file, tmp_path / "pipe.h5")[kind]()
    with pytest.raises(UserError, match="'kspace' is only a link"):
        load(tmp_path / "scan.h5")


def test_pipes_sockets_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.h5"))
        (tmp_path / "device.h5").symlink_to("/dev/zero")
        (tmp_path / "folder.h5").mkdir()
        write_h5(tmp_path / "scan.h5", kspace=kspace())
        items = make_reader("kspace", tmp_path).items()
        assert list(items) == ["device", "pipe", "scan", "socket"]
        for name in ("device", "pipe", "socket"):
            with pytest.raises(UserError, match=f"{name}.h5 is a {name}: expected a regular file"):
                items[name]()


# --- which columns were acquired ---


def test_empty_columns_without_a_mask_are_taken_as_not_acquired(tmp_path: Path) -> None:
    sample = load(write_h5(tmp_path / "scan.h5", kspace=SAMPLED), slice="0")
    assert np.array_equal(sample.mask.numpy(), MASK)
    assert len(sample.notes) == 1
    assert "10 of 20 columns of k-space are empty and no mask is stored" in sample.notes[0]


def test_empty_columns_at_the_edges_are_zero_padding(tmp_path: Path) -> None:
    k = kspace()
    k[..., :3], k[..., 18:] = 0, 0
    sample = load(write_h5(tmp_path / "scan.h5", kspace=k), slice="0")
    assert sample.mask is None
    assert "5 of 20 columns at the edges of k-space are empty: taken as zero-padding" in sample.notes[0]


def test_columns_that_the_mask_wrongly_calls_acquired(tmp_path: Path) -> None:
    sample = load(write_h5(tmp_path / "scan.h5", kspace=SAMPLED, mask=np.ones(20)), slice="0")
    assert np.array_equal(sample.mask.numpy()[:19], MASK[:19])
    assert "9 columns that the mask calls acquired are empty" in sample.notes[0]


def test_a_mask_of_all_columns_undersamples_nothing(tmp_path: Path) -> None:
    for mask in (np.ones(20), np.ones((24, 20))):
        sample = load(write_h5(tmp_path / "scan.h5", kspace=kspace(), mask=mask), slice="0")
        assert sample.mask is None and "all of it was acquired" in sample.notes[0]


def test_a_mask_along_rows_is_found_out(tmp_path: Path) -> None:
    k = kspace(rows=20)
    path = write_h5(tmp_path / "scan.h5", kspace=np.where(MASK[:, None], k, 0), mask=MASK)
    with pytest.raises(UserError, match="the mask counts rows. Swap the last two axes"):
        load(path)
    path = write_h5(tmp_path / "scan.h5", kspace=np.where(MASK[:, None], k, 0))
    with pytest.raises(UserError, match="10 of 20 rows of k-space are empty"):
        load(path)


def test_k_space_sampled_in_two_dimensions(tmp_path: Path) -> None:
    points = np.random.default_rng(1).random((24, 20)) < 0.5
    sampled = np.where(points, kspace(), 0)
    found = load(write_h5(tmp_path / "scan.h5", kspace=sampled), slice="0")
    assert np.array_equal(found.mask.numpy(), points)
    assert "points of k-space are empty and no mask is stored" in found.notes[0]
    stored = load(write_h5(tmp_path / "scan.h5", kspace=sampled, mask=points[None]), slice="0")
    assert np.array_equal(stored.mask.numpy(), points) and not stored.notes
    with pytest.raises(UserError, match=r"says of \d+ points that they were not acquired, but they hold data"):
        load(write_h5(tmp_path / "scan.h5", kspace=kspace(), mask=points))
    with pytest.raises(UserError, match=r"that the mask calls acquired are empty: store a mask of all points"):
        load(write_h5(tmp_path / "scan.h5", kspace=sampled, mask=np.ones(20)))
    columns = np.broadcast_to(MASK, (24, 20))
    assert load(write_h5(tmp_path / "scan.h5", kspace=SAMPLED, mask=columns), slice="0").mask.shape == (20,)


def test_an_elliptical_window_is_not_undersampled(tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:24j, -1:1:20j]
    sample = load(write_h5(tmp_path / "scan.h5", kspace=np.where(x**2 + y**2 <= 1, kspace(), 0)), slice="0")
    assert sample.mask is None


def test_the_patient_is_the_files_or_the_file(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", kspace=kspace())
    assert load(path).patient == "scan"
    for value, patient in (("P7", "P7"), (np.arange(3), "scan"), (b"P\xe97", "P\ufffd7")):
        with h5py.File(path, "r+") as file:
            file.attrs["patient_id"] = value if not isinstance(value, bytes) else np.bytes_(value)
        assert load(path).patient == patient


@pytest.mark.parametrize(("moved", "said"), [((), ""), ((-1,), "axis -1"), ((-2, -1), "axes -2 and -1")])
def test_k_space_whose_centre_is_not_in_the_middle_is_noticed(
    moved: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    image = np.zeros((2, 24, 20), np.complex64)
    image[:, 6:18, 5:15] = 1 + kspace()[0, :2, 6:18, 5:15] / 9
    whole = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, (-2, -1))), (-2, -1))
    stored = np.fft.ifftshift(whole, moved) if moved else whole
    notes = load(write_h5(tmp_path / "scan.h5", kspace=stored[None].astype(np.complex64))).notes
    assert len(notes) == bool(said) and all(f"at the ends of its {said}:" in note for note in notes)
