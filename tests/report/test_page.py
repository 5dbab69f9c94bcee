"""The page: nothing that runs, nothing from elsewhere, charts that say what tables say, pictures or why none."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_records as made
from test_blocks import scan

from aseqdip import records
from aseqdip.records import Failure, Record
from aseqdip.report import charts
from aseqdip.report.blocks import Block, build
from aseqdip.report.compact import compact
from aseqdip.report.page import HERE, embedded, render
from aseqdip.report.rows import load
from aseqdip.report.tables import document, latex

HOSTILE = '<script>alert("x")</script>&\'</td>'


def page_of(outputs: Path, *written: Record) -> tuple[str, list[Block]]:
    made.write(outputs, written)
    found = load([outputs])
    blocks = build(found.rows)
    return render(found, blocks, [outputs]), blocks


def test_names_from_records_cannot_become_markup(tmp_path: Path) -> None:
    text = HOSTILE + "|`\\input{x}$"
    for field in ("image", "setting", "dataset", "recipe", "preset", "device", "method", "content", "source"):
        one = replace(made.record("mri", "accel4", "aseqdip", field), **{field: text})
        one.titles |= {"method": text} if field == "method" else {}
        records.write(tmp_path / field, one)
    records.write(tmp_path / "command", made.record("mri", "accel4", "aseqdip", command=[HOSTILE, f"images={HOSTILE}"]))
    records.write_failure(tmp_path / "failed", Failure("x", HOSTILE))
    page, blocks = page_of(tmp_path)

    scripts: list[dict[str, str | None]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "script":
                scripts.append(dict(attrs))
            assert not any(name.startswith("on") for name, _ in attrs)

    Tags().feed(page)
    assert scripts == [{"type": "application/json", "id": "data"}, {}], "our two scripts and no other"
    assert "alert(" in page, "it is shown, as text"
    data = json.loads(page[page.index('id="data">') + 10 :].split("</script>")[0])
    assert any(HOSTILE in name for name, _ in data["images"])
    assert "<script" not in document(blocks).replace("\\<script", "")
    assert "\\input{" not in latex(blocks)


def test_embedded_json_cannot_end_its_script() -> None:
    text = str(embedded({"a": "</script><!-- & \u2028"}))
    assert "<" not in text and "&" not in text and "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_the_page_asks_no_server_for_anything(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, *made.campaign([("mri", "accel4", "aseqdip")], 1))
    assert not re.search(r"https?://|url\((?!#)|@import|\bsrc=\"(?!data:)", page)
    assert "default-src 'none'" in page


def test_contents_lead_to_everything(tmp_path: Path) -> None:
    own = made.record("mri", "accel4", "aseqdip", dataset="folder")
    page, blocks = page_of(tmp_path, own, made.record("ct", "views30", "aseqdip"))
    links = re.findall(r'<a href="#(\w+)">', page.split("</nav>")[0].split("<nav")[1])
    assert links == ["glance", "b1", "b2", "failures", "read"]
    assert all(f'id="{link}"' in page for link in links)
    assert blocks[0].first.dataset == "folder"


def test_the_legend_gives_the_tables_number(tmp_path: Path) -> None:
    cells = [("mri", "accel4", "es_dip"), ("mri", "accel4", "aseqdip")]
    records = [*made.campaign(cells, 2), replace(made.record("mri", "accel4", "tv_dip", "image000"), result="ema")]
    page, (block,) = page_of(tmp_path, *records)
    chart = re.search(r'<svg[^>]*aria-labelledby="b1ft b1fd">.*?</svg>', page, re.DOTALL)
    for cell in block.cells:
        which = "" if cell.which == "last" else f" ({cell.which})"
        assert f">{cell.label} {cell.psnr.mean:.2f}{which}</text>" in chart[0]
        assert f"{cell.label} {cell.psnr.mean:.2f}{which} dB" in chart[0].split("</desc>")[0], "a screen reader, too"


def test_charts_of_one_page_share_no_id(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, *made.campaign([c for c in made.CELLS if c[0] == "mri"], 2))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:url\(|href=")#([^)"]+)', page):
        assert reference in ids


def test_no_two_methods_are_told_apart_by_colour_alone() -> None:
    styles = {(charts.COLOURS[s % 9], charts.dash(s)) for s in range(18)}
    assert len(styles) == 18
    assert len({charts.dash(s) for s in range(9)}) == 9


def test_a_scan_without_truth_shows_its_loss_and_its_picture(tmp_path: Path) -> None:
    (folder,) = made.write(tmp_path, [scan("x")])
    rng = np.random.default_rng(0)
    arrays = {name: rng.random((1, 1, 64, 48), dtype=np.float32) for name in ("start", "shown")}
    np.savez(folder / "reconstruction.npz", **arrays)
    page, _ = page_of(tmp_path)
    assert "Loss along the run" in page and ">loss</text>" in page
    assert page.index("<h3>Pictures") < page.index('<table class="sortable"'), "what came out comes first"
    assert page.count("data:image/webp") == 2
    assert "ublished" not in page.split("<main")[1].split('id="read"')[0]


def pictured(outputs: Path) -> None:
    """image001 with arrays of both methods; image000 with something else in their place."""
    rng = np.random.default_rng(0)
    for path in outputs.rglob("image001/record.json"):
        arrays = {name: rng.random((1, 3, 48, 64), dtype=np.float32) for name in ("truth", "start", "shown")}
        np.savez(path.parent / "reconstruction.npz", **arrays)


def test_pictures_are_small_and_described(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("denoising", "sigma15", m) for m in ("vanilla_dip", "aseqdip")], 2))
    assert "lie beside these records" in page_of(tmp_path)[0]
    pictured(tmp_path)
    page, _ = page_of(tmp_path)
    images = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', page)
    assert [alt.split(" of ")[0] for _, alt in images] == ["Truth", "Start", "Vanilla DIP", "aSeqDIP"]
    assert all("image001" in alt for _, alt in images) and all(len(data) < 30_000 for data, _ in images)
    assert ["error" in alt for _, alt in images] == [False, True, True, True]


def test_a_fresh_clone_does_not_lose_the_pictures(tmp_path: Path) -> None:
    cells = [("denoising", "sigma15", method) for method in ("vanilla_dip", "aseqdip")]
    made.write(tmp_path / "outputs", made.campaign(cells, 2))
    pictured(tmp_path / "outputs")
    compact([tmp_path / "outputs"], tmp_path / "results")
    page, _ = page_of(tmp_path / "results")
    titles = re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="(.+?) of', page)
    assert titles == ["Truth", "Start", "Vanilla DIP", "aSeqDIP"]


BROKEN = {
    "objects": {"shown": np.array([{}], dtype=object)},
    "nothing shown": {"truth": np.zeros((1, 1, 32, 32))},
    "a strip": {"shown": np.zeros((1, 1, 1, 4096))},
    "a vector": {"shown": np.zeros(5)},
    "empty": {"shown": np.zeros((1, 1, 0, 0))},
    "infinite": {"shown": np.full((1, 1, 32, 32), np.inf)},
    "two sizes": {"shown": np.zeros((1, 1, 32, 32)), "truth": np.zeros((1, 1, 16, 16))},
}


@pytest.mark.parametrize("kind", [*BROKEN, "damaged"])
def test_arrays_that_cannot_be_drawn_are_named_and_stop_nothing(tmp_path: Path, kind: str) -> None:
    (folder,) = made.write(tmp_path, [made.record("denoising", "sigma15", "aseqdip")])
    archive = folder / "reconstruction.npz"
    np.savez_compressed(archive, **BROKEN.get(kind, {"shown": np.random.default_rng(0).random((1, 3, 64, 64))}))
    if kind == "damaged":
        content = bytearray(archive.read_bytes())
        content[200:260] = b"x" * 60
        archive.write_bytes(content)
    page, _ = page_of(tmp_path)
    assert "Not readable" in page and "data:image" not in page


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_at_least_wcag_aa(scheme: int) -> None:
    style = (HERE / "page.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style.split(":root {")[scheme + 1].split("}")[0]))

    def contrast(one: str, other: str) -> float:
        light, dark = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for text in ("ink", "soft", "link", "star"):
        assert all(contrast(text, back) >= 4.5 for back in ("back", "panel", "own")), text
    assert contrast("warn", "warn-back") >= 4.5 and contrast("bad", "panel") >= 4.5
    assert all(contrast(f"c{n}", "back") >= 3 for n in range(9)), "lines and markers"
    if scheme == 0:
        assert {colours[name]: name for name in charts.NAMES.values()} == charts.NAMES


MEASURED = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def slower(outputs: Path) -> float:
    """How much slower this machine reads the records' JSON than one that takes 1.5 seconds of CPU; 1 if it is not."""
    begin = time.process_time()
    for path in outputs.rglob("record.json"):
        json.loads(path.read_bytes())
    return max(1.0, (time.process_time() - begin) / 1.5)


