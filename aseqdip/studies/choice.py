"""One rule of choice for every method (docs/protocol.md), checked on the records of a study.

python -m aseqdip.studies.choice FOLDER prints its table of budgets and where it breaks the rule.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from aseqdip.config import knobs_of, parts
from aseqdip.errors import UserError
from aseqdip.files import config_folder
from aseqdip.methods import METHODS
from aseqdip.plain import dumps
from aseqdip.records import Record, scan
from aseqdip.report.tables import markdown
from aseqdip.run.scores import EMA_DECAY

#: the lists that settings are chosen on, by how their data sets' names begin; results on all others are reported
CHOOSING = ("tuning_", "calibration_")
TOLERANCE = 1.1  # the largest budget over the smallest
NO_CHOICE = ("precision", "pool")  # how and from what a reading is computed
#: words of a command that say where, not what
WHERE = ("data=", "data_root=", "images=", "outputs=", "tracker=", "device=", "seed=")


@dataclass(frozen=True)
class Budget:
    """What a method's settings were chosen from.

    Attributes:
        readings: distinct settings; runs: those that differ in more than the rule that ends them.
        reconstructions, steps: how many, and of which lengths.
        candidates: what had a result to be chosen by: readings, and averages of runs without a rule.
    """

    readings: int
    reconstructions: int
    steps: tuple[int, ...]
    runs: int
    candidates: int


def chooses(record: Record) -> bool:
    """Whether it was made to choose settings, and so is not to be reported."""
    return record.dataset.startswith(CHOOSING)


def reading(record: Record) -> str:
    """The settings of a reconstruction as text."""
    return written(record.settings)


def written(settings: dict[str, Any]) -> str:
    """Settings as the text of a reading."""
    return dumps({k: v for k, v in sorted(settings.items()) if v is not None and k not in NO_CHOICE})


def said(record: Record) -> list[str]:
    """The words of its command that say what was computed."""
    return [word for word in record.command if not word.startswith(WHERE)]


def patient(name: str) -> str:
    """A CT file's patient, which stands after its number; other files are one object each."""
    return Path(name).stem.partition("TCGA")[2] or Path(name).name


def budgets(records: Iterable[Record]) -> dict[tuple[str, str, str], Budget]:
    """By task, setting and method, of those that have settings to choose."""
    spent: dict[tuple[str, str, str], list[Record]] = {}
    for r in records:
        if chooses(r) and has_choice(r.method):
            spent.setdefault((r.task, r.setting, r.method), []).append(r)
    return {key: _budget(tried) for key, tried in sorted(spent.items())}


def _budget(tried: Sequence[Record]) -> Budget:
    rule = {"stop", *(known.name for kind, _, part in parts() if kind == "stop" for known in knobs_of(part.Options))}
    runs = {written({k: v for k, v in r.settings.items() if k not in rule}) for r in tried}
    scored = {words for r in tried for words, _ in judged(r)}
    lengths = tuple(sorted({s for r in tried if (s := steps(r))}))
    return Budget(len({reading(r) for r in tried}), len(tried), lengths, len(runs), len(scored))


def has_choice(method: str) -> bool:
    """Whether it has any setting at all."""
    part = METHODS[method]
    return part.learns or bool(fields(part.Options))


def steps(record: Record) -> int | None:
    """The steps it was given, of which a stopping rule may have left some out; None for methods without a network."""
    return record.settings.get("steps") if record.network_parameters else None


def records_below(*folders: Path) -> list[Record]:
    """The records of all that is finished below the folders."""
    return [trace.record for trace in scan(folders) if trace.record is not None]


def broken(records: Sequence[Record]) -> list[str]:
    """Where a study breaks the rules, in words; empty if nowhere."""
    found: list[str] = []
    for place in sorted({(r.task, r.setting) for r in records}):
        here = [r for r in records if (r.task, r.setting) == place]
        found += [f"{' '.join(place)}: {what}" for what in _broken(here)]
    return found


