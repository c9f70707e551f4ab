"""A finished table, how its cells are written, and its files: CSV, Markdown, HTML, LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ssvi.analysis import shown
from ssvi.analysis.settings import HEADINGS, is_missing
from ssvi.analysis.stats import Estimate
from ssvi.machine.disk import write_text
from ssvi.runs.options import FIELDS

# Columns of words, set left; all others are figures, set right.
WORDS = {*FIELDS, *HEADINGS.values(), "options", "claim", "quantity", "verdict"}

DASH = "–"
# In place of an interval, where every run has the same.
COUNTED = "counted"
NO_ROWS = "No rows: see the notes."
# How Markdown and LaTeX set a column of running text, of words, of figures.
SETTING = {"wrap": (":---", "p{3cm}"), "setting": (":---", "l"), "figure": ("---:", "r")}
# A table with more columns than this is set smaller in LaTeX.
MANY_COLUMNS = 7
# A table with more rows than this does not fit a page.
MANY_ROWS = 36
# A heading with more characters than this may break, but not into a tower.
LONG = 13

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff; }
.box { overflow-x: auto; }
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
        head, *rows = _cells(table, shown.to_markdown, "**%s**")
        rule = [SETTING[kind][0] for kind in _kinds(table)]
        lines += [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
    else:
        lines += [f"*{NO_ROWS}*"]
    return "\n".join([*lines, "", *(f"- {shown.to_markdown(note)}" for note in table.notes)]) + "\n"


def _cells(table: Table, write: Callable[[str], str], strong: str) -> list[list[str]]:
    """The headings, and the cells of each row, as `write` gives them; bold ones within `strong`, which has a %s."""
    names = list(table.frame.columns)
    rows = [
        [
            strong % write(cell) if (i, name) in table.strong else write(cell)
            for name, cell in zip(names, row, strict=True)
        ]
        for i, row in enumerate(table.frame.itertuples(index=False, name=None))
    ]
    return [[write(name) for name in names], *rows]


def _kinds(table: Table) -> list[str]:
    """What each column is set as, and its class in HTML."""
    words = {*WORDS, *table.prose}
    return ["wrap" if n in table.prose else "setting" if n in words else "figure" for n in table.frame.columns]


def to_html(table: Table) -> str:
    """A page with the table, its caption and its notes; it needs no network, and a wide table scrolls."""
    title = f"<title>{shown.to_html(table.caption)}</title>"
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{title}\n<style>{STYLE}</style>\n</head>'
    )
    return f"{head}\n<body>\n{to_fragment(table)}\n</body>\n</html>\n"


def from_html(page: str) -> str:
    """The fragment in a page of `to_html`, in which no words of a table can look like a tag; nothing of another one."""
    return page.partition("\n<body>\n")[2].rpartition("\n</body>\n")[0]


def to_fragment(table: Table) -> str:
    """What a page shows of a table: its caption, a box in which it scrolls, and its notes."""
    kinds, caption = _kinds(table), shown.to_html(table.caption)
    head, *body = _cells(table, shown.to_html, "<strong>%s</strong>")
    longs = [" long" if len(name) > LONG else "" for name in head]
    headings = [f'<th class="{k}{more}">{name}</th>' for k, more, name in zip(kinds, longs, head, strict=True)]
    rows = ["".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True)) for row in body]
    rows = rows or [f'<td colspan="{max(1, len(head))}">{shown.to_html(NO_ROWS)}</td>']
    lines = [
        f'<p class="caption">{caption}</p>',
        f'<div class="box" role="region" tabindex="0" aria-label="{caption}">',
        *("<table>", f"<thead><tr>{''.join(headings)}</tr></thead>", "<tbody>"),
        *(f"<tr>{row}</tr>" for row in rows),
        *("</tbody>", "</table>", "</div>"),
    ]
    notes = [f"<li>{shown.to_html(note)}</li>" for note in table.notes]
    return "\n".join([*lines, *(["<ul>", *notes, "</ul>"] if notes else [])])


def to_latex(table: Table) -> str:
    """A booktabs table (needs `booktabs`; one of many rows runs over pages and needs `longtable`)."""
    # Bold text does not make the mathematics in it bold.
    head, *body = _cells(table, shown.to_latex, r"\textbf{\boldmath %s}")
    body = body or [[rf"\multicolumn{{{max(1, len(head))}}}{{l}}{{{shown.to_latex(NO_ROWS)}}}"]]
    alignment = "".join(SETTING[kind][1] for kind in _kinds(table)) or "l"
    words = " ".join(map(shown.to_latex, table.notes))
    notes = [rf"\par\smallskip\raggedright\footnotesize {words}"] if words else []
    long = len(table.frame) > MANY_ROWS
    size = [r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"] if len(head) > MANY_COLUMNS else []
    caption = rf"\caption{{{shown.to_latex(table.caption)}}}"
    name = "longtable" if long else "tabular"
    begin, end = rf"\begin{{{name}}}{{{alignment}}}", rf"\end{{{name}}}"
    top = [" & ".join(head) + r" \\", r"\midrule"] if head else []
    rows = [" & ".join(row) + r" \\" for row in body]
    inner = [r"\toprule", *top, *([r"\endhead"] if long else []), *rows, r"\bottomrule", end, *notes]
    if long:
        lines = ["{", *size, begin, caption + r"\\", *inner, "}"]
    else:
        lines = [r"\begin{table}", r"\centering", *size, caption, begin, *inner, r"\end{table}"]
    return "\n".join(lines) + "\n"


def write_table(table: Table, stem: Path) -> None:
    """Write STEM.csv (unrounded numbers), STEM.md, STEM.html and STEM.tex, each atomically."""
    write_text(stem.with_name(f"{stem.name}.csv"), shown.to_csv(table.numbers))
    for suffix, written in (("md", to_markdown), ("html", to_html), ("tex", to_latex)):
        write_text(stem.with_name(f"{stem.name}.{suffix}"), written(table))
