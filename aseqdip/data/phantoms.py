"""Generated anatomy, for running without any download: a brain-like MR slice and a chest-like CT slice.

Both are drawn from analytic shapes and random fields in coordinates x (right) and y (down) in [-1, 1], on a
grid at least twice as fine as asked for, and box-averaged: an index is the same anatomy at every size.
Lengths are in half fields of view; a shape is a function that is positive inside: roughly, the depth.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aseqdip.errors import UserError

Array = NDArray[Any]  # float32 throughout
Point = tuple[float, float]

#: tissue: intensity in a T1-weighted and in a T2-weighted slice
_TISSUES = {
    "skin": (0.55, 0.35), "fat": (0.95, 0.52), "muscle": (0.36, 0.20), "bone": (0.04, 0.03),
    "marrow": (0.42, 0.30), "csf": (0.13, 0.97), "grey": (0.47, 0.52), "white": (0.70, 0.36),
    "deep": (0.55, 0.46), "lesion": (0.33, 0.85),
}  # fmt: skip


class _Shape(NamedTuple):
    """A small shape: how deep each pixel of a window of the sheet lies inside it (negative outside)."""

    window: tuple[slice, slice]
    depth: Array

    def within(self, other: Array) -> "_Shape":
        return _Shape(self.window, np.minimum(self.depth, other[self.window]))

    def carve(self, other: Array, gap: float = 0.0) -> None:
        """Take this shape and a gap around it away from another one."""
        other[self.window] = np.minimum(other[self.window], -self.depth - np.float32(gap))


class _Sheet:
    """The fine grid of one phantom: an image, gently warped coordinates x and y, random fields and shapes."""

    def __init__(self, size: int, index: int, family: int, background: float) -> None:
        if size < 8 or index < 0:
            raise UserError(f"a phantom needs size >= 8 and index >= 0; found size {size}, index {index}.")
        self.rng = np.random.default_rng([family, index])
        self.size, self.factor = size, max(2, -(-640 // size))
        n = size * self.factor
        self.image: Array = np.full((n, n), background, dtype=np.float32)
        self.axis = (np.arange(n, dtype=np.float32) + 0.5) * np.float32(2 / n) - 1
        shift_x, shift_y = (0.014 * self.field(1.1) + 0.005 * self.field(0.32) for _ in "xy")
        self.x, self.y = self.axis + shift_x, self.axis[:, None] + shift_y

    def field(self, wavelength: float) -> Array:
        """A smooth random field of unit variance, with waves of about one length in all directions."""
        period = 2.7
        top = int(np.ceil(1.6 * period / wavelength))
        modes = np.arange(-top, top + 1)
        ratio = np.hypot(modes, modes[:, None]) * wavelength / period
        weight = np.where(ratio > 0, np.exp(-((ratio - 0.85) ** 2) / 0.18), 0)
        real, imaginary = self.rng.standard_normal((2, *weight.shape)) / np.sqrt((weight**2).sum())
        waves = np.exp(2j * np.pi / period * np.outer(self.axis, modes)).astype(np.complex64)
        half = waves @ (weight * (real + 1j * imaginary)).astype(np.complex64)
        # the real part of half @ waves.T, as one real product
        return np.hstack([half.real, -half.imag]) @ np.hstack([waves.real, waves.imag]).T

    def lines(self, field: Array) -> Array:
        """Distance to the zero lines of a field, to first order."""
        slope = np.hypot(*np.gradient(field, self.axis, self.axis))
        distance: Array = np.abs(field) / (slope + 4)  # the constant keeps flat places from becoming blots
        return distance

    def jitter(self, spread: float) -> float:
        return float(self.rng.uniform(-spread, spread))

    def window(self, centre: Point, reach: Point) -> tuple[slice, slice]:
        """Where |x - centre| < reach, with a margin for the warp of the coordinates."""
        ends = ((c - r - 0.1, c + r + 0.1) for c, r in zip(centre, reach, strict=True))
        across, along = (slice(*np.searchsorted(self.axis, end)) for end in ends)
        return along, across

    def ellipse(self, centre: Point, axes: Point, tilt: float = 0.0) -> _Shape:
        window = self.window(centre, (max(axes), max(axes)))
        u, v = self.x[window] - centre[0], self.y[window] - centre[1]
        c, s = math.cos(tilt), math.sin(tilt)
        radius = np.sqrt(((c * u + s * v) / axes[0]) ** 2 + ((c * v - s * u) / axes[1]) ** 2)
        return _Shape(window, (1 - radius) * min(axes))

    def capsule(self, start: Point, end: Point, radii: Point) -> _Shape:
        """A rod from start to end whose radius goes from radii[0] to radii[1]."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        window = self.window((start[0] + dx / 2, start[1] + dy / 2), (abs(dx) / 2 + 0.04, abs(dy) / 2 + 0.04))
        u, v = self.x[window] - start[0], self.y[window] - start[1]
        along = np.clip((u * dx + v * dy) / (dx * dx + dy * dy), 0, 1)
        radius = np.sqrt((u - along * dx) ** 2 + (v - along * dy) ** 2)
        return _Shape(window, radii[0] + (radii[1] - radii[0]) * along - radius)

    def paint(self, shape: _Shape | Array, value: float | Array, soft: float = 0.004) -> None:
        """Set the inside of a shape to a value, over an edge of the given width."""
        window, depth = shape if isinstance(shape, _Shape) else ((slice(None), slice(None)), shape)
        old, new = self.image[window], value[window] if isinstance(value, np.ndarray) else value
        self.image[window] += np.clip(depth * np.float32(1 / soft) + np.float32(0.5), 0, 1) * (new - old)

    def average(self, fine: Array) -> Tensor:
        return torch.from_numpy(fine.reshape(self.size, self.factor, self.size, self.factor).mean(axis=(1, 3)))


