"""What is compared with what: blocks, cells, their published numbers, and the tables made of them."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import report_records as made

from aseqdip.paper.protocol import departures
from aseqdip.records import Curve, Record, Score
from aseqdip.report.blocks import Block, build, start_level
from aseqdip.report.compact import compact
from aseqdip.report.page import _glance, section
from aseqdip.report.rows import load
from aseqdip.report.tables import cells as in_columns
from aseqdip.report.tables import document as markdown
from aseqdip.report.tables import each, latex, means, tex, wide


def blocks_of(outputs: Path, *records: Record) -> list[Block]:
    made.write(outputs, records)
    return build(load([outputs]).rows)


def split(table: str) -> list[dict[str, str]]:
    """The lines of a Markdown table, by its head."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    head, _, *cells = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(head, line, strict=True)) for line in cells]


def scan(name: str, **more: object) -> Record:
    """A reconstruction without a truth."""
    nothing = dict.fromkeys(("start", "last", "best", "ema"), Score())
    curve = Curve(2, loss=[400.0 - i for i in range(200)])
    return replace(made.record("mri", "accel4", "aseqdip", name), scores=nothing, curve=curve, dataset="kspace", **more)


def test_every_published_method_is_there_or_said_to_be_missing(tmp_path: Path) -> None:
    cells = [c for c in made.CELLS if c[:2] == ("denoising", "sigma15") and c[2] not in ("tv_dip", "direct")]
    (block,) = blocks_of(tmp_path, *made.campaign(cells, 2))
    assert [row.name for row in block.missing] == ["TV-DIP", "DPS"]
    lines = {line["method"]: line for line in split(markdown([block]))}
    assert (lines["TV-DIP"]["published"], lines["TV-DIP"]["ours"]) == ("30.57 ± 0.31", "not run")
    assert lines["DPS"]["ours"] == "not run"
    for cell in block.cells:
        assert cell.psnr is not None and lines[cell.label]["ours"].startswith(f"{cell.psnr.mean:.2f}")
        if cell.published is not None:
            gap = f"{cell.psnr.mean - cell.published.psnr:+.2f}*"
            assert lines[cell.label]["difference"] == gap, "ours minus theirs, starred"
    assert "(stopped)" in lines["ES-DIP"]["ours"], "which iterate is the result is said where it is not the last"


def test_what_is_not_the_papers_protocol_is_named_beside_the_numbers(tmp_path: Path) -> None:
    blur = made.campaign([("deblurring", "nonlinear", "aseqdip")], 2, preset="quick", departures={"lr": 0.01})
    ct = made.campaign([("ct", "views30", "direct")], 20)
    ct_block, blur_block = blocks_of(tmp_path, *blur, *ct)
    assert ct_block.departures == []
    assert blur_block.departures == [
        *("preset quick", "lr=0.01", "2 images instead of 20", "another non-linear blur than BKSE")
    ]
    text, table = markdown([ct_block, blur_block]), latex([ct_block, blur_block])
    for report in (text, table):
        assert "Not the paper's protocol: preset quick; lr=0.01" in report
        assert "BKSE" in report and "the first is compared with 30 views" in report
    # filtered back-projection: printed 22.92 for what is called 18 views there
    assert "22.92 ± 0.22" in text
    assert re.search(r"\| aSeqDIP +\| 23\.89 ± 0\.40 .*\| [+-]\d+\.\d\d\* +\|", text), "a starred difference"


def test_departures_are_named_with_whose_they_are(tmp_path: Path) -> None:
    common = {"problem": {"size": "256", "noise": 0.03}, "dataset": "public_mri"}
    changed = {"aseqdip": {"N": 10, "lr": 1e-3}, "vanilla_dip": {"lr": 1e-3}, "direct": {}}
    records = [made.record("mri", "accel4", m, departures=found, **common) for m, found in changed.items()]
    (block,) = blocks_of(tmp_path, *records)
    assert block.departures == [
        *("data set public_mri instead of fastmri", "image side 256 instead of 320", "noise=0.03"),
        *("lr=0.001", "N=10 (aSeqDIP)", "1 image instead of 20"),
    ]


