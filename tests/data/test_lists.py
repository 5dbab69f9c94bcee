"""The lists of images that ``data=`` names."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cases import Configure

from aseqdip.compose import compose
from aseqdip.data import open_dataset
from aseqdip.files import config_folder
from aseqdip.studies.choice import patient

CHOOSING = ("calibration", "tuning")
LISTS = [(p.stem.split("_")[0], p.stem.split("_")[1]) for p in (config_folder() / "data_task").glob("*.yaml")]


@pytest.mark.parametrize(("data", "task"), LISTS)
def test_every_list_of_images_is_complete(configure: Configure, data: str, task: str) -> None:
    cfg = configure(f"data={data}", f"task={task}")
    files = cfg.dataset.files
    assert files is not None
    assert len(set(files)) == len(files) == {"scans": 2, "calibration": 2, "tuning": 4}.get(data, 20)
    assert cfg.dataset.name.startswith((f"{data}_" if data in CHOOSING else "public_", "paper_"))


@cache
def patients(data: str, task: str) -> set[str]:
    return {patient(file) for file in compose([f"data={data}", f"task={task}"]).dataset.files or []}


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
@pytest.mark.parametrize("choosing", CHOOSING)
def test_settings_are_chosen_on_images_in_no_other_list(choosing: str, task: str) -> None:
    assert patients(choosing, task)
    for data, other in LISTS:
        assert data == choosing or not patients(choosing, task) & patients(data, other), (data, other)


def test_the_lists_have_no_subject_of_mri_in_common(configure: Configure, data: Path) -> None:
    subjects = []
    for name in (*CHOOSING, "public"):
        cfg = configure(f"data={name}").dataset
        arrays = [np.load(data / cfg.folder / file) for file in cfg.files or []]
        subjects.append({str(a["subject"] if "subject" in a else a["source"]).split(" labels")[0] for a in arrays})
    assert not subjects[0] & subjects[1] | subjects[0] & subjects[2] | subjects[1] & subjects[2]


@pytest.mark.parametrize(("choice", "task"), [pair for pair in LISTS if pair[0] != "paper"])
def test_public_lists_can_be_read(configure: Configure, data: Path, choice: str, task: str) -> None:
    items = open_dataset(configure(f"data={choice}", f"task={task}", f"data_root={data}", "size=native"))
    for load_one in items.values():
        sample = load_one()
        shape = (sample.image if sample.kspace is None else sample.kspace).shape
        assert min(shape[-2:]) >= 180


def test_no_public_mri_anatomy_is_there_twice(configure: Configure) -> None:
    files = configure("data=public").dataset.files or []
    stems = [Path(f).stem for f in files]
    assert len(set(stems)) == 20, "no magnitude file whose complex version is used"
