"""The best picture for the time: each method with as many tries on tuning images, and the best of them on others.

python -m aseqdip.studies.quality tune   data_root=data outputs=results/quality/tuning
python -m aseqdip.studies.quality choose results/quality/tuning results/quality/chosen.json
python -m aseqdip.studies.quality report results/quality/chosen.json data_root=data outputs=results/quality/reported
python -m aseqdip.studies.quality page   results/quality docs/quality.md

Each step can be repeated, and goes on where it was killed. The choice is made without the reported images: of each
method's tries by the mean PSNR over the tuning images of its last iterate or of the running average of its iterates.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aseqdip.errors import UserError
from aseqdip.records import Record, scan, write_json
from aseqdip.report.blocks import build
from aseqdip.report.quality import document
from aseqdip.report.rows import load
from aseqdip.report.tables import markdown
from aseqdip.studies import choice

#: sizes at which a hundred runs fit into two hours of two cores
SIZES = {"mri": 160, "ct": 160, "denoising": 128, "inpainting": 128, "deblurring": 128}
SETTINGS = {"mri": "accel=4", "ct": "views=30", "denoising": "sigma=30", "inpainting": "hiar=0.1", "deblurring": ""}
STEPS = {"mri": 500, "ct": 500, "denoising": 300, "inpainting": 300, "deblurring": 300}
#: images; the choice between two tries is mostly plain, and pictures leave little time for a second one
TUNED_ON, REPORTED_ON = {"mri": 2, "ct": 2, "denoising": 1, "inpainting": 1, "deblurring": 1}, 4
LR, FAST, AVERAGE = {"mri": 1e-3, "ct": 1e-3}, 3e-3, 0.99
FROM_TV = f"input=tv lr={FAST}"
#: Two tries a method: its own settings, and what a first look at tuning images had shown to be better for few steps.
#: aSeqDIP's sequence must not go on before its outputs know more of the image than its input does.
TRIES = {
    "vanilla_dip": ("", FROM_TV),
    "tv_dip": ("", FROM_TV),
    "es_dip": ("", FROM_TV),
    "sgld_dip": ("", FROM_TV),
    "self_guided_dip": ("", f"passes=1 alpha=0.1 lr={FAST}"),
    "ref_guided_dip": ("", f"lr={FAST}"),
    "rethinking_dip": ("", "lr=5e-4"),
    "aseqdip": ("", f"start=tv N={{half}} lam=0.1 lr={FAST}"),
}
#: which were tuned when they were written, on other images than are reported, and have one reading
AS_THEY_ARE = {
    "mri": ("direct", "cg", "wavelet", "tv", "pnp"),
    "ct": ("direct", "cg", "wavelet", "tv", "pnp"),
    "denoising": ("nlm", "wavelet_shrinkage", "wavelet", "tv", "pnp"),
    "inpainting": ("biharmonic", "wavelet", "tv", "pnp"),
    "deblurring": ("wavelet", "tv", "pnp"),
}
CHOICE = """\
## How the settings were chosen

On `data=tuning`, which has no patient or photograph of the images above: two tries for each method with a network,
on two slices of MRI and of CT and on one photograph, each judged by its last iterate and by the running average of
its iterates (0.99), where no rule chooses. What a first look at tuning images had shown went into the second tries:
a classical image as input, and faster steps. Methods that fit no network have the settings that they came with,
calibrated on `data=calibration`, or, of `pnp`, on one or two images of `data=tuning`; its prior is the trained one
that comes with the package ([priors.md](priors.md)). Sizes and steps are small, so that the whole fits into two
hours of two cores; seconds are those of these small images.

{}

By the rules of choice in [protocol.md](protocol.md) this study falls short in what follows: its first tries are
those of the preset and not of each method's authors, and methods that fit no network were not tuned again.