def test_a_knob_that_is_null_and_one_that_an_older_record_lacks_are_one_problem(tmp_path: Path) -> None:
    older, newer = ({"size": "256"}, {"size": "256", "dataset.files": None})
    (block,) = blocks_of(
        tmp_path,
        made.record("mri", "accel4", "aseqdip", problem=older, settings={"lam": 1.0}),
        made.record("mri", "accel4", "aseqdip", "other", problem=newer, settings={"lam": 1.0, "pool": None}),
    )
    assert len(block.cells) == 1


def test_own_data_come_first_and_without_published_numbers(tmp_path: Path) -> None:
    own = made.record("mri", "accel4", "aseqdip", dataset="folder")
    first, second = blocks_of(tmp_path, made.record("mri", "accel4", "aseqdip"), own)
    assert (first.first.dataset, first.printed, second.printed != []) == ("folder", [], True)
    text = markdown([first, second])
    assert "The paper has no numbers for these data." in text
    assert "published" not in split(text.split("## ")[1])[0]


def test_a_list_of_the_papers_images_is_its_data_set(tmp_path: Path) -> None:
    faces = made.campaign([("inpainting", "hiar0.25", "aseqdip")], 20, dataset="public_ffhq")
    mri = made.campaign([("mri", "accel4", "aseqdip")], 20, dataset="paper_mri")
    blocks = blocks_of(tmp_path, *faces, *mri)
    assert [block.departures for block in blocks] == [[], []]
    assert "22.30" in markdown(blocks), "Table 4, not Table 2"


def test_a_mask_that_misses_another_share_has_no_published_numbers(tmp_path: Path) -> None:
    shares: dict[str, dict[str, float]] = {"older": {}, "paper": {"missing": 0.97}, "other": {"missing": 0.5}}
    for name, problem in shares.items():
        departures = {"missing": 0.5} if name == "other" else {}
        more = {"dataset": "public_ffhq", "problem": problem, "departures": departures}
        (block,) = blocks_of(tmp_path / name, made.record("inpainting", "mask-random", "aseqdip", **more))
        assert bool(block.printed) == (name != "other")
        assert ("missing=0.5" in block.title) == (name == "other"), "said where nothing beside it says so"


def test_settings_apart_from_the_image_and_the_seed_are_never_mixed(tmp_path: Path) -> None:
    noisy = {"problem": {"size": "320", "noise": 0.03}}
    usual, other = {"settings": {"lam": 1.0}}, {"settings": {"lam": 0.5}, "departures": {"lam": 0.5}}
    runs = (("aseqdip", usual), ("aseqdip", other), ("vanilla_dip", {}), ("vanilla_dip", noisy))
    quiet, loud = blocks_of(
        tmp_path,
        *(made.record("mri", "accel4", m, i, seed=s, **more) for m, more in runs for i in "abc" for s in (0, 1)),
    )
    assert (quiet.problem, loud.problem) == ("", "noise=0.03"), "other measurements, another table"
    counts = {cell.label: (cell.psnr.images, cell.psnr.n) for cell in quiet.cells if cell.psnr}
    assert counts == dict.fromkeys(("Vanilla DIP", "aSeqDIP (lam=0.5)", "aSeqDIP (lam=1.0)"), (3, 6))
    versus = {cell.label: cell.versus for cell in quiet.cells}
    assert quiet.reference is not None and not quiet.reference.rows[0].record.departures
    assert versus[quiet.reference.label] is None, "the reference: at the paper's settings"
    assert versus["Vanilla DIP"] is not None and versus["Vanilla DIP"].n == 6
    assert loud.cells[0].versus is None, "no aSeqDIP on these measurements"


def test_two_patients_with_one_file_name_are_two_everywhere(tmp_path: Path) -> None:
    records = [
        made.record("mri", "accel4", method, "scan", content=content, level=level, dataset="folder")
        for method in ("aseqdip", "vanilla_dip")
        for content, level in (("aaaaaaaa", 30.0), ("bbbbbbbb", 20.0))
    ]
    (block,) = blocks_of(tmp_path, *records)
    assert [len(cell.rows) for cell in block.cells] == [2, 2] and not any(cell.copies for cell in block.cells)
    assert [line["n"] for line in split(means([block]))] == ["2", "2"]
    assert {line["image"] for line in split(each([block]))} == {"scan [aaaaaa]", "scan [bbbbbb]"}
    versus = block.cells[0].versus
    assert versus is not None and versus.n == 2 and abs(versus.mean) < 1, "each against its own"


