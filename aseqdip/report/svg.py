"""Curves and scatter plots as inline SVG: no library, no colour alone, readable by a screen reader."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from aseqdip.report.statistics import MeanCurve

WIDTH, HEIGHT = 760, 330
LEFT, TOP, RIGHT, BOTTOM = 52, 14, 250, 42  # margins; the legend stands in the right one
DASHES = ("14 3 3 3", "7 3", "2 3", "9 3 2 3", "12 4", "5 2 1 2 1 2", "1 2", "4 4", "")
MARKERS = (
    *("M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0", "M-5,-5h10v10h-10z", "M0,-6L6,5H-6z", "M0,-6.5L6.5,0L0,6.5L-6.5,0z"),
    *("M0,6L6,-5H-6z", "M-6,0H6M0,-6V6", "M-5,-5L5,5M-5,5L5,-5", "M-5.5,-2H5.5M-5.5,2H5.5", "M0,-7L2,-2H7L3,1L4.5,6L0,3L-4.5,6L-3,1L-7,-2H-2z"),
)  # fmt: skip


def colour(style: int) -> str:
    """The class that a style's colour hangs on."""
    return f"s{style % len(DASHES)}"


def dash(style: int) -> str:
    """A style's dashes; styles that share a colour have others."""
    return DASHES[(style + 4 * (style // len(DASHES))) % len(DASHES)]


def marker(style: int) -> str:
    """The outline of a style's marker, around (0, 0)."""
    return MARKERS[(style + 4 * (style // len(MARKERS))) % len(MARKERS)]


@dataclass
class Line:
    """A curve to draw: its name, the number of its style, the curve, and the iteration at which it starts to fall."""

    label: str
    style: int
    curve: MeanCurve
    falls: int


@dataclass
class Dot:
    """A point of the scatter plot: its name, the number of its style, cost (None: none) and PSNR."""

    label: str
    style: int
    cost: float | None
    psnr: float


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next((k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= about), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 10) for k in range(first, int(high / step + 1e-9) + 1)]


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions near the wanted ones, in their order, at least ``gap`` from each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    previous = -math.inf
    for i in order:
        previous = placed[i] = max(wanted[i], previous + gap)
    return placed


class Axes:
    """Maps numbers to pixels, and draws the frame they are read against."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], log: bool = False) -> None:
        self.x_range, self.y_range, self.log = x, y, log

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1)

    def x_ticks(self) -> list[float]:
        low, high = self.x_range
        if not self.log:
            return ticks(low, high)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1,) if len(powers) > 4 else (1, 2, 5)
        return [v for p in powers for k in factors if low <= (v := k * 10.0**p) <= high]

    def frame(self, x_name: str, y_name: str) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for value in self.x_ticks():
            x = self.x(value)
            parts.append(f'<path class="grid" d="M{x:.1f},{TOP}V{bottom}"/>')
            parts.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 16}">{value:g}</text>')
        for value in ticks(*self.y_range):
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{right}"/>')
            parts.append(f'<text class="end" x="{LEFT - 7}" y="{y + 4:.1f}">{value:g}</text>')
        parts.append(f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{right}"/>')
        parts.append(f'<text class="mid" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}">{escape(x_name)}</text>')
        parts.append(
            f'<text class="mid" transform="translate(13,{(TOP + bottom) / 2}) rotate(-90)">{escape(y_name)}</text>'
        )
        return parts


def _figure(key: str, title: str, description: str, parts: Sequence[str]) -> Markup:
    """The whole element. Everything in ``parts`` is escaped already; title and description are not."""
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{key}t {key}d">'
        f'<title id="{key}t">{escape(title)}</title><desc id="{key}d">{escape(description)}</desc>'
    )
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 - built from numbers and escaped text alone


def _points(axes: Axes, at: np.ndarray, values: np.ndarray) -> list[str]:
    return [f"{axes.x(float(x)):.1f},{axes.y(float(y)):.1f}" for x, y in zip(at, values, strict=True)]


def _legend(entries: Sequence[tuple[float, str, str]]) -> list[str]:
    """(wanted height, sample, text): samples drawn around (0, 0), at the right of the plot, kept apart."""
    x, parts = WIDTH - RIGHT + 14, []
    places = apart([min(max(wanted, TOP + 6), HEIGHT - BOTTOM) for wanted, _, _ in entries], 17)
    overflow = max([0.0, *(y - (HEIGHT - 8) for y in places)])
    for y, (_, sample, text) in zip([p - overflow for p in places], entries, strict=True):
        parts.append(f'<g transform="translate({x},{y:.1f})">{sample}<text x="34" y="4">{escape(text)}</text></g>')
    return parts


def curves(key: str, title: str, lines: Sequence[Line], start: float | None = None) -> Markup:
    """Mean PSNR against the iteration: a line each, its band, and a dashed upright where it starts to fall.

    Args:
        start: PSNR of the start image, drawn as a dotted level.
    """
    end = max(line.curve.end for line in lines)
    # the first iterations come from far below: the axis begins where the lines have left them
    late = [line.curve.mean[len(line.curve.mean) // 10 :] for line in lines]
    floor, top = min(float(v.min()) for v in late), max(float(line.curve.mean.max()) for line in lines)
    if start is not None and top - start < 3 * max(top - floor, 1.0):
        floor, top = min(floor, start), max(top, start)
    room = 0.06 * max(top - floor, 0.5)
    axes = Axes((0, end), (floor - room, top + room))
    parts = [
        f'<clipPath id="{key}k"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
    ]
    parts += axes.frame("iteration", "PSNR (dB), mean over images")
    parts.append(f'<g clip-path="url(#{key}k)">')
    for line in lines:
        c = line.curve
        if c.low is not None and c.high is not None:
            outline = _points(axes, c.at, c.low) + _points(axes, c.at, c.high)[::-1]
            parts.append(f'<path class="band {colour(line.style)}" d="M{"L".join(outline)}z"/>')
    if start is not None:
        parts.append(f'<path class="start" d="M{LEFT},{axes.y(start):.1f}H{WIDTH - RIGHT}"/>')
    for line in lines:
        parts += _line(axes, line)
    parts.append("</g>")
    entries = []
    for line in lines:
        sample = f'<path class="line {colour(line.style)}" stroke-dasharray="{dash(line.style)}" d="M0,0H28"/>'
        entries.append((axes.y(float(line.curve.mean[-1])), sample, f"{line.label} {line.curve.mean[-1]:.2f}"))
    if start is not None:
        entries.append((axes.y(start), '<path class="start" d="M0,0H28"/>', f"start image {start:.2f}"))
    ends = "; ".join(f"{line.label} ends at {line.curve.mean[-1]:.2f} dB" for line in lines)
    return _figure(key, title, ends, parts + _legend(entries))


def _line(axes: Axes, line: Line) -> list[str]:
    c, text = line.curve, f"{line.label}: {line.curve.mean[-1]:.2f} dB after {line.curve.end} iterations"
    path = "L".join(_points(axes, c.at, c.mean))
    parts = [f'<path class="line {colour(line.style)}" stroke-dasharray="{dash(line.style)}" d="M{path}">']
    if line.falls < c.end:
        text += f", falling from iteration {line.falls} on"
        x, y = axes.x(line.falls), axes.y(float(np.interp(line.falls, c.at, c.mean)))
        parts.append(f"<title>{escape(text)}</title></path>")
        parts.append(f'<path class="onset {colour(line.style)}" d="M{x:.1f},{HEIGHT - BOTTOM}V{y:.1f}"/>')
        parts.append(
            f'<path class="dot {colour(line.style)}" transform="translate({x:.1f},{y:.1f})" d="M0,-1L5,-9H-5z"/>'
        )
    else:
        parts.append(f"<title>{escape(text)}</title></path>")
    return parts


def scatter(key: str, title: str, dots: Sequence[Dot], unit: str) -> Markup:
    """Cost (logarithmic) against PSNR: a marker each; without a cost, a level."""
    costs = [d.cost for d in dots if d.cost]
    levels = [d.psnr for d in dots]
    room = 0.1 * max(max(levels) - min(levels), 0.5)
    low, high = (min(costs) / 3, max(costs) * 3) if costs else (0.1, 1.0)
    axes = Axes((low, high), (min(levels) - room, max(levels) + room), log=True)
    parts, entries = axes.frame(f"{unit} a reconstruction (logarithmic)", "PSNR (dB), mean over images"), []
    for d in dots:
        text = f"{d.label}: {d.psnr:.2f} dB" + (f", {d.cost:.3g} {unit}" if d.cost else f", no {unit}")
        y = axes.y(d.psnr)
        shape = f'class="dot {colour(d.style)}" d="{marker(d.style)}"'
        if d.cost:
            parts.append(
                f'<path {shape} transform="translate({axes.x(d.cost):.1f},{y:.1f})"><title>{escape(text)}</title></path>'
            )
            entries.append((y, f'<path {shape} transform="translate(14,0)"/>', f"{d.label} {d.psnr:.2f}"))
        else:
            parts.append(
                f'<path class="start" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"><title>{escape(text)}</title></path>'
            )
            entries.append((y, '<path class="start" d="M0,0H28"/>', f"{d.label} {d.psnr:.2f}"))
    said = "; ".join(f"{d.label} {d.psnr:.2f} dB" + (f" for {d.cost:.3g} {unit}" if d.cost else "") for d in dots)
    return _figure(key, title, said, parts + _legend(entries))
