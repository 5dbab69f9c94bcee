"""Tables for a screen or a document, and how numbers are written in every report."""

import re
from collections.abc import Sequence

from aseqdip.paper.numbers import Published
from aseqdip.report.blocks import Block, Cell
from aseqdip.report.statistics import FEWEST, Paired, Summary

HEADLINE = (
    "Ours is each reconstruction's result: the last iterate, or what the method's own stopping rule or averaging keeps "
    "(named then). Best is the iterate with the highest PSNR against the truth, which nobody has in practice: an oracle, for "
    "diagnosis only. The paper does not say which iterate it scored."
)
INTERVAL = (
    "Against aSeqDIP: PSNR minus aSeqDIP's on the images and seeds that both have, mean and 95 % bootstrap interval over "
    f"images (10,000 draws; none from fewer than {FEWEST} images), and in how many pairs the method is ahead."
)
SPREAD = (
    "± is the standard deviation over images, of each image's mean over its seeds; the seeds' own spread is the mean over "
    "images of the standard deviation across seeds. The paper's ± is printed without a definition, and too small for the "
    "spread of 20 different images."
)


def db(value: float | None, digits: int = 2) -> str:
    """A number, or a dash; "inf" for an exact image's PSNR."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """mean ± std, as much of it as there is."""
    return db(mean, digits) + (f" ± {std:.{digits}f}" if std is not None and std == std else "")


def scored(found: Summary | None, digits: int = 2) -> str:
    """mean ± std over images; "no truth" without scores."""
    return "no truth" if found is None else spread(found.mean, found.over_images, digits)


def size(cell: Cell) -> str:
    """How many images and seeds a cell has, as "20 × 3"; with the number of scores where some are missing."""
    images, seeds = len({row.image for row in cell.rows}), len({row.record.seed for row in cell.rows})
    shown = str(images) if seeds == 1 else f"{images} × {seeds}"
    return shown if len(cell.rows) == images * seeds else f"{shown} ({len(cell.rows)} in all)"


def against(found: Paired | None) -> str:
    """A paired difference with its interval, where it has one."""
    if found is None:
        return "–"
    return f"{found.mean:+.2f}" + ("" if found.low != found.low else f" [{found.low:+.2f}, {found.high:+.2f}]")


def absent(row: Published) -> str:
    """Why a published method has no number of ours."""
    return "not run" if row.method else "learned method, not yet"


def protocol(block: Block) -> str:
    """One sentence on whether the block's numbers are made as the paper's were."""
    if not block.printed:
        return (
            "The paper has no numbers for these data."
            if block.known
            else "No truth: there is nothing to score against."
        )
    if not block.departures:
        return "As in the paper's protocol, as far as the records tell."
    return f"Not the paper's protocol: {'; '.join(block.departures)}."


def plain(text: str) -> str:
    """Names from records must not end a Markdown cell or start markup."""
    text = " ".join(text.split())
    return re.sub(r"([|<>`\[\]\\])", r"\\\1", text) if re.search(r"[|<>`\\]", text) else text


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; short lines end in dashes."""
    table = [[plain(text) for text in (*line, *["–"] * (len(header) - len(line)))] for line in (header, *lines)]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table)


def each(blocks: Sequence[Block]) -> str:
    """A table a block, a line for each reconstruction; PSNR in dB."""
    return "\n\n".join(f"{block.title}\n\n{_each(block)}" for block in blocks)


def _each(block: Block) -> str:
    if not block.known:
        lines = [
            [row.label, cell.label, db(row.number("steps"), 0), db(row.number("method_seconds"), 1)]
            for cell in block.cells
            for row in cell.rows
        ]
        return markdown(["image", "method", "steps", "seconds"], lines)
    lines = []
    for cell in block.cells:
        for row in cell.rows:
            image = row.label if row.record.seed == 0 else f"{row.label}, seed {row.record.seed}"
            shown = [_result(row.number), *(db(row.number(f"{which}_psnr_db")) for which in ("last", "best", "ema"))]
            if (step := row.number("best_step")) is not None:
                shown[2] += f" at {step:.0f}"
            start, steps = db(row.number("start_psnr_db")), db(row.number("steps"), 0)
            lines.append([image, cell.label, steps, start, *shown, db(row.number("method_seconds"), 0)])
    header = ["image", "method", "steps", "start", "result / SSIM", "last", "best (oracle)", "EMA", "seconds"]
    return markdown(header, lines)


