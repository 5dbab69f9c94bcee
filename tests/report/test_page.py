"""The page and the tables: every cell or a mark where it is missing, nothing that runs, nothing from elsewhere."""

import json
import re
import resource
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_records as made
from PIL import Image

from aseqdip.report import published
from aseqdip.report.cells import Block, build
from aseqdip.report.names import title
from aseqdip.report.page import HERE, embedded, render
from aseqdip.report.rows import Found, load
from aseqdip.report.tables import latex, markdown, tex

HOSTILE = '<script>alert("x")</script>&\'</td>'


def blocks_of(outputs: Path) -> tuple[Found, list[Block]]:
    found = load([outputs])
    return found, build(found.rows)


def test_every_published_cell_is_there_or_said_to_be_missing(tmp_path: Path) -> None:
    cells = [c for c in made.CELLS if c[:2] == ("denoising", "sigma15") and c[2] not in ("tv_dip", "direct")]
    made.write(tmp_path, made.campaign(cells, 2, 1, "preset=quick"))
    found, blocks = blocks_of(tmp_path)
    page = render(found, blocks, [tmp_path])
    for row in published.published():
        if row.table == 2:
            assert row.name in page and f"{row.psnr:.2f}" in page, "also of the settings without a record"
    (block,) = blocks
    assert [row.name for row in block.missing] == ["TV-DIP", "DPS"]
    detail = page[page.index('<section class="block"') :]
    by_name: dict[str, str] = {}
    for row in re.findall(r"<tr.*?</tr>", detail, re.DOTALL):
        first, *others = words(row)
        by_name.setdefault(first, " ".join(others))  # the first table is that of the scores
    assert "30.57 ± 0.31 not run" in by_name["TV-DIP"]
    assert "31.02 ± 0.25 learned method, not yet" in by_name["DPS"]
    for cell in block.cells:
        assert cell.published is not None or cell.method == "ref_guided_dip"
        assert f"{cell.scores['psnr_result'].mean:.2f}" in by_name[title(cell.method)]
        assert f"{cell.scores['psnr_best'].mean:.2f}" in by_name[title(cell.method)]
    assert "stopped" in by_name["ES-DIP"], "which iterate is the result is said where it is not the last"


def words(html: str) -> list[str]:
    """The texts between tags."""
    found: list[str] = []

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.extend([data.strip()] if data.strip() else [])

    Texts().feed(html)
    return found


def test_what_is_not_the_papers_protocol_is_named_beside_the_numbers(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("deblurring", "nonlinear", "aseqdip")], 2, 1, "preset=quick"))
    made.write(tmp_path, made.campaign([("ct", "views30", "direct")], 20, 1, "dataset=aapm"))
    found, (ct, blur) = blocks_of(tmp_path)
    assert ct.departures == []
    expected = {"preset quick", "data set photos instead of cbsd68", "2 images instead of 20"}
    assert expected | {"another non-linear blur than BKSE"} <= set(blur.departures)
    page, text, table = render(found, [ct, blur], [tmp_path]), markdown([ct, blur]), latex([ct, blur])
    for report in (page.replace("&#39;", "'"), text, table):
        assert "Not the paper's protocol: preset quick; data set photos instead of cbsd68" in report
        assert "BKSE" in report
        assert "the first is compared with 30 views" in report
    # filtered back-projection: printed 22.92 for what is called 18 views there
    assert "| FBP | 22.92 ± 0.22 | 18.00" in text
    assert re.search(r"\| aSeqDIP \| 23\.89 ± 0\.40 \| .*\| [+-]\d+\.\d\d\* \|", text), "a starred difference"


def test_names_from_records_cannot_become_markup(tmp_path: Path) -> None:
    words_of_run = made.words_of("mri", "accel4", "aseqdip", "preset=smoke")
    for field in ("image", "setting", "dataset", "recipe", "preset", "device", "method"):
        record, folder = made.record(words_of_run, f"image {field}")
        record[field] = HOSTILE + "|`" + "\\input{x}"
        place = tmp_path / folder / field
        place.mkdir(parents=True)
        (place / "record.json").write_text(json.dumps(record))
    (tmp_path / "failed" / "one").mkdir(parents=True)
    (tmp_path / "failed" / "one" / "failure.json").write_text(json.dumps({"error": HOSTILE}))
    found, blocks = blocks_of(tmp_path)
    assert len(found.rows) == 7 and not found.damaged
    page = render(found, blocks, [tmp_path])

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
    assert "<script" not in markdown(blocks).replace("\\<script", "")
    assert "\\input{" not in latex(blocks)


