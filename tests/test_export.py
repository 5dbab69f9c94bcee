"""What was read comes back in its own kind: values, units, geometry and headers, slice by slice and whole."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from cases import Configure
from data.test_ct_slices import write_dicom
from PIL import Image

from aseqdip import export, records
from aseqdip.cli import main
from aseqdip.config import make_task
from aseqdip.data import make_reader, open_dataset
from aseqdip.data.brain import brain
from aseqdip.errors import UserError
from aseqdip.operators import ParallelBeam
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import fft2c
from aseqdip.problem import generator
from aseqdip.records import Record
from aseqdip.run.runner import Summary, run

RNG = np.random.default_rng(0)


@pytest.fixture
def computed(configure: Configure, tmp_path: Path) -> Callable[..., Summary]:
    """``computed("task=ct", ...)``: a run of the direct method at full size on what is in the folder ``data``."""

    def make(*words: str) -> Summary:
        given = {word.partition("=")[0] for word in words}
        usual = {"method": "direct", "size": "native", "images": "all", "data_root": str(tmp_path / "data")}
        return run(configure(*(f"{k}={v}" for k, v in usual.items() if k not in given), *words))

    (tmp_path / "data").mkdir()
    return make


def folder_of(summary: Summary, image: str) -> Path:
    (found,) = summary.folder.glob(f"{image}-??????")
    return found


def volume_of(summary: Summary, name: str) -> Path:
    (found,) = summary.folder.glob(f"volume-{name}-??????")
    return found


def write_series(folder: Path, count: int = 3, **tags: Any) -> list[np.ndarray]:
    """A CT series whose files' names are in the reverse order of their positions; returns Hounsfield units in order."""
    stacks = []
    for z in range(count):
        y, x = np.mgrid[-1:1:24j, -1:1:20j]
        pixels = (100 * z + 1000 * np.exp(-3 * (x - 0.2) ** 2 - 2 * y**2)).astype(np.uint16)
        stacks.append(pixels.astype(float) - 1024)
        place = {"ImagePositionPatient": [-10, -12, 2.5 * z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        more = {"SeriesInstanceUID": "1.2.3", "SOPInstanceUID": f"1.2.3.{z}", "PixelSpacing": [0.5, 0.25]}
        kind = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
        named = {"StudyInstanceUID": "1.2", "SeriesNumber": 3, "SeriesDescription": "chest", "PatientName": "A^B"}
        how = {"RescaleSlope": 1, "RescaleIntercept": -1024, "InstanceNumber": count - z, **tags}
        write_dicom(folder / f"IM{count - z}.dcm", pixels, **place, **more, **kind, **named, **how)
    return stacks


def test_a_dicom_series_comes_back_as_one(computed: Callable[..., Summary], tmp_path: Path) -> None:
    stacks = write_series(tmp_path / "data")
    summary = computed("task=ct", "dataset=ct", "views=90", "dataset.hu_high=1000")
    assert [r.image for r in summary.records] == ["IM3", "IM2", "IM1"], "sorted by position, not by name"
    files = sorted((volume_of(summary, "series0") / "reconstruction").iterdir())
    assert len(files) == 3
    images = [pydicom.dcmread(path) for path in files]
    old = [pydicom.dcmread(tmp_path / "data" / f"IM{n}.dcm") for n in (3, 2, 1)]
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SOPInstanceUID for image in [*images, *old]}) == 6
    for image, before, hu in zip(images, old, stacks, strict=True):
        assert image.SeriesInstanceUID != before.SeriesInstanceUID
        assert (image.StudyInstanceUID, image.PatientName) == ("1.2", "A^B")
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert "chest" in image.SeriesDescription and "Direct" in image.SeriesDescription
        # the task takes the central square: two rows less at the top and at the bottom
        assert (image.Rows, image.Columns) == (20, 20)
        assert [float(v) for v in image.ImagePositionPatient] == [-10, -11, float(before.ImagePositionPatient[2])]
        found = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        assert np.corrcoef(found.ravel(), hu[2:22].ravel())[0, 1] > 0.9
        assert abs(found.mean() - hu[2:22].mean()) < 40
    own = pydicom.dcmread(folder_of(summary, "IM2") / "reconstruction.dcm")
    assert own.SOPInstanceUID == images[1].SOPInstanceUID
    with Image.open(volume_of(summary, "series0") / "preview.png") as picture:
        assert picture.size == (40, 40)
    if (dcm2niix := shutil.which("dcm2niix")) is not None:
        out = tmp_path / "nifti"
        out.mkdir()
        subprocess.run([dcm2niix, "-o", out, files[0].parent], check=True, capture_output=True)
        assert list(out.glob("*.nii*"))


