"""A finished table, how its cells are written, and its files: CSV, Markdown, HTML, LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ssvi.analysis import shown
from ssvi.analysis.settings import is_missing
from ssvi.analysis.stats import Estimate
from ssvi.disk import write_text
from ssvi.spec import FIELDS

HEADINGS = {
    "dataset": "data set",
    "evaluation_samples": "test samples",
    "evaluation_bins": "bins",
    "evaluation_numerics": "evaluated by numerics",
    "computed_precision": "computed in",
}
# Columns of words, set left; all others are figures, set right.
WORDS = {*FIELDS, *HEADINGS.values(), "options", "claim", "quantity", "verdict"}

DASH = "–"
# In place of an interval, where every run has the same.
COUNTED = "counted"
NO_ROWS = "No rows: see the notes."
# A table with more columns than this is set smaller in LaTeX.
MANY_COLUMNS = 7
# A table with more rows than this does not fit a page.
MANY_ROWS = 36

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff; }
.scroll { overflow-x: auto; }
.caption { font-weight: bold; margin: 0 0 .6em; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }
th, td { padding: .2em .7em; text-align: left; white-space: nowrap; vertical-align: top; }
th { border-bottom: 1px solid; white-space: normal; vertical-align: bottom; }
.wrap { white-space: normal; min-width: 14em; max-width: 30em; }
.figure { text-align: right; font-variant-numeric: tabular-nums; }
li { max-width: 75ch; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        frame: what is read, every cell as text.
        numbers: the same rows unrounded, with stable column names.
        caption: what is shown.
        notes: what a reader must know to read it right, such as the runs left out.
        strong: the cells that are set bold, as position of the row and heading of the column.
        prose: headings of the columns of running text, which wrap.
    """

    frame: pd.DataFrame
    numbers: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    strong: frozenset[tuple[int, str]] = frozenset()
    prose: tuple[str, ...] = ()


def format_mean_sd(mean: float, sd: float, style: str) -> str:
    """`mean ± sd` in the given style; the mean alone without a spread; a dash if there is nothing.

    Args:
        mean: the mean, NaN if nothing was measured.
        sd: the sample standard deviation, NaN for a single value.
        style: a format such as `.2f`; `big`: whole numbers, from a million on with one power of ten for both;
            `exact`: a figure that is defined and not measured, alone and with three digits.
    """
    if is_missing(mean):
        return DASH
    if style == "exact":
        return f"{mean:.2e}".replace("e+", "e")
    exponent = int(f"{mean:e}".partition("e")[2]) if style == "big" and abs(mean) >= 1e6 else 0
    digits = ".2f" if exponent else ",.0f" if style == "big" else style
    middle = f"{mean / 10**exponent:{digits}}"
    if is_missing(sd):
        return f"{middle}e{exponent}" if exponent else middle
    both = f"{middle} ± {sd / 10**exponent:{digits}}"
    return f"({both})e{exponent}" if exponent else both


def format_signed(value: float, style: str) -> str:
    """A difference with its sign, a dash if it is not known; what rounds to 0 has no sign."""
    if is_missing(value):
        return DASH
    text = f"{abs(value):{style}}"
    return text if not re.search("[1-9]", text) else f"{'−' if value < 0 else '+'}{text}"


def format_interval(estimate: Estimate, style: str) -> str:
    """`[low, high]`, signed; a dash where a single value leaves it unknown."""
    if is_missing(estimate.low):
        return DASH
    return f"[{format_signed(estimate.low, style)}, {format_signed(estimate.high, style)}]"


def format_difference(estimate: Estimate, style: str) -> str:
    """A difference and its interval, if there is any, in one cell: `+0.28 [−0.91, +1.47]`."""
    certain = is_missing(estimate.low) or estimate.low == estimate.high
    ends = "" if certain else f" {format_interval(estimate, style)}"
    return format_signed(estimate.mean, style) + ends


def to_markdown(table: Table) -> str:
    """A GitHub table with its caption above and its notes below."""
    lines = [f"**{shown.to_markdown(table.caption)}**", ""]
    if len(table.frame):
        headings = [shown.to_markdown(name) for name in table.frame.columns]
        rule = [":---" if _is_words(name, table) else "---:" for name in table.frame.columns]
        rows = [[_markdown_cell(*cell) for cell in row] for row in _cells(table)]
        lines += [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]
    else:
        lines += [f"*{NO_ROWS}*"]
    return "\n".join([*lines, "", *(f"- {shown.to_markdown(note)}" for note in table.notes)]) + "\n"