def test_embedded_json_cannot_end_its_script() -> None:
    text = str(embedded({"a": "</script><!-- & \u2028"}))
    assert "<" not in text and "&" not in text and "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_the_page_asks_no_server_for_anything(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("mri", "accel4", "aseqdip")], 1, 1))
    found, blocks = blocks_of(tmp_path)
    page = render(found, blocks, [tmp_path])
    assert not re.search(r"https?://|url\((?!#)|@import|\bsrc=\"(?!data:)", page)
    assert "default-src 'none'" in page


def test_pictures_are_small_and_described(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("denoising", "sigma15", m) for m in ("vanilla_dip", "aseqdip")], 2, 1))
    found, blocks = blocks_of(tmp_path)
    assert "there are no pictures" in render(found, blocks, [tmp_path])
    rng = np.random.default_rng(0)
    for path in tmp_path.rglob("image001/record.json"):
        arrays = {name: rng.random((1, 3, 48, 64), dtype=np.float32) for name in ("truth", "start", "shown")}
        np.savez(path.parent / "reconstruction.npz", **arrays)
    for path in tmp_path.rglob("aseqdip*/image000/record.json"):
        np.savez(path.parent / "reconstruction.npz", shown=np.array([{}], dtype=object))
    page = render(found, blocks, [tmp_path])
    images = re.findall(r'<img src="(data:image/jpeg;base64,[^"]+)" alt="([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert [alt.split(" of ")[0] for _, alt, _, _ in images] == ["Truth", "Start", "Vanilla DIP", "aSeqDIP"]
    assert all("image001" in alt and (w, h) == ("288", "216") for _, alt, w, h in images)
    assert all(len(uri) < 60_000 for uri, *_ in images)


def test_small_pictures_stand_in_for_arrays(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("denoising", "sigma15", "aseqdip")], 1, 1))
    (path,) = tmp_path.rglob("record.json")
    for name in ("shown", "start", "truth"):
        Image.new("RGB", (64, 48), (90, 60, 30)).save(path.parent / f"{name}.jpg")
    found, blocks = blocks_of(tmp_path)
    assert render(found, blocks, [tmp_path]).count("data:image/jpeg") == 3


def test_an_unreadable_array_file_is_named_and_stops_nothing(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("denoising", "sigma15", "aseqdip")], 1, 1))
    (path,) = tmp_path.rglob("record.json")
    np.savez(path.parent / "reconstruction.npz", shown=np.array([{}], dtype=object))
    found, blocks = blocks_of(tmp_path)
    page = render(found, blocks, [tmp_path])
    assert "Not readable" in page and "there are no pictures" not in page.split("Not readable")[1]


def test_a_damaged_archive_stops_nothing(tmp_path: Path) -> None:
    made.write(tmp_path, made.campaign([("denoising", "sigma15", "aseqdip")], 1, 1))
    (path,) = tmp_path.rglob("record.json")
    archive = path.parent / "reconstruction.npz"
    np.savez_compressed(archive, shown=np.random.default_rng(0).random((1, 3, 64, 64)))
    content = bytearray(archive.read_bytes())
    content[200:260] = b"x" * 60
    archive.write_bytes(content)
    found, blocks = blocks_of(tmp_path)
    assert "Not readable" in render(found, blocks, [tmp_path])


def test_a_list_of_the_paper_s_images_is_its_data_set(tmp_path: Path) -> None:
    words = ("task=inpainting", "hiar=0.25", "method=aseqdip", "data=faces", "data_root=x")
    made.write(tmp_path / "faces", (made.record(words, f"f{i}", 20.0, 0) for i in range(20)))
    words = ("task=mri", "method=aseqdip", "data=paper", "data_root=x")
    made.write(tmp_path / "mri", (made.record(words, f"m{i}", 30.0, 0) for i in range(20)))
    _, blocks = blocks_of(tmp_path)
    assert [block.departures for block in blocks] == [[], []]
    faces = next(block for block in blocks if block.task == "inpainting")
    assert "22.30" in markdown([faces])  # Table 4, not Table 2


def test_every_setting_that_is_not_the_protocol_s_is_named(tmp_path: Path) -> None:
    words = ("task=mri", "method=aseqdip", "dataset=fastmri", "data_root=x")
    others = ("mask=equispaced", "operator.center_fraction=0.2", "network.width=8", "network.init=default")
    made.write(tmp_path, (made.record((*words, *others), f"m{i}", 30.0, 0) for i in range(20)))
    _, (block,) = blocks_of(tmp_path)
    assert set(block.departures) == set(others)