def test_resized_slices_keep_their_place(computed: Callable[..., Summary], tmp_path: Path) -> None:
    write_series(tmp_path / "data", 1)
    summary = computed("task=ct", "dataset=ct", "size=40")
    image = pydicom.dcmread(folder_of(summary, "IM1") / "reconstruction.dcm")
    assert (image.Rows, image.Columns) == (40, 40)
    assert [float(v) for v in image.PixelSpacing] == [0.25, 0.125]
    # the corner of the first pixel stays where it was: its centre moves by a quarter of an old pixel
    assert [float(v) for v in image.ImagePositionPatient] == [-10 - 0.25 * 0.25, -12 + 2 * 0.5 - 0.25 * 0.5, 0]


def test_frames_of_a_file_come_back_in_one(computed: Callable[..., Summary], tmp_path: Path) -> None:
    pixels = RNG.integers(900, 1500, (3, 20, 20)).astype(np.uint16)
    write_dicom(
        tmp_path / "data" / "a.dcm", pixels, NumberOfFrames=3, RescaleSlope=1, SOPClassUID="1.2", SOPInstanceUID="1.3"
    )
    summary = computed("task=ct", "dataset=ct", "views=90", "dataset.hu_high=1000")
    whole = pydicom.dcmread(volume_of(summary, "a") / "reconstruction.dcm")
    assert whole.pixel_array.shape == (3, 20, 20)
    one = pydicom.dcmread(folder_of(summary, "a_s001") / "reconstruction.dcm")
    assert np.array_equal(one.pixel_array, whole.pixel_array[1])


def test_mr_dicom_in_nested_folders(computed: Callable[..., Summary], tmp_path: Path) -> None:
    nested = tmp_path / "data" / "DICOM" / "S0"
    nested.mkdir(parents=True)
    none = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "MR"}
    stacks = [hu + 1024 for hu in write_series(nested, **none)]
    with pytest.raises(UserError, match=r"is of modality MR, MONOCHROME2: expected a CT .*dataset=dicom"):
        next(iter(make_reader("ct", tmp_path / "data").items().values()))()
    summary = computed("task=denoising", "dataset=dicom", "truth=none", "sigma=5")
    files = sorted((volume_of(summary, "series0") / "reconstruction").iterdir())
    for path, values in zip(files, stacks, strict=True):
        assert np.abs(pydicom.dcmread(path).pixel_array - values).max() <= 1
    assert len({record.origin["high"] for record in summary.records}) == 1, "one scale for all slices"


def test_k_space_of_four_slices(computed: Callable[..., Summary], tmp_path: Path) -> None:
    maps = simulated_coils(4, (48, 40), generator("scan"))
    images = [brain(48)[:, 4:44] * scale for scale in (3e-6, 2e-6, 1e-6, 4e-6)]
    with h5py.File(tmp_path / "data" / "scan.h5", "w") as file:
        file["kspace"] = np.stack([fft2c(maps * image).numpy() for image in images])
        file["sens_maps"] = maps[None].numpy()
    summary = computed("dataset=kspace", "accel=1.1", "center_fraction=0.9")
    assert [r.image for r in summary.records] == [f"scan_s00{i}" for i in range(4)]
    with h5py.File(volume_of(summary, "scan") / "reconstruction.h5") as file:
        stored = file["reconstruction"]
        assert stored.shape == (4, 48, 40) and stored.dtype == np.float32
        assert "k-space" in stored.attrs["unit"]
        for found, image in zip(stored, images, strict=True):
            expected = image.abs().numpy()
            assert np.linalg.norm(found - expected) < 0.15 * np.linalg.norm(expected), "in the file's own units"
    record = json.loads((folder_of(summary, "scan_s001") / "record.json").read_text())
    assert record["origin"]["volume"] == "scan" and record["origin"]["slices"] == 4
    assert record["command"][-3:] == ["dataset.slice=all", "images=scan_s001", "seed=0"]
    again = computed("dataset=kspace", "accel=1.1", "center_fraction=0.9", "dataset.slice=all", "images=scan_s001")
    assert again.skipped == ["scan_s001"], "images=all and dataset.slice=all are the same"


def test_the_middle_slice_is_what_it_was(computed: Callable[..., Summary], tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "data" / "a.tif", RNG.integers(0, 255, (5, 20, 20), dtype=np.uint8), photometric="minisblack"
    )
    words = ("task=denoising", "dataset=folder", "truth=none")
    assert [r.image for r in computed(*words, "dataset.slice=middle").records] == ["a"]
    assert computed(*words, "images=0").skipped == ["a"]


