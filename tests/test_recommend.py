"""``recommend`` says what files are, and a command that works; a sweep says how far it is."""

import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from aseqdip import cli
from aseqdip.compose import compose
from aseqdip.errors import UserError
from aseqdip.recommend import main
from aseqdip.run.interrupt import Command
from aseqdip.run.runner import Summary
from aseqdip.run.terminal import about
from aseqdip.words import jobs, written


def test_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = rng.standard_normal((2, 3, 40, 36)) + 1j * rng.standard_normal((2, 3, 40, 36))
    main([f"data_root={tmp_path}"])
    text = capsys.readouterr().out
    assert "multi-coil k-space (fastMRI's HDF5): 2 image(s), the first a k-space of 3 x 40 x 36" in text
    methods = ("pnp", "tv", "aseqdip")
    lines = [
        f"    aseqdip task=mri method={m} dataset=kspace data_root={tmp_path} images=all preset=quick" for m in methods
    ]
    assert [line for line in text.splitlines() if "method=" in line] == lines
    assert text.count("an image on this machine") == 3 and "cannot be tried" not in text
    assert "dataset.slice" not in caplog.text, "its command takes all slices"
    assert "It has folders" not in text
    for name in ("mri", "ct"):
        (tmp_path / name).mkdir()
    main([f"data_root={tmp_path}"])
    assert "It has folders: ct, mri. Each may hold files of another kind" in capsys.readouterr().out


def test_noisy_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    main([f"data_root={tmp_path}"])
    text = capsys.readouterr().out
    assert "pictures: 2 image(s), the first an image of 3 x 64 x 80" in text
    chosen = [line.split()[2] for line in text.splitlines() if "truth=none sigma=SIGMA size=native" in line]
    assert chosen == ["method=pnp", "method=nlm", "method=rethinking_dip"]
    assert text.count("an image on this machine") == 3 and "cannot be tried" not in text


def test_a_folder_s_name_may_hold_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my scans (1), a=b"
    folder.mkdir()
    np.savez(folder / "a.npz", sinogram=np.ones((32, 20)), angles=np.arange(0, 180, 9))
    main(written([f"data_root={folder}"]))
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "method=" in line]
    assert [word for line in lines for word in line if word.startswith("data_root=")] == [f"data_root={folder}"] * 3
    assert compose(written(lines[0][1:])).data_root == str(folder)


def test_what_cannot_be_read_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", other=np.ones(3))
    np.savez(tmp_path / "b.npz", sinogram=np.ones((32, 20)), angles=np.arange(0, 180, 9))
    main(written([f"data_root={tmp_path}"]))
    text = capsys.readouterr().out
    assert "some 1 of 2 image(s)" in text and "cannot be tried" not in text


def test_it_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert capsys.readouterr().out.startswith("aseqdip recommend data_root=FOLDER\n\n``recommend``: looks at the files")


def test_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("aseqdip.recommend.main", given.append)
    cli._main(["recommend", "data_root=scans"], Command())
    assert given == [["data_root=scans"]]


def test_words_that_it_does_not_heed_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"/my/files: expected data_root=FOLDER"):
        main(["/my/files"])
    with pytest.raises(UserError, match="can be read"):
        main([f"data_root={tmp_path}", "preset=paper"])
    assert "alone: preset=paper has no effect" in capsys.readouterr().err


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="No file in .* can be read by any of ismrmrd, kspace"):
        main([f"data_root={tmp_path}"])


def test_how_far_a_sweep_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs(["-m", "lam=0.5,1", "method=aseqdip,vanilla_dip,tv_dip", "seed=3"]) == 6
    monkeypatch.setenv("ASEQDIP_JOBS", "6")
    monkeypatch.setenv("ASEQDIP_STARTED", "1000")
    monkeypatch.setattr("time.time", lambda: 2000.0)
    assert cli.progress(0) == "Job 1 of 6"
    assert cli.progress(2) == "Job 3 of 6, about 33 min left"
    assert [about(s) for s in (7.4, 3000, 40000)] == ["7 s", "50 min", "11 h"]


def test_names_in_a_list_need_no_quotes() -> None:
    assert written(["images=astronaut,coffee"]) == ["images=[astronaut,coffee]"]


def test_files_of_other_kinds_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        np.savez(tmp_path / f"a{number}.npz", image=np.random.default_rng(number).random((32, 32)))
    for number in range(2):
        sinogram = np.random.default_rng(0).random((32, 20))
        np.savez(tmp_path / f"b{number}.npz", sinogram=sinogram, angles=np.arange(0, 180, 9))
    main([f"data_root={tmp_path}"])
    text = capsys.readouterr().out
    assert "CT sinograms (NumPy): some 2 of 6 image(s)" in text and "MR images (NumPy): some 4 of 6 image(s)" in text


def test_an_image_called_0_that_is_not_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("(a)", "0"):
        Image.new("L", (32, 32), 90).save(tmp_path / f"{name}.png")
    main([f"data_root={tmp_path}"])
    assert "2 image(s)" in capsys.readouterr().out


def test_it_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (32, 32), 90).save(tmp_path / "a.png")
    monkeypatch.setattr("aseqdip.run.runner.run", lambda cfg: Summary(Path(), interrupted=15))
    with pytest.raises(SystemExit) as ended:
        main([f"data_root={tmp_path}"])
    assert ended.value.code == 143
