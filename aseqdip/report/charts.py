"""Charts of a page: matplotlib's SVG in the page's colours, with words for a screen reader."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from aseqdip.averages import MeanCurve, finite
from aseqdip.figures import literal, new_figure, save
from aseqdip.report.blocks import Block

#: the page's colours in page.css, in its light dress; a chart refers to them by name
COLOURS = ("#6b6f76", "#5f6368", "#0b7285", "#1c62c4", "#7b3fb5", "#a85400", "#2b7a2b", "#b0247a", "#c21f12")
INK, RULE, SOFT = "#1b1f24", "#d5d9de", "#57606a"
NAMES = {**{c: f"c{i}" for i, c in enumerate(COLOURS)}, INK: "ink", RULE: "rule", SOFT: "soft"}
#: dashes in points, and markers: no two methods are told apart by colour alone
DASHES = ("8 2 2 2", "5 2", "1 2", "6 2 1 2", "9 3", "4 2 1 2 1 2", "1 1", "3 3", "")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*")


def dash(style: int) -> str:
    """A style's dashes, as SVG has them; styles that share a colour have others."""
    return DASHES[(style + 4 * (style // len(DASHES))) % len(DASHES)]


@dataclass
class Line:
    """A curve to draw.

    Attributes:
        label: with the number that the table gives for it. style: the number of its colour and dashes.
        falls: the iteration at which it starts to fall; None where it does not.
    """

    label: str
    style: int
    curve: MeanCurve
    falls: int | None = None


@dataclass
class Dot:
    """A point of the scatter plot: its name, the number of its style, cost (None: none) and PSNR in dB."""

    label: str
    style: int
    cost: float | None
    psnr: float


def _axes(x: str, y: str) -> tuple[Any, Any]:
    figure, (axis,) = new_figure(1, 3.4, 7.6)
    axis.grid(color=RULE, linewidth=0.6)
    axis.tick_params(which="both", length=0, colors=INK, labelsize=9)
    axis.set_xlabel(x, color=INK)
    axis.set_ylabel(y, color=INK)
    for background in (figure.patch, axis.patch):
        background.set_visible(False)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(SOFT)
    return figure, axis


def curves(key: str, title: str, lines: Sequence[Line], start: float | None = None, known: bool = True) -> Markup:
    """Mean PSNR against the iteration: a line each, its band, and a dashed upright where it starts to fall.

    Args:
        start: PSNR of the start image, drawn as a dotted level.
        known: False for losses, where there is no truth; their axis is logarithmic.
    """
    figure, axis = _axes("iteration", "PSNR (dB), mean over images" if known else "loss")
    # the first iterations come from far below: the axis begins where the lines have left them
    floor = min(float(line.curve.mean[len(line.curve.mean) // 10 :].min()) for line in lines)
    top = max(float(line.curve.mean.max()) for line in lines)
    if start is not None:
        axis.axhline(start, color=SOFT, linewidth=1.2, linestyle=":", label=f"start image {start:.2f}")
        if top - start < 3 * max(top - floor, 1.0):
            floor, top = min(floor, start), max(top, start)
    room = 0.06 * max(top - floor, 0.5)
    for line in lines:
        _drawn(axis, line, floor - room)
    axis.set_xlim(0, max(line.curve.end for line in lines))
    if known:
        axis.set_ylim(floor - room, top + room)
    elif floor > 0:
        axis.set_yscale("log")
    return _finish(figure, axis, key, title, "; ".join(line.label + " dB" * known for line in lines))


def _drawn(axis: Any, line: Line, bottom: float) -> None:
    """One line, its band, and from the bottom up where it starts to fall."""
    curve, colour = line.curve, COLOURS[line.style % len(COLOURS)]
    pattern = tuple(map(float, dash(line.style).split()))
    every = -(-len(curve.at) // 64)  # more points are not seen
    at, mean, low, high = (
        None if v is None else v[::-1][::every] for v in (curve.at, curve.mean, curve.low, curve.high)
    )
    width = 1.6 if pattern else 2.4
    axis.plot(
        at, mean, color=colour, linewidth=width, linestyle=(0, pattern) if pattern else "-", label=literal(line.label)
    )
    if low is not None and high is not None:
        axis.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    if line.falls is not None:
        level = float(np.interp(line.falls, curve.at, curve.mean))
        axis.plot([line.falls] * 2, [bottom, level], color=colour, linewidth=1, linestyle=(0, (3, 3)))
        axis.plot(line.falls, level, "v", color=colour, markersize=6)


def scatter(key: str, title: str, dots: Sequence[Dot], unit: str) -> Markup:
    """Cost (logarithmic) against PSNR: a marker each; without a cost, a level."""
    figure, axis = _axes(f"{unit} a reconstruction (logarithmic)", "PSNR (dB), mean over images")
    for d in dots:
        label, colour = literal(f"{d.label} {d.psnr:.2f}"), COLOURS[d.style % len(COLOURS)]
        if d.cost:
            marker = MARKERS[(d.style + 4 * (d.style // len(MARKERS))) % len(MARKERS)]
            axis.semilogx(d.cost, d.psnr, marker, color=colour, markersize=8, label=label)
        else:
            axis.axhline(d.psnr, color=SOFT, linewidth=1.2, linestyle=":", label=label)
    axis.margins(0.15)
    if axis.get_xscale() == "log":
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    said = [f"{d.label} {d.psnr:.2f} dB" + (f" for {d.cost:.3g} {unit}" if d.cost else "") for d in dots]
    return _finish(figure, axis, key, title, "; ".join(said))


def _finish(figure: Any, axis: Any, key: str, title: str, description: str) -> Markup:
    """The figure as an element of a page; title and description are what a screen reader says of it."""
    import matplotlib

    place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False, "handlelength": 3}
    axis.legend(fontsize=9, labelcolor=INK, **place)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = drawn.getvalue()
    # what the page has already, and ids that nothing refers to and every chart would repeat
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(
        r' id="[a-zA-Z.0-9]+_\d+"| transform="rotate\(-0 [^"]*"|; font-family: [^;"]*|stroke-dashoffset: 0; ', "", text
    )
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    short = lambda found: f"{float(found[0]):.1f}".removesuffix(".0")  # noqa: E731
    text = re.sub(r' (d|x|y|transform)="[^"]*"', lambda m: re.sub(r"-?\d+\.\d{2,}", short, m[0]), text)
    for hexadecimal, name in NAMES.items():
        text = text.replace(hexadecimal, f"var(--{name})")
    text = text.replace("; fill: var(--ink)", "").replace("font-size: 9px; ", "")  # page.css has it
    text = text.replace(
        'style="fill: none; stroke: var(--rule); stroke-width: 0.6; stroke-linecap: square"', 'class="grid"'
    )
    text = re.sub(r"\s*\n\s*", "\n", text).replace("<g/>\n", "").replace("\nL ", "L")
    text = re.sub(r"<g>\n(<(?:path|text)[^>]*>(?:[^<]*</text>)?)\n</g>", r"\1", text)  # a group of one thing
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-labelledby="{key}t {key}d">'
    said = f'<title id="{key}t">{escape(title)}</title><desc id="{key}d">{escape(description)}</desc>'
    return Markup(head + said + text[text.index(">") + 1 :])  # matplotlib escapes every text it writes


def comparison(path: Path, blocks: Sequence[Block]) -> None:
    """A PNG picture of every run: a row of panels for each block, one for each image; the best iterate is marked."""
    images = [sorted({row.label for cell in block.cells for row in cell.rows}) for block in blocks]
    figure, axes = new_figure(max(map(len, images)), 3.4, 4.4, rows=len(blocks))
    for block, names, line in zip(blocks, images, np.atleast_2d(axes), strict=True):
        for axis, image in zip(line, names, strict=False):
            _panel(axis, block, image)
        for axis in line[len(names) :]:
            axis.set_axis_off()
    save(figure, path, dpi=66 if len(blocks) > 2 else 90)


def _panel(axis: Any, block: Block, image: str) -> None:
    """One image of a block: a line for each method, the same colour in all panels of the block."""
    start = None
    for number, cell in enumerate(cell for cell in block.cells if cell.curve is not None):
        for row in (row for row in cell.rows if row.label == image and len(row.curve)):
            at, label = np.minimum(row.every * np.arange(1, len(row.curve) + 1), row.record.steps), cell.label
            if row.record.known:
                label += f": {cell.which} {row.number('result_psnr_db'):.2f} dB"
                start = row.number("start_psnr_db")
                best = row.number("best_step"), row.number("best_psnr_db")
                axis.plot(*best, "o", markersize=5, fillstyle="none", color=f"C{number}")
            axis.plot(at, row.curve, linewidth=1, color=f"C{number}", label=literal(label))
    if finite(start):
        axis.axhline(start, color="0.5", linestyle=":", label=f"start: {start:.2f} dB")
    if axis.has_data():
        axis.legend(fontsize=8)
    title = literal(f"{block.place} · {image}")
    axis.set(xlabel="iteration", ylabel="PSNR (dB)" if block.known else "loss", title=title)
    axis.grid(alpha=0.3)
