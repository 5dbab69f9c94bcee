"""Plain tables for a screen or a document: a line for each reconstruction, or the means of each method."""

from collections.abc import Callable, Sequence

from aseqdip.report.cells import Block, Cell, published_onset
from aseqdip.report.rows import Row
from aseqdip.report.tables import against, db, name, plain, size

IMAGES = {"start": "start", "result": "result", "last": "last", "best (oracle)": "best", "EMA": "ema"}
COLUMNS = ("task", "setting", "method", "preset", "recipe")
COSTS = {"seconds": ("seconds_method", 0), "TFLOP": ("tflop", 1), "passes": ("passes", 0)}


def each(blocks: Sequence[Block]) -> str:
    """Markdown: a line for each reconstruction; PSNR in dB / SSIM."""
    lines = []
    for block in blocks:
        for cell in block.cells:
            for row in cell.rows:
                shown = _numbers(row.numbers.get)
                if (step := row.numbers["best_step"]) is not None:
                    shown[list(IMAGES).index("best (oracle)")] += f" at {step:.0f}"
                steps = db(row.numbers["steps"], 0)
                lines.append(
                    [
                        block.task,
                        block.setting,
                        _image(row),
                        name(block, cell),
                        block.preset,
                        block.recipe,
                        steps,
                        *shown,
                    ]
                )
    return markdown(["task", "setting", "image", "method", "preset", "recipe", "steps", *IMAGES, *COSTS], lines)


def means(blocks: Sequence[Block]) -> str:
    """Markdown: a line for each method of a block, means over images and seeds; and its result against aSeqDIP's."""
    lines = []
    for block in blocks:
        for cell in block.cells:
            versus = "" if cell.versus is None else f"{against(cell.versus)}, {cell.versus.wins} of {cell.versus.n}"
            shown = _numbers(lambda key, cell=cell: _mean(cell, key))  # type: ignore[misc]
            lines.append(
                [
                    block.task,
                    block.setting,
                    name(block, cell),
                    block.preset,
                    block.recipe,
                    size(cell),
                    *shown,
                    versus,
                    cell.onset,
                    published_onset(block, cell),
                ]
            )
    return markdown(
        [*COLUMNS, "n", *IMAGES, *COSTS, "- aSeqDIP [95 %], ahead", "falls from step", "paper, Fig. 4"],
        lines,
    )


def _image(row: Row) -> str:
    return row.image if row.run.seed == 0 else f"{row.image}, seed {row.run.seed}"


def _mean(cell: Cell, key: str) -> float | None:
    return cell.scores[key].mean if key in cell.scores else cell.means.get(key)


def _numbers(find: Callable[[str], float | None]) -> list[str]:
    scores = [f"{db(find(f'psnr_{which}'))} / {db(find(f'ssim_{which}'), 3)}" for which in IMAGES.values()]
    return scores + [db(find(key), digits) for key, digits in COSTS.values()]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in [header, ["---"] * len(header), *lines])
