"""Generated chest-like CT slices, for running without any download."""

import math

import numpy as np
from torch import Tensor

from aseqdip.data._sheet import Array, Phantom, Point, Sheet


class Body(Phantom):
    """Twenty trunks, in turn at the great vessels and at the heart; from -1024 to 2000 Hounsfield units."""

    name = "body"
    title = "generated chest"
    side = 512

    def draw(self, size: int, index: int) -> Tensor:
        return body(size, index)


def _oval(x: Array, y: Array, width: float, height: float) -> Array:
    """Between an ellipse and a rectangle, like the trunk: 1 on the rim."""
    u, v = (x / width) ** 2, (y / height) ** 2
    return np.sqrt(np.sqrt(u * u + v * v + 1.4 * u * v))


def body(size: int = 512, index: int = 0) -> Tensor:
    """A chest-like axial CT slice: with trachea and great vessels (even index) or heart and liver dome (odd).

    Returns shape (size, size), float32 in [0, 1] = (HU + 1024) / 3024: air 0.008, water 0.339, 2000 HU 1.
    Raises UserError for a size below 8 or a negative index.
    """
    sheet = Sheet(size, index, family=2, background=-1000)
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


def _organs(sheet: Sheet, tissue: Array, cavity: Array, lungs: Array, cb: float, low: bool) -> None:
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


def _branch(sheet: Sheet, lungs: Array, start: Point, angle: float, length: float, radius: float) -> None:
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


def _bones(sheet: Sheet, ca: float, cb: float) -> None:
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
