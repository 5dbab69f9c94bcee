"""The best picture for the time: each method with as many tries on tuning images, and the best of them on others.

python -m aseqdip.studies.quality tune   data_root=data outputs=results/quality/tuning
python -m aseqdip.studies.quality choose results/quality/tuning results/quality/chosen.json
python -m aseqdip.studies.quality report results/quality/chosen.json data_root=data outputs=results/quality/reported
python -m aseqdip.studies.quality heldout results/quality/chosen.json data_root=data outputs=results/quality/heldout
python -m aseqdip.studies.quality page   results/quality docs/quality.md

Each step can be repeated, and goes on where it was killed. The choice is made without the reported images: of each
method's tries by the mean PSNR over the tuning images of its last iterate or of the running average of its iterates.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods._diffusion import Sampler
from aseqdip.records import Record, write_json
from aseqdip.report.blocks import agreement, build
from aseqdip.report.quality import document
from aseqdip.report.rows import load
from aseqdip.report.tables import fill_in, markdown
from aseqdip.run.interrupt import DONE
from aseqdip.run.scores import EMA_DECAY
from aseqdip.studies import choice

#: sizes at which a hundred runs fit into two hours of two cores
SIZES = {"mri": 160, "ct": 160, "denoising": 128, "inpainting": 128, "deblurring": 128}
SETTINGS = {"mri": "accel=4", "ct": "views=30", "denoising": "sigma=30", "inpainting": "hiar=0.1", "deblurring": ""}
STEPS = {"mri": 500, "ct": 500, "denoising": 300, "inpainting": 300, "deblurring": 300}
#: images; the choice between two tries is mostly plain, and pictures leave little time for a second one
TUNED_ON, REPORTED_ON = {"mri": 2, "ct": 2, "denoising": 1, "inpainting": 1, "deblurring": 1}, 4
HELD_OUT_ON = 2
LR, FAST = {"mri": 1e-3, "ct": 1e-3}, 3e-3
FROM_TV = f"input=tv lr={FAST}"
#: a network that corrects its input instead of making an image from it: its first iterate is that image
CORRECTING = {
    "ct": "tv network.add_input=true lr=3e-4",
    "inpainting": "wavelet network.add_input=true lr=1e-3",
    "deblurring": "tv network.add_input=true lr=1e-3",
}
#: the third try of the methods whose input may be any image, by task
THIRD = {
    "mri": f"{FROM_TV} perturb=0.05",
    "denoising": "perturb=0.03",
    **{task: f"input={words}" for task, words in CORRECTING.items()},
}
#: Three tries a method that has been trained or fits a network: its own settings, and what looks at tuning images had
#: shown to be better for few steps. aSeqDIP's sequence must not go on before its outputs know more of the image than
#: its input does.
TRIES: dict[str, tuple[str | dict[str, str], ...]] = {
    "vanilla_dip": ("", FROM_TV, THIRD),
    "tv_dip": ("", FROM_TV, THIRD),
    "es_dip": ("", FROM_TV, THIRD),
    "sgld_dip": ("", FROM_TV, THIRD),
    "self_guided_dip": ("", f"passes=1 alpha=0.1 lr={FAST}", f"passes=2 alpha=0.05 lr={FAST}"),
    "ref_guided_dip": ("", f"lr={FAST}", "perturb=0.05"),
    "rethinking_dip": ("", "lr=5e-4", "lr=4e-3"),
    "pnp": ("", "weight=0.1", "weight=0.5"),
    "dps": ("", "zeta=0.15", "zeta=1"),
    "ddnm": ("", "eta=0.5", {"mri": "inner=2", "ct": "inner=3", "denoising": "eta=0.2", "inpainting": "eta=0.2"}),
    "score_mri": ("", "snr=0.08", "snr=0.04"),
    "mcg": ("", "alpha=0.03", "alpha=0.3"),
    "aseqdip": (
        "",
        f"start=tv N={{half}} lam=0.1 lr={FAST}",
        {
            "mri": f"start=tv N={{steps}} lam=0.01 lr={FAST}",
            "denoising": "N={half}",
            **{task: f"start={words} N={{tenth}} lam=0.1" for task, words in CORRECTING.items()},
        },
    ),
}
#: which were tuned when they were written, on other images than are reported, and have one reading
AS_THEY_ARE = {
    "mri": ("direct", "cg", "wavelet", "tv", "varnet"),
    "ct": ("direct", "cg", "wavelet", "tv"),
    "denoising": ("nlm", "wavelet_shrinkage", "wavelet", "tv"),
    "inpainting": ("biharmonic", "wavelet", "tv"),
    "deblurring": ("wavelet", "tv"),
}
ONLY = {
    "ref_guided_dip": ("mri", "ct"), "rethinking_dip": ("denoising",), "score_mri": ("mri",), "mcg": ("ct",),
    "ddnm": ("mri", "ct", "denoising", "inpainting"),
}  # fmt: skip


def tries() -> Iterator[tuple[str, str, int, list[str]]]:
    """Task, method, number and words of each try, a task at a time."""
    for task in SIZES:
        for method in (*AS_THEY_ARE[task], *TRIES):
            if task in ONLY.get(method, SIZES):
                for number, words in enumerate(TRIES.get(method, ("",))):
                    said = words if isinstance(words, str) else words[task]
                    yield task, method, number, merged([*_base(task, method), *_said(task, said)])


def _said(task: str, words: str) -> list[str]:
    return words.format(steps=STEPS[task], half=STEPS[task] // 2, tenth=STEPS[task] // 10).split()


def _base(task: str, method: str) -> list[str]:
    words = f"task={task} method={method} preset=quick recipe=matched {SETTINGS[task]} size={SIZES[task]}".split()
    learned = [f"steps={STEPS[task]}", f"lr={LR.get(task, 2e-3)}"] if METHODS[method].learns else []
    return [*words, *learned]


def merged(words: list[str]) -> list[str]:
    """Each name once, with the value it was given last."""
    return [f"{name}={value}" for name, value in dict(word.split("=", 1) for word in words).items()]


def run(words: list[str], more: list[str]) -> int:
    """One command, in a process of its own; its exit status."""
    command = [sys.executable, "-m", "aseqdip", "tracker=none", *merged([*words, *more])]
    status = subprocess.run(command, check=False).returncode
    if status in (130, 143):  # told to stop
        sys.exit(130)
    return status


def choose(folder: Path) -> dict[str, dict[str, Any]]:
    """For each task and method the best try: its words, and what every try reached; UserError if one is missing."""
    asked: dict[str, list[set[str]]] = {}
    for task, method, _, words in tries():  # records have said recipe=matched since preset=quick has another
        asked.setdefault(f"{task} {method}", []).append(set(words) - {"recipe=matched"})
    found: dict[tuple[str, int], list[Record]] = {}
    for record in choice.records_below(folder):
        cell, said = f"{record.task} {record.method}", set(record.command)
        fits = [(len(words), number) for number, words in enumerate(asked.get(cell, [])) if words <= said]
        if fits and record.recipe == "matched":  # a try may say all that another one says, and more
            found.setdefault((cell, max(fits)[1]), []).append(record)
    reached: dict[str, list[tuple[float, list[str]]]] = {}
    for task, method, number, words in tries():
        records = found.get((f"{task} {method}", number), [])
        if len(records) != TUNED_ON[task]:
            raise UserError(
                f"{task} {method}, try {number}: {len(records)} of {TUNED_ON[task]} records; run tune to its end."
            )
        for average in ("last", "ema") if METHODS[method].learns and records[0].result == "last" else ("",):
            scores = [r.scores[average] if average else r.score for r in records]
            final = [*words, *([f"ema={EMA_DECAY}"] if average == "ema" else [])]
            reached.setdefault(f"{task} {method}", []).append((mean(s.psnr_db or 0.0 for s in scores), final))
    return {cell: _best(scored) for cell, scored in reached.items()}


def _best(scored: list[tuple[float, list[str]]]) -> dict[str, Any]:
    psnr_db, words = max(scored, key=lambda one: one[0])
    tries = [{"words": " ".join(said), "psnr_db": round(psnr, 3)} for psnr, said in scored]
    return {"tries": tries, "psnr_db": round(psnr_db, 3), "words": words}


def looks(folder: Path) -> list[list[str]]:
    """Everything else that was tried on tuning images: by task and method, the best first."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for record in choice.records_below(folder):
        base = _base(record.task, record.method)
        said = [word for word in choice.said(record) if word not in base]
        found.setdefault((record.task, record.titles["method"], " ".join(merged(said))), []).append(record)
    means = {key: mean(r.score.psnr_db or 0.0 for r in records) for key, records in found.items()}
    lines = [["task", "method", "with", "n", "start", "PSNR (dB)"]]
    for key in sorted(found, key=lambda key: (list(SIZES).index(key[0]), key[1], -means[key])):
        start = mean(r.scores["start"].psnr_db or 0.0 for r in found[key])
        lines.append([*key, str(len(found[key])), f"{start:.2f}", f"{means[key]:.2f}"])
    return lines


