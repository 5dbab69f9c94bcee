"""What a reconstruction leaves in its folder: pictures, arrays, the curve, and last of all the record."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aseqdip import export, figures, records
from aseqdip.records import Record
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.stopping.base import StoppingRule

log = logging.getLogger(__name__)


def write(folder: Path, run: Reconstruction, known: Record, source: Path | None = None) -> Record:
    """Everything of a finished reconstruction; returns its record.

    Args:
        known: the record as far as it is known before anything is computed: names, settings, command.
        source: the file that the image was read from.
    """
    titles = {**known.titles, "method": run.method.label}
    case, scores = run.case, run.scores.summary()
    region = None if case.region is None else list(case.region)
    shown = origin(known.origin, case.facts.get("scale", 1.0), region)
    known = replace(known, titles=titles, origin=shown, versions=records.environment())
    truth = None if case.scoring is None else case.scoring.truth
    image = run.result()
    start, result = case.show(case.problem.z0), case.show(image)
    title = f"{titles['task']} {titles['setting']} · {titles['method']} · {known.image} · preset={known.preset}"
    with run.clock.measure("saving"):
        write_partial(folder, run)
        try:
            preview = (folder / "preview.png", start, result, truth, scores, title, titles["start"])
            figures.preview(*preview, run.scores.headline)
            figures.curve(folder / "curve.png", run.scores.rows, scores, title, run.method.learns)
        except Exception as error:  # whatever it is, a picture is not worth the reconstruction
            log.warning("%s: its pictures could not be drawn: %s", known.image, error)
        arrays = {"reconstruction": image, "shown": result, "start": start, "truth": truth, **run.arrays()}
        records.write_arrays(folder / "reconstruction.npz", **arrays)
        export.beside(folder, [export.Result(known, figures.pixels(result.cpu().numpy()), source)])
    run.clock.settle()
    engine, (passes, flops) = run.method.engine, run.cost()
    simulated = {"maps": "simulated"} if case.facts.get("maps") == "simulated" else {}  # the paper's are measured
    unrecorded = {"not_recorded": engine.failures} if engine.failures else {}
    record = replace(
        known,
        result=run.scores.headline,
        scores=scores,
        curve=records.thin(run.scores.rows),
        steps=len(run.scores.rows),
        network_parameters=run.state.parameters,
        passes_per_step=passes,
        flops_per_step=flops,
        seconds={k: round(v, 4) for k, v in run.clock.seconds.items()},
        device=torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        precision=engine.precision if run.method.learns else "fp32",
        noise_std=case.problem.noise_std,
        departures={**known.departures, **simulated},
        facts={**case.facts, **run.facts(), **unrecorded},
        input=run.input,
        commit=records.commit(),
    )
    records.write(folder, record)
    (folder / "failure.json").unlink(missing_ok=True)
    if run.checkpoint is not None:
        run.checkpoint.clear()
    return record


def origin(read: dict[str, Any], scale: float, region: list[int] | None) -> dict[str, Any]:
    """A record's: what was read, with what the task made of the file's values and of its image."""
    found = {"low": 0.0, "high": 1.0, **read}
    found["high"] = found["low"] + (found["high"] - found["low"]) / scale
    return found | ({} if region is None else {"region": region})


def write_partial(folder: Path, run: Reconstruction) -> None:
    """The curve so far and the last finite iterate: what is kept of a reconstruction that failed, too."""
    records.write_arrays(folder / "reconstruction.npz", reconstruction=run.scores.last)
    (folder / "record.json").unlink(missing_ok=True)  # redo=true: from here on it would be of other arrays
    records.write_curve(folder / "curve.csv", run.scores.rows)


def describe(record: Record, rule: StoppingRule | None = None) -> str:
    """One line on a finished image, and on how the rule that watched it came to its choice."""
    scores, seconds = record.scores, record.seconds["method"]
    start, result, best, last, ema = (scores[w] for w in ("start", record.result, "best", "last", "ema"))
    chosen = "" if rule is None or result.step is None else f" (step {result.step}, {rule.ending(record.steps)})"
    if not record.known:
        return f"{record.image}: {record.steps} steps in {seconds:.0f} s{chosen}; no truth, so no PSNR."
    if record.result != "last":
        chosen += f", last {last.psnr_db:.2f}"
    average = f"EMA {ema.psnr_db:.2f}, " if record.fitted else ""
    line = (
        f"{record.image}: start {start.psnr_db:.2f} dB -> {result.psnr_db:.2f} dB{chosen}, SSIM {result.ssim:.3f} "
        f"({average}best {best.psnr_db:.2f} at step {best.step}), {seconds:.0f} s"
    )
    if "hole_psnr_db" in result.extras:
        line += f"; hole {start.extras['hole_psnr_db']:.2f} -> {result.extras['hole_psnr_db']:.2f} dB"
    return line