def brain(size: int = 320, index: int = 0) -> Tensor:
    """A brain-like axial MR slice at the level of the lateral ventricles.

    Even indices are T1-weighted, odd ones T2-weighted; each index is another head. The phase, a quadratic and
    a local bump, spans [-pi/2, pi/2] over the head. Returns shape (size, size), complex64, magnitude in
    [0, 1] with peak 1, background 0. Raises UserError for a size below 8 or a negative index.
    """
    sheet = _Sheet(size, index, family=1, background=0)
    x, y, field, jitter = sheet.x, sheet.y, sheet.field, sheet.jitter
    tissue = {name: values[index % 2] for name, values in _TISSUES.items()}
    a, b = 0.70 + jitter(0.03), 0.86 + jitter(0.03)
    # an egg: heads are wider behind the ears
    head = (1 - np.sqrt((x / (a * (1 + 0.10 * y))) ** 2 + (y / b) ** 2)) * a

    # scalp and skull from the outside in; the temporal muscle is thick in one place
    thick, depth = 1 + 0.18 * field(0.9), head
    temple = np.exp(-(((np.abs(x) - a) / 0.16) ** 2) - ((y + 0.25) / 0.28) ** 2)
    widths = (0.014, 0.034, 0.010, 0.014, 0.022, 0.016)
    for name, width in zip(("skin", "fat", "muscle", "bone", "marrow", "bone"), widths, strict=True):
        sheet.paint(depth, tissue[name])
        depth = depth - width * thick - (0.045 * temple if name == "muscle" else 0)
    sheet.paint(depth, tissue["csf"])
    cortex = _cortex(sheet, depth, np.arctan2(y / b, x / a))
    # the border of grey and white matter is less sharp than that of fluid and grey matter
    sheet.paint(cortex, tissue["grey"])
    sheet.paint(cortex - 0.028 - 0.004 * field(0.3), tissue["white"], soft=0.010)
    _deep_brain(sheet, tissue)

    # a lesion with a diffuse rim, thin vessels, the sagittal sinus
    place = (float(sheet.rng.choice([-1, 1])) * (0.30 + jitter(0.06)), 0.28 + jitter(0.10))
    lesion = sheet.ellipse(place, (0.040 + jitter(0.012), 0.032), jitter(1))
    sheet.paint(lesion, 0.8 * tissue["lesion"] + 0.2 * sheet.image, soft=0.03)
    sheet.image[(sheet.lines(field(0.35)) < 0.0025) & (cortex > 0) & (field(0.2) > 1.4)] *= 0.5
    sheet.paint(sheet.ellipse((0, b - 0.165), (0.030, 0.022)), 0.15)

    texture = 1 + 0.020 * field(0.035) + 0.015 * field(0.10) + 0.02 * field(0.4)
    bias = np.exp(0.10 * field(1.8) + 0.10 * (x**2 + y**2) - 0.06 * y)
    c = sheet.rng.uniform(-1, 1, 5).astype(np.float32)
    bump = np.exp(-((x - 0.4 * c[3]) ** 2 + (y + 0.4 + 0.1 * c[4]) ** 2) / 0.08)
    phase = 0.6 * c[0] * x + 0.6 * c[1] * y + 0.9 * (x**2 - 0.5 * y**2) * np.sign(c[2]) + bump
    low, high = phase[head > 0].min(), phase[head > 0].max()
    phase = np.pi * ((phase - low) / (high - low) - 0.5)
    result = sheet.average((sheet.image * texture * bias * np.exp(1j * phase)).astype(np.complex64))
    return result / result.abs().max()


