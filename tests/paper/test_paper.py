"""The paper's numbers under our names, and which data they are about."""

import pytest

from aseqdip.methods import METHODS
from aseqdip.paper import numbers
from aseqdip.paper.numbers import onset, rows_of
from aseqdip.paper.settings import SETTINGS, comparable
from aseqdip.tasks import TASKS


def test_published_names_are_those_of_our_parts() -> None:
    for p in numbers.published():
        assert p.task in TASKS and p.method in METHODS
        assert 0 < p.psnr < 60 and (p.ssim is None or 0 < p.ssim < 1)
    assert {(p.task, p.setting) for p in numbers.published() if p.table == 2} == set(SETTINGS)


def test_ct_columns_are_read_as_their_numbers_say() -> None:
    more, fewer = ({p.method: p.psnr for p in rows_of("ct", setting)} for setting in ("views30", "views18"))
    assert more.keys() == fewer.keys() and all(more[method] > fewer[method] for method in more)


def test_faces_have_a_table_of_their_own() -> None:
    assert {p.table for p in rows_of("inpainting", "hiar0.25", "public_ffhq")} == {4}
    assert {p.table for p in rows_of("inpainting", "hiar0.25", "cbsd68")} == {2}
    assert [p.setting for p in rows_of("denoising", "sigma15", "ffhq")] == [""] * 3, "of a noise level it does not say"


@pytest.mark.parametrize(
    ("task", "dataset", "about"),
    [("mri", "public_mri", True), ("mri", "fastmri", True), ("mri", "paper_mri", True), ("mri", "kspace", False),
     ("denoising", "folder", False), ("denoising", "public_ffhq", True), ("mri", "cbsd68", False)],
)  # fmt: skip
def test_the_papers_numbers_are_about_its_own_data_and_their_substitutes(task: str, dataset: str, about: bool) -> None:
    assert comparable(task, dataset) is about


def test_onsets_are_those_of_the_figure() -> None:
    assert onset("mri", "accel4", "aseqdip", {"lam": 0.0}) == onset("mri", "accel4", "aseqdip", {"lam": "0"}) == "1600"
    assert onset("mri", "accel4", "aseqdip", {}) == "not before 4000"
    assert onset("ct", "views18", "vanilla_dip", {}) == "750"
    for place in (("mri", "accel8"), ("ct", "views30"), ("deblurring", "nonlinear")):
        assert onset(*place, "vanilla_dip", {}) is None, "a setting that it does not show"