def _broken(records: Sequence[Record]) -> list[str]:
    """Those of one task and setting."""
    tried, reported = [r for r in records if chooses(r)], [r for r in records if not chooses(r)]
    spent = {method: budget for (_, _, method), budget in budgets(records).items()}
    found = []
    if tried and not reported:
        found.append("nothing is reported on other images than those of the choice (in-sample)")
    if both := {_same(r) for r in tried} & {_same(r) for r in reported}:
        found.append(f"chosen and reported on the same: {', '.join(sorted(both))}")
    for what in ("readings", "reconstructions"):
        counts = {method: int(getattr(budget, what)) for method, budget in spent.items()}
        if counts and max(counts.values()) > TOLERANCE * min(counts.values()):
            found.append(f"unequal {what}: " + ", ".join(f"{method} {n}" for method, n in counts.items()))
    lengths = sorted({s for r in records if (chooses(r) or r.recipe == "best") and (s := steps(r))})
    if len(lengths) > 1:
        found.append(f"not the same number of steps: {', '.join(map(str, lengths))}")
    for method in sorted({r.method for r in records if has_choice(r.method)}):
        found += _method(method, [r for r in tried if r.method == method], [r for r in reported if r.method == method])
    return found


def _method(method: str, tried: Sequence[Record], reported: Sequence[Record]) -> list[str]:
    """What is amiss in the choice of one method's settings."""
    if not tried:
        return [f"{method} is reported, its settings were not chosen"]
    own = (config_folder() / "recipe_method" / f"original_{method}.yaml").is_file()
    found = []
    if own and not any(r.recipe == "original" for r in tried):
        found.append(f"{method}: its authors' own settings (recipe=original) were not tried")
    best = chosen(tried)
    if any(reading(r) != best for r in reported if r.recipe == "best"):
        found.append(f"{method}: what is reported as best is not the reading with the highest mean result: {best}")
    return found


def judged(record: Record) -> list[tuple[str, float]]:
    """The readings that a reconstruction speaks for, with their PSNR: its own; and its average, where it has one."""
    if record.score.psnr_db is None:
        raise UserError(f"{record.image}: settings are chosen where there is a truth, and its record has no PSNR.")
    found = [(reading(record), record.score)]
    if record.result == "last" and "ema" in record.scores and record.network_parameters:
        averaged = replace(record, settings={**record.settings, "ema": EMA_DECAY})
        found.append((reading(averaged), record.scores["ema"]))
    return [(words, score.psnr_db) for words, score in found if score.psnr_db is not None]


def chosen(tried: Iterable[Record]) -> str:
    """The reading with the highest mean PSNR of its result, never an oracle's; of those tried most often."""
    results: dict[str, dict[Any, float]] = {}  # of a reconstruction that was made twice, one
    for record in tried:
        for words, psnr_db in judged(record):
            results.setdefault(words, {})[_once(record)] = psnr_db
    return max(results, key=lambda words: (len(results[words]), fmean(results[words].values())))


def _once(record: Record) -> tuple[str, str, int]:
    """What tells reconstructions with the same settings apart."""
    return record.image, record.content, record.seed


def _same(record: Record) -> Any:
    """What must not be in two lists: the patient; or the content, where the record has it."""
    return patient(record.source or record.image) if record.task == "ct" else record.content or record.image


def table(records: Iterable[Record]) -> list[list[str]]:
    """What each method's settings were chosen from."""
    lines = [["task", "setting", "method", "readings", "reconstructions", "steps", "runs", "candidates"]]
    for key, b in budgets(records).items():
        counts = str(b.readings), str(b.reconstructions), ", ".join(map(str, b.steps)), str(b.runs), str(b.candidates)
        lines.append([*key, *counts])
    return lines


def main(folders: Sequence[str]) -> None:
    """Entry point; status 1 where a rule is broken."""
    if not folders or any(folder.startswith("-") for folder in folders):
        sys.exit(__doc__)
    records = records_below(*map(Path, folders))
    if not records:
        sys.exit(f"There is no record below {', '.join(folders)}.")
    found = broken(records)
    sys.stdout.write("\n".join([markdown(table(records)), "", *found]) + "\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
