"""Tables for a screen or a document, and how numbers are written in every report."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aseqdip.averages import FEWEST, Paired
from aseqdip.paper.numbers import Published, onset
from aseqdip.report.blocks import Block, Cell

HEADLINE = (
    "Ours is each reconstruction's result: the last iterate, or what the method's own stopping rule or averaging keeps "
    "(named then). Oracle is the iterate with the highest PSNR against the truth, which nobody has in practice: for "
    "diagnosis only; it is one output of the part that was run, so that an average may be above it, and a run that its "
    "rule ended might have gone higher. The paper's result (eq. 5) is its last iterate."
)
INTERVAL = (
    "Against aSeqDIP: PSNR minus aSeqDIP's on the images and seeds that both have, mean and 95 % bootstrap interval "
    f"over images and their seeds (10,000 draws, at least as wide as Student's; none from fewer than {FEWEST} images), "
    "and in how many pairs the method is ahead."
)
SPREAD = (
    "± is the standard deviation over images, of each image's mean over its seeds; the seeds' own spread is the mean "
    "over images of the standard deviation across seeds. The paper's ± is printed without a definition, and too small "
    "for the spread of 20 different images."
)


def db(value: float | None, digits: int = 2) -> str:
    """A number, or a dash; "inf" for an exact image's PSNR."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """mean ± std, as much of it as there is."""
    return db(mean, digits) + (f" ± {std:.{digits}f}" if std is not None and std == std else "")


def fill_in(template: Path, **words: Any) -> str:
    """The Markdown document that a Jinja template makes; a word that it has not been told is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown
    )
    environment.filters["db"] = lambda value: "-" if value is None else f"{value:.2f}"
    return environment.get_template(template.name).render(**words)


def significant(value: float | None) -> str:
    """Three digits of a number that may be of any size."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def size(cell: Cell) -> str:
    """How many images and seeds a cell has, as "20 × 3"; with the number of scores where some are missing."""
    rows = [row for row in cell.rows if row.number("result_psnr_db") is not None] or cell.rows
    images, seeds = len({row.image for row in rows}), len({row.record.seed for row in rows})
    shown = str(images) if seeds == 1 else f"{images} × {seeds}"
    return shown if len(rows) == images * seeds else f"{shown} ({len(rows)} in all)"


def falls_from(cell: Cell) -> str:
    """Where the mean PSNR starts to fall; a dash for a method that fits no network."""
    if cell.curve is None or not cell.rows[0].record.fitted:
        return "–"
    return "few images" if len(cell.curve.each) < FEWEST else str(cell.falls or f"not told by {cell.curve.end}")


def against(found: Paired | None) -> str:
    """A paired difference with its interval, where it has one."""
    if found is None:
        return "–"
    return f"{found.mean:+.2f}" + ("" if found.low != found.low else f" [{found.low:+.2f}, {found.high:+.2f}]")


def ahead(found: Paired | None) -> str:
    """The same, and in how many pairs it is positive."""
    return "–" if found is None else f"{against(found)} ({found.wins} of {found.n})"


def protocol(block: Block) -> str:
    """One sentence on whether the block's numbers are made as the paper's were."""
    if not block.printed:
        return "The paper has no numbers for these data." if block.known else "No truth: nothing to score against."
    if not block.departures:
        return "As in the paper's protocol, as far as the records tell."
    return f"Not the paper's protocol: {'; '.join(block.departures)}."


def escaped(text: str) -> str:
    """Names from records must not end a Markdown cell or start markup."""
    text = " ".join(text.split())
    return re.sub(r"([|<>`\[\]\\])", r"\\\1", text) if re.search(r"[|<>`\\]", text) else text


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its head first, whose columns line up."""
    table = [[escaped(text) for text in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table)


def fitted(lines: Sequence[Sequence[str]], names: int = 1) -> str:
    """The same for a terminal: where it is too wide, the first columns' names are cut, and said in full below."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    room = max(12 * names, WIDTH - 1 - 3 * len(widths) - sum(widths[names:]))
    cap = room // names
    spare = sum(max(0, cap - width) for width in widths[:names])
    long: list[str] = []

    def cut(text: str) -> str:
        if len(text) <= cap + spare:
            return text
        if text not in long:
            long.append(text)
        mark = f"… ({long.index(text) + 1})"
        return text[: cap + spare - len(mark)] + mark

    table = markdown([[*map(cut, line[:names]), *line[names:]] for line in lines])
    return "\n".join([table, *(wrapped(f"({i}) {text}") for i, text in enumerate(long, start=1))])


