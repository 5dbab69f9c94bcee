"""Records as a campaign leaves them, made up: every number is drawn, none is a result."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.cli import SETTINGS
from aseqdip.config import METHOD_NAMES
from aseqdip.records import deviations, identity, run_folder
from aseqdip.report.command import composed

CELLS = [
    (task, setting, method)
    for task, settings in SETTINGS.items()
    for setting in settings
    for method in METHOD_NAMES
    if method != "rethinking_dip" or task == "denoising"
]


@cache
def template(words: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """What all records of a run have in common, as the runner would write it, and the run's folder below its outputs."""
    cfg = composed([*words, "tracker=none"])
    task = cfg.task.name
    setting = str(Path(run_folder(cfg)).parent.name)
    common = {
        **{
            "schema": 1,
            "task": task,
            "setting": setting,
            "method": cfg.method.name,
            "dataset": cfg.dataset.name,
        },
        **{"preset": cfg.preset.name, "recipe": cfg.recipe.name},
        "deviations_from_paper": deviations(cfg),
        "result": "stopped" if cfg.stop != "none" else "last",
        **{"network_parameters": 4_283_842, "passes_per_step": 1.5, "flops_per_step": 4e11, "device": "cpu"},
        **{
            "precision": "fp32",
            "seed": cfg.seed,
            "identity": identity(cfg),
            "config": dataclasses.asdict(cfg),
        },
    }
    return common, str(run_folder(cfg).relative_to(cfg.outputs))


def curve(rng: np.random.Generator, level: float, steps: int, onset: float) -> np.ndarray:
    """PSNR that climbs to ``level`` dB and falls from ``onset`` (in iterations) on."""
    at = np.arange(1, steps + 1)
    rise = level - 18 * np.exp(-at / (0.12 * min(onset, steps) + 5))
    return rise - 0.0006 * np.maximum(at - onset, 0) + rng.normal(0, 0.03, steps)


def record(
    words: Sequence[str], image: str, level: float = 30.0, seed: int = 0, steps: int = 400, onset: float = 1e9
) -> tuple[dict[str, Any], str]:
    """One record and its folder below the outputs."""
    common, folder = template((*words, f"seed={seed}"))
    found = dict(common)
    rng = np.random.default_rng([seed, len(image), *image.encode(), len(words)])
    psnr = curve(rng, level, steps, onset)
    best = int(psnr.argmax())

    def score(value: float, **more: Any) -> dict[str, Any]:
        return {"psnr": float(value), "ssim": float(1 / (1 + np.exp(-(value - 22) / 5))), **more}

    every = max(1, -(-steps // 200))
    blocks = np.round(np.add.reduceat(psnr, range(0, steps, every)) / every, 3).tolist()
    scores = {"start": score(18.0), "last": score(psnr[-1]), "best": score(psnr[best], step=best + 1)}
    scores["ema"] = score(psnr[-1] + 0.4)
    if found["result"] == "stopped":
        scores["stopped"] = score(psnr[-1] + 0.2, step=steps // 2)
    seconds = {"method": steps * 0.03, "scoring": 1.0, "saving": 0.5}
    found |= {"image": image, "scores": scores, "steps": steps, "seconds": seconds}
    found["curve"] = {"every": every, "psnr": blocks, "psnr_ema": blocks}
    if found["method"] == "direct":
        found |= {"steps": 1, "flops_per_step": 0.0, "passes_per_step": 0.0, "network_parameters": 0}
        found |= {
            "curve": {"every": 1, "psnr": [18.0], "psnr_ema": [18.0]},
            "seconds": dict.fromkeys(seconds, 0.01),
        }
        found["scores"] = dict.fromkeys(("start", "last", "ema"), score(18.0)) | {"best": score(18.0, step=1)}
    return found, folder


def write(outputs: Path, made: Iterable[tuple[dict[str, Any], str]]) -> None:
    """The records where the runner would have put them."""
    for found, folder in made:
        place = outputs / folder / found["image"].replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        (place / "record.json").write_text(json.dumps(found))


def words_of(task: str, setting: str, method: str, *more: str) -> list[str]:
    """The command line of a cell of the paper's table."""
    values = [f"{k}={v}" for k, v in SETTINGS[task][setting].items()]
    return [f"task={task}", f"method={method}", *values, *more]


def campaign(
    cells: Sequence[tuple[str, str, str]], images: int, seeds: int, *more: str, steps: int = 400
) -> Iterable[tuple[dict[str, Any], str]]:
    """images x seeds records of each cell; aSeqDIP is best by construction and does not fall."""
    for task, setting, method in cells:
        rank = METHOD_NAMES.index(method)
        for number in range(images):
            for seed in range(seeds):
                level = 34 - 0.5 * rank + 2.5 * np.sin(7.0 * number) + 0.1 * np.cos(seed + 3 * rank)
                falls = 1e9 if method == "aseqdip" else steps * (0.3 + 0.05 * rank)
                yield record(words_of(task, setting, method, *more), f"image{number:03d}", level, seed, steps, falls)
