"""What tasks, settings and methods are called in a report."""

import re

from aseqdip.report.published import METHODS

TITLES = {
    **{"mri": "MRI", "ct": "CT", "denoising": "Denoising", "inpainting": "In-painting"},
    **{"deblurring": "Deblurring", "direct": "Direct", "aseqdip": "aSeqDIP"},
    **{p: name for name, p in METHODS.items() if name not in ("FBP", "aSeqDIP")},
}
DIRECT = {"mri": "Zero-filled", "ct": "FBP"}


def title(name: str, task: str = "") -> str:
    """A method's or a task's name as printed."""
    return DIRECT.get(task, "Measurement") if name == "direct" and task else TITLES.get(name, name)


def setting_title(setting: str) -> str:
    """accel4 -> 4x, views30 -> 30 views, sigma15 -> sigma 15, hiar0.1 -> HIAR 0.1; any other as it is."""
    found = re.fullmatch(r"(accel|views|sigma|hiar)([\d.e+-]+)", setting)
    if not found:
        return {"nonlinear": "non-linear blur", "motion": "linear blur"}.get(setting, setting)
    kind, value = found.groups()
    return {"accel": f"{value}×", "views": f"{value} views", "sigma": f"σ {value}", "hiar": f"HIAR {value}"}[kind]