def wrapped(text: str) -> str:
    """A text in a terminal's lines."""
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


#: what a table says of a method: key, head, what it means
COLUMNS = {
    "published": ("published", "PSNR in dB, as the paper prints it"),
    "ours": ("ours", "PSNR of the result in dB"),
    "n": ("n", "images × seeds"),
    "difference": ("difference", "ours minus published; a star: not the paper's protocol"),
    "versus": ("- aSeqDIP", "PSNR minus aSeqDIP's, with its 95 % interval, on the images and seeds both have"),
    "wins": ("ahead", "pairs in which the method is ahead of aSeqDIP"),
    "start": ("start", "the start image"),
    "best": ("oracle", "highest PSNR along the run, chosen with the truth"),
    "last": ("last", "last iterate"),
    "ema": ("EMA", "running average of the iterates"),
    "onset": ("falls from", f"where the mean PSNR starts to fall by more than noise does; from {FEWEST} images"),
    "onset_published": ("paper, Fig. 4", "where the paper's figure shows the fall to begin"),
    "ssim_published": ("SSIM published", ""),
    "ssim": ("SSIM", "of the result"),
    "heldout": ("held-out error", "||A x - y|| / ||y|| over measurements kept from the method; less is better"),
    "seeds": ("± seeds", "standard deviation across seeds, mean over images"),
    "steps": ("steps", ""),
    "seconds": ("seconds", "of the method alone, without scoring and saving"),
    "tflop": ("TFLOP", "of the network's convolutions, forwards and backwards"),
    "passes": ("passes", "forward passes of the network"),
}
PUBLISHED = ("published", "difference", "onset_published", "ssim_published")
UNSCORED = ("n", "heldout", "steps", "seconds", "tflop", "passes")
DOCUMENT = (
    "published", "ours", "n", "difference", "best", "versus", "wins", "ssim_published", "ssim", "heldout", "seconds",
)  # fmt: skip
SCREEN = ("n", "start", "ours", "ssim", "heldout", "best", "versus", "seconds")
WIDE = ("n", "start", "ours", "ssim", "heldout", "best", "ema", "versus", "wins", "onset", "tflop")
WIDTH = 120  # characters of a terminal's line


def columns(block: Block, wanted: Sequence[str] = tuple(COLUMNS)) -> list[str]:
    """Those of the wanted columns that the block has something for."""
    chosen = [key for key in wanted if block.printed or key not in PUBLISHED] if block.known else list(UNSCORED)
    return [key for key in chosen if key != "heldout" or block.heldout]


def cells(block: Block, cell: Cell, std: bool = True) -> dict[str, str]:
    """A method's text in every column; std: with the standard deviations."""
    printed, gap, versus, psnr = cell.published, cell.difference, cell.versus, cell.psnr

    def score(column: str, digits: int = 2) -> str:
        found = cell.scores.get(column)
        return "no truth" if found is None else spread(found.mean, found.over_images if std else None, digits)

    return {
        "published": "not published" if printed is None else spread(printed.psnr, printed.psnr_std),
        "ours": score("result_psnr_db") + ("" if cell.which == "last" else f" ({cell.which})"),
        "n": size(cell),
        "difference": "–" if gap is None else f"{gap:+.2f}" + ("*" if block.departures else ""),
        "versus": against(versus),
        "wins": "–" if versus is None else f"{versus.wins} of {versus.n}",
        **{which: score(f"{which}_psnr_db") for which in ("start", "best", "last")},
        "ema": score("ema_psnr_db") if cell.rows[0].record.fitted else "–",
        "onset": falls_from(cell),
        "onset_published": onset(block.first.task, block.first.setting, cell.method, cell.rows[0].record.settings)
        or "–",
        "ssim_published": "–" if printed is None else spread(printed.ssim, printed.ssim_std, 3),
        "ssim": score("result_ssim", 3),
        "seeds": "one seed" if psnr is None or psnr.over_seeds != psnr.over_seeds else db(psnr.over_seeds),
        "heldout": significant(cell.means.get("heldout")),
        "steps": db(cell.means.get("steps"), 0),
        "seconds": db(cell.means.get("method_seconds"), 1),
        "tflop": significant(cell.means.get("tflop")),
        "passes": db(cell.means.get("passes"), 0),
    }


