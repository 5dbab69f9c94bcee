"""The paper's Table 2 beside ours, as Markdown and LaTeX; and how numbers are written in every report."""

import re
from collections.abc import Sequence

from aseqdip.report.cells import Block, Cell
from aseqdip.report.names import title
from aseqdip.report.published import Published
from aseqdip.report.statistics import Paired, Summary

HEADLINE = (
    "Ours is each reconstruction's result: the last iterate, or what the method's own stopping rule or averaging keeps "
    "(named then). Best is the iterate with the highest PSNR against the truth, which nobody has in practice: an oracle, for "
    "diagnosis only. The paper does not say which iterate it scored."
)
INTERVAL = (
    "Against aSeqDIP: PSNR minus aSeqDIP's on the images and seeds that both have, mean and 95 % bootstrap interval over "
    "images (10,000 draws), and in how many pairs the method is ahead. With fewer than ten images such intervals are too "
    "narrow."
)
SPREAD = (
    "± is the standard deviation over images, of each image's mean over its seeds; the seeds' own spread is the mean over "
    "images of the standard deviation across seeds. The paper's ± is printed without a definition, and too small for the "
    "spread of 20 different images."
)


def db(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """mean ± std, as much of it as there is."""
    return db(mean, digits) + (f" ± {std:.{digits}f}" if std is not None and std == std else "")


def scored(found: Summary | None, digits: int = 2) -> str:
    """mean ± std over images; "no truth" without scores."""
    return "no truth" if found is None else spread(found.mean, found.over_images, digits)


def size(cell: Cell) -> str:
    """How many images and seeds a cell has, as "20 × 3"; with the number of scores where some are missing."""
    images, seeds = len({row.image for row in cell.rows}), len({row.run.seed for row in cell.rows})
    n = len(cell.rows)
    shown = str(images) if seeds == 1 else f"{images} × {seeds}"
    return shown if n == images * seeds else f"{shown} ({n} in all)"


def difference(cell: Cell) -> float | None:
    """Our result's mean PSNR minus the published one."""
    ours = cell.scores.get("psnr_result")
    return None if ours is None or cell.published is None else ours.mean - cell.published.psnr


def against(found: Paired | None) -> str:
    """A paired difference with its interval."""
    if found is None:
        return "–"
    return f"{found.mean:+.2f}" + (
        "" if found.n == 1 or found.low != found.low else f" [{found.low:+.2f}, {found.high:+.2f}]"
    )


def absent(row: Published) -> str:
    """Why a published method has no number of ours."""
    return "not run" if row.method else "learned method, not yet"


def protocol(block: Block) -> str:
    """One sentence on whether the block's numbers are made as the paper's were."""
    if not block.departures:
        return "As in the paper's protocol, as far as the records tell."
    return f"Not the paper's protocol: {'; '.join(block.departures)}."


HEADER = (
    *("method", "published", "ours", "n", "difference", "best (oracle)", "- aSeqDIP [95 %]", "ahead"),
    *("SSIM published", "SSIM ours", "seconds"),
)


def markdown(blocks: Sequence[Block]) -> str:
    """Every block as a Markdown table; a star marks differences from numbers made by another protocol."""
    parts = ["# Published and own results", "", HEADLINE, "", SPREAD, "", INTERVAL, ""]
    for block in blocks:
        parts += [f"## {plain(block.title)}", "", f"**{plain(protocol(block))}**", ""]
        parts += [f"{note}\n" for note in block.notes]
        rows = [_markdown_row(block, cell) for cell in block.cells]
        rows += [[p.name, spread(p.psnr, p.psnr_std), absent(p)] for p in block.missing]
        lines = [
            list(HEADER),
            ["---"] * len(HEADER),
            *(row + ["–"] * (len(HEADER) - len(row)) for row in rows),
        ]
        parts += ["| " + " | ".join(map(plain, line)) + " |" for line in lines]
        parts += ["", "\\* not the paper's protocol (above).", ""] if block.departures else [""]
    return "\n".join(parts).rstrip() + "\n"


def _markdown_row(block: Block, cell: Cell) -> list[str]:
    printed, gap = cell.published, difference(cell)
    star = "*" if block.departures and gap is not None else ""
    which = "" if cell.which == "last" else f" ({cell.which})"
    versus = cell.versus
    return [
        name(block, cell),
        "not published" if printed is None else spread(printed.psnr, printed.psnr_std),
        scored(cell.scores.get("psnr_result")) + which,
        size(cell),
        "–" if gap is None else f"{gap:+.2f}{star}",
        scored(cell.scores.get("psnr_best")),
        against(versus),
        "–" if versus is None else f"{versus.wins} of {versus.n}",
        "–" if printed is None else spread(printed.ssim, printed.ssim_std, 3),
        scored(cell.scores.get("ssim_result"), 3),
        db(cell.means.get("seconds_method"), 1),
    ]


def name(block: Block, cell: Cell) -> str:
    """The method's name within a block: a direct reconstruction is named after what it is there."""
    plain = title(cell.method, block.task)
    return f"{plain} ({cell.variant})" if cell.variant else plain


def plain(text: str) -> str:
    """Names from records must not end a Markdown cell or start markup."""
    text = " ".join(text.split())
    return re.sub(r"([|<>`\[\]\\])", r"\\\1", text) if re.search(r"[|<>`\\]", text) else text


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
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{tex(caption)}}}",
            "\\begin{tabular}{lrrrr}",
            "\\toprule",
        ]
        parts += [r"Method & Published & Ours & Difference & $-$ aSeqDIP [95\,\%] \\", "\\midrule"]
        rows = []
        for cell in block.cells:
            row = _markdown_row(block, cell)
            rows.append([row[0], row[1], row[2], row[4], row[6]])
        rows += [[p.name, spread(p.psnr, p.psnr_std), absent(p), "–", "–"] for p in block.missing]
        parts += [" & ".join(map(tex, row)) + r" \\" for row in rows]
        parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(parts)
