"""The paper's claims at its own number of steps: each method's settings chosen by one rule, reported on other images.

python -m aseqdip.studies.claims tune   mri data_root=data outputs=results/claims/tuning
python -m aseqdip.studies.claims choose results/claims/tuning configs/recipe_task
python -m aseqdip.studies.claims report mri data_root=data outputs=results/claims/reported
python -m aseqdip.studies.claims vary   mri data_root=data outputs=results/claims/varied
python -m aseqdip.studies.claims page   results/claims docs/claims.md

Each can be repeated, goes on where it was killed, and several processes may share one. ``tune`` tries three readings of
each method on one image of data=tuning and the better two on another; ``choose`` writes the best into recipe=best;
``report`` reconstructs images of data=public with it, and with each network's authors' own settings; ``vary`` changes
what the paper does in aSeqDIP's: lam (Fig. 9; 0 is Fig. 4's, 0.1 ours) and N (Fig. 10). ``results/claims/begun`` has
tries of tasks that were not tried to the end, and what is not counted (the page says why).
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from aseqdip.averages import lost, mean_curve
from aseqdip.compose import compose
from aseqdip.errors import UserError
from aseqdip.figures import literal, new_figure, save
from aseqdip.files import write_text
from aseqdip.identity import settings
from aseqdip.methods import METHODS
from aseqdip.networks import NETWORKS
from aseqdip.records import Record
from aseqdip.report.blocks import Block, Cell, build, versus
from aseqdip.report.rows import load
from aseqdip.report.tables import HEADLINE, INTERVAL, WIDE, ahead, fill_in, markdown, verdict, wide
from aseqdip.run.interrupt import DONE, UNFINISHED
from aseqdip.run.scores import EMA_DECAY
from aseqdip.studies import choice
from aseqdip.studies.quality import ONLY, SETTINGS, merged, run

SIZE, STEPS, REPORTED, SEEDS = 128, 4000, 6, (0, 1)
WAIT = 15.0  # seconds, before it is looked again whether another process has finished
#: readings are halved from image to image: all of them on the first, so many of the best on the second
ROUNDS = (None, 2)
#: channels at full resolution, of whichever method: what two cores can do 4000 steps of in minutes
WIDTHS = {"unet": 16, "skip": 32, "s2s": 16}
#: with bf16, noise-free CT stalls in some runs (docs/performance.md); at these widths fp32 is as fast, on every machine
PRECISION = dict.fromkeys(("ct", "denoising", "inpainting", "deblurring"), "precision=fp32")
#: learning rates that an earlier study found on data=calibration (docs/reproduction.md), and a rule of each task
LR = {"mri": "1e-3", "ct": "1e-3", "denoising": "3e-4", "inpainting": "3e-3", "deblurring": "1e-3"}
SLOW = {"mri": "3e-4", "ct": "3e-4", "denoising": "1e-4", "inpainting": "1e-3", "deblurring": "3e-4"}
RULE = {"mri": "discrepancy", "denoising": "discrepancy"}
#: Three readings a method. The first is its authors', in our units, on a network as wide as the others'.
TRIES: dict[str, tuple[str, str, str]] = {
    "tv": ("", "rho={low}", "rho={high}"),
    "wavelet": ("", "rho={low}", "rho={high}"),
    "pnp": ("", "weight=0.1", "weight=0.5"),
    "vanilla_dip": ("recipe=original", "lr={lr} stop={rule}", "input=measurement lr=3e-3 stop={rule}"),
    "tv_dip": ("recipe=original", "lr={lr}", "lr={lr} stop={rule}"),
    "es_dip": (f"recipe=original steps={STEPS}", "lr={lr}", "input=measurement lr=3e-3"),
    "sgld_dip": ("recipe=original", "lr={lr}", "lr={slow}"),
    "ref_guided_dip": ("recipe=original", "lr={lr}", "lr={lr} stop={rule}"),
    "self_guided_dip": ("recipe=original", "lr={lr} passes=1 alpha=0.1", "lr={lr} passes=4{alpha}"),
    "rethinking_dip": ("recipe=original", "lr=5e-4", "lr=2e-3"),
    "aseqdip": ("recipe=paper", "lr={lr}", "lr={lr} stop={rule}"),
}
UNTUNED = ("direct",)
#: weights of ``tv`` and ``wavelet`` around their own choice of it
RHO = {"mri": ("3e-3", "1e-2"), "ct": ("5e-5", "1e-3"), "denoising": ("3e-2", "1e-1"), "inpainting": ("3e-4", "3e-2")}
RHO["deblurring"] = ("1e-6", "1e-4")
#: of Self-Guided DIP's expectation over four passes; with a weight of 1 it does not reconstruct CT at all
ALPHA = {"mri": ""}
ORIGIN = "Of three readings the best on data=tuning (aseqdip.studies.claims, docs/claims.md)."
AUTHORS = "original, paper"
#: what the paper's ablations change (Figs. 4, 9, 10), and 0.1, which was better for CT on data=calibration; all else
#: is aSeqDIP's best reading
VARIED = ("lam=0", "lam=0.1", "lam=0.5", "lam=2", "N=1", "N=4")
FALLS = 0.5  # dB that a run must lose to count as one that falls


def cells(task: str) -> dict[str, tuple[str, ...]]:
    """The methods of a task, and what each is tried with."""
    return {m: tries for m, tries in TRIES.items() if task in ONLY.get(m, SETTINGS)}


def words(task: str, method: str, said: str) -> list[str]:
    """A command, but for its images and folders."""
    return list(_words(task, method, said))


@cache
def _words(task: str, method: str, said: str) -> tuple[str, ...]:
    low, high = RHO[task]
    values = {"lr": LR[task], "slow": SLOW[task], "rule": RULE.get(task, "wmv"), "low": low, "high": high}
    values["alpha"] = ALPHA.get(task, " alpha=0.1")
    base = f"task={task} method={method} preset=paper recipe=matched size={SIZE} {SETTINGS[task]}"
    found = merged(f"{base} {PRECISION.get(task, '')} {said.format(**values)}".split())
    if METHODS[method].learns:
        found.append(f"network.width={WIDTHS[compose(found).network.name]}")
    return tuple(found)


def outputs(more: Sequence[str]) -> Path:
    """Where the words of a command say that its records go; UserError if they do not."""
    for word in more:
        if word.startswith("outputs="):
            return Path(word.partition("=")[2])
    raise UserError("What is there already is not computed again: say where, outputs=results/claims/...")


def tune(task: str, more: Sequence[str]) -> int:
    """All readings on the first image, the better ones on the next; none that there is a record of.

    Returns how many methods were not tried to the end.
    """
    for method, tries in cells(task).items():
        attempt(task, method, tries, 0, more)
    for image, kept in enumerate(ROUNDS[1:], start=1):
        for method, tries in cells(task).items():
            while attempt(task, method, tries, 0, more):
                time.sleep(WAIT)
            records = choice.records_below(outputs(more) / task)
            attempt(task, method, ranked(records, task, method)[:kept], image, more)
    records = choice.records_below(outputs(more) / task)
    return sum(not finished(records, task, method) for method in cells(task))


def attempt(task: str, method: str, tries: Sequence[str], image: int, more: Sequence[str]) -> bool:
    """Make the tries that there is no record of; whether another process is at work on one of them."""
    elsewhere = False
    for said in tries:
        command = words(task, method, said)
        if len(made(choice.records_below(outputs(more) / task), command)) <= image:
            elsewhere |= run(command, ["data=tuning", f"images={image}:{image + 1}", *more]) == UNFINISHED
    return elsewhere


def made(records: Iterable[Record], command: Sequence[str]) -> list[Record]:
    """Those of a command, wherever and in whichever precision it was run."""
    same = _what(command)
    return [record for record in records if _what(choice.said(record)) == same]


def _what(said: Iterable[str]) -> set[str]:
    return {word for word in said if not word.startswith("precision=")}


def ranked(tried: Sequence[Record], task: str, method: str) -> list[str]:
    """A method's tries by what they reached on the first image; UserError if one is missing."""
    records = {said: made(tried, words(task, method, said)) for said in cells(task)[method]}
    count = Counter(record.image for all_of_it in records.values() for record in all_of_it)
    first = [image for image, _ in count.most_common(1)]  # where all of them were tried
    found = {
        said: max(psnr_db for record in all_of_it if record.image in first for _, psnr_db in choice.judged(record))
        for said, all_of_it in records.items()
        if any(record.image in first for record in all_of_it)
    }
    if missing := set(cells(task)[method]) - set(found):
        raise UserError(f"{task} {method}: {len(missing)} of its tries were not made; run tune to its end.")
    return sorted(found, key=lambda said: -found[said])


