"""Pictures of one reconstruction: what came out, and how it got there."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aseqdip.files import write_atomically
from aseqdip.records import COLUMNS, Rows, Score

if TYPE_CHECKING:  # the report draws with what is here, and needs no tensors
    from torch import Tensor


Margins = tuple[float, float, float, float, float]  # inches, in the order of new_figure
#: where a title stands, in parts of its axes: else all ticks are laid out to find it room, half the time of drawing
TOP = 1.0

logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # says that it has made its list of fonts


def new_figure(
    columns: int, height: float, width: float = 3.2, rows: int = 1, margins: Margins | None = None
) -> tuple[Any, Any]:
    """A figure and its axes, (rows, columns) of them or just (columns,); height and width of each in inches.

    Args:
        margins: left, right, bottom and top of the figure and between columns, in inches: laid out in no time.
            Without them room is found for everything that is written, which takes longer than drawing it.
    """
    # Figure objects of our own: no pyplot, no global state, no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, down = width * columns, height * rows
    figure = Figure(figsize=(across, down), layout=None if margins else "constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    if margins:
        left, right, bottom, top, between = margins
        room = across - left - right - between * (columns - 1)  # for the axes
        edges = left / across, bottom / down, 1 - right / across, 1 - top / down
        figure.subplots_adjust(*edges, wspace=between * columns / room)
    return figure, axes if rows > 1 else axes[0]


def literal(name: str) -> str:
    """A text that may hold a file's name, for matplotlib: no formula between two $, and nothing that is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def save(figure: Any, path: Path, dpi: int = 110, colours: int | None = 256) -> None:
    """The figure as a PNG file, whole or not at all; with 256 colours, enough for lines, of a third of the size."""
    from PIL import Image

    figure.set_dpi(dpi)
    figure.canvas.draw()  # once: savefig draws a second time to lay it out
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    if colours is not None:
        picture = picture.quantize(colours, dither=Image.Dither.NONE)
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def pixels(image: np.ndarray) -> np.ndarray:
    """(1, channels, height, width) as (height, width) or (height, width, 3)."""
    return image[0, 0] if image.shape[1] == 1 else np.moveaxis(image[0], 0, -1)


def _array(image: "Tensor") -> np.ndarray:
    """An image as matplotlib shows it."""
    return pixels(image.detach().cpu().float().numpy())


def white(*images: np.ndarray) -> float:
    """What is shown as white: of images of one channel, (height, width), the 99th percentile, since in a scan tissue
    beside a coil can be several times as bright as all else; of pictures in colour the maximum.
    """
    return max(*(float(np.quantile(i, 0.99) if i.ndim == 2 else i.max()) for i in images), 1e-12)


def preview(
    path: Path,
    start: "Tensor",
    result: "Tensor",
    truth: "Tensor | None",
    scores: Mapping[str, Score],
    title: str,
    start_name: str,
    chosen: str,
) -> None:
    """Truth, start, reconstruction and five-fold error side by side, PSNR and SSIM above each.

    Args:
        start, result, truth: displayed images, (1, 1 or 3, height, width); truth may be missing. Its :func:`white`
            is that of all panels.
        scores: the record's "scores".
        start_name: what the start image is called.
        chosen: which of the scores is the result's: last, ema or stopped.
    """

    def caption(name: str, which: str) -> str:
        score = scores.get(which, Score())
        return name if score.psnr_db is None else f"{name}\n{score.psnr_db:.2f} dB, SSIM {score.ssim:.3f}"

    panels = [(caption(start_name, "start"), start), (caption(f"reconstruction ({chosen})", chosen), result)]
    if truth is not None:
        error = (result - truth).abs().mean(1, keepdim=True)
        panels = [("truth", truth), *panels, ("error x 5", 5 * error)]
    high = white(_array(result if truth is None else truth))
    figure, axes = new_figure(
        len(panels), 3.2 * start.shape[-2] / start.shape[-1] + 0.9, margins=(0.03, 0.03, 0.03, 0.85, 0.08)
    )
    for axis, (name, image) in zip(axes, panels, strict=True):
        colours = "inferno" if name.startswith("error") else "gray"
        axis.imshow(np.clip(_array(image) / high, 0, 1), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=10, y=TOP)
        axis.set_axis_off()
    figure.suptitle(literal(title), fontsize=11)
    save(figure, path, colours=None)


def curve(path: Path, rows: Rows, scores: Mapping[str, Score], title: str, averaged: bool) -> None:
    """PSNR/SSIM where there is a truth, what a stopping rule minimised, and the loss terms, against the iteration.

    averaged: whether the running average of iterates is shown; it takes hundreds of them to forget the first.
    """
    values = dict(zip(COLUMNS, np.asarray(rows, dtype=float).T, strict=True))
    known = bool(np.isfinite(values["psnr"]).any())
    ruled = bool((values["statistic"] > 0).any())
    figure, axes = new_figure(1 + known + ruled, 3.6, 4.6, margins=(0.85, 0.2, 0.5, 0.75, 1.4))
    for name in ("loss", "data", "autoencoding", "regulariser"):
        if (values[name] > 0).any():
            axes[-1].semilogy(values["iteration"], values[name], label=name, linewidth=1)
    axes[-1].set_xlabel("iteration")
    axes[-1].set_title("objective", y=TOP)
    if axes[-1].has_data():
        axes[-1].legend(fontsize=8)
    if ruled:
        there = ~np.isnan(values["statistic"])  # a rule looks at every so many
        axes[-2].semilogy(values["iteration"][there], values["statistic"][there], linewidth=1)
        if (chosen := scores["stopped"].step) is not None:
            axes[-2].axvline(chosen, color="C3", linestyle=":", label=f"chosen: {chosen}")
            axes[-2].legend(fontsize=8)
        axes[-2].set_xlabel("iteration")
        axes[-2].set_title("what the stopping rule minimises", y=TOP)
    if known:
        axis, other = axes[0], axes[0].twinx()
        values = {name: column[~np.isnan(values["psnr"])] for name, column in values.items()}  # score_every
        axis.plot(values["iteration"], values["psnr"], label="PSNR", linewidth=1, color="C0")
        if averaged:
            axis.plot(values["iteration"], values["psnr_ema"], label="PSNR of EMA", linewidth=1, color="C2")
        best, start, last = (scores[name] for name in ("best", "start", "last"))
        if start.psnr_db is not None and np.isfinite(start.psnr_db):
            axis.axhline(start.psnr_db, color="0.5", linestyle=":", label="start")
        axis.plot(best.step, best.psnr_db, "x", color="C3", label=f"best (oracle) {best.psnr_db:.2f} dB")
        other.plot(values["iteration"], values["ssim"], color="C1", linewidth=0.8, alpha=0.7)
        other.set_ylabel("SSIM", color="C1")
        axis.set(xlabel="iteration", ylabel="PSNR (dB)")
        axis.set_title(f"last {last.psnr_db:.2f} dB", y=TOP)
        other.set_title("", y=TOP)
        axis.legend(fontsize=8)
    figure.suptitle(literal(title), fontsize=11)
    save(figure, path)