def test_a_tiff_whose_zero_is_white_comes_back_as_bright_with_zero_as_black(
    computed: Callable[..., Summary], tmp_path: Path
) -> None:
    grey = RNG.integers(0, 4096, (20, 30), dtype=np.uint16)
    declared = [(281, "H", 1, 4095, True)]
    tifffile.imwrite(tmp_path / "data" / "a.tif", grey, photometric="miniswhite", extratags=declared)
    summary = computed("task=denoising", "dataset=folder", "truth=none", "sigma=5")
    with tifffile.TiffFile(folder_of(summary, "a") / "reconstruction.tif") as tiff:
        assert tiff.pages[0].photometric.name == "MINISBLACK" and tiff.pages[0].tags["MaxSampleValue"].value == 4095
        assert np.array_equal(tiff.asarray(), 4095 - grey)


@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_twelve_bit_stack(computed: Callable[..., Summary], tmp_path: Path, colours: tuple[int, ...]) -> None:
    stack = RNG.integers(0, 900, (3, 20, 30, *colours), dtype=np.uint16)
    stack[1, 0, 0] = 4095
    tifffile.imwrite(tmp_path / "data" / "a.tif", stack, photometric="rgb" if colours else "minisblack")
    summary = computed("task=denoising", "dataset=folder", "truth=none", "sigma=5")
    assert summary.records[0].facts["notes"][0].startswith("its largest value is 4095"), "one white for all slices"
    path = volume_of(summary, "a") / "reconstruction.tif"
    assert np.array_equal(tifffile.imread(path), stack)
    again = make_reader("picture", path.parent, files=[path.name], options={"slice": "0"}).items()
    assert not next(iter(again.values()))().notes, "the tag says what white is"


def test_pictures_of_their_own(computed: Callable[..., Summary], tmp_path: Path) -> None:
    grey, colour = RNG.integers(0, 256, (20, 30), dtype=np.uint8), RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "data" / "grey.png")
    Image.fromarray(colour).save(tmp_path / "data" / "colour.bmp")
    Image.fromarray(grey).save(tmp_path / "data" / "eight.tif")
    tifffile.imwrite(tmp_path / "data" / "real.tif", grey.astype(np.float32) / 255)
    summary = computed("task=denoising", "dataset=folder", "truth=none", "sigma=5")
    for name, pixels in (("grey", grey), ("colour", colour)):
        path = folder_of(summary, name) / "reconstruction.png"
        again = next(iter(make_reader("picture", path.parent, files=[path.name]).items().values()))()
        assert np.array_equal(np.rint(again.image.movedim(0, -1).numpy().squeeze() * 65535), pixels * 257.0)
    assert np.array_equal(tifffile.imread(folder_of(summary, "eight") / "reconstruction.tif"), grey * np.uint16(257))
    real = tifffile.imread(folder_of(summary, "real") / "reconstruction.tif")
    assert real.dtype == np.float32 and np.allclose(real, grey / 255, atol=1e-6)


