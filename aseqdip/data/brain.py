"""Generated brain-like MR slices with a smooth phase, for running without any download."""

import numpy as np
from torch import Tensor

from aseqdip.data._sheet import Array, Phantom, Sheet

#: tissue: intensity in a T1-weighted and in a T2-weighted slice
_TISSUES = {
    "skin": (0.55, 0.35), "fat": (0.95, 0.52), "muscle": (0.36, 0.20), "bone": (0.04, 0.03),
    "marrow": (0.42, 0.30), "csf": (0.13, 0.97), "grey": (0.47, 0.52), "white": (0.70, 0.36),
    "deep": (0.55, 0.46), "lesion": (0.33, 0.85),
}  # fmt: skip


class Brain(Phantom):
    """Twenty heads, in turn with T1- and T2-weighted contrast; coils are simulated."""

    name = "brain"
    title = "generated brain"
    side = 320

    def draw(self, size: int, index: int) -> Tensor:
        return brain(size, index)


def brain(size: int = 320, index: int = 0) -> Tensor:
    """A brain-like axial MR slice at the level of the lateral ventricles.

    Even indices are T1-weighted, odd ones T2-weighted; each index is another head. The phase, a quadratic and
    a local bump, spans [-pi/2, pi/2] over the head. Returns shape (size, size), complex64, magnitude in
    [0, 1] with peak 1, background 0. Raises UserError for a size below 8 or a negative index.
    """
    sheet = Sheet(size, index, family=1, background=0)
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


def _cortex(sheet: Sheet, skull: Array, angle: Array) -> Array:
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


def _deep_brain(sheet: Sheet, tissue: dict[str, float]) -> None:
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
