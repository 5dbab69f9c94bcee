"""python -m aseqdip.report outputs/ [--figure curves.png]: a table of the records below a folder, and their curves."""

import argparse
import sys
from pathlib import Path
from typing import Any

from aseqdip.records import read_records
from aseqdip.report import figures

HEADER = (
    "task",
    "setting",
    "image",
    "method",
    "steps",
    "start",
    "result",
    "last",
    "best (oracle)",
    "EMA",
    "SSIM",
    "seconds",
    "TFLOP",
)


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: one row a reconstruction, PSNR in dB."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for r in found:
        scores = r["scores"]
        psnr = {
            which: "-" if part["psnr"] is None else f"{part['psnr']:.2f}" for which, part in scores.items()
        }
        best = psnr["best"] if psnr["best"] == "-" else f"{psnr['best']} at {scores['best']['step']}"
        result = scores[r["result"]]
        ssim = "-" if result["ssim"] is None else f"{result['ssim']:.3f}"
        where = (r["task"], r["setting"], r["image"], r["method"], str(r["steps"]))
        found_psnr = (psnr["start"], psnr[r["result"]], psnr["last"], best, psnr["ema"], ssim)
        cost = f"{r['flops_per_step'] * r['steps'] / 1e12:.1f}"
        rows.append((*where, *found_psnr, f"{r['seconds']['method']:.0f}", cost))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m aseqdip.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folders that hold records")
    parser.add_argument("--figure", type=Path, help="also draw the PSNR curves into this PNG file")
    words = parser.parse_args()
    found = [record for folder in words.folder for record in read_records(folder)]
    if not found:
        sys.exit(f"There is no record.json below {', '.join(map(str, words.folder))}: run something first.")
    sys.stdout.write(table(found) + "\n")
    if words.figure is not None:
        figures.comparison(words.figure, found)


main()