def test_a_copy_of_a_record_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made.write(tmp_path / name, made.campaign([("mri", "accel4", "aseqdip")], 2))
    (block,) = build(load([tmp_path]).rows)
    (cell,) = block.cells
    assert cell.psnr is not None and cell.psnr.n == 2 and len(cell.copies) == 2


def test_a_scan_without_truth_has_no_published_numbers_and_no_scores(tmp_path: Path) -> None:
    (block,) = blocks_of(tmp_path, replace(scan("x"), dataset="public_scans"))
    assert not block.known and not block.printed and block.cells[0].curve is not None
    assert list(split(markdown([block]))[0]) == ["method", "n", "steps", "seconds", "TFLOP", "passes"]
    assert "No truth" in markdown([block])
    assert list(split(each([block]))[0]) == ["image", "method", "steps", "seconds"]


def test_an_exact_image_is_shown_as_infinite(tmp_path: Path) -> None:
    exact = dict.fromkeys(("start", "last", "best", "ema"), Score(math.inf, 1.0))
    (block,) = blocks_of(tmp_path, replace(made.record("mri", "accel4", "aseqdip"), scores=exact))
    (line,) = split(means([block]))
    assert (line["ours"], line["start"], line["SSIM"]) == ("inf", "inf", "1.000")


def test_methods_are_compared_with_aseqdip_on_the_images_both_have(tmp_path: Path) -> None:
    records = []
    for method, offset in (("aseqdip", 0), ("vanilla_dip", -1)):
        for number in range(3 if method == "aseqdip" else 2):
            one = made.record("mri", "accel4", method, f"i{number}")
            one.scores["last"].psnr_db = 30.0 + number + offset
            records.append(one)
    (block,) = blocks_of(tmp_path, *records)
    lines = split(means([block]))
    assert [(c["method"], c["n"], c["ours"]) for c in lines] == [
        ("Vanilla DIP", "2", "29.50"),
        ("aSeqDIP", "3", "31.00"),
    ]
    assert [c["ahead"] for c in split(markdown([block]))[:2]] == ["0 of 2", "–"]
    assert [c["- aSeqDIP"] for c in lines] == ["-1.00", "–"], "two images are too few for an interval"


def test_a_spread_is_over_images_and_scores_that_are_missing_are_counted(tmp_path: Path) -> None:
    ours = [*made.campaign([("mri", "accel4", "aseqdip")], 3, 2, settings={"network": "unet"})]
    direct = made.record("mri", "accel4", "direct", "image000")
    (block,) = blocks_of(tmp_path, *ours[:-1], direct)
    start, own = block.cells
    found, psnr = in_columns(block, own), own.psnr
    assert psnr is not None and psnr.over_images > 2 * psnr.over_seeds > 0
    assert found["ours"] == f"{psnr.mean:.2f} ± {psnr.over_images:.2f}"
    assert (found["seeds"], found["n"]) == (f"{psnr.over_seeds:.2f}", "3 × 2 (5 in all)")
    assert found["ema"] == f"{own.scores['ema_psnr_db'].mean:.2f} ± {own.scores['ema_psnr_db'].over_images:.2f}"
    assert in_columns(block, start)["ema"] == "–", "no iterates of a network"


def test_the_screens_tables_fit(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, *made.campaign([c for c in made.CELLS if c[0] == "mri"], 2, 2, dataset="folder"))
    assert max(map(len, each(blocks).splitlines())) <= 120
    assert max(map(len, means(blocks).splitlines())) <= 125


def test_a_latex_caption_explains_every_sign_of_its_table(tmp_path: Path) -> None:
    mri = [cell for cell in made.CELLS if cell[:2] == ("mri", "accel4")]
    starred = latex(blocks_of(tmp_path, *made.campaign(mri, 6, departures={"lr": 1e-3})))
    for shown, explained in (
        ("$\\pm$", "$\\pm$ is the standard deviation"),
        (" ahead ", "in how many pairs the method is ahead"),
        ("* &", "*: not the paper's protocol."),
    ):
        caption, table = starred.split("\\begin{tabular}")
        assert shown in table and explained in caption


def test_latex_is_plain_text() -> None:
    assert tex("a_b & 50 % {x} \\y #1 ~^ ±") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{}y \#1 \textasciitilde{}\textasciicircum{} $\pm$"
    )


