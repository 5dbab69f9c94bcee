"""Figure 6 of the paper (Appendix A.2), from what ``studies.fig6`` measured and Theorem A.1 predicts."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.figures import new_figure, save

log = logging.getLogger(__name__)


def summarise(curve: np.ndarray, noise: float, fitted: float) -> list[dict[str, Any]]:
    """The figures of each input; "at the noise level" is within 10 % of it.

    Args:
        curve: mean squared errors to x and to y by step, shape (steps + 1, 2, 3).
        noise: that of y to x.
        fitted: the error to y, in units of ``noise``, below which y counts as learned.
    """
    found = []
    for error, residual in curve.transpose(2, 1, 0):
        learned = np.flatnonzero(residual < fitted * noise)
        level = max(np.flatnonzero(abs(error / noise - 1) > 0.1), default=-1) + 1
        found.append(
            {
                "start": float(error[0]),
                "lowest": float(error.min()),
                "lowest_at": int(error.argmin()),
                "end": float(error[-1]),
                "unfitted_at_end": float(residual[-1] / noise),
                "fitted_at": int(learned[0]) if len(learned) else None,
                "at_noise_level_from": int(level) if level < len(error) else None,
            }
        )
    return found


def describe(record: dict[str, Any]) -> None:
    """The figures in the log."""
    log.info("Noise level %.3f; fitted: residual below 1 %% of the noise's energy.", record["noise_level"])
    for name, m in record["inputs"].items():
        fitted = "not fitted (%.0f %% left)" % (100 * m["unfitted_at_end"])
        fitted = fitted if m["fitted_at"] is None else f"fitted at {m['fitted_at']}"
        log.info(
            "%-14s error %.3f at the start, lowest %.4f at step %d, %.3f at the end; %s (theory: %s)",
            *(name, m["start"], m["lowest"], m["lowest_at"], m["end"], fitted, m["theory_fitted_at"]),
        )
    level = record["inputs"]["measurement y"]["at_noise_level_from"]
    log.info("With y the error is at the noise level from step %s on.", level)
    if record["ratio"]:
        least = ">= " if record["ratio_is_lower_bound"] else ""
        theory = record["theory_ratio"] or math.inf
        log.info("x takes %s%.1f times the steps of noise (theory: %.1f)", least, record["ratio"], theory)


def draw(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """The signals; the error to x along the descent, measured (solid) and in theory (dashed, dotted).

    Args:
        arrays: "signals" (x, y, z by sample), "steps", and by step and input "error", "theory", "theory_single".
        record: the study's record.
    """
    figure, (left, right) = new_figure(2, 4.2, 5)
    left.plot(arrays["signals"][1], ".-", color="0.65", linewidth=0.7, label="measurement y = x + n")
    left.plot(arrays["signals"][0], color="C0", linewidth=2, label="signal x")
    left.set(xlabel="sample", title="signal and measurement")
    left.legend(fontsize=8, loc="upper right")
    for j, name in enumerate(record["inputs"]):
        lines = {"error": ("-", 1.8), "theory": ("--", 1.3), "theory_single": (":", 1.1)}
        for what, (style, width) in lines.items():
            right.plot(arrays["steps"], arrays[what][:, j], style, color=f"C{j}", linewidth=width)
        right.plot([], [], color=f"C{j}", linewidth=1.8, label=f"input: {name}")
    right.axhline(record["noise_level"], color="0.8", linewidth=3, zorder=0, label="noise level")
    styles = {"-": "measured", "--": "Theorem A.1", ":": "theory, mean error over initial weights"}
    for style, label in styles.items():
        right.plot([], [], style, color="0.3", linewidth=1.3, label=label)
    right.set_xscale("symlog", linthresh=1, linscale=0.4)  # step 0 is there too
    right.set(xlim=(0, record["steps"]), ylim=(0, 2), xlabel="iteration", ylabel="mean squared error to x")
    right.set_title("error along gradient descent")
    figure.legend(*right.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center")
    save(figure, path)
