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

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    left.plot(arrays["signals"][1], ".-", color="0.65", linewidth=0.7, label="measurement y = x + n")
    left.plot(arrays["signals"][0], color="C0", linewidth=2, label="signal x")
    left.set(xlabel="sample", title="signal and measurement")
    left.legend(fontsize=8, loc="upper right")
    for j, name in enumerate(record["inputs"]):
        lines = {"error": ("-", 1.8), "theory": ("--", 1.3), "theory_single": (":", 1.1)}
        for what, (style, width) in lines.items():
            right.plot(arrays["steps"], arrays[what][:, j], style, color=f"C{j}", linewidth=width)
        right.plot([], [], color=f"C{j}", linewidth=1.8, label=f"input: {name}")
    styles = {"-": "measured", "--": "Theorem A.1", ":": "theory, mean error over initial weights"}
    for style, label in styles.items():
        right.plot([], [], style, color="0.3", linewidth=1.3, label=label)
    right.axhline(record["noise_level"], color="0.8", linewidth=3, zorder=0, label="noise level")
    right.set_xscale("symlog", linthresh=1, linscale=0.4)  # step 0 is there too
    right.set(xlim=(0, record["steps"]), ylim=(0, 2), xlabel="iteration", ylabel="mean squared error to x")
    right.set_title("error along gradient descent")
    figure.legend(*right.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=160))