def missing(row: Published) -> dict[str, str]:
    """The same for a published method that has no number of ours."""
    ssim = spread(row.ssim, row.ssim_std, 3)
    return {"published": spread(row.psnr, row.psnr_std), "ours": row.why_not, "ssim_published": ssim}


def lines(block: Block, wanted: Sequence[str], std: bool = True) -> list[list[str]]:
    """A block's table: its head, then a line for each method, and for each published one that was not run."""
    keys = columns(block, wanted)
    table = [(cell.label, cells(block, cell, std)) for cell in block.cells]
    table += [(p.name, missing(p)) for p in block.missing if "published" in keys]
    head = ["method", *(COLUMNS[key][0] for key in keys)]
    return [head, *([name, *(found.get(key, "–") for key in keys)] for name, found in table)]


def verdict(found: Paired | None) -> str:
    """What the interval of a difference says of who is ahead."""
    if found is None or found.low != found.low:
        return "too few images"
    return "ahead" if found.low > 0 else "behind" if found.high < 0 else "not told apart"


def wide(block: Block, wanted: Sequence[str] = WIDE) -> str:
    """A block's table under its title and cautions, for a document, which may be wider than a screen."""
    return "\n\n".join([block.title, *block.cautions, markdown(lines(block, wanted, std=False))])


def means(blocks: Sequence[Block]) -> str:
    """A table a block, a line for each method: means over images and seeds; and its result against aSeqDIP's."""
    shown = [(block, [key for key in SCREEN if key != "best" or not block.heldout]) for block in blocks]
    return "\n\n".join(
        "\n\n".join([wrapped(block.title), *map(wrapped, block.cautions), fitted(lines(block, keys, std=False))])
        for block, keys in shown
    )


def each(blocks: Sequence[Block]) -> str:
    """A table a block, a line for each reconstruction; PSNR in dB."""
    return "\n\n".join(f"{wrapped(block.title)}\n\n{fitted(_each(block), names=2)}" for block in blocks)


def _each(block: Block) -> list[list[str]]:
    scores = ["start", "result / SSIM", "oracle"] if block.known else []
    held = ["held-out error"] if block.heldout else []
    table = [["image", "method", "steps", *scores, *held, "seconds"]]
    for cell, row in ((c, row) for c in block.cells for row in c.rows):
        start, result, best = (db(row.number(f"{w}_psnr_db")) for w in ("start", "result", "best"))
        if (step := row.number("best_step")) is not None:
            best += f" at {step:.0f}"
        shown = [start, f"{result} / {db(row.number('result_ssim'), 3)}", best] if block.known else []
        image = row.label if row.record.seed == 0 else f"{row.label}, seed {row.record.seed}"
        shown += [significant(row.number("heldout"))] * len(held)
        table.append([image, cell.label, db(row.number("steps"), 0), *shown, db(row.number("method_seconds"), 0)])
    return table


def document(blocks: Sequence[Block]) -> str:
    """Every block as a Markdown table; a star marks differences from numbers made by another protocol."""
    parts = ["# Published and own results", "", HEADLINE, "", SPREAD, "", INTERVAL, ""]
    for block in blocks:
        parts += [f"## {escaped(block.title)}", "", f"**{escaped(protocol(block))}**", ""]
        parts += [f"{note}\n" for note in block.notes]
        parts += [markdown(lines(block, DOCUMENT)), ""]
        parts += ["\\* not the paper's protocol (above).", ""] if block.departures else []
    return "\n".join(parts).rstrip() + "\n"


TEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "σ": r"$\sigma$", "–": "--", "·": r"$\cdot$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
}


def tex(text: str) -> str:
    """Text with every character LaTeX reads as a command made plain."""
    return "".join(TEX.get(c, c) for c in " ".join(text.split()))


def latex(blocks: Sequence[Block]) -> str:
    """Every block as a table environment with booktabs rules."""
    parts = ["% needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} for quotation marks"]
    for block in blocks:
        starred = ["*: not the paper's protocol."] * bool(block.departures)
        caption = " ".join([block.title + ".", protocol(block), *starred, *block.notes, HEADLINE, SPREAD, INTERVAL])
        head, *rows = (" & ".join(map(tex, line)) + r" \\" for line in lines(block, DOCUMENT[:7]))
        parts += ["\\begin{table}", "\\centering", f"\\caption{{{tex(caption)}}}"]
        parts += ["\\begin{tabular}{l" + "r" * head.count(" & ") + "}", "\\toprule", head, "\\midrule", *rows]
        parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(parts)