@pytest.mark.parametrize("method", ["another", "zz"])
def test_a_method_the_paper_does_not_have_has_its_place(tmp_path: Path, method: str) -> None:
    other = replace(made.record("mri", "accel4", "vanilla_dip"), method=method, titles={"method": "Another"})
    (block,) = blocks_of(tmp_path, other, *made.campaign([("mri", "accel4", m) for m in ("aseqdip", "tv_dip")], 1))
    assert [cell.label for cell in block.cells] == ["TV-DIP", "Another", "aSeqDIP"]


def test_another_network_beside_the_number_of_e2e_varnet_is_called_what_it_is(tmp_path: Path) -> None:
    like = made.record("mri", "accel4", "vanilla_dip")
    ours = {"prior_name": "unrolled", "prior_family": "unrolled", "prior_images": 520}
    theirs = {"prior_name": "varnet_knee", "prior_family": "varnet", "prior_source": "knee.pt, sha256 0"}
    for title, facts, label in (
        ("Unrolled network", ours, "Unrolled network (own, 520 images, not E2E-VarNet)"),
        ("E2E-VarNet", theirs, "E2E-VarNet (official weights)"),
    ):
        one = replace(like, method="varnet", titles={**like.titles, "method": title}, facts=facts)
        (block,) = blocks_of(tmp_path / title, one)
        (cell,) = block.cells
        assert cell.label == label and cell.published is not None and cell.published.psnr == 34.89
        assert ("own priors (Unrolled network)" in block.departures) == (facts is ours)


def test_of_two_with_the_same_settings_the_newer_counts_and_that_is_said(tmp_path: Path) -> None:
    new = [replace(made.record("mri", "accel4", "aseqdip", name, level=30), results_version=4) for name in "ab"]
    old = [
        replace(made.record("mri", "accel4", "aseqdip", name, level=10), results_version=3, finished=9) for name in "ac"
    ]  # by older code, though later
    made.write(tmp_path / "z", new)
    made.write(tmp_path / "a", old[:1])
    (block,) = build(load([tmp_path]).rows)
    (cell,) = block.cells
    assert cell.psnr is not None and cell.psnr.mean > 29
    assert "Left out: 1 older" in means([block]) and "older version" not in means([block])
    made.write(tmp_path / "b", old[1:])
    said = "of an older version of the program"
    assert said in means(build(load([tmp_path]).rows))
    made.write(tmp_path / "y", [replace(old[0], method="tv")])
    both = build(load([tmp_path / "y", tmp_path / "z"]).rows)
    assert said in wide(both[0]) and said not in wide(build(load([tmp_path / "z"]).rows)[0]), "of another method, too"


def test_what_is_newest_is_in_the_records(tmp_path: Path) -> None:
    """The date of a file is that of its copy."""
    a, b, both = tmp_path / "a", tmp_path / "b", tmp_path / "both"
    made.write(a, [replace(made.record("mri", "accel4", "aseqdip", "x", level=30), finished=2)])
    made.write(b, [replace(made.record("mri", "accel4", "aseqdip", "x", level=10), finished=1)])
    for folders in ([a, b], [b, a]):
        compact(folders, both)
        for places in (folders, [both], [both, b]):
            (cell,) = build(load(places).rows)[0].cells
            assert cell.psnr is not None and cell.psnr.mean > 29
    compact([b], both)
    assert build(load([both]).rows)[0].cells[0].psnr.mean > 29, "an older one does not replace what was kept"


def test_start_images_that_differ_are_each_shown(tmp_path: Path) -> None:
    one, other = made.record("mri", "accel4", "aseqdip", "x"), made.record("mri", "accel4", "vanilla_dip", "x")
    (block,) = blocks_of(tmp_path / "same", one, other)
    assert start_level(block) is not None and "start" not in [column[0] for column in section(block)["columns"]]
    other = replace(other, scores={**other.scores, "start": Score(3.0, 0.1)})
    (block,) = blocks_of(tmp_path / "differ", one, other)
    assert start_level(block) is None and "start" in [column[0] for column in section(block)["columns"]]