def heldout(folder: Path) -> list[list[str]]:
    """What ``stop=holdout`` lost against the oracle and gained over the last iterate; whether it orders methods."""
    lines = [["task", "methods", "runs", "oracle", "its largest", "last", "order"]]
    for block in build(load([folder]).rows):
        scores = [row.record.scores for cell in block.cells for row in cell.rows]
        lost, last = (
            [(s[which].psnr_db or 0.0) - (s["stopped"].psnr_db or 0.0) for s in scores] for which in ("best", "last")
        )
        alike, pairs = agreement(block)
        gaps = f"{mean(lost):+.2f}", f"{max(lost):+.2f}", f"{mean(last):+.2f}"
        order = f"{alike} of {pairs}"
        lines.append([block.place, str(len(block.cells)), str(len(scores)), *gaps, order])
    return lines


def page(folder: Path, path: Path) -> None:
    """What was reported, against time; how it was chosen; and where that departs from the rules of choice."""
    cells = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
    lines = [["task", "method", "tuned with", "PSNR (dB)", "chosen"]]
    for cell, found in cells.items():
        task, method = cell.split()
        base = set(_base(task, method))
        for one in found["tries"] if method in TRIES else ():
            said = " ".join(word for word in one["words"].split() if word not in base)
            yes = "yes" if one["words"] == " ".join(found["words"]) else ""
            lines.append([task, method, said or "its own settings", f"{one['psnr_db']:.2f}", yes])
    records = choice.records_below(folder)
    command = f"python -m aseqdip.studies.quality page {folder} {path}"
    broken = "\n".join(f"- {line}" for line in choice.broken(records))
    more = fill_in(
        Path(__file__).with_name("quality.md.j2"),
        choice=markdown(lines),
        looks=markdown(looks(folder / "looks")),
        heldout_on=HELD_OUT_ON,
        heldout=markdown(heldout(folder / "heldout")),
        broken=broken,
    )
    document(build(load([folder / "reported"]).rows), path, command, more)


