"""CT slices: Hounsfield units or a refusal; never values of another kind through the same window."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from aseqdip.data import Sample, make_reader
from aseqdip.data._dicom import _say
from aseqdip.errors import UserError

MISSING = object()


def write_dicom(path: Path, pixels: np.ndarray | None = None, **tags: Any) -> Path:
    """A CT image; tags replace the usual ones, or take them away."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) if pixels is None else pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])  # always the same bytes
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    usual = {
        "Modality": "CT",
        "PatientID": "P1",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
    }
    for name, value in (usual | tags).items():
        if value is not MISSING:
            setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    file["PixelData"].VR = "OW"
    file.save_as(path, enforce_file_format=True)
    return path


def load(path: Path, **options: Any) -> Sample:
    return next(iter(make_reader("ct", path.parent, files=[path.name], options=options).items().values()))()


def hu(sample: Sample) -> np.ndarray:
    return sample.image[0].numpy() * 3024 - 1024


def test_window(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hu=np.array([[-3024, -1024], [488, 3000]], dtype=np.int16), subject="P3")
    sample = load(tmp_path / "a.npz")
    assert sample.image is not None
    assert torch.allclose(sample.image, torch.tensor([[[0, 0], [0.5, 1]]]))
    assert (sample.patient, sample.hu_width, sample.notes) == ("P3", 3024, [])
    other = load(tmp_path / "a.npz", hu_low=-200.0, hu_high=300.0)
    assert other.image.flatten().tolist() == [0, 0, 1, 1]
    assert other.hu_width == 500


def test_an_element_of_no_known_kind_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0KO"))
    with pytest.raises(UserError, match="a.dcm could not be read"):
        load(path)


def test_dicom_rescale(tmp_path: Path) -> None:
    sample = load(write_dicom(tmp_path / "a.dcm"))
    assert np.allclose(hu(sample), np.arange(64).reshape(8, 8) * 2 - 1024, atol=1e-3)
    assert (sample.patient, sample.source, sample.notes) == ("P1", "a.dcm", [])


def test_rescale_of_enhanced_ct(tmp_path: Path) -> None:
    values, group = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = 1, -1000
    group.PixelValueTransformationSequence = [values]
    path = write_dicom(
        tmp_path / "a.dcm", RescaleSlope=MISSING, RescaleIntercept=MISSING, SharedFunctionalGroupsSequence=[group]
    )
    assert np.allclose(hu(load(path)), np.arange(64).reshape(8, 8) - 1000, atol=1e-3)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            {"RescaleSlope": MISSING, "RescaleIntercept": MISSING},
            "RescaleSlope missing, RescaleIntercept missing; expected",
        ),
        ({"RescaleIntercept": MISSING}, "RescaleIntercept missing; expected"),
        ({"RescaleSlope": None}, "RescaleSlope missing"),
        ({"RescaleSlope": 0}, "RescaleSlope 0.*expected two numbers, the first not 0"),
        ({"Modality": "MR"}, "is of modality MR, MONOCHROME2: expected a CT image"),
        ({"Modality": "PT"}, "is of modality PT"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR: expected a CT image in grey values"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "expected a CT image in grey values"),
        ({"Rows": 0}, "it is empty"),
        ({"Rows": MISSING}, "it is empty"),
        ({"Rows": 60000, "Columns": 60000}, "more than dataset.max_gib=2"),
        ({"Rows": 9}, "could not be read"),
        ({"BitsAllocated": 7}, "could not be read"),
    ],
)
def test_dicom_that_is_no_ct_in_hounsfield_units(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"a.dcm.*{message}"):
        load(write_dicom(tmp_path / "a.dcm", **tags))


@pytest.mark.parametrize("value", [b"abc ", b"", b"nan ", b"1\\2 "])
def test_rescale_that_is_no_number(tmp_path: Path, value: bytes) -> None:
    path = write_dicom(tmp_path / "a.dcm", RescaleSlope="9.875")
    where = path.read_bytes().index(b"9.875 ")
    content = path.read_bytes()
    path.write_bytes(content[: where - 2] + len(value).to_bytes(2, "little") + value + content[where + 6 :])
    with pytest.raises(UserError, match=r"a.dcm.*(expected two numbers|could not be read)"):
        load(path)


def test_damaged_dicom(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="a.dcm could not be read"):
        load(path)
    path.write_text("not DICOM")
    with pytest.raises(UserError, match="a.dcm could not be read .*expected a DICOM image"):
        load(path)


def test_a_missing_modality_is_said(tmp_path: Path) -> None:
    assert load(write_dicom(tmp_path / "a.dcm", Modality=MISSING)).notes == [
        "the file does not say its modality: taken as CT"
    ]