def test_of_several_readings_of_a_method_the_one_nearest_to_the_paper_stands_for_it(tmp_path: Path) -> None:
    records = [
        replace(made.record("mri", "accel4", "vanilla_dip", "x", level=level), settings={"lr": lr}, departures=apart)
        for level, lr, apart in ((20, 1e-2, {"lr": 1e-2}), (30, 1e-4, {}))
    ]
    (block,) = blocks_of(tmp_path, *records)
    nearest = block.nearest("vanilla_dip")
    assert nearest is not None and nearest.rows[0].record.settings == {"lr": 1e-4}
    assert nearest.label in _glance(block, "vanilla_dip", None)[0], "and says which it is"
    more = [replace(one, settings={"lr": 2e-4}, image=name, departures={}) for name in "yz" for one in records[:1]]
    nearest = blocks_of(tmp_path / "more", *records, *more)[0].nearest("vanilla_dip")
    assert nearest is not None and nearest.rows[0].record.settings == {"lr": 2e-4}, "of two, the one on more images"


def classical(image: str, preset: str, **more: object) -> Record:
    found = replace(made.record("mri", "accel4", "tv_dip", image), method="tv", preset=preset, **more)
    return replace(found, titles={**found.titles, "group": "classical", "method": "TV"}, settings={"rho": 0.1})


def test_classical_results_stand_beside_networks_of_any_preset(tmp_path: Path) -> None:
    """They are computed once, under the preset of that time, which says nothing of them."""
    networks = [made.record("mri", "accel4", "aseqdip", "a", preset=preset) for preset in ("quick", "paper")]
    blocks = blocks_of(tmp_path / "one", classical("a", "smoke"), *networks)
    assert sorted(block.first.preset for block in blocks) == ["paper", "quick"]
    assert all({cell.method for cell in block.cells} == {"tv", "aseqdip"} for block in blocks)
    (alone,) = blocks_of(tmp_path / "alone", classical("a", "smoke"))
    assert alone.first.preset == "smoke"
    (other, own) = blocks_of(tmp_path / "other", classical("a", "smoke", problem={"size": "64"}), networks[0])
    assert len(other.cells) == len(own.cells) == 1, "of other measurements"
    newer = classical("a", "smoke", finished=2)
    (twice,) = blocks_of(tmp_path / "twice", classical("a", "quick", finished=1), newer, networks[0])
    assert [cell.rows[0].record.finished for cell in twice.cells if cell.method == "tv"] == [2]
    assert "Left out: 1 older" in twice.cautions[0]
    many = [classical(image, "smoke") for image in "ab"]
    few, all_of_it = sorted(blocks_of(tmp_path / "many", *many, networks[0]), key=lambda block: -len(block.cells))
    assert [len(cell.rows) for cell in few.cells] == [1, 1], "on the images that the network has"
    assert [len(cell.rows) for cell in all_of_it.cells] == [2], "and nothing is lost"
    assert "preset quick" in few.departures and "preset quick" not in departures([[many[0]], [networks[1]]])


def test_results_of_other_code_are_not_averaged_without_a_word(tmp_path: Path) -> None:
    said = "The code of aSeqDIP, or what it runs on, changed between results: redo=true"
    old = [made.record("mri", "accel4", "aseqdip", name, identity="1") for name in "ab"]
    assert said not in means(blocks_of(tmp_path / "same", *old))
    assert said in means(blocks_of(tmp_path / "changed", old[0], replace(old[1], identity="2")))
    assert said not in means(blocks_of(tmp_path / "seeds", old[0], replace(old[1], identity="2", seed=1)))
    one, other = (
        made.record("mri", "accel4", "aseqdip", settings={"lam": lam}, identity=f"{lam}", code="1")
        for lam in (1.0, 2.0)
    )
    assert said not in means(blocks_of(tmp_path / "knob", one, other))
    assert said in means(blocks_of(tmp_path / "edited", one, replace(other, code="2"))), "nor compared"
    assert said not in means(blocks_of(tmp_path / "more", one, replace(other, code="1:3"))), "older ones say less"
    one = replace(one, code="1:4")
    assert said in means(blocks_of(tmp_path / "engine", one, replace(other, code="1:3"))), "what it runs on counts"
    rival = made.record("mri", "accel4", "vanilla_dip", identity="3", code="2:3")
    base = "Operators or the engine changed between results: redo=true"
    assert base in means(blocks_of(tmp_path / "rival", one, rival)), "of whichever methods"
    assert base not in means(blocks_of(tmp_path / "alike", one, replace(rival, code="2:4")))
    task = [replace(record, code="1") for record in (old[0], replace(old[1], identity="2"))]
    assert said in means(blocks_of(tmp_path / "task", *task)), "other code than the method's"
    assert said in means(blocks_of(tmp_path / "upgrade", old[0], task[1]))


