"""Text as it may stand in CSV, Markdown, HTML and LaTeX: it is read there, and nothing in it is carried out.

Run folders come from anywhere, and what they say (causes, names of machines and layers) reaches tables, figures and
reports. No cell is a formula of a spreadsheet, no words are a link, an image or a tag, no character is a command.
"""

from __future__ import annotations

import html
import re

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ssvi.errors import one_line
from ssvi.runs.values import DECIMAL

# Before it a spreadsheet would begin to calculate: at the start of a cell, and behind a semicolon, which separates the
# cells where numbers have a decimal comma. The second row is the same characters in full width.
FORMULA = re.compile(r"""(^|;)(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20])""")

# What means something in Markdown. Brackets around numbers are intervals, and stay, unless they are part of a link.
MARKDOWN = re.compile(r"(\[[-−+\d., ]+\](?![(\[:]))|([\\`*<>|\[\]]|&(?=#?\w+;)|:(?=//)|(?<=www)\.)", re.IGNORECASE)

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
    safe = {i: pd.Series([_cell(v) for v in frame.iloc[:, i]], frame.index, object) for i in _worded(frame)}
    columns = [safe.get(i, frame.iloc[:, i]) for i in range(frame.shape[1])]
    made = pd.concat(columns, axis=1) if columns else frame
    return made.to_csv(index=False, header=[_cell(name) for name in frame.columns], lineterminator="\n")


def _worded(frame: pd.DataFrame) -> list[int]:
    """The places of the columns that may hold words."""
    kinds = [frame.iloc[:, i].dtype for i in range(frame.shape[1])]
    return [i for i, kind in enumerate(kinds) if not (is_numeric_dtype(kind) or is_bool_dtype(kind))]


def _cell(value: object) -> object:
    if not isinstance(value, str) or DECIMAL.fullmatch(value):
        return value
    return FORMULA.sub(r"\1'", one_line(value))


def to_markdown(text: str) -> str:
    """Words of Markdown that are shown as they are written, in one line."""
    return MARKDOWN.sub(lambda m: m[1] or rf"\{m[2]}", _line(text))


def from_markdown(text: str) -> str:
    r"""What `to_markdown` was given: \* is an asterisk."""
    return re.sub(r"\\([\\`*<>|\[\]&:.])", r"\1", text)


def to_html(text: str) -> str:
    """Words of HTML, in an element or in an attribute."""
    return html.escape(_line(text))


def to_latex(text: str) -> str:
    """Words of LaTeX, and numbers with a power of ten as it sets them."""
    if power := POWER_OF_BOTH.fullmatch(text):
        return rf"$({power[1]} \pm {power[2]}) \times 10^{{{power[3]}}}$"
    if power := POWER.fullmatch(text):
        return rf"${power[1]} \times 10^{{{power[2]}}}$"
    return "".join(LATEX.get(character, character) for character in _line(text))


def to_label(text: str) -> str:
    """Words in a figure, where a dollar sign would begin mathematics, and long ones leave no room."""
    line = one_line(text)
    return (line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…").replace("$", r"\$")


def _line(text: str) -> str:
    return one_line(text.replace("\n", " "))