def test_deflated_dicom_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    content = pydicom.dcmread(path)
    content.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content.save_as(path)
    with pytest.raises(UserError, match="a.dcm is a deflated DICOM file"):
        load(path)


def test_frames(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.arange(192, dtype=np.uint16).reshape(3, 8, 8), NumberOfFrames=3)
    write_dicom(tmp_path / "b.dcm")
    items = make_reader("ct", tmp_path, options={"slice": "all"}).items()
    assert list(items) == ["a_s000", "a_s001", "a_s002", "b"]
    assert hu(items["a_s002"]())[0, 0] == pytest.approx(2 * 128 - 1024, abs=1e-3)
    assert "slice 1 of 3 was taken" in load(path).notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), complex), "'hu' is complex"),
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.zeros((0, 4)), "it is empty"),
        (np.zeros(4), r"'hu' has shape \(4,\)"),
        (np.zeros((2, 2, 4, 4)), r"'hu' has shape"),
        (np.zeros((8, 8, 3)), r"'hu' has shape \(8, 8, 3\)"),
        (np.array([["a"]]), "'hu' has type <U1"),
        (np.zeros((4, 4), "m8[s]"), "'hu' has type timedelta64"),
        (np.zeros((4, 4), bool), "'hu' has type bool"),
    ],
)
def test_arrays_that_are_no_ct(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", hu=array)
    with pytest.raises(UserError, match=f"a.npz.*{message}"):
        load(tmp_path / "a.npz")


def test_stored_values_for_hounsfield_units_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hu=np.full((8, 8), 1024, np.uint16))
    assert "no value of 'hu' is below 0" in load(tmp_path / "a.npz").notes[0]


def test_dicom_without_a_suffix(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.10008"):
        write_dicom(tmp_path / "a.dcm").rename(tmp_path / name)
    (tmp_path / "README").write_text("not an image")
    (tmp_path / "folder").mkdir()
    assert list(make_reader("ct", tmp_path).items()) == ["1.2.840", "IM0001"]


def test_real_dicom(data: Path) -> None:
    """Stored values * slope + intercept are Hounsfield units; water (0 HU) is 1024/3024 of the window."""
    items = make_reader("ct", data / "ct" / "test").items()
    assert len(items) == 20
    name, load_one = next(iter(items.items()))
    sample = load_one()
    file = pydicom.dcmread(data / "ct" / "test" / f"{name}.dcm")
    units = file.pixel_array.astype(np.float64) * file.RescaleSlope + file.RescaleIntercept
    assert np.allclose(sample.image[0].numpy(), np.clip((units + 1024) / 3024, 0, 1), atol=1e-6)
    assert not sample.notes


def test_planes_and_echoes_of_one_series_are_no_volume(tmp_path: Path) -> None:
    axial, sagittal = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
    for name, turned, z, echo in (
        *(("a", axial, 0, 10), ("b", axial, 2, 10), ("c", axial, 2, 20), ("d", axial, 0, 20)),
        *(("e", sagittal, 1, 10), ("f", [1.0, -0.0, 0, 0, 1, 0.01], 4, 10)),
    ):
        place = {"ImageOrientationPatient": turned, "ImagePositionPatient": [0, 0, z], "EchoTime": echo}
        write_dicom(tmp_path / f"{name}.dcm", SeriesInstanceUID="1.2.3", **place)
    origins = {name: item().origin for name, item in make_reader("ct", tmp_path).items().items()}
    volumes: dict[str, list[str]] = {}
    for name, origin in sorted(origins.items(), key=lambda one: one[1].slice):
        volumes.setdefault(origin.volume, []).append(name)
    assert sorted(volumes.values()) == [["a", "b", "f"], ["d", "c"], ["e"]]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([0, 2, 4, 8, 10], "volume of 5 slices, but between 4 and 8 mm there are none"),
        ([0, 2, 4, 0, 2, 4], "volume of 6 slices, but 3 of them lie where another one does"),
        ([0, 2, 4.0001, 6, 8.2], ""),
        ([0, 4, 8, 16, 24, 32], ""),
    ],
)
def test_a_series_with_missing_or_repeated_slices_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, places: list[float], said: str
) -> None:
    for i, z in enumerate(places):
        place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, z]}
        write_dicom(tmp_path / f"{i}.dcm", SeriesInstanceUID="1.2.3", **place)
    _say.cache_clear()
    for _ in range(2):
        make_reader("ct", tmp_path).items()
    assert caplog.text.count("volume of") == bool(said), "once"
    assert said in caplog.text
    assert bool(said) is bool(caplog.records)