def test_means_over_different_images_are_said_to_be(tmp_path: Path) -> None:
    ours = [made.record("mri", "accel4", "aseqdip", name) for name in "ab"]
    theirs = [made.record("mri", "accel4", "tv_dip", name) for name in "ab"]
    said = "Not all are means over the same images and seeds"
    assert said not in means(blocks_of(tmp_path / "same", *ours, *theirs))
    assert said in means(blocks_of(tmp_path / "fewer", *ours, theirs[0]))


def test_one_record_in_two_forms_is_one(tmp_path: Path) -> None:
    one = made.record("mri", "accel4", "aseqdip", "a", identity="1", finished=7)
    made.write(tmp_path / "outputs", [one])
    compact([tmp_path / "outputs"], tmp_path / "compact")
    both = load([tmp_path / "outputs", tmp_path / "compact"])
    assert len(both.rows) == 2 and "Left out" not in means(build(both.rows))


def test_which_slice_was_asked_for_tells_no_files_of_one_slice_apart(tmp_path: Path) -> None:
    def found(slices: int, asked: str, name: str) -> Record:
        problem = {"size": "64", "dataset.slice": asked}
        return made.record("mri", "accel4", "aseqdip", name, problem=problem, origin={"slices": slices})

    assert len(blocks_of(tmp_path / "one", found(1, "all", "a"), found(1, "middle", "b"))) == 1
    assert len(blocks_of(tmp_path / "many", found(2, "all", "a"), found(2, "middle", "b"))) == 2
    assert len(blocks_of(tmp_path / "mixed", found(2, "middle", "a"), found(1, "middle", "b"))) == 1


def test_the_compact_form_lies_in_its_target_whatever_a_folder_is_called_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = made.write(tmp_path / "outputs", [made.record("mri", "accel4", "aseqdip", "x")])
    monkeypatch.chdir(folder.parent)
    for number, root in enumerate(("..", "../../..", ".", str(folder), "../../accel4")):
        (file,) = compact([Path(root)], tmp_path / f"target{number}")
        assert file == tmp_path / f"target{number}" / "mri" / "accel4.jsonl", root


def test_networks_that_are_compared_on_unequal_terms_are_said(tmp_path: Path) -> None:
    alike = {"network": "unet", "network.width": 64, "steps": 4000}
    own = made.record("mri", "accel4", "aseqdip", settings={**alike, "lr": 1e-4})
    rival = made.record("mri", "accel4", "vanilla_dip", settings={**alike, "lr": 1e-2})
    assert "Methods differ" not in means(blocks_of(tmp_path / "equal", own, rival)), "a rate is a method's own"
    rival = replace(rival, settings={**alike, "steps": 400, "network.width": 16})
    said = "Methods differ in steps: 400 (Vanilla DIP), 4000 (aSeqDIP); network.width: 16 (Vanilla DIP), 64 (aSeqDIP)."
    assert said in means(blocks_of(tmp_path / "unequal", own, rival))
    assert "Methods differ" not in means(blocks_of(tmp_path / "tv", own, classical("a", "paper")))
    own = [replace(own, settings={**alike, "steps": steps}) for steps in (400, 4000)]
    assert "Methods differ" not in means(blocks_of(tmp_path / "swept", *own)), "one method's own sweep is labelled"
    assert "Methods differ" not in means(
        blocks_of(tmp_path / "equal_too", *own, replace(rival, settings=own[0].settings))
    )
    (block,) = blocks_of(tmp_path / "both", own[1], rival)
    assert "Methods differ" not in means([block.of(["vanilla_dip"])]), "of methods that are shown"


def test_what_is_given_the_truth_is_called_so(tmp_path: Path) -> None:
    oracle = made.record("mri", "accel4", "vanilla_dip", facts={"oracle_input": True}, settings={"input": "oracle"})
    assert "| Vanilla DIP (given the truth) " in means(blocks_of(tmp_path, oracle))