def _cortex(sheet: _Sheet, skull: Array, angle: Array) -> Array:
    """Depth below the folded surface of the brain: sulci are the zero lines of a function wavy in angle."""
    field, jitter = sheet.field, sheet.jitter
    surface = skull - 0.012 - 0.006 * field(0.5)
    bridge = np.minimum(sheet.y + 0.36 + jitter(0.03), 0.36 + jitter(0.03) - sheet.y)  # corpus callosum
    midline = np.hypot(sheet.x - 0.012 * field(0.8), np.clip(bridge, 0, None)) - 0.006
    folds = np.cos(17 * angle + 1.8 * field(0.45)) + 0.9 * field(0.21)
    free = np.minimum(surface, midline)
    sulci = np.hypot(sheet.lines(folds), np.clip(free - 0.15 - 0.05 * field(0.3), 0, None))
    # some sulci are closed, most of them towards the depth
    gap = 0.007 + 0.005 * field(0.2) - 0.03 * np.clip(free, 0, 0.15)
    cortex: Array = np.minimum(free, sulci - gap)
    for side in (-1, 1):  # insula and Sylvian fissure
        u, v = side * (0.41 + jitter(0.02)), -0.03 + jitter(0.03)
        sheet.capsule((u, v - 0.13), (u, v + 0.12), (0.007, 0.010)).carve(cortex)
        sheet.capsule((u, v), (side * 0.62, v - 0.05), (0.007, 0.010)).carve(cortex)
    return cortex


def _deep_brain(sheet: _Sheet, tissue: dict[str, float]) -> None:
    """Deep grey nuclei, and the ventricles over them."""
    large, jitter = 1 + sheet.jitter(0.25), sheet.jitter
    for side in (-1, 1):
        for x, y, axes, tilt in (
            (0.135, -0.17, (0.040, 0.085), 0.35),  # caudate
            (0.280, -0.04, (0.045, 0.130), -0.25),  # putamen
            (0.215, -0.02, (0.035, 0.075), -0.40),  # pallidum
            (0.090, 0.10, (0.070, 0.115), -0.45),  # thalamus
        ):
            nucleus = sheet.ellipse((side * x + jitter(0.008), y + jitter(0.01)), axes, side * tilt)
            sheet.paint(nucleus, tissue["deep"], soft=0.012)
        for start, end, radii in (
            ((0.028, -0.08), (0.060, -0.20), (0.016, 0.026)),  # frontal horn, in two parts
            ((0.060, -0.20), (0.130, -0.30 + jitter(0.02)), (0.026, 0.020)),
            ((0.030, 0.20), (0.120, 0.23), (0.012, 0.030)),  # atrium and occipital horn
            ((0.120, 0.23), (0.215, 0.37 + jitter(0.03)), (0.030, 0.034)),
        ):
            ends = ((side * start[0], start[1]), (side * end[0], end[1]))
            sheet.paint(sheet.capsule(*ends, (large * radii[0], large * radii[1])), tissue["csf"])
        plexus = sheet.ellipse((side * 0.165, 0.30), (0.018, 0.038), -side * 0.6)
        sheet.paint(plexus, tissue["grey"])
    third_ventricle = sheet.capsule((0, -0.03), (0, 0.15), (0.007 * large, 0.010 * large))
    sheet.paint(third_ventricle, tissue["csf"])