def finished(tried: Sequence[Record], task: str, method: str) -> bool:
    """Whether all of its tries were made, and the better ones on every image."""
    try:
        kept = ranked(tried, task, method)[: ROUNDS[-1]]
    except UserError:
        return False
    return all(len(made(tried, words(task, method, said))) >= len(ROUNDS) for said in kept)


def choose(tuning: Path, recipes: Path) -> None:
    """Write the reading with the best mean result of each method and task into ``recipe=best``, where all was tried."""
    records = choice.records_below(tuning)
    for task, _, method in choice.budgets(records):
        if not finished(records, task, method):
            sys.stderr.write(f"{task} {method}: not tried to the end; run tune. What recipe=best has of it stays.\n")
            continue
        mine = [r for r in records if (r.task, r.method) == (task, method)]
        other = own_settings(task, method, json.loads(choice.chosen(mine)))
        knobs = {k: v for k, v in other.items() if not k.startswith("network")}
        if network := {k.partition(".")[2] or "name": v for k, v in other.items() if k.startswith("network")}:
            if (name := network.get("name")) is not None:  # the width that is left over is another network's
                own = NETWORKS[name].defaults["width"]  # the study's is narrow
                network["width"] = f"${{by_preset:{{quick:{WIDTHS[name]},smoke:8,default:{own}}}}}"
            knobs["network"] = network
        text = f"# @package _global_\n# {ORIGIN}\n{OmegaConf.to_yaml(OmegaConf.create(knobs))}"
        write_text(recipes / f"best_{method}_{task}.yaml", text)