{}
"""
ONLY = {"ref_guided_dip": ("mri", "ct"), "rethinking_dip": ("denoising",)}


def tries() -> Iterator[tuple[str, str, int, list[str]]]:
    """Task, method, number and words of each try, a task at a time."""
    for task in SIZES:
        for method in (*AS_THEY_ARE[task], *TRIES):
            if task in ONLY.get(method, SIZES):
                for number, words in enumerate(TRIES.get(method, ("",))):
                    yield task, method, number, merged([*_base(task, method), *_said(task, words)])


def _said(task: str, words: str) -> list[str]:
    return words.format(half=STEPS[task] // 2).split()


def _base(task: str, method: str) -> list[str]:
    words = f"task={task} method={method} preset=quick recipe=matched {SETTINGS[task]} size={SIZES[task]}".split()
    learned = [f"steps={STEPS[task]}", f"lr={LR.get(task, 2e-3)}"] if method in TRIES else []
    return [*words, *learned]


def merged(words: list[str]) -> list[str]:
    """Each name once, with the value it was given last."""
    return [f"{name}={value}" for name, value in dict(word.split("=", 1) for word in words).items()]


def run(words: list[str], more: list[str]) -> None:
    """One command, in a process of its own."""
    command = [sys.executable, "-m", "aseqdip", "tracker=none", *merged([*words, *more])]
    if subprocess.run(command, check=False).returncode in (130, 143):  # told to stop
        sys.exit(130)


def choose(folder: Path) -> dict[str, dict[str, Any]]:
    """For each task and method the best try: its words, and what every try reached; UserError if one is missing."""
    found: dict[tuple[str, str], list[Record]] = {}
    for trace in scan([folder]):
        if trace.record is not None:
            found.setdefault((trace.record.task, trace.record.method), []).append(trace.record)
    reached: dict[str, list[tuple[float, list[str]]]] = {}
    for task, method, number, words in tries():
        asked = set(words) - {"recipe=matched"}  # which records say since preset=quick has another
        records = [r for r in found.get((task, method), []) if asked <= set(r.command) and r.recipe == "matched"]
        if number == 0:  # whose words every other try has as well, but for what that sets otherwise
            others = [set(_said(task, other)) for other in TRIES.get(method, ("",))[1:]]
            records = [r for r in records if not any(other <= set(r.command) for other in others)]
        if len(records) != TUNED_ON[task]:
            raise UserError(
                f"{task} {method}, try {number}: {len(records)} of {TUNED_ON[task]} records; run tune to its end."
            )
        for average in ("last", "ema") if method in TRIES and records[0].result == "last" else ("",):
            scores = [r.scores[average] if average else r.score for r in records]
            mean = sum(s.psnr_db or 0.0 for s in scores) / len(scores)
            said = [*words, *([f"ema={AVERAGE}"] if average == "ema" else [])]
            reached.setdefault(f"{task} {method}", []).append((mean, said))
    return {cell: _best(scored) for cell, scored in reached.items()}


def _best(scored: list[tuple[float, list[str]]]) -> dict[str, Any]:
    mean, words = max(scored, key=lambda one: one[0])
    tries = [{"words": " ".join(said), "psnr_db": round(psnr, 3)} for psnr, said in scored]
    return {"tries": tries, "psnr_db": round(mean, 3), "words": words}


def page(folder: Path, path: Path) -> None:
    """What was reported, against time; how it was chosen; and where that departs from the rules of choice."""
    cells = json.loads((folder / "chosen.json").read_text())
    lines = [["task", "method", "tuned with", "PSNR (dB)", "chosen"]]
    for cell, found in cells.items():
        task, method = cell.split()
        base = set(_base(task, method))
        for one in found["tries"] if method in TRIES else ():
            said = " ".join(word for word in one["words"].split() if word not in base)
            yes = "yes" if one["words"] == " ".join(found["words"]) else ""
            lines.append([task, method, said or "its own settings", f"{one['psnr_db']:.2f}", yes])
    records = [trace.record for trace in scan([folder]) if trace.record is not None]
    command = f"python -m aseqdip.studies.quality page {folder} {path}"
    broken = "\n".join(f"- {line}" for line in choice.broken(records))
    document(build(load([folder / "reported"]).rows), path, command, CHOICE.format(markdown(lines), broken))


def main() -> None:
    """Entry point."""
    try:
        what, *words = sys.argv[1:]
        if what == "tune":
            for task, _, _, one in tries():
                run(one, ["data=tuning", f"images=0:{TUNED_ON[task]}", *words])
        elif what == "choose":
            write_json(Path(words[1]), choose(Path(words[0])))
        elif what == "report":
            for cell in json.loads(Path(words[0]).read_text()).values():
                run(cell["words"], ["data=public", f"images=0:{REPORTED_ON}", *words[1:]])
        elif what == "page":
            page(Path(words[0]), Path(words[1]))
        else:
            raise ValueError(what)
    except (ValueError, IndexError):
        sys.exit(str(__doc__))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
