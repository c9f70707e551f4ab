"""Accuracy against density (figure 2, left)."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.points import n_text
from ssvi.analysis.figures.style import (
    COLOURS,
    COLUMN,
    LINES,
    WIDE,
    Drawing,
    Series,
    accuracy_axis,
    complete_runs,
    density_axis,
    footnote,
    legend,
    panels,
    row_of_axes,
    scale_text,
    series,
    style,
)
from ssvi.analysis.settings import caveats
from ssvi.analysis.stats import mean_sd
from ssvi.registry import SPARSE


def figure2_left(frames: Frames) -> Drawing:
    """Test accuracy against density: sparse methods as lines, dense ones as levels (figure 2, left, of the paper).

    Raises:
        UserError: if no finished run is there.
    """
    complete = complete_runs(frames.runs, "figure2_left")
    rows: list[dict[str, Any]] = []
    groups = panels(complete)
    with matplotlib.rc_context(style()):
        figure = Figure(
            figsize=(COLUMN + 0.4 if len(groups) == 1 else WIDE / 2 * len(groups), 3.1), layout="constrained"
        )
        for axes, (title, panel) in zip(row_of_axes(figure, len(groups)), groups, strict=True):
            axes.set_title(title)
            rows += _draw_accuracy(axes, panel)
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy against density, the kept fraction of the weights. Lines are means over seeds with one sample "
        f"standard deviation, small points single runs, horizontal lines the dense networks ({n_text(rows)})."
        f"{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, caveats(frames.runs))


def _draw_accuracy(axes: Axes, panel: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    lines = series(panel, along=("density",))
    sparse = [line for line in lines if line.method in SPARSE]
    width = density_axis(axes, sorted({d for line in sparse for d in line.runs["density"]}))
    for position, line in enumerate(sparse):
        points = _by_density(line)
        rows += points
        # A little apart, so that error bars at one density can be told from each other.
        shift = math.exp(0.008 * width * (position - (len(sparse) - 1) / 2))
        x = [point["density"] * shift for point in points]
        y = [point["accuracy_percent_mean"] for point in points]
        spread = [0.0 if math.isnan(sd := point["accuracy_percent_sd"]) else sd for point in points]
        axes.errorbar(x, y, yerr=spread, label=line.label, elinewidth=0.9, zorder=3, **line.look)
        # Single runs stand beside their mean, where the marker does not hide them; one alone is its mean.
        seeds = line.runs[line.runs.groupby("density")["run"].transform("size") > 1]
        beside = seeds["density"] * shift * math.exp(-0.018 * width)
        axes.scatter(
            beside, seeds["accuracy"] * 100, s=4, color=COLOURS[line.method], alpha=0.7, linewidths=0, zorder=4
        )
    for number, line in enumerate(line for line in lines if line.method not in SPARSE):
        (point,) = _by_density(line)
        rows.append(point)
        axes.axhline(
            point["accuracy_percent_mean"],
            color=COLOURS[line.method],
            linewidth=0.9,
            linestyle=LINES[1 + number % 3],
            label=line.label,
            zorder=2,
        )
    _fit(axes, rows, panel)
    return rows


def _fit(axes: Axes, rows: list[dict[str, Any]], panel: pd.DataFrame) -> None:
    """An accuracy axis for the means with their error bars, and the single runs."""
    sds = [0.0 if math.isnan(row["accuracy_percent_sd"]) else row["accuracy_percent_sd"] for row in rows]
    ends = [row["accuracy_percent_mean"] + sign * sd for row, sd in zip(rows, sds, strict=True) for sign in (-1, 1)]
    accuracy_axis(axes, [*ends, *(panel["accuracy"] * 100)], float(panel["test_images"].max()))


def _by_density(line: Series) -> list[dict[str, Any]]:
    points = []
    for density, group in sorted(line.runs.groupby("density"), reverse=True):
        first = group.iloc[0]
        mean, sd = mean_sd(group["accuracy"], 100)
        where = {"dataset": first["dataset"], "model": first["model"], "series": line.label, "method": line.method}
        measured = {"accuracy_percent_mean": mean, "accuracy_percent_sd": sd, "n": len(group)}
        points.append({**where, "lr": first["lr"], "density": density, **measured})
    return points