@pytest.mark.slow
def test_ten_thousand_records_in_20_seconds_and_little_memory(tmp_path: Path) -> None:
    cells = made.CELLS
    count = -(-10_000 // (len(cells) * 3))
    made.write(tmp_path / "outputs", made.campaign(cells, count, 3, steps=4000))
    page = tmp_path / "report.html"
    line = [sys.executable, "-X", "importtime", "-m", "aseqdip.report", str(tmp_path / "outputs"), "--html", str(page)]
    begin = time.perf_counter()
    # by a small process: one is charged with the memory of whoever starts it, until it has loaded its own program
    measured = [sys.executable, "-c", MEASURED, *line]
    started = subprocess.run(measured, cwd=HERE.parent.parent, capture_output=True, text=True)
    assert started.returncode == 0, started.stderr[-2000:]
    used, imported = json.loads(started.stdout.splitlines()[-1]), started.stderr
    wall, cpu = time.perf_counter() - begin, used["cpu"]
    size = page.stat().st_size / 1e6
    memory = used["memory"]
    figures = f"{3 * count * len(cells)} records: {wall:.1f} s ({cpu:.1f} s of CPU), {memory:.0f} MiB, {size:.1f} MB"
    sys.stdout.write(figures + "\n")
    # its own time: one thread, so that of an idle machine's clock
    assert cpu < 20 * slower(tmp_path / "outputs"), figures
    assert memory < 400, figures
    assert size < 4, figures
    assert not re.search(r"\| (torch|hydra|omegaconf)$", imported, re.MULTILINE), "neither PyTorch nor Hydra"