def test_the_command(computed: Callable[..., Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "data", 2)
    summary = computed("task=ct", "dataset=ct")
    files = {path: path.read_bytes() for path in summary.folder.rglob("*.dcm")}
    for path in files:
        path.unlink()
    main(["export", str(summary.folder), "--to", "dicom", "--data", str(tmp_path / "data")])
    assert {path: path.read_bytes() for path in summary.folder.rglob("*.dcm")} == files, "the same bytes again"
    main(["export", str(summary.folder), "--to", "h5"])
    with h5py.File(volume_of(summary, "series0") / "reconstruction.h5") as file:
        assert file["reconstruction"].shape == (2, 20, 20)
        assert file["reconstruction"].attrs["unit"] == "Hounsfield units"
    printed = capsys.readouterr()
    assert str(folder_of(summary, "IM1")) in printed.out and "slices are finished" not in printed.err
    shutil.rmtree(folder_of(summary, "IM1"))
    main(["export", str(summary.folder), "--to", "h5"])
    assert f"{volume_of(summary, 'series0')}: 1 of 2 slices are finished" in capsys.readouterr().err
    for words, message in {
        ("--to", "dicom"): ".dcm was: say --data FOLDER",
        ("--to", "nifti"): "was not read from a nifti file",
        ("--to", "dicom", "--data", str(tmp_path / "nowhere")): ".dcm is not there: say --data",
    }.items():
        with pytest.raises(SystemExit):
            main(["export", str(summary.folder), *words])
        assert message in capsys.readouterr().err


def test_results_from_before_records_had_an_origin(computed: Callable[..., Summary], tmp_path: Path) -> None:
    summary = computed("dataset=brain", "images=0", "size=64")
    folder = summary.folder / "brain00"
    record = json.loads((folder / "record.json").read_text())
    del record["origin"]
    (folder / "record.json").write_text(json.dumps(record))
    main(["export", str(folder), "--to", "h5"])
    with h5py.File(folder / "reconstruction.h5") as file:
        assert file["reconstruction"][0].max() == pytest.approx(
            np.load(folder / "reconstruction.npz")["shown"].max() / record["facts"]["scale"], rel=1e-5
        )
    with pytest.raises(UserError, match="no finished result"):
        export.main([str(tmp_path / "data"), "--to", "png"])


def test_a_header_that_cannot_be_written_costs_no_result(
    computed: Callable[..., Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd header")

    monkeypatch.setitem(export.WRITERS, "dicom", fail)
    write_series(tmp_path / "data", 1)
    assert len(computed("task=ct", "dataset=ct").records) == 1
    assert "IM1 could not be written as dicom: odd header" in caplog.text


def test_a_nifti_volume(computed: Callable[..., Summary], tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    array = RNG.integers(-50, 900, (30, 24, 3)).astype(np.int16)
    affine = np.array([[-2.0, 0, 0, 5], [0, 1.5, 0.1, 6], [0, -0.1, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "data" / "a.nii.gz")
    summary = computed("task=denoising", "dataset=nifti", "truth=none", "sigma=5")
    image = nibabel.load(volume_of(summary, "a") / "reconstruction.nii.gz")
    assert np.allclose(image.get_fdata(), array, atol=0.01) and np.allclose(image.affine, affine)
    one = nibabel.load(folder_of(summary, "a_s001") / "reconstruction.nii.gz")
    assert np.allclose(one.affine @ [0, 0, 0, 1], affine @ [0, 0, 1, 1]), "a slice lies where it was"
    cropped = computed("dataset=nifti", "size=20", "accel=1.1", "center_fraction=0.9")
    image = nibabel.load(volume_of(cropped, "a") / "reconstruction.nii.gz")
    assert image.shape == (20, 20, 3)
    assert np.allclose(image.affine @ [0, 0, 0, 1], affine @ [5, 2, 0, 1])


def test_a_scan_sampled_in_two_dimensions(computed: Callable[..., Summary], tmp_path: Path) -> None:
    maps = simulated_coils(8, (48, 40), generator("scan"))
    points = np.random.default_rng(1).random((48, 40)) < 0.5
    points[14:34, 10:30] = True
    image = brain(48)[:, 4:44]
    with h5py.File(tmp_path / "data" / "scan.h5", "w") as file:
        file["kspace"] = np.where(points, fft2c(maps * image)[None].numpy(), 0)
    summary = computed("dataset=kspace", "method=cg", "accel=8")
    (record,) = summary.records
    accel = points.size / points.sum()
    assert record.setting == f"accel{round(accel, 2):g}-own" and summary.folder.parent.name == record.setting
    assert record.facts["sampled_points"] == points.sum() and not record.known
    assert f"undersampled on the scanner, {accel:.2f}x" in record.facts["notes"][-1]
    with h5py.File(folder_of(summary, "scan") / "reconstruction.h5") as file:
        found, expected = file["reconstruction"][0], image.abs().numpy()
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    assert computed("dataset=kspace", "method=cg", "accel=4").skipped == ["scan"], "accel means nothing to it"
    held = computed("dataset=kspace", "method=vanilla_dip", "stop=holdout", "size=native", "steps=3")
    assert held.records[0].facts["heldout"] > 0


def test_a_measured_sinogram(computed: Callable[..., Summary], tmp_path: Path) -> None:
    transform = pytest.importorskip("skimage.transform")
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    image = 0.02 * (np.exp(-8 * (x - 0.2) ** 2 - 6 * y**2) + (x**2 + y**2 < 0.7))
    angles = np.linspace(10, 370, 60, endpoint=False)  # over the full circle
    np.savez(tmp_path / "data" / "a.npz", sinogram=transform.radon(image, angles, circle=True), angles=angles)
    summary = computed("task=ct", "dataset=sinogram", "method=tv")
    (record,) = summary.records
    assert record.setting == "views60" and not record.known
    main(["export", str(summary.folder), "--to", "h5"])
    with h5py.File(folder_of(summary, "a") / "reconstruction.h5") as file:
        assert np.linalg.norm(file["reconstruction"][0] - image) < 0.12 * np.linalg.norm(image)


def test_a_small_bright_object_of_a_sinogram_is_not_cut_off(computed: Callable[..., Summary], tmp_path: Path) -> None:
    """Filtered back-projection, by which images are scaled, has it far too dark."""
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:44, 20:44], image[..., 30:32, 30:32] = 0.2, 1.0
    A = ParallelBeam(size=64, views=90)
    np.savez(tmp_path / "data" / "a.npz", sinogram=(A(image) / A.scale)[0, 0].numpy(), angles=2 * np.arange(90))
    summary = computed("task=ct", "dataset=sinogram", "method=cg")
    main(["export", str(summary.folder), "--to", "h5"])
    with h5py.File(folder_of(summary, "a") / "reconstruction.h5") as file:
        assert file["reconstruction"][0].max() > 0.9
    for more, squashed in (((), False), (("network.sigmoid=true",), True)):
        summary = computed("task=ct", "dataset=sinogram", "method=vanilla_dip", "network=skip", *more)
        with np.load(folder_of(summary, "a") / "reconstruction.npz") as saved:
            assert (saved["reconstruction"].min() >= 0) == squashed, "a sigmoid's largest is 1, and is to be asked for"


def test_results_among_nested_data_are_no_data(computed: Callable[..., Summary], tmp_path: Path) -> None:
    nested = tmp_path / "data" / "reconstruction" / "S0"  # a scanner's word, too
    nested.mkdir(parents=True)
    write_series(nested, 2, RescaleSlope=1, RescaleIntercept=0, Modality="MR")
    (nested.parent / "recon").mkdir()
    for name in ("reconstruction.npz", "record.json"):  # another program's, beside the scans it is of
        (nested.parent / "recon" / name).touch()
    words = ("task=denoising", "dataset=dicom", "truth=none", "sigma=5", f"outputs={tmp_path / 'data' / 'outputs'}")
    assert len(computed(*words).records) == 2
    assert sorted((tmp_path / "data" / "outputs").rglob("volume-*/**/*.dcm")), "there they are"
    again = computed(*words)
    assert (again.skipped, again.records) == (["IM2", "IM1"], [])
    for record in (tmp_path / "data" / "outputs").rglob("record.json"):  # as a full disk leaves it
        record.unlink()
    assert sorted(record.image for record in computed(*words).records) == ["IM1", "IM2"]


def test_the_mask_of_a_series_is_its_own_whatever_lies_beside_it(configure: Configure, tmp_path: Path) -> None:
    kind = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "MR"}
    words = ("task=mri", "dataset=dicom", "size=20", "coils=4", f"data_root={tmp_path}")

    def masks(*more: str) -> dict[str, list[bool]]:
        cfg = configure(*words, *more)
        made = {name: make_task(cfg).make(name, load()) for name, load in open_dataset(cfg).items()}
        return {name: case.problem.operator.mask.tolist() for name, case in made.items()}

    write_series(tmp_path, 1, **kind)
    alone = masks()["IM1"]
    write_series(tmp_path, 2, **kind)
    (tmp_path / "A.dcm").write_bytes((tmp_path / "IM1.dcm").read_bytes())
    other = pydicom.dcmread(tmp_path / "A.dcm")
    other.SeriesInstanceUID = "9.9"
    other.save_as(tmp_path / "A.dcm")
    found = masks()
    assert found["IM1"] == found["IM2"] == alone, "its number in the folder is now another"
    assert found["A"] != alone
    assert masks("dataset.files=[IM2.dcm]")["IM2"] == alone


def test_one_unreadable_slice_fails_alone(computed: Callable[..., Summary], tmp_path: Path) -> None:
    write_series(tmp_path / "data", 3, RescaleSlope=1, RescaleIntercept=0, Modality="MR")
    cut = tmp_path / "data" / "IM2.dcm"
    cut.write_bytes(cut.read_bytes()[:-300])
    summary = computed("task=denoising", "dataset=dicom", "truth=none", "sigma=5")
    assert list(summary.failed) == ["IM2"] and len(summary.records) == 2
    assert all("1 of the 3 files of its series cannot be read" in str(r.facts["notes"]) for r in summary.records)


def test_the_index_of_a_disc_is_no_image(computed: Callable[..., Summary], tmp_path: Path) -> None:
    (tmp_path / "data" / "DICOM").mkdir()
    write_series(tmp_path / "data" / "DICOM", 1, RescaleSlope=1, RescaleIntercept=0, Modality="MR")
    (tmp_path / "data" / "DICOMDIR").write_bytes((tmp_path / "data" / "DICOM" / "IM1.dcm").read_bytes())
    assert list(make_reader("dicom", tmp_path / "data").items()) == ["IM1"]


def test_a_result_of_another_kind_stops_no_export(
    computed: Callable[..., Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (24, 24), 90).save(tmp_path / "data" / "a.png")
    picture = computed("task=denoising", "dataset=folder")
    write_series(tmp_path / "data", 1)
    scan = computed("task=ct", "dataset=ct")
    written = folder_of(scan, "IM1") / "reconstruction.dcm"
    written.unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(picture.folder), str(scan.folder), "--to", "dicom", "--data", str(tmp_path / "data")])
    assert written.is_file()
    assert f"{folder_of(picture, 'a')}: a was not read from a dicom file" in capsys.readouterr().err


def test_pictures_of_a_folder_keep_their_aspect(computed: Callable[..., Summary], tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (24, 48), dtype=np.uint8)).save(tmp_path / "data" / "a.png")
    summary = computed("task=denoising", "dataset=folder", "size=32")
    with Image.open(folder_of(summary, "a") / "reconstruction.png") as picture:
        assert picture.size == (64, 32)


def write_patient(folder: Path, name: str, value: int, z: float) -> Path:
    """One CT slice of somebody, ``IM1.dcm`` as everybody's."""
    folder.mkdir()
    where = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    kind = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SeriesInstanceUID": "1.2", "SOPInstanceUID": "1.3"}
    pixels = np.full((20, 20), value, np.uint16)
    return write_dicom(folder / "IM1.dcm", pixels, RescaleSlope=1, PatientName=name, **where, **kind)


def test_a_result_gets_no_other_patients_header(
    computed: Callable[..., Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("task=denoising", "dataset=ct", "truth=none", "sigma=0")
    patients = {"A": (1100, 0.0), "B": (1700, 50.0)}
    for name, (value, z) in patients.items():
        write_patient(tmp_path / "data" / name, name, value, z)
        summary = computed(*words, f"data_root={tmp_path / 'data' / name}")
    for path in summary.folder.rglob("*.dcm"):
        path.unlink()
    main(["export", str(summary.folder), "--to", "dicom", "--data", str(tmp_path / "data")])
    images = [pydicom.dcmread(path) for path in summary.folder.rglob("*.dcm")]
    found = {str(i.PatientName): (int(i.pixel_array[0, 0]), float(i.ImagePositionPatient[2])) for i in images}
    assert found == patients
    with pytest.raises(SystemExit):
        main(["export", str(summary.folder), "--to", "dicom", "--data", str(tmp_path / "data" / "A")])
    assert "IM1.dcm is not the file that it was computed from: say --data FOLDER of that one" in capsys.readouterr().err


def test_a_record_that_does_not_know_its_file_gets_no_header(
    computed: Callable[..., Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "data", 2)
    summary = computed("task=ct", "dataset=ct")
    for path in summary.folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        record["origin"] = {k: v for k, v in record["origin"].items() if "digest" not in k}
        path.write_text(json.dumps(record))
    for kind, message in {"dicom": "does not say which IM", "h5": "its record does not say of whose"}.items():
        with pytest.raises(SystemExit):
            main(["export", str(summary.folder), "--to", kind, "--data", str(tmp_path / "data")])
        assert message in capsys.readouterr().err
    assert (folder_of(summary, "IM1") / "reconstruction.h5").is_file()
    assert not list(summary.folder.glob("volume-*/*.h5"))


def test_a_file_that_was_replaced_meanwhile_lends_no_header(computed: Callable[..., Summary], tmp_path: Path) -> None:
    path = write_patient(tmp_path / "data" / "A", "A", 1100, 0)
    summary = computed("task=denoising", "dataset=ct", "truth=none", f"data_root={path.parent}")
    result = export.load(folder_of(summary, "IM1"), summary.records[0], path)
    assert result.needed("dicom") == path
    path.write_bytes(write_patient(tmp_path / "data" / "B", "B", 1700, 50).read_bytes())
    with pytest.raises(UserError, match="is not the file that it was computed from"):
        result.needed("dicom")


@pytest.mark.parametrize("kind", ["nifti", "ct"])
def test_volumes_of_one_name_are_kept_apart(computed: Callable[..., Summary], tmp_path: Path, kind: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    stacks = []
    for number, count in enumerate((4, 3)):  # the second has fewer slices than the first
        folder = tmp_path / "data" / str(number)
        folder.mkdir()
        if kind == "ct":
            write_series(folder, count, RescaleIntercept=-1024 + 50 * number)
        else:
            array = RNG.integers(0, 900, (20, 16, count)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / "scan.nii.gz")
        summary = computed("task=denoising", f"dataset={kind}", "truth=none", "sigma=0", f"data_root={folder}")
        stacks.append(np.stack([export.load(folder_of_record(summary, r), r, None).values for r in summary.records]))
    main(["export", str(summary.folder), "--to", "h5"])
    volumes = {}
    for path in summary.folder.glob("volume-*/reconstruction.h5"):
        with h5py.File(path) as file:
            values = volumes[len(file["reconstruction"])] = file["reconstruction"][()]
        if kind == "ct":
            assert len(list((path.parent / "reconstruction").iterdir())) == len(values)
    assert [volumes[len(stack)].tolist() for stack in stacks] == [stack.tolist() for stack in stacks]


def folder_of_record(summary: Summary, record: Record) -> Path:
    (found,) = (t.folder for t in records.scan([summary.folder]) if t.record is not None and t.record == record)
    return found


def test_two_results_for_one_slice_are_refused(
    computed: Callable[..., Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "data", 2)
    summary = computed("task=ct", "dataset=ct")
    shutil.copytree(folder_of(summary, "IM1"), summary.folder / "renamed")
    with pytest.raises(SystemExit):
        main(["export", str(summary.folder), "--to", "h5"])
    assert "IM1 and IM1 are both slice 1 of volume-series0-" in capsys.readouterr().err


def test_what_a_volume_had_before_does_not_stay_between_its_slices(
    computed: Callable[..., Summary], tmp_path: Path
) -> None:
    write_series(tmp_path / "data", 2)
    summary = computed("task=ct", "dataset=ct")
    folder = volume_of(summary, "series0")
    (folder / "reconstruction" / "0002.dcm").write_bytes(b"another patient's")
    main(["export", str(summary.folder), "--to", "dicom", "--data", str(tmp_path / "data")])
    assert sorted(path.name for path in (folder / "reconstruction").iterdir()) == ["0000.dcm", "0001.dcm"]


def test_a_slice_that_comes_later_takes_its_place(
    computed: Callable[..., Summary], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = ("task=denoising", "dataset=ct", "truth=none", "sigma=0")
    stacks = write_series(tmp_path / "data", 4)
    late = tmp_path / "data" / "IM3.dcm"  # the second of four
    late.rename(tmp_path / "IM3.dcm")
    assert len(computed(*words).records) == 3
    (tmp_path / "IM3.dcm").rename(late)
    summary = computed(*words)
    assert ([r.image for r in summary.records], len(summary.skipped)) == (["IM3"], 3)
    assert "series0: all 4 slices" in caplog.text
    numbers = {r.image: r.origin["slice"] for t in records.scan([summary.folder]) if (r := t.record) is not None}
    assert numbers == {"IM4": 0, "IM3": 1, "IM2": 2, "IM1": 3}, "records say where they stand now"
    (folder,) = (f for f in summary.folder.glob("volume-*") if len(list((f / "reconstruction").iterdir())) == 4)
    for path, hu in zip(sorted((folder / "reconstruction").iterdir()), stacks, strict=True):
        image = pydicom.dcmread(path)
        assert np.abs(image.pixel_array + float(image.RescaleIntercept) - hu).max() <= 1
    assert len(computed(*words).skipped) == 4


@pytest.mark.parametrize("what", ["unit", "affine"])
def test_a_file_that_was_corrected_is_computed_again(
    computed: Callable[..., Summary], tmp_path: Path, what: str
) -> None:
    nibabel = pytest.importorskip("nibabel")
    words = ("task=denoising", "dataset=nifti", "truth=none", "sigma=0")
    array, affine = RNG.random((20, 16, 2)).astype(np.float32) * 100, np.diag([1.0, 1.0, 5.0, 1.0])
    path = tmp_path / "data" / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    first = computed(*words)
    if what == "unit":
        array = array * 2
    else:
        affine = np.diag([2.0, 1.5, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    second = computed(*words)
    assert len(second.records) == 2 and not second.skipped
    assert [r.content for r in second.records] == [r.content for r in first.records], "the same pictures"
    folders = [folder_of_record(second, record) for record in (first.records[0], second.records[0])]
    assert folders[0] != folders[1]
    image = nibabel.load(folders[1] / "reconstruction.nii.gz")
    assert np.allclose(image.get_fdata()[..., 0], array[..., 0], rtol=1e-4) and np.allclose(image.affine, affine)
    assert len(computed(*words).skipped) == 2


def test_a_tiff_of_what_is_no_picture_is_in_the_files_units(computed: Callable[..., Summary], tmp_path: Path) -> None:
    write_series(tmp_path / "data", 1)
    np.save(tmp_path / "data" / "head.npy", 3000 * brain(32).abs().numpy())
    ct = computed("task=denoising", "dataset=ct", "truth=none", "sigma=0")
    mri = computed("dataset=complex", "accel=1.1", "center_fraction=0.9", "coils=2", "noise=0")
    for summary, image, unit in ((ct, "IM1", "Hounsfield units"), (mri, "head", "values of the file")):
        main(["export", str(summary.folder), "--to", "tiff"])
        result = export.load(folder_of(summary, image), summary.records[0], None)
        with tifffile.TiffFile(folder_of(summary, image) / "reconstruction.tif") as file:
            stored = file.asarray()
            assert unit in file.pages[0].description
        assert stored.dtype == np.float32 and np.array_equal(stored, result.values)
    assert export.load(folder_of(ct, "IM1"), ct.records[0], None).values.min() < -900
    assert stored.max() > mri.records[0].origin["high"], "nothing is cut off"


def test_the_largest_white_of_a_stack_is_its_white(tmp_path: Path) -> None:
    stack = [np.full((4, 4), 200), np.full((4, 4), 4000)]
    results = [
        export.Result(
            Record(image="a", task="denoising", setting="", method="direct", origin={"kind": "tiff", "high": high}),
            image / high,
        )
        for image, high in zip(stack, (255.0, 4095.0), strict=True)
    ]
    export.write_tiff(tmp_path, results)
    assert np.array_equal(tifffile.imread(tmp_path / "reconstruction.tif"), np.stack(stack))


def test_dicom_of_32_bits_keeps_its_values(computed: Callable[..., Summary], tmp_path: Path) -> None:
    pixels = RNG.integers(0, 10**6, (20, 20)).astype(np.uint32)
    none = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "MR"}
    bits = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    write_dicom(tmp_path / "data" / "a.dcm", pixels, SOPClassUID="1.2", SOPInstanceUID="1.3", **none, **bits)
    summary = computed("task=denoising", "dataset=dicom", "truth=none", "sigma=0")
    stored = pydicom.dcmread(folder_of(summary, "a") / "reconstruction.dcm").pixel_array
    assert np.abs(stored.astype(float) - pixels).max() <= 1


def test_large_values_of_monochrome1_are_shown_dark(computed: Callable[..., Summary], tmp_path: Path) -> None:
    pixels = np.tile(np.arange(0, 2000, 100, dtype=np.uint16), (20, 1))
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "DX", "PhotometricInterpretation": "MONOCHROME1"}
    write_dicom(tmp_path / "data" / "a.dcm", pixels, SOPClassUID="1.2", SOPInstanceUID="1.3", **tags)
    summary = computed("task=denoising", "dataset=dicom", "truth=none", "sigma=0")
    with Image.open(folder_of(summary, "a") / "reconstruction.png") as picture:
        shown = np.asarray(picture)
    assert (shown[0, 0], shown[0, -1]) == (65535, 0)
    image = pydicom.dcmread(folder_of(summary, "a") / "reconstruction.dcm")
    assert image.PhotometricInterpretation == "MONOCHROME1" and np.array_equal(image.pixel_array, pixels)


def test_results_that_cannot_be_read_or_written_stop_no_export(
    computed: Callable[..., Summary],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_series(tmp_path / "data", 3)
    summary = computed("task=ct", "dataset=ct")
    (folder_of(summary, "IM3") / "reconstruction.npz").unlink()
    for name in ("IM1", "IM2"):
        (folder_of(summary, name) / "reconstruction.dcm").unlink()
    writer = export.WRITERS["dicom"]

    def write(folder: Path, slices: Any) -> Any:
        if folder.name.startswith("IM2"):
            raise PermissionError(13, "Permission denied")
        return writer(folder, slices)

    monkeypatch.setitem(export.WRITERS, "dicom", write)
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(summary.folder), "--to", "dicom", "--data", str(tmp_path / "data")])
    assert (folder_of(summary, "IM1") / "reconstruction.dcm").is_file()
    said = capsys.readouterr().err
    assert "reconstruction.npz cannot be read" in said and "Permission denied" in said
    assert "1 of 3 slices are finished and could be written, so the volume is not" in said


def test_a_bright_start_image_of_a_sinogram_is_not_cut_off(computed: Callable[..., Summary], tmp_path: Path) -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:44, 20:44], image[..., 30:32, 30:32] = 0.2, 1.0
    A = ParallelBeam(size=64, views=90)
    np.savez(tmp_path / "data" / "a.npz", sinogram=(A(image) / A.scale)[0, 0].numpy(), angles=2 * np.arange(90))
    summary = computed("task=ct", "dataset=sinogram", "method=aseqdip", "start=cg")
    with np.load(folder_of(summary, "a") / "reconstruction.npz") as saved:
        assert saved["start"].max() > 1.1


def test_results_of_two_settings_have_one_folder(computed: Callable[..., Summary], tmp_path: Path) -> None:
    for name, views in (("a", 30), ("b", 40)):
        np.savez(tmp_path / "data" / f"{name}.npz", sinogram=np.ones((32, views)), angles=np.linspace(0, 179, views))
    summary = computed("task=ct", "dataset=sinogram")
    assert {r.image for r in summary.records} == {"a", "b"}
    assert len(list(summary.folder.rglob("record.json"))) == 2
