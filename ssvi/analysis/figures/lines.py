"""Settings as lines, means with bars for their spread, means with bands from the smallest to the largest."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.figures.groups import Group
from ssvi.analysis.figures.panels import Rows
from ssvi.analysis.figures.style import FILLINGS, LINES, of_method, words
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.settings import SETTING, option_text, settings, without_effect
from ssvi.registry import KINDS, SPARSE

BANDS = "Lines are means over seeds, bands reach from the smallest to the largest"


@dataclass(frozen=True)
class Series:
    """The runs drawn as one line, and how."""

    method: str
    label: str
    runs: pd.DataFrame
    variant: int = 0

    @property
    def look(self) -> dict[str, Any]:
        """One colour and marker a method; variants of a method differ in dash and filling."""
        look = of_method(self.method)
        return {
            **look,
            "markerfacecolor": "white" if self.variant % 4 == 1 else look["color"],
            "markerfacecoloralt": "white",
            "fillstyle": FILLINGS[self.variant % 4],
            "linestyle": LINES[self.variant % len(LINES)],
        }


def series(panel: pd.DataFrame, *, along: Collection[str] = ()) -> list[Series]:
    """The panel's settings as lines, a method's variants named by the options in which they differ.

    Args:
        panel: runs of one data set and model.
        along: options whose values are points of one line.
    """
    found = []
    for method in (m for m in reversed(list(KINDS)) if m in set(panel["method"])):
        runs = panel[panel["method"] == method]
        groups = settings(runs.assign(**dict.fromkeys(along, 1.0)))
        named = ["method", *(["density"] if "density" not in along and method in SPARSE else [])]
        named += _telling(groups, [n for n in SETTING if n not in ("density", *along)])
        for variant, group in enumerate(groups):
            first = group.iloc[0]
            idle = without_effect(first)
            label = ", ".join(words(name, first[name]) for name in named if name not in idle)
            found.append(Series(method, label, runs.loc[group.index], variant))
    return found


def _telling(groups: Sequence[pd.DataFrame], options: Sequence[str]) -> list[str]:
    """The options that tell the settings apart; one whose value those before it decide says nothing new."""
    kept: list[str] = []
    rows = [group.iloc[0] for group in groups]

    def told_apart(names: Sequence[str]) -> int:
        return len({tuple(option_text(row[name]) for name in names) for row in rows})

    for name in options:
        if told_apart([*kept, name]) > told_apart(kept):
            kept.append(name)
    return kept


def within(quantity: Quantity, low: float, high: float) -> tuple[float, float]:
    """An interval cut at what the quantity can be."""
    least, most = quantity.bounds
    return max(low, least), min(high, most)


def draw_means(
    axes: Axes,
    x: Sequence[float],
    groups: Sequence[Group],
    quantity: Quantity,
    *,
    intervals: bool = False,
    **look: Any,
) -> Rows:
    """Means over x joined by a line; returns the rows of the figure's data.

    The bars are one sample standard deviation or, if `intervals`, the means' t intervals; of one run there are none.
    """
    rows = [group.row(quantity) for group in groups]
    bars = []
    for row in rows:
        mean, sd = row["mean"], row["sd"]
        low, high = within(quantity, *((row["low"], row["high"]) if intervals else (mean - sd, mean + sd)))
        bars.append([0.0 if math.isnan(bar) else max(bar, 0.0) for bar in (mean - low, high - mean)])
    means = [row["mean"] for row in rows]
    axes.errorbar(x, means, yerr=list(zip(*bars, strict=True)), **{"elinewidth": 0.8, "zorder": 3, **look})
    return rows


def over_runs(rows: pd.DataFrame, by: str | list[str], value: str, factor: float = 1.0) -> pd.DataFrame:
    """Mean, smallest and largest of a column over the runs, and their number `n`, by the values of others."""
    numbers = rows.assign(**{value: factor * rows[value].astype(float)})
    summary = numbers.groupby(by, sort=True)[value].agg(["mean", "min", "max", "count"])
    return summary.rename(columns={"count": "n"}).reset_index()


def draw_band(axes: Axes, x: pd.Series, summary: pd.DataFrame, *, label: str | None, **look: Any) -> None:
    """A line of means and a band from the smallest to the largest."""
    axes.plot(x, summary["mean"], label=label, **{"zorder": 3, "linewidth": 1.2, "markersize": 3.8} | look)
    axes.fill_between(x, summary["min"], summary["max"], color=look["color"], alpha=0.18, linewidth=0, zorder=2)
