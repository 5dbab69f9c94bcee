"""python -m aseqdip.report outputs/ [--mean] [--figure curves.png]: a table of the records below a folder, and their curves."""

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from aseqdip.records import read_records
from aseqdip.report import figures
from aseqdip.report.statistics import paired

GROUP = ("task", "setting", "method", "recipe", "preset")
SCORES = ("start", "result", "last", "best (oracle)", "EMA", "SSIM", "seconds", "TFLOP")


def scores(record: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of one reconstruction: PSNR in dB, SSIM, the method's seconds and floating-point operations."""
    parts, result = record["scores"], record["result"]
    chosen = {"start": "start", "result": result, "last": "last", "best (oracle)": "best", "EMA": "ema"}
    numbers: dict[str, float | None] = {name: parts[which]["psnr"] for name, which in chosen.items()}
    cost = record["flops_per_step"] * record["steps"] / 1e12
    return {
        **numbers,
        "SSIM": parts[result]["ssim"],
        "seconds": record["seconds"]["method"],
        "TFLOP": cost,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: one row a reconstruction; the step of the best iterate beside it."""
    rows = []
    for r in found:
        numbers = _shown(scores(r))
        if "step" in r["scores"]["best"]:
            numbers["best (oracle)"] += f" at {r['scores']['best']['step']}"
        rows.append([r["task"], r["setting"], r["image"], r["method"], str(r["steps"]), *numbers.values()])
    return _markdown(["task", "setting", "image", "method", "steps", *SCORES], rows)


def means(found: list[dict[str, Any]], reference: str = "aseqdip") -> str:
    """Markdown: one row for each task, setting, method, recipe and preset: means over images and seeds, n of them.

    The last column is the result's PSNR minus the reference method's on the images and seeds that both have: mean, 95 %
    bootstrap interval, and how often the method is ahead.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, int], dict[str, float | None]]] = {}
    for r in found:
        members = groups.setdefault(tuple(str(r[name]) for name in GROUP), {})
        members[r["image"], r["seed"]] = scores(r)
    rows = []
    for key, members in groups.items():
        columns = {name: [m[name] for m in members.values()] for name in SCORES}
        mean = {
            name: None if None in values else fmean(v for v in values if v is not None)
            for name, values in columns.items()
        }
        task, setting, _, recipe, preset = key
        against = groups.get((task, setting, reference, recipe, preset), {})
        versus = "" if against is members else _versus(members, against)
        rows.append([*key, str(len(members)), *_shown(mean).values(), versus])
    return _markdown([*GROUP, "n", *SCORES, f"- {reference} (95 %)"], rows)


def _versus(
    members: dict[tuple[str, int], dict[str, float | None]],
    reference: dict[tuple[str, int], dict[str, float | None]],
) -> str:
    pairs = [(m["result"], reference[k]["result"]) for k, m in members.items() if k in reference]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not known:
        return ""
    p = paired([ours for ours, _ in known], [theirs for _, theirs in known])
    interval = "" if p.n == 1 else f" ({p.low:+.2f} to {p.high:+.2f})"
    return f"{p.mean:+.2f}{interval}, {p.wins} of {p.n}"


def _shown(numbers: dict[str, float | None]) -> dict[str, str]:
    digits = {"SSIM": 3, "seconds": 0, "TFLOP": 1}
    return {
        name: "-" if value is None else f"{value:.{digits.get(name, 2)}f}" for name, value in numbers.items()
    }


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold records")
    parser.add_argument(
        "--mean", action="store_true", help="one row a method: means over its images and seeds"
    )
    parser.add_argument("--figure", type=Path, help="also draw the PSNR curves into this PNG file")
    words = parser.parse_args()
    found = [record for folder in words.folder for record in read_records(folder)]
    if not found:
        sys.exit(f"There is no record.json below {', '.join(map(str, words.folder))}: run something first.")
    sys.stdout.write((means(found) if words.mean else table(found)) + "\n")
    if words.figure is not None:
        figures.comparison(words.figure, found)


if __name__ == "__main__":
    main()
