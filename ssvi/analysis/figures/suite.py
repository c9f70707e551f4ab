"""What the uncertainty suite measured, for figures: of which runs it is, and which of many settings have a panel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, recorded, style
from ssvi.analysis.figures.lines import Series
from ssvi.analysis.figures.panels import Panel
from ssvi.registry import KINDS

# What a reader looks for first; of this method up to half of what is shown, of any other its first setting.
FIRST = ("ssvi", "vi", "rigl", "dense", "ensemble")
MOST, ACROSS = 8, 4
# Letters of a title over a panel of a facet.
TITLE = 25


def measured(frames: Frames, figure: str, part: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs that have a part of the suite, and its rows.

    Raises:
        UserError: if there is no such run.
    """
    runs, rows = recorded.recorded(frames, "uncertainty", figure)
    rows = rows[rows["part"] == part]
    runs = runs[runs["run"].isin(rows["run"])]
    return panels.needed(runs, figure, f"a finished run with {recorded.RECORDS['uncertainty']}, part {part}"), rows


def wide(rows: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row for each value of these columns, with a column a metric."""
    return rows.pivot(index=list(by), columns="metric", values="value").reset_index()


@dataclass(frozen=True)
class Choice:
    """The settings of some panels that are shown, and what is said of the others."""

    panels: tuple[Facets, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Facets(Panel):
    """Settings of one data set and model beside each other; `kind` tells axes of the same settings apart."""

    series: tuple[Series, ...] = ()
    kind: str = ""


def chosen(runs: pd.DataFrame, most: int = MOST) -> Choice:
    """For each data set and model the settings that are shown, in reading order."""
    parts, notes = [], []
    for panel in panels.split(runs):
        found = lines.series(panel.runs)
        shown = sorted(sorted(found, key=lambda one: _turn(one, most))[:most], key=_place)
        parts.append(Facets(panel.title, panel.runs, tuple(shown)))
        if rest := [one.label for one in found if one not in shown]:
            of = f" of {panel.title}" if panel.title else ""
            notes.append(f"Not drawn{of}, for want of room: {'; '.join(rest)}.")
    return Choice(tuple(parts), tuple(notes))


def _place(one: Series) -> tuple[int, int, int]:
    """Where a setting stands: by what is looked for first, then as tables have it from the end."""
    known = FIRST.index(one.method) if one.method in FIRST else len(FIRST)
    return known, -KINDS.place(one.method), one.variant


def _turn(one: Series, most: int) -> tuple[Any, ...]:
    """When a setting is chosen."""
    return one.variant >= (most // 2 if one.method == FIRST[0] else 1), *_place(one)


def in_rows(choice: Choice, kinds: Sequence[str] = ("",)) -> tuple[list[Facets], int]:
    """The settings in even rows of at most `ACROSS`, each once for every kind of axes; and how long the rows are."""
    longest = max(len(panel.series) for panel in choice.panels)
    across = math.ceil(longest / math.ceil(longest / ACROSS))
    rows = [
        Facets(panel.title, panel.runs, panel.series[start : start + across], kind)
        for panel in choice.panels
        for start in range(0, len(panel.series), across)
        for kind in kinds
    ]
    return rows, across


def entitle(axes: Axes, panel: Facets, one: Series) -> None:
    """Say over the axes of which setting they are."""
    words = [panel.title] * bool(panel.title) + textwrap.wrap(one.label, TITLE)
    axes.set_title("\n".join(words), fontsize=7.5)


def size(rows: int, across: int, height: float) -> tuple[float, float]:
    """Width and height in inches of a figure of facets, each row so high."""
    return (style.WIDE if across > 2 else style.COLUMN if across == 1 else 0.75 * style.WIDE), 0.8 + height * rows