#: the steps, and how many words each needs
NEEDED = {"tune": 0, "choose": 2, "report": 1, "heldout": 1, "page": 2}


def commands(what: str, words: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """What a step runs: a method's words, and those of the data and the user's own."""
    if what == "tune":
        for task, _, _, one in tries():
            yield one, ["data=tuning", f"images=0:{TUNED_ON[task]}", *words]
        return
    for cell, found in json.loads(Path(words[0]).read_text(encoding="utf-8")).items():
        method = METHODS[cell.split()[1]]
        if what == "report":
            yield found["words"], ["data=public", f"images=0:{REPORTED_ON}", *words[1:]]
        elif method.iterative and "stop" not in method.defaults and not issubclass(method, Sampler):
            yield found["words"], ["stop=holdout", "data=public", f"images=0:{HELD_OUT_ON}", *words[1:]]


def main() -> None:
    """Entry point."""
    what, *words = sys.argv[1:] or [""]
    if what not in NEEDED or len(words) < NEEDED[what]:
        sys.exit(str(__doc__))
    try:
        if what == "choose":
            write_json(Path(words[1]), choose(Path(words[0])))
        elif what == "page":
            page(Path(words[0]), Path(words[1]))
        elif left := sum(run(one, more) != DONE for one, more in commands(what, words)):
            sys.exit(f"Not finished: {left} (see above). Repeat this command.")
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
