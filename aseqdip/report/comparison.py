"""A picture of many reconstructions: PSNR along the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.report.cells import Block
from aseqdip.report.figures import new_figure, plain, save
from aseqdip.report.tables import name


def comparison(path: Path, blocks: Sequence[Block]) -> None:
    """PSNR along the run: a row of panels for each block, a panel for each image; the best iterate is marked."""
    images = [sorted({row.image for cell in block.cells for row in cell.rows}) for block in blocks]
    figure, axes = new_figure(max(map(len, images)), 3.6, 4.6, rows=len(blocks))
    for block, names, line in zip(blocks, images, np.atleast_2d(axes), strict=True):
        for axis, image in zip(line, names, strict=False):
            _panel(axis, block, image)
        for axis in line[len(names) :]:
            axis.set_axis_off()
    save(figure, path)


def _panel(axis: Any, block: Block, image: str) -> None:
    """One image of a block: a line for each method, the same colour in all panels of the block."""
    start = None
    for number, cell in enumerate(cell for cell in block.cells if cell.curve is not None):
        for row in (row for row in cell.rows if row.image == image and row.curve is not None):
            every, psnr, steps = row.curve  # type: ignore[misc]
            at = np.minimum(every * np.arange(1, len(psnr) + 1), steps)
            colour, start = f"C{number}", row.numbers["psnr_start"]
            label = f"{name(block, cell)}: last {row.numbers['psnr_last']:.2f} dB"
            axis.plot(at, psnr, linewidth=1, color=colour, label=label)
            best = row.numbers["best_step"], row.numbers["psnr_best"]
            axis.plot(*best, "o", markersize=5, fillstyle="none", color=colour)
    if start is not None:
        axis.axhline(start, color="0.5", linestyle=":", label=f"start: {start:.2f} dB")
        axis.legend(fontsize=8)
    axis.set(xlabel="iteration", ylabel="PSNR (dB)", title=plain(f"{block.place} · {image}"))
    axis.grid(alpha=0.3)
