"""How a block's numbers differ from the paper's protocol, and what the published ones must be read with."""

from collections.abc import Sequence

from aseqdip.report.command import run_words
from aseqdip.report.names import title
from aseqdip.report.published import BLUR_NOTE, CT_NOTE, DATASETS, IMAGES, SIZES, Published, data_set
from aseqdip.report.rows import Row, Run

#: knobs that add noise where the paper has none
NOISES = {"mri": ("noise",), "ct": ("photons",), "inpainting": ("sigma",), "deblurring": ("sigma",)}
#: knobs that a block, its cells or other departures name already, or that change no protocol
ELSEWHERE = {
    *("task", "task.name", "method", "method.name", "preset", "recipe", "data", "dataset", "dataset.name"),
    *("dataset.reader", "dataset.folder", "dataset.files", "data_root", "size", "truth", "seed", "precision"),
    *("pool", "accel", "views", "sigma", "hiar", "kernel", "noise", "photons"),
}


def departures(task: str, setting: str, dataset: str, preset: str, cells: Sequence[Sequence[Row]]) -> list[str]:
    """What is known not to be as in the paper's protocol, given the rows of each method of a block."""
    found = []
    dataset = data_set(dataset)
    rows = [row for cell in cells for row in cell]
    if preset != "paper":
        found.append(f"preset {preset}")
    intended = "ffhq" if dataset == "ffhq" else DATASETS.get(task)
    if intended and dataset != intended:
        found.append(f"data set {dataset} instead of {intended}")
    sizes = {str(row.run.settings["size"]) for row in rows if "size" in row.run.settings}
    other = sorted(sizes - {SIZES.get(task)})
    if other and dataset != "ffhq":  # the paper does not say how large its faces are
        found.append(f"image side {', '.join(other)} instead of {SIZES.get(task)}")
    noises = [(name, row.run.settings.get(name)) for row in rows for name in NOISES.get(task, ())]
    found += [f"{name}={value}" for name, value in dict.fromkeys(noises) if value]
    found += _changed(rows)
    counts = sorted({len({row.image for row in cell}) for cell in cells})
    if counts != [IMAGES]:
        shown = " to ".join(map(str, sorted({counts[0], counts[-1]})))
        found.append(f"{shown} image{'s' if counts[-1] > 1 else ''} instead of {IMAGES}")
    if (task, setting) == ("deblurring", "nonlinear"):
        found.append("another non-linear blur than BKSE")
    return found


def _changed(rows: Sequence[Row]) -> list[str]:
    """Each knob with a value that is not the paper's, and whose it is where not every network method shares it."""
    changed: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for run in {id(row.run): row.run for row in rows}.values():
        for name, value in {**run.deviations, **_unsaid(run)}.items():
            values, methods = changed.setdefault(str(name), ({}, {}))
            values[str(value)] = methods[run.method] = None
    everyone = {row.run.method for row in rows} - {"direct"}
    return [
        f"{name}={' or '.join(values)}" + ("" if everyone == set(methods) else f" ({', '.join(map(title, methods))})")
        for name, (values, methods) in changed.items()
    ]


def _unsaid(run: Run) -> dict[str, str]:
    """What must be said beside task, method and recipe to have this run under preset=paper."""
    words = run_words(run.settings, "paper", run.recipe) if run.settings else []
    said = dict(word.split("=", 1) for word in words)
    return {name: value for name, value in said.items() if name not in ELSEWHERE}


def notes(task: str, dataset: str, printed: Sequence[Published]) -> list[str]:
    """What a block's published numbers must be read with."""
    if not printed:
        return ["The paper has no numbers for this setting."]
    found = []
    if task == "ct":
        found.append(CT_NOTE)
    if task == "deblurring":
        found.append(BLUR_NOTE)
    if task == "denoising" and data_set(dataset) == "ffhq":
        found.append("The paper's Table 4 does not say which noise level its denoising numbers are for.")
    if any(not p.method for p in printed):
        found.append("Learned methods are not run here yet: their published numbers stand alone.")
    return found
