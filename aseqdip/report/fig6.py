"""Figure 6 of the paper (Appendix A.2), from what ``aseqdip.signal`` measured and Theorem A.1 predicts."""

from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.files import write_atomically


def draw(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """The signals; the error to x along the descent, measured (solid) and in theory (dashed, dotted).

    Args:
        arrays: "signals" (x, y, z by sample), "steps", and by step and input "error", "theory", "theory_single".
        record: the study's record.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    left.plot(arrays["signals"][1], ".-", color="0.65", linewidth=0.7, label="measurement y = x + n")
    left.plot(arrays["signals"][0], color="C0", linewidth=2, label="signal x")
    left.set(xlabel="sample", title="signal and measurement")
    left.legend(fontsize=8, loc="upper right")
    for j, name in enumerate(record["inputs"]):
        right.plot(
            arrays["steps"], arrays["error"][:, j], color=f"C{j}", linewidth=1.6, label=f"input {name}"
        )
        right.plot(arrays["steps"], arrays["theory"][:, j], "--", color=f"C{j}", linewidth=1.2)
        right.plot(arrays["steps"], arrays["theory_single"][:, j], ":", color=f"C{j}", linewidth=1)
    right.axhline(record["noise_level"], color="0.7", linewidth=0.8, zorder=0)
    styles = {"-": "measured", "--": "Theorem A.1: mean output", ":": "theory: mean error of one network"}
    for style, label in styles.items():
        right.plot([], [], style, color="0.3", linewidth=1.2, label=label)
    right.set_xscale("symlog", linthresh=1, linscale=0.4)
    right.set(xlim=(0, record["steps"]), ylim=(0, 2), xlabel="iteration", ylabel="mean squared error to x")
    right.legend(fontsize=8, ncols=2, loc="upper center")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=160))