def _oval(x: Array, y: Array, width: float, height: float) -> Array:
    """Between an ellipse and a rectangle, like the trunk: 1 on the rim."""
    u, v = (x / width) ** 2, (y / height) ** 2
    return np.sqrt(np.sqrt(u * u + v * v + 1.4 * u * v))


def body(size: int = 512, index: int = 0) -> Tensor:
    """A chest-like axial CT slice: with trachea and great vessels (even index) or heart and liver dome (odd).

    Returns shape (size, size), float32 in [0, 1] = (HU + 1024) / 3024: air 0.008, water 0.339, 2000 HU 1.
    Raises UserError for a size below 8 or a negative index.
    """
    sheet = _Sheet(size, index, family=2, background=-1000)
    x, y, field, paint = sheet.x, sheet.y, sheet.field, sheet.paint
    a, b = 0.80 + sheet.jitter(0.04), 0.58 + sheet.jitter(0.03)
    ca, cb = a - 0.155, b - 0.125  # the thoracic cavity

    # the table is not warped; then the wall of the chest from the outside in
    arc = np.abs(sheet.axis[:, None] - (b + 0.095 - 0.16 * sheet.axis**2))
    paint(np.minimum(0.028 - arc, 0.80 - np.abs(sheet.axis)), -900)
    paint(np.minimum(0.005 - np.abs(arc - 0.028), 0.80 - np.abs(sheet.axis)), 120)
    trunk = (1 - _oval(x, y, a, b)) * b
    soft_tissue = 50 + 6 * field(0.05)
    paint(trunk, 20)
    paint(trunk - 0.010, -105 + 8 * field(0.15))
    wall = trunk - 0.040 - 0.014 * field(0.7) - 0.022 * np.clip(np.abs(x) / a, 0, 1)
    paint(wall, soft_tissue - 120 * np.clip(2 * field(0.14) - 2, 0, 1))  # muscle with some fat

    # lungs: the cavity without mediastinum and organs; the spine pushes in from behind
    valley = 0.15 * np.exp(-((x / 0.17) ** 2)) * np.clip(y / 0.15, 0, 1)
    cavity = (1 - _oval(x, y, ca, cb)) * cb - valley
    mediastinum = 0.100 + 0.018 * field(0.4) + 0.05 * np.clip(-y / 0.4, 0, 1) - np.abs(x - 0.02)
    lungs = np.minimum(cavity, -mediastinum)
    paint(cavity, soft_tissue - 130 * np.clip(field(0.25) + 0.5, 0, 1))
    _organs(sheet, soft_tissue, cavity, lungs, cb, low=index % 2 == 1)
    paint(lungs, -860 + 70 * y + 12 * field(0.03), soft=0.008)
    for side in (-1, 1):
        for angle in (-1.0, -0.2, 0.5, 1.1):
            _branch(sheet, lungs, (side * 0.14, 0.02), math.pi / 2 * (1 - side) + side * angle, 0.11, 0.014)
    _bones(sheet, ca, cb)
    hu = sheet.image + 5 * field(0.03) * (trunk > 0)
    return sheet.average(np.clip((hu + 1024) / 3024, 0, 1))


