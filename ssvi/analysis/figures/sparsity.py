"""Accuracy, NLL and ECE against the sparsity that each method reached."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.points import ACCURACY, ECE, NLL, Group, Quantity, draw_intervals, fit_accuracy, n_text
from ssvi.analysis.figures.style import (
    WIDE,
    Drawing,
    Series,
    complete_runs,
    footnote,
    legend,
    panels,
    scale_text,
    series,
    style,
)
from ssvi.analysis.settings import caveats
from ssvi.analysis.stats import mean_sd
from ssvi.errors import UserError

# The options that a method's sparsity is chosen by: along them its settings are points of one line.
KNOBS = ("density", "kl_weight", "mask_lambda")
QUANTITIES = (ACCURACY, NLL, ECE)
TICKS = (0, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)


def sparsity(frames: Frames) -> Drawing:
    """Every sparse method at the sparsities it was run at, with the interval of each mean.

    Raises:
        UserError: if no finished run is sparse.
    """
    complete = complete_runs(frames.runs, "sparsity")
    complete = complete[pd.to_numeric(complete["sparsity"], errors="coerce") > 0]
    if complete.empty:
        raise UserError("sparsity: needs a run whose weights are sparse, but the collected experiments have none.")
    rows: list[dict[str, Any]] = []
    groups = panels(complete)
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 1.5 + 2.4 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), len(QUANTITIES), squeeze=False)
        for line, (title, panel) in zip(grid, groups, strict=True):
            line[0].set_title(title, loc="left")
            for axes, quantity in zip(line, QUANTITIES, strict=True):
                rows += _draw(axes, panel, quantity)
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy, NLL and ECE against measured sparsity, the share of the plain network's weights that are "
        f"gone. Markers are means over seeds, bars their 95 % t intervals ({n_text(rows)}); lines join the settings "
        f"of one method that differ in what its sparsity is chosen by.{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, caveats(frames.runs))


def _draw(axes: Axes, panel: pd.DataFrame, quantity: Quantity) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in series(panel, along=KNOBS):
        groups = _points(line)
        x = [mean_sd(group.runs["sparsity"], 100)[0] for group in groups]
        places = sorted(range(len(x)), key=x.__getitem__)
        found = draw_intervals(axes, [_odds(x[i]) for i in places], [groups[i] for i in places], quantity, line)
        rows += [{**row, "sparsity_percent": x[i]} for row, i in zip(found, places, strict=True)]
    _sparsity_axis(axes, [row["sparsity_percent"] for row in rows])
    if quantity is ACCURACY:
        fit_accuracy(axes, rows, panel, intervals=True)
    else:
        axes.set_ylabel(quantity.title)
        axes.set_ylim(bottom=0)
    return rows


def _points(line: Series) -> list[Group]:
    """The settings on a line."""
    keys = [name for name in KNOBS if line.runs[name].notna().any()]
    parts = line.runs.groupby(keys, sort=True)
    return [
        Group(runs, {"series": line.label, "method": line.method, **{k: runs.iloc[0][k] for k in keys}})
        for _, runs in parts
    ]


def _odds(sparsity: float) -> float:
    """The factor by which weights became fewer: 90 % is 10, 99 % is 100."""
    return 1 / max(1 - sparsity / 100, 1e-6)


def _sparsity_axis(axes: Axes, shown: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("sparsity (%)")
    axes.xaxis.set_major_locator(FixedLocator([_odds(t) for t in TICKS]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - 100 / value:.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(_odds(min(shown)) / 1.2, _odds(max(shown)) * 1.2)
