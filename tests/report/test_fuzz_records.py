"""Records with random damage: the page is made, and says of each that cannot be read why.

``ASEQDIP_FUZZ=1000`` tries as many instead of a few.
"""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report_records as made
from fuzz import damaged, fuzzed, tries

from aseqdip import records
from aseqdip.report import tables
from aseqdip.report.blocks import build
from aseqdip.report.compact import compact
from aseqdip.report.page import render
from aseqdip.report.rows import load

TRIES = tries(60)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), 10**400),
    *("", "x" * 10_000, "\0", "\ud800", "<b>", "../.."),
    *([], [None], [[]], {}, {"": 1}, {"psnr_db": "high"}, [1, "a"], [float("inf")] * 5),
)  # fmt: skip


def nested(depth: int) -> Any:
    """A list in a list in a list ..."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def changed(text: str, rng: random.Random) -> bytes:
    """The record with damaged bytes, or a value at any depth replaced, gone or one too many."""
    if rng.random() < 0.3:
        return damaged(text.encode(), rng)
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 3))):
        holder: Any = content
        while rng.random() < 0.5:
            inner = [value for value in holder.values() if isinstance(value, dict) and value]
            if not inner:
                break
            holder = rng.choice(inner)
        name = rng.choice(list(holder))
        holder[name] = copy.deepcopy(rng.choice((*VALUES, nested(50))))
        if rng.random() < 0.2:
            del holder[name]
            holder[rng.choice(("", "unknown", name.upper()))] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(content).encode("utf-8", "surrogatepass")


def test_a_page_of_damaged_records(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rng, outputs = random.Random(0), tmp_path / "outputs"
    cells = made.CELLS[:4]
    folders = made.write(outputs, made.campaign(cells, -(-TRIES // len(cells)), steps=40))
    with fuzzed("records", record_property) as cases:
        for folder in folders:
            path = folder / "record.json"
            path.write_bytes(changed(path.read_text(), rng))
            with cases.case(path.read_bytes()) as answer:
                trace = records.read(folder)
                if trace is not None and trace.state == "damaged":
                    answer(trace.error)
    found = load([outputs])
    read, named = {row.folder for row in found.rows}, {trace.folder for trace in found.damaged}
    assert read | named == set(folders), "each is in the tables or in the list of what cannot be read"
    assert named, "the damage is felt"
    assert all(trace.error.strip() for trace in found.damaged)
    blocks = build(found.rows)
    page = render(found, blocks, [outputs])
    for text in (page, tables.document(blocks), tables.latex(blocks), tables.each(blocks), tables.means(blocks)):
        assert text
    assert all(folder.name in page for folder in named)
    for trace in found.damaged:
        (trace.folder / "record.json").unlink()
    (file, *_) = compact([outputs], tmp_path / "compact")
    lines = file.read_text().splitlines()
    damage = [changed(line, rng).replace(b"\n", b" ") if n % 2 else line.encode() for n, line in enumerate(lines)]
    file.write_bytes(b"\n".join(damage))
    found = load([tmp_path / "compact"])
    assert len(found.rows) >= (len(lines) + 1) // 2, "every line that is whole"
    assert all(trace.error.strip() for trace in found.damaged)
    assert render(found, build(found.rows), [tmp_path / "compact"])
