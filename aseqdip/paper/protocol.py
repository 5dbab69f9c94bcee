"""How reconstructions differ from the paper's protocol, and what its published numbers must be read with."""

from collections.abc import Sequence

from aseqdip.paper.numbers import LEARNED, Published
from aseqdip.paper.settings import DATASETS, IMAGES, NOISES, SIZES, data_set
from aseqdip.records import Record

CT_NOTE = (
    "The paper's two CT columns get worse from the first to the second for every method, even for filtered "
    "back-projection, although Table 1 lists 18 views first, and its text has numbers of the second as those of 30 "
    "views: here the first is compared with 30 views, the second with 18."
)
BLUR_NOTE = (
    "The paper's non-linear blur is a learned one (BKSE). Ours is camera motion seen through a camera response, "
    "another blur: the difference to the published number says little."
)
FFHQ_NOTE = "The paper's Table 4 does not say which noise level its denoising numbers are for."
LEARNED_NOTE = (
    "What a learned method of ours was trained on is said behind its name; the published number is of the authors' "
    "network. An own prior is a small one, of few images."
)
UNDEFINED_NOTE = "DDNM needs a pseudo-inverse, which the non-linear blur has not: what the paper computed is not known."
#: knobs that other departures name already
ELSEWHERE = {"size", "truth", "seed", "noise", "photons", "sigma"}


def departures(cells: Sequence[Sequence[Record]]) -> list[str]:
    """What is known not to be as in the paper, given the records of each method of one table."""
    records = [record for cell in cells for record in cell]
    first = next((record for record in records if not record.classical), records[0])  # those are of any preset
    task, dataset, found = first.task, data_set(first.dataset), []
    if first.preset != "paper":
        found.append(f"preset {first.preset}")
    intended = "ffhq" if dataset == "ffhq" else DATASETS.get(task)
    if intended and dataset != intended:
        found.append(f"data set {dataset} instead of {intended}")
    sizes = {str(r.problem["size"]) for r in records if "size" in r.problem}
    other = sorted(sizes - {SIZES.get(task)})
    if other and dataset != "ffhq":  # the paper does not say how large its faces are
        found.append(f"image side {', '.join(other)} instead of {SIZES.get(task)}")
    noises = [(name, r.problem.get(name)) for r in records for name in NOISES.get(task, ())]
    found += [f"{name}={value}" for name, value in dict.fromkeys(noises) if value]
    found += _changed(records)
    own = [r for r in records if r.method in LEARNED.values() and r.facts.get("prior_images")]
    if own:
        found.append(f"own priors ({', '.join(dict.fromkeys(r.titles.get('method', r.method) for r in own))})")
    counts = sorted({len({(r.image, r.content) for r in cell}) for cell in cells})
    if counts != [IMAGES]:
        shown = " to ".join(map(str, sorted({counts[0], counts[-1]})))
        found.append(f"{shown} image{'s' if counts[-1] > 1 else ''} instead of {IMAGES}")
    if (task, first.setting) == ("deblurring", "nonlinear"):
        found.append("another non-linear blur than BKSE")
    return found


def _changed(records: Sequence[Record]) -> list[str]:
    """Each knob with a value that is not the paper's, and whose it is where not every network method shares it."""
    changed: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for record in records:
        for name, value in record.departures.items():
            if name not in ELSEWHERE:
                values, methods = changed.setdefault(name, ({}, {}))
                values[str(value)] = methods[record.titles.get("method", record.method)] = None
    everyone = {r.method for r in records if r.network_parameters}
    return [
        f"{name}={' or '.join(values)}" + (f" ({', '.join(methods)})" if len(methods) < len(everyone) else "")
        for name, (values, methods) in changed.items()
    ]


def notes(task: str, setting: str, dataset: str, printed: Sequence[Published]) -> list[str]:
    """What a block's published numbers must be read with."""
    found = []
    if printed and task == "ct":
        found.append(CT_NOTE)
    if printed and setting == "nonlinear":
        found.append(BLUR_NOTE)
    if printed and task == "denoising" and data_set(dataset) == "ffhq":
        found.append(FFHQ_NOTE)
    if any(p.method in LEARNED.values() for p in printed):
        found.append(LEARNED_NOTE)
    if any(p.why_not.startswith("undefined") for p in printed):
        found.append(UNDEFINED_NOTE)
    return found