def own_settings(task: str, method: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Of a reading's settings those that the method does not have by itself; but for the width of its network."""
    usual = settings(compose(words(task, method, "")))
    return {k: v for k, v in found.items() if v != usual.get(k) and k not in (*choice.NO_CHOICE, "network.width")}


def best(task: str, method: str, more: str = "") -> list[str]:
    """The command of what was chosen."""
    return words(task, method, f"recipe=best {more}")


def report(task: str, more: Sequence[str]) -> int:
    """What was chosen, on the images that are reported; authors' settings with the first seed; then other seeds.

    Returns how many commands did not come to their end.
    """
    left = 0
    for seed in SEEDS:
        commands = [best(task, method) for method in (*UNTUNED, *cells(task))]
        commands += authors(task) if seed == SEEDS[0] else []
        left += sum(not on_reported(task, command, seed, more) for command in commands)
    return left


def authors(task: str) -> list[list[str]]:
    """The commands of each network's authors' own settings, where they were not chosen."""
    found = []
    for method, (own, *_) in cells(task).items():
        command = words(task, method, own)
        if METHODS[method].learns and settings(compose(command)) != settings(compose(best(task, method))):
            found.append(command)
    return found


def on_reported(task: str, command: list[str], seed: int, more: Sequence[str]) -> bool:
    """A command on the images that are reported, unless there are records of all of them, be they of older code.

    Returns whether it came to its end.
    """
    reading = choice.written(settings(compose(command)))  # recipe=best may have been another
    tried = choice.records_below(outputs(more) / task)
    there = [r for r in made(tried, command) if r.seed == seed and choice.reading(r) == reading]
    if len({r.image for r in there}) >= REPORTED:
        return True
    return run(command, ["data=public", f"images=0:{REPORTED}", f"seed={seed}", *more]) == DONE


def vary(task: str, more: Sequence[str]) -> int:
    """aSeqDIP's best reading with one thing changed; how many commands did not come to their end."""
    return sum(not on_reported(task, best(task, "aseqdip", said), SEEDS[0], more) for said in VARIED)


def page(folder: Path, path: Path) -> None:
    """The document and its figure, from the records alone."""
    text, blocks = document(folder, path)
    draw(path.with_suffix(".png"), blocks)
    write_text(path, text)


def document(folder: Path, path: Path) -> tuple[str, list[Block]]:
    """Its text, and what is drawn; UserError where nothing is reported."""
    tuning = choice.records_below(folder / "tuning")
    rows = load([folder / "reported"]).rows
    chosen = [row for row in rows if row.record.recipe == "best"]
    if not chosen:
        raise UserError(f"{folder}/reported has no record: run report first.")
    theirs = [replace(row, record=replace(row.record, recipe=AUTHORS)) for row in rows if row.record.recipe != "best"]
    own = [row for row in chosen if row.record.method == "aseqdip"]
    varied = {block.first.task: block for block in build([*own, *load([folder / "varied"]).rows])}
    for block in varied.values():  # against its own, whichever is the nearest to the paper's
        same = unchanged(block, next(row.record for row in own if row.record.task == block.first.task))
        for cell in block.cells:
            cell.versus = versus(cell, same)
    blocks, tasks = build(chosen), {row.record.task for row in chosen}
    dirty = Counter(row.record.task for row in rows if (row.record.commit or "").endswith("-dirty"))
    broken = [line for line in choice.broken([*tuning, *(row.record for row in rows)]) if line.split()[0] in tasks]
    text = fill_in(
        Path(__file__).with_name("claims.md.j2"),
        folder=folder, path=path, size=SIZE, steps=STEPS, width=WIDTHS["unet"], skip=WIDTHS["skip"],
        picture=path.with_suffix(".png").name, headline=HEADLINE,
        interval=INTERVAL, answers="\n\n".join(answers(block, varied.get(block.first.task)) for block in blocks),
        falls=FALLS, reported=tables(blocks), chosen=markdown(used(blocks)), authors=tables(build(theirs)),
        varied=tables(varied.values()),
        checked=checked(folder), tried=markdown(tried(tuning)),
        budgets=markdown(choice.table(tuning)),
        broken="\n".join(f"- {line}" for line in broken) or "Nowhere.",
        unfinished=". ".join(filter(None, map(unfinished, blocks))) or "all",
        missing=", ".join(task for task in SETTINGS if task not in tasks) or "none",
        dirty=", ".join(f"{n} of {task}" for task, n in sorted(dirty.items())) or "none", whole=len(rows),
    )  # fmt: skip
    return text, blocks


def checked(folder: Path) -> str:
    """Tries made again in another precision, beside those in their own."""
    again = load([folder / "checks"]).rows
    same = {(row.image, row.record.seed, choice.reading(row.record)) for row in again}
    tries = load([folder / "tuning"]).rows
    own = [row for row in tries if (row.image, row.record.seed, choice.reading(row.record)) in same]
    return tables(build([*own, *again]), ("n", "start", "ours", "ssim", "best"))


def unfinished(block: Block) -> str:
    """What is still to be reconstructed of a task, in words; "" where nothing is."""
    task, whole = block.first.task, REPORTED * len(SEEDS)
    have = Counter(row.record.method for cell in block.cells for row in cell.rows)
    found: dict[int, list[str]] = {}
    for method in (*UNTUNED, *cells(task)):
        if have[method] < whole:
            found.setdefault(have[method], []).append(METHODS[method].title)
    said = [f"{n} of {whole} by {', '.join(titles)}" for n, titles in sorted(found.items())]
    return f"{block.place}: {'; '.join(said)}" if said else ""


def complete(cell: Cell) -> bool:
    """Whether it has all images: a mean over some says nothing beside one over all."""
    return len({row.image for row in cell.rows}) >= REPORTED


def tables(blocks: Iterable[Block], columns: Sequence[str] = WIDE) -> str:
    """One below the other."""
    return "\n\n".join(wide(block, columns) for block in blocks) or "Not run yet."


def draw(path: Path, blocks: Sequence[Block]) -> None:
    """The mean PSNR along the run of every network with all images, a panel a task; a method's colour is its own."""
    figure, axes = new_figure(len(blocks), 3.6, 4.6)
    for axis, block in zip(axes, blocks, strict=True):
        for cell in (c for c in block.cells if complete(c) and c.rows[0].record.fitted):
            curve, colour = cell.curve, f"C{(*UNTUNED, *TRIES).index(cell.method)}"
            if curve is None:
                continue
            axis.plot(curve.at, curve.mean, color=colour, linewidth=1.2, label=literal(cell.label))
            if cell.falls:
                axis.plot(cell.falls, np.interp(cell.falls, curve.at, curve.mean), "o", color=colour, markersize=5)
        axis.set(xlabel="iteration", ylabel="PSNR (dB)", title=literal(block.place))
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(fontsize=7)
    save(figure, path, dpi=72)


def answers(block: Block, varied: Block | None) -> str:
    """What the reported images say of each claim of the paper on one task.

    Args:
        varied: its aSeqDIP, as chosen and with one thing changed.
    """
    networks = [c for c in block.cells if c.psnr and c.rows[0].record.titles.get("group") == "untrained network"]
    own = next((cell for cell in networks if cell.method == "aseqdip"), None)
    if varied is None or own is None or len(networks) < 2:
        return f"{block.place}: too little has been run."
    same = unchanged(varied, own.rows[0].record)
    others = [c for c in varied.cells if c is not same]
    zero = [c for c in others if c.rows[0].record.settings["lam"] == 0]
    rivals = [c for c in networks if c is not own]
    return markdown(
        [
            ["claim", block.place],
            ["aSeqDIP is first of the untrained networks (Table 2)", first(block.first.task, own, rivals)],
            ["it does not over-fit, others do (Fig. 4)", overfitting([own, *zero, *rivals])],
            ["lam = 1 is best (Fig. 9, of MRI at 4x; 0 is Fig. 4's)", changed("lam", same, others)],
            ["N = 2 with 2000 updates of the input is best (Fig. 10)", changed("N", same, others)],
        ]
    )


def unchanged(varied: Block, record: Record) -> Cell:
    """Of what was varied, the cell with the settings of this record."""
    return next(cell for cell in varied.cells if cell.rows[0].record.settings == record.settings)


def first(task: str, own: Cell, rivals: Sequence[Cell]) -> str:
    """Who is ahead of aSeqDIP, and who behind, by the intervals; a method counts once it has all images."""
    if not complete(own):
        return f"aSeqDIP was not run on {REPORTED} images yet"
    told: dict[str, list[tuple[float, str]]] = {"ahead": [], "behind": [], "not told apart": []}
    few = [METHODS[m].title for m in cells(task) if METHODS[m].learns and m not in {c.method for c in (own, *rivals)}]
    for cell in rivals:
        found = versus(cell, own)
        if not complete(cell):
            few.append(cell.label)
        elif found is not None:
            told[verdict(found)].append((-found.mean, f"{cell.label} {ahead(found)}"))
    lines = [f"{what}: " + (", ".join(text for _, text in sorted(said)) or "none") for what, said in told.items()]
    return "; ".join([*lines, *([f"not run on {REPORTED} images: {', '.join(few)}"] if few else [])])


def overfitting(networks: Sequence[Cell]) -> str:
    """On how many images each run falls: those that went to their end, and what was seen of those that a rule ended."""
    whole, cut = list[str](), list[str]()
    for cell in networks:
        curves = [
            mean_curve([(row.every, row.curve, row.record.steps)], [row.image]) for row in cell.rows if len(row.curve)
        ]
        if curves:
            drops = np.array([float(lost(curve)[0]) for curve in curves])
            said = f"{cell.label} {(drops > FALLS).sum()} of {len(drops)} (median {np.median(drops):.2f} dB)"
            (cut if cell.rows[0].record.settings.get("stop", "none") != "none" else whole).append(said)
    said = f"fall: {', '.join(whole) or 'none went to its end'}"
    return f"{said}; before a rule ended them: {', '.join(cut)}" if cut else said


def changed(name: str, same: Cell, others: Sequence[Cell]) -> str:
    """aSeqDIP with another value of one knob against itself."""
    value, said = same.rows[0].record.settings[name], []
    for cell in others:
        other = cell.rows[0].record.settings[name]
        if other != value and (found := versus(cell, same)) is not None:
            said.append(f"{name}={other:g}: {ahead(found)}, median {found.median:+.2f}: {verdict(found)}")
    return "; ".join(said) or "not run yet"


def used(blocks: Iterable[Block]) -> list[list[str]]:
    """What each method was reported with: its settings, the size of its network and its precision."""
    table = [["task", "method", "parameters", "precision", "settings"]]
    for place, cell in ((block.place, cell) for block in blocks for cell in block.cells):
        if cell.method in UNTUNED:
            continue
        record = cell.rows[0].record
        own = own_settings(record.task, cell.method, record.settings)
        said = " ".join(f"{name}={value}" for name, value in own.items() if value is not None) or "its own"
        network = [f"{record.network_parameters:,}", record.precision] if record.fitted else ["–", "–"]
        table.append([place, METHODS[cell.method].title, *network, said])
    return table


def tried(records: Sequence[Record]) -> list[list[str]]:
    """Every reading that was tried, the chosen one marked, or the best so far."""
    table = [["task", "method", "reading", "images", "PSNR (dB)", "chosen"]]
    for task, _, method in choice.budgets(records):
        mine = [r for r in records if (r.task, r.method) == (task, method)]
        best, usual = choice.chosen(mine), words(task, method, "")
        mark = "yes" if finished(records, task, method) else "so far"
        scores: dict[tuple[str, str], list[float]] = {}
        for record in mine:
            said = " ".join(word for word in choice.said(record) if word not in usual) or "its own"
            for reading, psnr_db in choice.judged(record):
                shown = said if reading == choice.reading(record) else f"{said} ema={EMA_DECAY}"
                scores.setdefault((shown, reading), []).append(psnr_db)
        for (shown, reading), found in scores.items():
            mean = f"{fmean(found):.2f}"
            mean = mean if len(found) == len(ROUNDS) else f"({mean})"  # of other images
            table.append([task, method, shown, str(len(found)), mean, mark * (reading == best)])
    return table


def main() -> None:
    """Entry point."""
    what, *said = sys.argv[1:] or [""]
    of_task, of_files = {"tune": tune, "report": report, "vary": vary}, {"choose": choose, "page": page}
    try:
        if what in of_task and said and said[0] in SETTINGS:
            if left := of_task[what](said[0], said[1:]):
                sys.exit(f"Not finished: {left} (see above). Repeat this command.")
        elif what in of_files and len(said) == 2:
            of_files[what](Path(said[0]), Path(said[1]))
        else:
            sys.exit(str(__doc__))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
