"""docs/comparison.md: what the committed records give, and nothing else."""

from pathlib import Path

import pytest

from aseqdip.report.blocks import build
from aseqdip.report.comparison import PARTS, main, render
from aseqdip.report.rows import load

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_records_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = Path("results")
    text = render(folder, {name: build(load([folder / name]).rows) for name in PARTS})
    assert (ROOT / "docs" / "comparison.md").read_text() == text, "run make report"


def test_a_folder_without_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no record in quick, fig4, fig9"):
        main([str(tmp_path), str(tmp_path / "page.md")])
    assert not list(tmp_path.iterdir())
