"""Nothing that is handed on (records, pages, tables, compact files, W&B's) names a folder or user of this machine."""

import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aseqdip.config import Config
from aseqdip.files import place, without_folders
from aseqdip.report.__main__ import main as report
from aseqdip.run import trackers
from aseqdip.run.runner import run
from aseqdip.run.trackers import Mirror

ROOT = Path(__file__).parent.parent.parent


def inputs(folder: Path) -> Path:
    """Pictures, others like them, a mask and a kernel, in a folder whose name is nobody else's business."""
    secret = folder / "secret folder" / "deeper"
    rng = np.random.default_rng(0)
    for name in ("data/lena.png", "pool/other.png", "pool/another.png"):
        (secret / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(secret / name)
    Image.fromarray(255 * rng.integers(0, 2, (32, 32), dtype=np.uint8)).save(secret / "holes.png")
    Image.fromarray(255 * rng.integers(0, 2, (48, 48), dtype=np.uint8)).save(secret / "large.png")
    Image.fromarray(np.full((5, 5), 200, np.uint8)).save(secret / "blur.png")
    (secret / "data" / "broken.png").write_bytes(b"no picture")
    return secret


@pytest.mark.slow
def test_no_file_names_a_folder_or_a_user(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers.close_mirrors()
    monkeypatch.setattr(Mirror, "patience", 60)
    for variable in ("LOGNAME", "USER", "USERNAME", "WANDB_NOTES"):
        monkeypatch.setenv(variable, "secret")
    secret, outputs = inputs(tmp_path), tmp_path / "outputs"
    common = (
        "dataset=folder",
        f'data_root="{secret}/data"',
        "images=all",
        "network.depth=2",
        "size=32",
        "tracker=wandb",
        "steps=2",
    )
    for words in (
        ("task=inpainting", f'mask="{secret}/holes.png"', "method=ref_guided_dip", f'pool="{secret}/pool"'),
        ("task=deblurring", f'kernel_file="{secret}/blur.png"'),
        ("task=deblurring", f'data_root="{secret}/pool"', f'dataset.files=["{secret}/data/lena.png"]'),
        ("task=inpainting", f'mask="{secret}/large.png"'),
    ):
        summary = run(configure(*common, *words))
        assert len(summary.records) + ("large" in words[1]) == 1, summary.failed
    trackers.close_mirrors()
    (record, *_) = outputs.rglob("record.json")
    assert 'data_root=".../data"' in json.loads(record.read_text())["command"]
    page = tmp_path / "page"
    for words in (
        (outputs, "--html", page / "a.html", "--export", page / "a.csv"),
        (outputs, "--compact", page),
        (page, "--html", page / "compact.html"),
    ):
        monkeypatch.setattr("sys.argv", ["report", *map(str, words)])
        report()
    kinds = (".json", ".jsonl", ".csv", ".html", ".wandb", ".md", ".log", ".txt", ".yaml")
    found = [f for base in (outputs, page) for f in base.rglob("*") if f.is_file() and f.suffix in kinds]
    assert {".json", ".jsonl", ".csv", ".html", ".wandb"} == {file.suffix for file in found}
    assert {file.name for file in found} >= {"failure.json", "record.json", "a.html", "a.csv", "compact.html"}
    mirrored = [file for file in outputs.rglob("wandb/**/*") if file.is_file()]
    assert {file.suffix for file in mirrored} == {".wandb"}, "neither its logs nor files about the machine"
    assert any(b"lena" in file.read_bytes() for file in mirrored), "an image goes by its name"
    for file in found:
        content = re.sub(rb"[A-Za-z0-9+/=]{200,}", b"", file.read_bytes())  # pictures
        private = (tmp_path.name, "secret", "deeper", str(Path.home()), "pytest", "github", sys.executable, str(ROOT))
        for word in (*private, socket.gethostname()):
            # a short name may be a part of another word
            pattern = rb"(?<![A-Za-z])" + re.escape(word.encode()) + rb"(?![A-Za-z])"
            assert not re.search(pattern, content), (file, word)


def test_a_path_as_others_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(Path("a/b")) == "a/b"
    assert place(tmp_path / "a" / "b") == "a/b"
    assert place(Path("/some/where/else")) == ".../else"
    assert place(Path("/some/where/else"), [Path("/some/where")]) == ".../where/else"
    assert place(Path("/some"), [Path("/some")]) == ".../some"
    assert place(Path.home()) == "..."
    for text, expected in (
        ("data_root=/some/where", "data_root=.../where"),
        ('data_root="/some, or /other/a b"', 'data_root=".../a b"'),
        (f"mask={tmp_path}/m.png", "mask=m.png"),
        ("dataset.files=[/a/b.png,'/c/d e.png']", "dataset.files=[.../b.png,'.../d e.png']"),
        ("The mask /a/a long one/b c/d.png is too large", "The mask .../d.png is too large"),
        ("pool=../others", "pool=../others"),
        (
            "wrote /a/b/c.png, then 1/2 of it: https://example.org/x",
            "wrote .../c.png, then 1/2 of it: https://example.org/x",
        ),
        ("pool=C:\\Users\\somebody\\scans", "pool=.../scans"),
        ("The mask 'D:/a long one/b.png' is too large", "The mask '.../b.png' is too large"),
        (f'File "{ROOT}/aseqdip/files.py", line 3', 'File "aseqdip/files.py", line 3'),
    ):
        assert without_folders(text) == expected
        assert without_folders(expected) == expected
