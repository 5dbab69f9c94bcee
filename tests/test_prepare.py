"""scripts/prepare.py: what is missing is named, what needs converting is converted, and the runner can read it."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cases import Configure
from conftest import load_script
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from aseqdip.data import open_dataset


@pytest.fixture
def prepare() -> ModuleType:
    return load_script("prepare")


def write_dicom(path: Path, value: int, z: float, series: str, thickness: float) -> None:
    from pydicom.dataset import FileDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows = file.Columns = 512
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation, file.SamplesPerPixel = 15, 0, 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.ImagePositionPatient, file.SliceThickness, file.SeriesInstanceUID = [0, 0, z], thickness, series
    file.PixelData = np.full((512, 512), value, np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def test_what_is_missing_is_named(prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["fastmri", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "paper_mri: 0 of 20 files" in printed
    assert f"missing: {tmp_path / 'multicoil_val' / 'file1000000.h5'}" in printed
    assert "Licence" in printed


def test_damaged_and_complete(prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "natural" / "cbsd68"
    folder.mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (48, 32)).save(folder / f"{number:04d}.png")
    assert prepare.main(["cbsd68", "--root", str(tmp_path)]) == 0
    assert "20 of 20 files" in (printed := capsys.readouterr().out)
    assert "20 of 3 x 32 x 48" in printed
    (folder / "0003.png").write_bytes(b"broken")
    assert prepare.main(["cbsd68", "--root", str(tmp_path)]) == 1
    assert "0003.png could not be read" in capsys.readouterr().out


def test_aapm_slices_come_from_the_full_dose_series(prepare: ModuleType, tmp_path: Path, configure: Configure) -> None:
    raw, root = tmp_path / "raw", tmp_path / "data"
    for patient in ("L291", "L310", "L333", "L506"):
        for k in range(10):  # file names run against the table's positions
            name = f"{patient}_{9 - k:04d}.IMA"
            write_dicom(raw / patient / "full_3mm" / name, 1000 + k, 3.0 * k, "1.2.3", 3)
            write_dicom(raw / patient / "full_1mm" / name, 1, 1.0 * k, "1.2.4", 1)
        write_dicom(raw / patient / "quarter_3mm" / "a.IMA", 7, 0, "1.2.5", 3)
    assert prepare.main(["aapm", "--root", str(root), "--from", str(raw)]) == 0
    with np.load(root / "aapm" / "L506_2.npz") as saved:
        assert (saved["hu"] == 1003 - 1024).all(), "3/10 along the series"
        assert str(saved["subject"]) == "L506"
    items = open_dataset(configure("task=ct", "data=paper", f"data_root={root}"))
    assert list(items)[:5] == ["L506_1", "L333_1", "L310_1", "L291_1", "L506_2"]
    assert items["L291_5"]().patient == "L291"


def test_a_scout_is_no_series_and_another_one_is_said(
    prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, root = tmp_path / "raw", tmp_path / "data"
    for k in range(5):
        write_dicom(raw / "L291" / "soft" / f"{k}.dcm", 1000 + k, 3.0 * k, "1.2.4", 3)
        write_dicom(raw / "L291" / "sharp" / f"{k}.dcm", 2000 + k, 3.0 * k, "1.2.5", 3)
    write_dicom(raw / "L291" / "scout" / "0.dcm", 7, 0, "1.2.3", 3)
    prepare.convert_aapm(raw, root)
    found = [int(np.load(path)["hu"][0, 0]) for path in sorted((root / "aapm").iterdir())]
    assert found == [1000 + k - 1024 for k in range(5)], "not five times the scout"
    printed = capsys.readouterr().out
    assert f"5 of 5 slices in {raw / 'L291' / 'soft'} ->" in printed
    assert f"as near to 3 mm: {raw / 'L291' / 'sharp'};" in printed
    assert "L310: no full-dose DICOM series of 5 slices or more" in printed


def test_ffhq_is_averaged(prepare: ModuleType, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "00000"
    raw.mkdir(parents=True)
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[::4] = 200  # one row of four
    Image.fromarray(pixels).save(raw / "00001.png")
    words = ["ffhq", "--root", str(tmp_path / "data"), "--from", str(tmp_path / "raw")]
    assert prepare.main(words) == 1, "19 are missing"
    small = np.asarray(Image.open(tmp_path / "data" / "natural" / "ffhq256" / "00001.png"))
    assert small.shape == (256, 256, 3)
    assert (small == 50).all()


@pytest.mark.parametrize("words", [["fastmri", "--from", "."], ["aapm", "--from", "nowhere"], ["mnist"]])
def test_wrong_words(prepare: ModuleType, tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        prepare.main([*words, "--root", str(tmp_path)])
    assert exit_.value.code == 2


def test_public_set(prepare: ModuleType, data: Path) -> None:
    assert prepare.main(["public", "--root", str(data)]) == 0
