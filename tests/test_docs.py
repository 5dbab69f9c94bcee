"""The documents: notebooks run as they are written, every page is in the site, every link leads somewhere."""

import contextlib
import io
import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

import aseqdip
from aseqdip import recommend

DOCS, SITE = ROOT / "docs", ROOT / "site"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *NOTEBOOKS]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_any_folder(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    pictures: list[str] = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: pictures.append("shown"))
    with_few_steps(monkeypatch)
    runpy.run_path(str(path))
    assert pictures == ["shown"]


def with_few_steps(monkeypatch: pytest.MonkeyPatch, most: int = 20) -> None:
    """Every cell is run as it is written; but no network makes more than so many steps, and ``recommend`` runs here."""
    whole, command = aseqdip.reconstruct, subprocess.run

    def reconstruct(*given: Any, **settings: Any) -> Any:
        return whole(*given, **settings | ({"steps": min(settings["steps"], most)} if "steps" in settings else {}))

    def run(words: list[str], **settings: Any) -> Any:
        if words[2:4] == ["aseqdip", "recommend"]:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                recommend.main(words[4:])
            return subprocess.CompletedProcess(words, 0, said.getvalue())
        return command([f"steps={most}" if word.startswith("steps=") else word for word in words], **settings)

    monkeypatch.setattr(aseqdip, "reconstruct", reconstruct)
    monkeypatch.setattr(subprocess, "run", run)


def test_the_method_of_the_notebook_is_that_of_the_page() -> None:
    page = (DOCS / "extending.md").read_text()
    code = page[page.index("class WeightDecay") :].split("\n```")[0]
    assert code in (DOCS / "notebooks" / "compare_my_method.py").read_text()


def named(nav: Any) -> Iterator[str]:
    """The files in a nav."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from named(entry)


def test_every_page_is_in_the_site() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES[1:]}
    assert sorted(named(CONFIG["nav"])) == sorted(pages - {CONFIG["exclude_docs"]} | {"results.html"})


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if ":" not in link and not (page.parent / link).is_file()] == []


@pytest.mark.skipif(not SITE.is_dir(), reason="make docs builds the site")
def test_the_site_asks_nobody_outside() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > len(PAGES) - 2
    asks = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(?:https?:)?//[^\s>]*"""
        r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\shref=["']?(?:https?:)?//[^\s>]*"""
        r"""|(?:url\(|@import )["']?(?:https?:)?//[^\s)]*"""
    )
    found = {path.name: asks.findall(path.read_text()) for path in [*pages, *SITE.rglob("*.css")]}
    assert {name: what for name, what in found.items() if what} == {}
    assert not [path.name for path in pages if re.search(r"href=[\"']?[^\"'>: ]*\.(?:md|py)\b", path.read_text())]
    notebooks = "".join(path.read_text() for path in SITE.glob("notebooks/*.html"))
    pictures = re.findall(r"data:image/png;base64,([^\"']+)", notebooks)
    assert 3 <= len(pictures) < 10
    assert max(map(len, pictures)) * 3 / 4 < 150_000
