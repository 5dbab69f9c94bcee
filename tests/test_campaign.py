"""A slot's records: packed small, merged once, nothing else let in."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import load_script
from PIL import Image

campaign = load_script("campaign")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for image in ("a", "b"):
        folder = tmp_path / "results/mri/accel4/aseqdip-1/" / image
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"image": image}))
        image_of = np.random.default_rng(0).random((1, 1, 300, 400), dtype=np.float32)
        np.savez(folder / "reconstruction.npz", shown=image_of, truth=2 * image_of)
    return tmp_path / "results"


def test_records_travel_and_arrays_stay(results: Path, tmp_path: Path) -> None:
    for folder in campaign.first_images(results):
        campaign.thumbnails(folder)
    archive = tmp_path / "slot/records.zip"
    archive.parent.mkdir()
    campaign.pack(campaign.small_files(results), results, archive)
    (archive.parent / "gpu-tests.txt").write_text("3 passed")
    merged = tmp_path / "merged"
    assert campaign.merge(archive, merged) == 4
    assert campaign.merge(archive, merged) == 0, "what is there stays as it is"
    assert {f.name for f in merged.rglob("a/*")} == {"record.json", "shown.jpg", "truth.jpg"}
    assert {f.name for f in merged.rglob("b/*")} == {"record.json"}, "one image of a method is shown"
    assert (merged / "gpu-tests.txt").read_text() == "3 passed"
    with Image.open(merged / "mri/accel4/aseqdip-1/a/shown.jpg") as picture:
        assert max(picture.size) == campaign.THUMBNAIL
        assert np.asarray(picture).mean() < 90, "on the truth's scale"


@pytest.mark.parametrize("name", ["../record.json", "/etc/record.json", "a/run.py"])
def test_an_archive_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "records.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(name, "x")
    with pytest.raises(SystemExit, match="not a slot's records"):
        campaign.merge(archive, tmp_path / "merged")
    assert not (tmp_path / "record.json").exists()


@pytest.mark.slow
def test_a_slot_runs_until_its_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--minutes", "0.9", "--out", str(tmp_path / "slot"), "--results", str(tmp_path / "results")]
    settings = ["preset=smoke", "cell=denoising-sigma15-direct"]
    sys.argv = ["campaign.py", *words, "--experiment", "table1", *settings]
    campaign.main()
    assert "new files" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "slot/records.zip") as packed:
        assert sum(name.endswith("record.json") for name in packed.namelist()) == 1
