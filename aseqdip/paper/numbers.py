"""The paper's printed numbers."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aseqdip.paper.settings import data_set

#: our names of the published methods that are not trained
METHODS = {
    "FBP": "direct",
    "Vanilla DIP": "vanilla_dip",
    "TV-DIP": "tv_dip",
    "ES-DIP": "es_dip",
    "SGLD-DIP": "sgld_dip",
    "Rethinking-DIP": "rethinking_dip",
    "Ref-Guided DIP": "ref_guided_dip",
    "Self-Guided DIP": "self_guided_dip",
    "aSeqDIP": "aseqdip",
}
#: and of those that are
LEARNED = {
    "Score-MRI": "score_mri",
    "MCG": "mcg",
    "DPS": "dps",
    "DPS (FFHQ prior)": "dps",
    "DDNM (FFHQ prior)": "ddnm",
    "E2E-VarNet (8000 training scans)": "varnet",
    "E2E-VarNet (3000 training scans)": "varnet",
}

#: printed task and setting -> ours. The two CT columns fall from the first to the second for every method, even for
#: filtered back-projection, although Table 1 lists 18 views first: the first is compared with 30 views.
PLACES = {
    ("ct", "views=18"): ("ct", "views30"),
    ("ct", "views=30"): ("ct", "views18"),
    ("deblurring", "bkse"): ("deblurring", "nonlinear"),
    ("denoising_ffhq", "sigma=unspecified"): ("denoising", ""),
    ("inpainting_random_ffhq", "missing=0.97"): ("inpainting", "mask-random"),
    ("inpainting_box_ffhq", "hiar=0.25"): ("inpainting", "hiar0.25"),
    ("deblurring_ffhq", "bkse"): ("deblurring", "nonlinear"),
}

#: the share of missing pixels that the random mask of Table 4 has
MISSING = 0.97

#: Fig. 4: the iteration at which the mean PSNR starts to fall, for 4x MRI and for CT "18 views"; read off the figure
ONSETS = {
    ("mri", "accel4"): {
        "vanilla_dip": "500",
        "self_guided_dip": "1600",
        "aseqdip lam=0": "1600",
        "aseqdip": "not before 4000",
    },
    ("ct", "views18"): {
        "vanilla_dip": "750",
        "self_guided_dip": "1250",
        "aseqdip lam=0": "3800",
        "aseqdip": "not before 4000",
    },
}


def onset(task: str, setting: str, method: str, knobs: Mapping[str, Any]) -> str | None:
    """Where Fig. 4 has a method's mean curve start to fall; None where it does not show it. knobs: of our run."""
    plain = method == "aseqdip" and knobs.get("lam") in (0, "0")
    return ONSETS.get((task, setting), {}).get(method + (" lam=0" if plain else ""))


@dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
        table: 2, 3 or 4. name: as printed. method: ours.
        dataset: "ffhq" for Table 4, else "". psnr, psnr_std in dB; ssim, ssim_std; minutes. None where none is printed.
    """

    table: int
    task: str
    setting: str
    dataset: str
    name: str
    method: str
    psnr: float
    psnr_std: float | None
    ssim: float | None
    ssim_std: float | None
    minutes: float | None

    @property
    def why_not(self) -> str:
        """Why there is no number of ours."""
        if (self.method, self.task, self.setting) == ("ddnm", "deblurring", "nonlinear"):
            return "undefined: A is not linear"
        return "not run"


@cache
def published() -> tuple[Published, ...]:
    """All of ``published.csv``, under our names of tasks and settings."""
    with (Path(__file__).parent / "published.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return tuple(_published(row) for row in rows)


def _published(row: dict[str, str]) -> Published:
    printed = row["task"], row["setting"]
    task, setting = PLACES.get(printed, (row["task"], row["setting"].replace("=", "")))
    numbers = [float(row[k]) if row[k] else None for k in ("psnr_std", "ssim_mean", "ssim_std", "runtime_min_mean")]
    dataset = "ffhq" if row["table"] == "4" else ""
    method = {**METHODS, **LEARNED}[row["method"]]
    return Published(
        int(row["table"]), task, setting, dataset, row["method"], method, float(row["psnr_mean"]), *numbers
    )


def rows_of(task: str, setting: str, dataset: str = "", missing: float | None = None) -> list[Published]:
    """The published numbers of a setting: Table 4's for ffhq, else those of Tables 2 and 3; each method once.

    missing: the share of missing pixels of a random mask, where it is known.
    """
    if setting == "mask-random" and missing not in (None, MISSING):
        return []
    table4 = data_set(dataset) == "ffhq"
    setting = "nonlinear" if setting == "bkse" else setting
    found: dict[str, Published] = {}
    for p in published():
        if p.task == task and p.setting in (setting, "") and (p.dataset == "ffhq") == table4:
            found.setdefault(p.name, p)
    return list(found.values())