def _result(number: object) -> str:
    """ "29.47 / 0.793", from a function of a column's name."""
    assert callable(number)
    return f"{db(number('result_psnr_db'))} / {db(number('result_ssim'), 3)}"


def means(blocks: Sequence[Block]) -> str:
    """A table a block, a line for each method: means over images and seeds; and its result against aSeqDIP's."""
    return "\n\n".join(f"{block.title}\n\n{_means(block)}" for block in blocks)


def _means(block: Block) -> str:
    lines = []
    for cell in block.cells:

        def mean(column: str, cell: Cell = cell) -> float | None:
            return cell.scores[column].mean if column in cell.scores else cell.means.get(column)

        scores = [db(mean(f"{which}_psnr_db")) for which in ("last", "best", "ema")]
        costs = [db(mean("method_seconds"), 0), db(mean("tflop"), 1), db(mean("passes"), 0)]
        versus = "" if cell.versus is None else f"{against(cell.versus)}, {cell.versus.wins} of {cell.versus.n}"
        lines.append([cell.label, size(cell), db(mean("start_psnr_db")), _result(mean), *scores, versus, *costs])
    header = ["method", "n", "start", "result / SSIM", "last", "best (oracle)", "EMA", "- aSeqDIP, ahead"]
    return markdown([*header, "seconds", "TFLOP", "passes"], lines)


HEADER = (
    *("method", "published", "ours", "n", "difference", "best (oracle)", "- aSeqDIP [95 %]", "ahead"),
    *("SSIM published", "SSIM ours", "seconds"),
)


def document(blocks: Sequence[Block]) -> str:
    """Every block as a Markdown table; a star marks differences from numbers made by another protocol."""
    parts = ["# Published and own results", "", HEADLINE, "", SPREAD, "", INTERVAL, ""]
    for block in blocks:
        parts += [f"## {plain(block.title)}", "", f"**{plain(protocol(block))}**", ""]
        parts += [f"{note}\n" for note in block.notes]
        rows = [_line(block, cell) for cell in block.cells]
        rows += [[p.name, spread(p.psnr, p.psnr_std), absent(p)] for p in block.missing]
        shown = range(len(HEADER)) if block.printed else [0, *range(2, 4), *range(5, 8), 9, 10]
        lines = [[line[i] if i < len(line) else "–" for i in shown] for line in (HEADER, *rows)]
        parts += [markdown(lines[0], lines[1:]), ""]
        parts += ["\\* not the paper's protocol (above).", ""] if block.departures else []
    return "\n".join(parts).rstrip() + "\n"


def _line(block: Block, cell: Cell) -> list[str]:
    printed, gap, versus = cell.published, cell.difference, cell.versus
    star = "*" if block.departures and gap is not None else ""
    which = "" if cell.which == "last" else f" ({cell.which})"
    return [
        cell.label,
        "not published" if printed is None else spread(printed.psnr, printed.psnr_std),
        scored(cell.psnr) + which,
        size(cell),
        "–" if gap is None else f"{gap:+.2f}{star}",
        scored(cell.scores.get("best_psnr_db")),
        against(versus),
        "–" if versus is None else f"{versus.wins} of {versus.n}",
        "–" if printed is None else spread(printed.ssim, printed.ssim_std, 3),
        scored(cell.scores.get("result_ssim"), 3),
        db(cell.means.get("method_seconds"), 1),
    ]


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
    r"""Every block as a table environment with booktabs rules: published, ours, difference, interval."""
    parts = ["% needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} for quotation marks"]
    for block in blocks:
        caption = " ".join([block.title + ".", protocol(block), *block.notes, HEADLINE, INTERVAL])
        rows = [[line[i] for i in (0, 1, 2, 4, 6)] for line in (_line(block, cell) for cell in block.cells)]
        rows += [[p.name, spread(p.psnr, p.psnr_std), absent(p), "–", "–"] for p in block.missing]
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{tex(caption)}}}",
            "\\begin{tabular}{lrrrr}",
            "\\toprule",
        ]
        parts += [r"Method & Published & Ours & Difference & $-$ aSeqDIP [95\,\%] \\", "\\midrule"]
        parts += [" & ".join(map(tex, row)) + r" \\" for row in rows]
        parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(parts)
