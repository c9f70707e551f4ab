"""Text as it may stand in CSV, Markdown, HTML and LaTeX: it is read there, and nothing in it is carried out.

Run folders come from anywhere, and what they say (causes, names of machines and layers) reaches tables, figures and
reports. No cell is a formula of a spreadsheet, no words are a link, an image or a tag, no character is a command.
"""

from __future__ import annotations

import re

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ssvi.errors import one_line
from ssvi.runs.escaped import cell, line
from ssvi.runs.escaped import from_markdown as from_markdown  # they are looked up by this module's name too
from ssvi.runs.escaped import to_html as to_html
from ssvi.runs.escaped import to_markdown as to_markdown

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # an optional argument, where it follows the end of a row
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "β": r"$\beta$",
    "θ": r"$\theta$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "“": "``",
    "”": "''",
    "–": "--",
    "/": r"/\allowbreak{}",  # a run's path is long
}
# Numbers with a power of ten, as `format_mean_sd` writes them.
POWER = re.compile(r"([\d.,]+)e(\d+)", re.ASCII)
POWER_OF_BOTH = re.compile(r"\((-?[\d.,]+) ± ([\d.,]+)\)e(\d+)", re.ASCII)
LONGEST_LABEL = 40


def to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV. Words that a spreadsheet would take for a formula have an apostrophe in front; numbers have none,
    negative ones neither, whether they are numbers or text."""
    safe = {i: pd.Series([cell(v) for v in frame.iloc[:, i]], frame.index, object) for i in _worded(frame)}
    columns = [safe.get(i, frame.iloc[:, i]) for i in range(frame.shape[1])]
    made = pd.concat(columns, axis=1) if columns else frame
    return made.to_csv(index=False, header=[cell(name) for name in frame.columns], lineterminator="\n")


def _worded(frame: pd.DataFrame) -> list[int]:
    """The places of the columns that may hold words."""
    kinds = [frame.iloc[:, i].dtype for i in range(frame.shape[1])]
    return [i for i, kind in enumerate(kinds) if not (is_numeric_dtype(kind) or is_bool_dtype(kind))]


def to_latex(text: str) -> str:
    """Words of LaTeX, and numbers with a power of ten as it sets them."""
    if power := POWER_OF_BOTH.fullmatch(text):
        return rf"$({power[1]} \pm {power[2]}) \times 10^{{{power[3]}}}$"
    if power := POWER.fullmatch(text):
        return rf"${power[1]} \times 10^{{{power[2]}}}$"
    return "".join(LATEX.get(character, character) for character in line(text))


def to_label(text: str) -> str:
    """Words in a figure, where a dollar sign would begin mathematics, and long ones leave no room."""
    line = one_line(text)
    return (line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…").replace("$", r"\$")
