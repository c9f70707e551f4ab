"""Words of anybody's as they may stand in CSV, Markdown and HTML: read there, and nothing in them is carried out.

No cell is a formula of a spreadsheet, no words are a link, an image or a tag. What else is made of words for tables and
figures is in `ssvi.analysis.shown`.

Standard library only.
"""

from __future__ import annotations

import html
import re

from ssvi.errors import one_line
from ssvi.runs.values import DECIMAL

# Before it a spreadsheet would begin to calculate: at the start of a cell, and behind a semicolon, which separates the
# cells where numbers have a decimal comma. The second row is the same characters in full width.
FORMULA = re.compile(r"""(^|;)(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20])""")

# What means something in Markdown. Brackets around numbers are intervals, and stay, unless they are part of a link.
MARKDOWN = re.compile(r"(\[[-−+\d., ]+\](?![(\[:]))|([\\`*<>|\[\]]|&(?=#?\w+;)|:(?=//)|(?<=www)\.)", re.IGNORECASE)


def cell(value: object) -> object:
    """A cell of CSV: words that a spreadsheet would take for a formula have an apostrophe in front."""
    if not isinstance(value, str) or DECIMAL.fullmatch(value):
        return value
    return FORMULA.sub(r"\1'", one_line(value))


def to_markdown(text: str) -> str:
    """Words of Markdown that are shown as they are written, in one line."""
    return MARKDOWN.sub(lambda m: m[1] or rf"\{m[2]}", line(text))


def from_markdown(text: str) -> str:
    r"""What `to_markdown` was given: \* is an asterisk."""
    return re.sub(r"\\([\\`*<>|\[\]&:.])", r"\1", text)


def to_html(text: str) -> str:
    """Words of HTML, in an element or in an attribute."""
    return html.escape(line(text))


def line(text: str) -> str:
    """A text in one line."""
    return one_line(text.replace("\n", " "))