def _markdown_cell(text: str, strong: bool) -> str:
    return f"**{shown.to_markdown(text)}**" if strong else shown.to_markdown(text)


def _cells(table: Table) -> list[list[tuple[str, bool]]]:
    """Every cell with whether it is bold."""
    names = list(table.frame.columns)
    return [
        [(cell, (position, name) in table.strong) for name, cell in zip(names, row, strict=True)]
        for position, row in enumerate(table.frame.itertuples(index=False, name=None))
    ]


def _is_words(heading: str, table: Table) -> bool:
    return heading in WORDS or heading in table.prose


def to_html(table: Table) -> str:
    """A page with the table, its caption and its notes; it needs no network, and a wide table scrolls."""
    names = list(table.frame.columns)
    kinds = ["wrap" if n in table.prose else "setting" if _is_words(n, table) else "figure" for n in names]
    head = "".join(f'<th class="{kind}">{shown.to_html(name)}</th>' for kind, name in zip(kinds, names, strict=True))
    rows = [
        "<tr>" + "".join(_html_cell(kind, *cell) for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in _cells(table)
    ] or [f'<tr><td colspan="{max(1, len(names))}">{shown.to_html(NO_ROWS)}</td></tr>']
    caption = shown.to_html(table.caption)
    lines = [
        *("<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">', f"<title>{caption}</title>"),
        *(f"<style>{STYLE}</style>", "</head>", "<body>", f'<p class="caption">{caption}</p>'),
        *('<div class="scroll">', f'<table aria-label="{caption}">', f"<thead><tr>{head}</tr></thead>", "<tbody>"),
        *(*rows, "</tbody>", "</table>", "</div>"),
    ]
    if table.notes:
        lines += ["<ul>", *(f"<li>{shown.to_html(note)}</li>" for note in table.notes), "</ul>"]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _html_cell(kind: str, text: str, strong: bool) -> str:
    inner = f"<strong>{shown.to_html(text)}</strong>" if strong else shown.to_html(text)
    return f'<td class="{kind}">{inner}</td>'


def to_latex(table: Table) -> str:
    """A booktabs table (needs `booktabs`; one of many rows runs over pages and needs `longtable`)."""
    names = list(table.frame.columns)
    alignment = "".join("p{3cm}" if n in table.prose else "l" if _is_words(n, table) else "r" for n in names)
    body = [" & ".join(_latex_cell(*cell) for cell in row) + r" \\" for row in _cells(table)]
    empty = rf"\multicolumn{{{max(1, len(names))}}}{{l}}{{{shown.to_latex(NO_ROWS)}}} \\"
    words = " ".join(shown.to_latex(note) for note in table.notes)
    notes = [rf"\par\smallskip\raggedright\footnotesize {words}"] if words else []
    long = len(table.frame) > MANY_ROWS
    size = [r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"] if len(names) > MANY_COLUMNS else []
    caption = rf"\caption{{{shown.to_latex(table.caption)}}}"
    begin = rf"\begin{{{'longtable' if long else 'tabular'}}}{{{alignment or 'l'}}}"
    head = [" & ".join(shown.to_latex(name) for name in names) + r" \\", r"\midrule"] if names else []
    inner = [r"\toprule", *head, *([r"\endhead"] if long else []), *(body or [empty]), r"\bottomrule"]
    if long:
        lines = ["{", *size, begin, caption + r"\\", *inner, r"\end{longtable}", *notes, "}"]
    else:
        lines = [r"\begin{table}", r"\centering", *size, caption, begin, *inner, r"\end{tabular}", *notes]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_cell(text: str, strong: bool) -> str:
    # Bold text does not make the mathematics in it bold.
    return rf"\textbf{{\boldmath {shown.to_latex(text)}}}" if strong else shown.to_latex(text)


def write_table(table: Table, stem: Path) -> None:
    """Write STEM.csv (unrounded numbers), STEM.md, STEM.html and STEM.tex, each atomically."""
    for suffix, text in (
        ("csv", shown.to_csv(table.numbers)),
        ("md", to_markdown(table)),
        ("html", to_html(table)),
        ("tex", to_latex(table)),
    ):
        write_text(stem.with_name(f"{stem.name}.{suffix}"), text)