def test_other_files_are_another_block(tmp_path: Path) -> None:
    words = ("task=denoising", "sigma=15", "dataset=folder", "data_root=d")
    pairs = (("dataset.folder=a", "dataset.folder=b"), ("dataset.files=[a/x.png]", "dataset.files=[b/x.png]"))
    for number, (one, other) in enumerate(pairs):
        folder = tmp_path / str(number)
        made.write(folder, [made.record((*words, "method=aseqdip", one), "x", 30.0)])
        made.write(folder, [made.record((*words, "method=direct", other), "x", 20.0)])
        _, blocks = blocks_of(folder)
        assert [len(block.cells) for block in blocks] == [1, 1]
        assert one.split("=")[0] in blocks[0].title


def test_settings_apart_from_the_image_and_the_seed_are_never_mixed(tmp_path: Path) -> None:
    for words_of_run in (
        made.words_of("mri", "accel4", "aseqdip"),
        made.words_of("mri", "accel4", "aseqdip", "lam=0.5"),
        made.words_of("mri", "accel4", "vanilla_dip"),
        made.words_of("mri", "accel4", "vanilla_dip", "noise=0.03"),
    ):
        made.write(tmp_path, (made.record(words_of_run, name, 30.0, seed) for name in "abc" for seed in (0, 1)))
    _, blocks = blocks_of(tmp_path)
    assert [block.problem for block in blocks] == ["noise=0.0", "noise=0.03"], "other measurements, another table"
    labels = {
        cell.label: (cell.scores["psnr_result"].images, cell.scores["psnr_result"].seeds) for cell in blocks[0].cells
    }
    assert labels == {"Vanilla DIP": (3, 2), "aSeqDIP (lam=0.5)": (3, 2), "aSeqDIP (lam=1.0)": (3, 2)}
    versus = {cell.label: cell.versus for cell in blocks[0].cells}
    assert versus["aSeqDIP (lam=1.0)"] is None, "the reference: at the paper's settings"
    assert versus["Vanilla DIP"] is not None and versus["Vanilla DIP"].n == 6
    assert blocks[1].cells[0].versus is None, "no aSeqDIP on these measurements"
    assert "noise=0.03" in blocks[1].departures


def test_a_copy_of_a_record_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made.write(tmp_path / name, made.campaign([("mri", "accel4", "aseqdip")], 2, 1))
    found, blocks = blocks_of(tmp_path)
    (cell,) = blocks[0].cells
    assert cell.scores["psnr_result"].n == 2 and len(cell.copies) == 2
    assert "left out: the same image, seed and settings" in render(found, blocks, [tmp_path])


def test_records_without_truth_have_a_place(tmp_path: Path) -> None:
    record, folder = made.record(made.words_of("denoising", "sigma15", "aseqdip", "truth=none"), "scan")
    nothing = {"psnr": None, "ssim": None}
    record |= {"scores": dict.fromkeys(("start", "last", "best", "ema"), nothing)}
    record["curve"] = {"every": 2, "psnr": [None] * 200, "psnr_ema": [None] * 200}
    made.write(tmp_path, [(record, folder)])
    found, blocks = blocks_of(tmp_path)
    assert "no truth" in render(found, blocks, [tmp_path])
    assert "no truth" in markdown(blocks)


def test_latex_is_plain_text() -> None:
    assert tex("a_b & 50 % {x} \\y #1 ~^ ±") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{}y \#1 \textasciitilde{}\textasciicircum{} $\pm$"
    )


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


@pytest.mark.slow
def test_ten_thousand_records_in_a_minute_and_a_gigabyte(tmp_path: Path) -> None:
    cells = made.CELLS
    made.write(tmp_path / "outputs", made.campaign(cells, -(-10_000 // (len(cells) * 3)), 3, steps=4000))
    records = len(list((tmp_path / "outputs").rglob("record.json")))
    assert records >= 10_000
    page = tmp_path / "report.html"
    line = [sys.executable, "-m", "aseqdip.report", str(tmp_path / "outputs"), "--html", str(page)]
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, check=True, cwd=HERE.parent.parent)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = f"{records} records: {wall:.1f} s ({cpu:.1f} s of CPU), {after.ru_maxrss / 2**20:.2f} GiB, page {page.stat().st_size / 1e6:.1f} MB"
    sys.stdout.write(figures + "\n")
    assert cpu < 60, figures  # its own time: one thread, so that of an idle machine's clock
    assert after.ru_maxrss < 1_000_000, figures  # kB
    assert page.stat().st_size < 8e6, figures
