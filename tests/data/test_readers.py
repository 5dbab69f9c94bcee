"""Readers: odd but valid files are read, broken ones are named with what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from aseqdip.config import Config, config_folder
from aseqdip.data import open_dataset
from aseqdip.data.sample import Sample, select
from aseqdip.errors import UserError

Configure = Callable[..., Config]


def kspace(slices: int = 3, coils: int = 4, rows: int = 24, columns: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (slices, coils, rows, columns)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def write_h5(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def load(configure: Configure, folder: Path, *overrides: str) -> Sample:
    cfg = configure("dataset=kspace", f"data_root={folder}", *overrides)
    return next(iter(open_dataset(cfg).values()))()


@pytest.mark.parametrize(("choice", "index"), [("middle", 1), ("0", 0), ("2", 2)])
def test_slice_of_a_volume(configure: Configure, tmp_path: Path, choice: str, index: int) -> None:
    k = kspace()
    write_h5(tmp_path / "scan.h5", kspace=k)
    sample = load(configure, tmp_path, f"dataset.slice={choice}")
    assert sample.kspace is not None
    assert np.array_equal(sample.kspace.numpy(), k[index])


def test_all_slices(configure: Configure, tmp_path: Path) -> None:
    write_h5(tmp_path / "scan.h5", kspace=kspace())
    cfg = configure("dataset=kspace", f"data_root={tmp_path}", "dataset.slice=all")
    assert list(open_dataset(cfg)) == ["scan_s000", "scan_s001", "scan_s002"]


def test_a_bad_file_is_one_failing_item_among_all_slices(configure: Configure, tmp_path: Path) -> None:
    write_h5(tmp_path / "good.h5", kspace=kspace(slices=2))
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    items = open_dataset(configure("dataset=kspace", f"data_root={tmp_path}", "dataset.slice=all"))
    assert list(items) == ["bad_s000", "good_s000", "good_s001"]
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        items["bad_s000"]()


def test_stored_maps_and_mask(configure: Configure, tmp_path: Path) -> None:
    k, mask = kspace(), np.arange(20) % 2 == 0
    write_h5(tmp_path / "scan.h5", kspace=k, sens_maps=k[:1], mask=mask.astype(np.float32))
    sample = load(configure, tmp_path)
    assert sample.mask is not None
    assert sample.maps is not None
    assert np.array_equal(sample.mask.numpy(), mask)
    assert np.array_equal(sample.maps.numpy(), k[0])


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"data": kspace()}, "holds data; expected a complex dataset 'kspace'"),
        ({"kspace": kspace()[0]}, r"shape \(4, 24, 20\).*expected a complex dataset"),
        ({"kspace": kspace().real}, "type float32; expected a complex dataset"),
        ({"kspace": kspace(), "mask": np.ones(18)}, "'mask' has shape .*k-space has 20 columns"),
        ({"kspace": kspace(), "sens_maps": kspace(coils=3)}, "coils, rows and columns must agree"),
        ({"kspace": kspace(), "sens_maps": kspace(slices=2)}, "and slices too"),
        ({"kspace/inner": kspace()}, "expected a complex dataset 'kspace'"),
        ({"kspace": np.where(np.arange(20) == 3, np.nan, kspace())}, "NaN or infinite"),
    ],
)
def test_wrong_hdf5(configure: Configure, tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    write_h5(tmp_path / "scan.h5", **datasets)
    with pytest.raises(UserError, match=message):
        load(configure, tmp_path)


def test_truncated_hdf5(configure: Configure, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", kspace=kspace())
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match="truncated"):
        load(configure, tmp_path)


def test_slice_out_of_range(configure: Configure, tmp_path: Path) -> None:
    write_h5(tmp_path / "scan.h5", kspace=kspace())
    with pytest.raises(UserError, match="slices 0 to 2"):
        load(configure, tmp_path, "dataset.slice=7")


def test_missing_and_empty_folders(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist.*set data_root="):
        open_dataset(configure("dataset=fastmri", f"data_root={tmp_path / 'nowhere'}"))
    with pytest.raises(UserError, match=r"No \.h5, \.hdf5 file.*an empty folder"):
        open_dataset(configure("dataset=kspace", f"data_root={tmp_path}"))


def test_pictures_of_every_kind(configure: Configure, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(tmp_path / "c.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "d.tif")
    Image.fromarray(rgb).save(tmp_path / "e.jpg")
    items = open_dataset(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}"))
    images = {name: load_one().image for name, load_one in items.items()}
    assert {name: tuple(i.shape) for name, i in images.items() if i is not None} == {
        "a": (3, 20, 30),
        "b": (1, 20, 30),
        "c": (3, 20, 30),
        "d": (1, 20, 30),
        "e": (3, 20, 30),
    }
    assert np.allclose(images["a"].numpy(), rgb.transpose(2, 0, 1) / 255)  # type: ignore[union-attr]
    assert np.allclose(images["d"].numpy(), images["b"].numpy(), atol=1e-6)  # type: ignore[union-attr]


def test_not_a_picture(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="could not be read as a picture"):
        open_dataset(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}"))["a"]()


def test_numpy_files_are_never_unpickled(configure: Configure, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="could not be read"):
        open_dataset(configure("dataset=complex", f"data_root={tmp_path}"))["a"]()


def test_ct_window(configure: Configure, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hu=np.array([[-3024, -1024], [488, 3000]], dtype=np.int16))
    image = open_dataset(configure("task=ct", "dataset=ct", f"data_root={tmp_path}"))["a"]().image
    assert torch.allclose(image, torch.tensor([[[0, 0], [0.5, 1]]]))


def test_same_stem_twice(configure: Configure, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    items = open_dataset(configure("task=denoising", "dataset=folder", f"data_root={tmp_path}"))
    assert list(items) == ["a.jpg", "a.png", "b"]


def test_dicom_rescale(configure: Configure, data: Path) -> None:
    """Stored values * slope + intercept are Hounsfield units; water (0 HU) is 1024/3024 of the window."""
    import pydicom

    items = open_dataset(configure("task=ct", "dataset=ct", f"data_root={data / 'ct' / 'test'}"))
    assert len(items) == 20
    name, load_one = next(iter(items.items()))
    image = load_one().image
    file = pydicom.dcmread(data / "ct" / "test" / f"{name}.dcm")
    hu = file.pixel_array.astype(np.float64) * file.RescaleSlope + file.RescaleIntercept
    assert image is not None
    assert np.allclose(image[0].numpy(), np.clip((hu + 1024) / 3024, 0, 1), atol=1e-6)


def test_dicom_without_a_suffix(configure: Configure, data: Path, tmp_path: Path) -> None:
    source = next((data / "ct" / "test").glob("*.dcm"))
    (tmp_path / "IM0001").write_bytes(source.read_bytes())
    (tmp_path / "README").write_text("not an image")
    (tmp_path / "folder").mkdir()
    (tmp_path / "1.2.840.10008").write_bytes(source.read_bytes())
    names = list(open_dataset(configure("task=ct", "dataset=ct", f"data_root={tmp_path}")))
    assert names == ["1.2.840", "IM0001"]


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def test_a_data_set_may_name_its_files(configure: Configure, tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "b.png", "sub/c.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}")
    assert list(open_dataset(configure(*words))) == ["a", "b"], "without a list: every file of the folder"
    named = open_dataset(configure(*words, "dataset.files=[sub/c.png,a.png]"))
    assert list(named) == ["c", "a"], "in the order of the list"
    assert named["c"]().source == str(tmp_path / "sub" / "c.png")
    with pytest.raises(UserError, match=rf"lists 3 files, of which 2 are missing in {tmp_path}: x.png, y.png"):
        open_dataset(configure(*words, "dataset.files=[x.png,a.png,y.png]"))


def test_files_of_one_name_cannot_be_told_apart(configure: Configure, tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "sub/a.png")
    cfg = configure("task=denoising", "dataset=folder", f"data_root={tmp_path}", "dataset.files=[a.png,sub/a.png]")
    with pytest.raises(UserError, match="same file name"):
        open_dataset(cfg)


LISTS = [(p.stem.split("_")[0], p.stem.split("_")[1]) for p in (config_folder() / "data_task").glob("*.yaml")]


@pytest.mark.parametrize(("data", "task"), LISTS)
def test_every_list_of_images_is_complete(configure: Configure, data: str, task: str) -> None:
    cfg = configure(f"data={data}", f"task={task}")
    files = cfg.dataset.files
    assert files is not None
    assert len(set(files)) == len(files) == (2 if data in ("scans", "calibration") else 20)
    assert cfg.dataset.name.startswith(("calibration_" if data == "calibration" else "public_", "paper_"))


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_settings_are_chosen_on_images_that_are_in_no_other_list(configure: Configure, task: str) -> None:
    own = set(configure("data=calibration", f"task={task}").dataset.files or [])
    for data, other in LISTS:
        if data != "calibration":
            files = configure(f"data={data}", f"task={other}").dataset.files or []
            assert not {Path(f).name for f in own} & {Path(f).name for f in files}


@pytest.mark.parametrize(("choice", "task"), [pair for pair in LISTS if pair[0] != "paper"])
def test_public_lists_can_be_read(configure: Configure, data: Path, choice: str, task: str) -> None:
    items = open_dataset(configure(f"data={choice}", f"task={task}", f"data_root={data}", "size=native"))
    for load_one in items.values():
        sample = load_one()
        shape = (sample.image if sample.kspace is None else sample.kspace).shape  # type: ignore[union-attr]
        assert min(shape[-2:]) >= 180


def test_no_public_mri_anatomy_is_there_twice(configure: Configure) -> None:
    files = configure("data=public").dataset.files or []
    stems = [Path(f).stem for f in files]
    assert len(set(stems)) == 20, "no magnitude file whose complex version is used"


NAMES = ["a", "b", "c", "3"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", NAMES),
        (0, ["a"]),
        ("1", ["b"]),
        (-1, ["3"]),
        ("1:3", ["b", "c"]),
        (":2", ["a", "b"]),
        (["c", 0, "c"], ["c", "a"]),
        ("3", ["3"]),
        ("2:9", ["c", "3"]),
        ("7:9", []),
    ],
)
def test_select(spec: Any, expected: list[str]) -> None:
    assert select(NAMES, spec) == expected


@pytest.mark.parametrize("spec", [4, "-5", "d", ["a", "x"]])
def test_select_what_there_is_not(spec: Any) -> None:
    with pytest.raises(UserError, match=r"there is no such image. The data set has 4, indices 0 to 3: a, b, c, 3"):
        select(NAMES, spec)