def _organs(sheet: _Sheet, tissue: Array, cavity: Array, lungs: Array, cb: float, low: bool) -> None:
    """Heart and liver, or the great vessels and the trachea; all are taken away from the lungs."""
    jitter, ellipse, paint = sheet.jitter, sheet.ellipse, sheet.paint
    vessels = [(0.115, cb - 0.225, 0.050, 120), (0.0, cb - 0.255, 0.020, 45)]  # aorta, oesophagus
    if low:
        hx, lx, ly = 0.14 + jitter(0.02), -0.42 + jitter(0.03), -0.02 + jitter(0.03)
        heart, liver = ellipse((hx, -0.12), (0.31, 0.235), 0.45), ellipse((lx, ly), (0.27, 0.235), -0.2)
        for organ, brighter in ((heart, 0), (liver, 15)):
            organ.carve(lungs, 0.006)
            paint(organ.within(cavity), tissue + brighter)
        # chambers: blood with contrast
        for dx, y, w, h in ((0.08, -0.09, 0.13, 0.08), (-0.1, -0.19, 0.1, 0.07), (-0.1, -0.02, 0.09, 0.05)):
            paint(ellipse((hx + dx, y), (w, h), 0.45), 105, soft=0.02)
        for value, radius in ((25, 0.045), (105, 0.022), (10, 0.015)):  # liver lesions
            place = (lx + 0.05 + jitter(0.12), ly + jitter(0.10))
            paint(ellipse(place, (radius, 0.9 * radius)), value, soft=0.008)
    else:  # ascending aorta, pulmonary trunk, vena cava; wall and lumen of the trachea
        vessels += [(-0.05, -0.16, 0.070, 120), (0.075, -0.12, 0.055, 110), (-0.115, -0.08, 0.034, 130)]
        vessels += [(0.0, 0.04, 0.046, 30), (0.0, 0.04, 0.038, -990)]
    for x, y, radius, value in vessels:
        vessel = ellipse((x, y), (radius, 0.93 * radius), jitter(0.5))
        vessel.carve(lungs, 0.006)
        paint(vessel, value)


def _branch(sheet: _Sheet, lungs: Array, start: Point, angle: float, length: float, radius: float) -> None:
    """A tree of vessels inside the lungs; parts that leave the slice are seen as dots or not at all."""
    angle += sheet.jitter(0.3)
    end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
    chance = sheet.rng.random()
    if chance < 0.75:
        origin = start if chance < 0.4 else (end[0] - 0.004, end[1])
        sheet.paint(sheet.capsule(origin, end, (radius, 0.75 * radius)).within(lungs), 30)
    if radius > 0.004:
        for turn in (-0.5, 0.45):
            _branch(sheet, lungs, end, angle + turn, 0.82 * length, 0.70 * radius)


def _bones(sheet: _Sheet, ca: float, cb: float) -> None:
    """Ribs, sternum, a vertebra around the cavity with half axes ca, cb: cortex 700 HU, marrow about 200."""
    ellipse, capsule, back = sheet.ellipse, sheet.capsule, cb - 0.13
    bones = [
        (ellipse((0, -cb - 0.01), (0.095, 0.022)), 0.006),  # sternum
        (capsule((-0.06, back + 0.07), (-0.16, back + 0.135), (0.022, 0.016)), 0.008),  # transverse processes
        (capsule((0.06, back + 0.07), (0.16, back + 0.135), (0.022, 0.016)), 0.008),
        (capsule((0, back + 0.14), (0, back + 0.20), (0.034, 0.012)), 0.008),  # spinous process
        (ellipse((0, back), (0.105, 0.082)), 0.009),
    ]
    # ribs lie obliquely in the wall, so that each is cut as a short arc
    for degrees in (-66, -40, -14, 14, 40, 64, 116, 140, 166, 194, 220, 246):
        angle = math.radians(degrees) + sheet.jitter(0.08)
        x, y, length = math.cos(angle), math.sin(angle), 0.070 + sheet.jitter(0.02)
        radius = (1 + 0.026 / cb) / float(_oval(np.array(x), np.array(y), ca, cb))
        tilt = math.atan2(y / cb**2, x / ca**2)
        bones.insert(0, (ellipse((radius * x, radius * y), (0.017, length), tilt), 0.007))
    marrow = 200 + 50 * sheet.field(0.03)
    for shape, cortex in bones:
        sheet.paint(shape, 700)
        sheet.paint(shape._replace(depth=shape.depth - cortex), marrow)
    sheet.paint(ellipse((0, back + 0.105), (0.052, 0.040)), 700)
    sheet.paint(ellipse((0, back + 0.105), (0.043, 0.032)), 30)  # spinal canal
