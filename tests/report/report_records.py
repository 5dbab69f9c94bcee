"""Records as a campaign leaves them, made up: every number is drawn, none is a result."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip import records
from aseqdip.paper.numbers import METHODS
from aseqdip.paper.settings import SETTINGS
from aseqdip.records import Curve, Record, Score

TITLES = {method: name for name, method in METHODS.items()}
ORDER = list(METHODS.values())[::-1]  # aSeqDIP first: best by construction
#: the cells of the paper's tables: task, setting, method
CELLS = [(*place, m) for place in SETTINGS for m in ORDER if m != "rethinking_dip" or place[0] == "denoising"]
PLACES = {"mri": "fastmri", "ct": "aapm"}


def curve(rng: np.random.Generator, level: float, steps: int, onset: float) -> np.ndarray:
    """PSNR that climbs to ``level`` dB and falls from ``onset`` (in iterations) on."""
    at = np.arange(1, steps + 1)
    rise = level - 18 * np.exp(-at / (0.12 * min(onset, steps) + 5))
    return rise - 0.0006 * np.maximum(at - onset, 0) + rng.normal(0, 0.03, steps)


def record(
    task: str, setting: str, method: str, image: str = "a", *, level: float = 30.0, seed: int = 0, steps: int = 400,
    onset: float = 1e9, **more: Any,
) -> Record:  # fmt: skip
    """One record; ``more`` are further fields of it."""
    rng = np.random.default_rng([seed, *image.encode(errors="replace"), len(method)])
    psnr = curve(rng, level, steps, onset)
    best = int(psnr.argmax())

    def score(value: float, step: int | None = None) -> Score:
        return Score(float(value), float(1 / (1 + np.exp(-(value - 22) / 5))), step)

    scores = {"start": score(18.0), "last": score(psnr[-1]), "best": score(psnr[best], best + 1)}
    scores["ema"] = score(psnr[-1] + 0.4)
    every = max(1, -(-steps // 200))
    thinned = np.round(np.add.reduceat(psnr, range(0, steps, every)) / every, 3).tolist()
    found: dict[str, Any] = {
        **{"image": image, "task": task, "setting": setting, "method": method, "seed": seed},
        **{"dataset": PLACES.get(task, "cbsd68"), "preset": "paper", "recipe": "matched", "device": "cpu"},
        "titles": {"task": task.upper(), "setting": setting, "method": TITLES[method], "start": "zero-filled"},
        **{"scores": scores, "curve": Curve(every, thinned, thinned), "steps": steps, "precision": "fp32"},
        **{"network_parameters": 4_283_842, "passes_per_step": 1.5, "flops_per_step": 4e11},
        "seconds": {"method": steps * 0.03, "scoring": 1.0, "saving": 0.5},
        "problem": {"size": "320" if task == "mri" else "512"},
        "settings": {"lr": 1e-4, "steps": steps},
        "command": [f"task={task}", f"method={method}", f"images={image}", f"seed={seed}"],
    }
    if method == "es_dip":
        found |= {"result": "stopped", "scores": {**scores, "stopped": score(psnr[-1] + 0.2, steps // 2)}}
    if method == "direct":
        found |= {"steps": 1, "flops_per_step": 0.0, "passes_per_step": 0.0, "network_parameters": 0}
        found |= {"curve": Curve(1, [18.0], [18.0]), "seconds": {"method": 0.01}, "settings": {}}
        found["scores"] = {**dict.fromkeys(("start", "last", "ema"), score(18.0)), "best": score(18.0, 1)}
    return Record(**{**found, **more})


def folder_of(outputs: Path, made: Record) -> Path:
    """Where the runner would have put it, by and large."""
    told = str((made.settings, made.problem, made.dataset, made.preset, made.seed))
    run = f"{made.method}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    name = made.image.replace("/", "_") + (f"-{made.content[:6]}" if made.content else "")
    return outputs / made.task / made.setting.replace("/", "_") / run / name


def write(outputs: Path, made: Iterable[Record]) -> list[Path]:
    """The records in folders of their own, which are returned."""
    folders = []
    for one in made:
        folders.append(folder_of(outputs, one))
        records.write(folders[-1], one)
    return folders


def campaign(
    cells: Sequence[tuple[str, str, str]], images: int, seeds: int = 1, steps: int = 400, **more: Any
) -> Iterator[Record]:
    """images x seeds records of each cell; aSeqDIP is best by construction and does not fall."""
    for task, setting, method in cells:
        rank = ORDER.index(method)
        for number in range(images):
            for seed in range(seeds):
                level = 34 - 0.5 * rank + 2.5 * np.sin(7.0 * number) + 0.1 * np.cos(seed + 3 * rank)
                falls = 1e9 if method == "aseqdip" else steps * (0.3 + 0.05 * rank)
                told = {"level": level, "seed": seed, "steps": steps, "onset": falls, **more}
                yield record(task, setting, method, f"image{number:03d}", **told)
