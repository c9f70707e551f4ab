"""Accuracy against the cost of training (figure 1)."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.points import ACCURACY, FLOPS, Group, draw_intervals, fit_accuracy, n_text
from ssvi.analysis.figures.style import (
    COLOURS,
    COLUMN,
    WIDE,
    Drawing,
    complete_runs,
    footnote,
    legend,
    panels,
    percent,
    row_of_axes,
    scale_text,
    series,
    style,
)
from ssvi.analysis.settings import caveats
from ssvi.errors import UserError
from ssvi.registry import SPARSE


def figure1(frames: Frames) -> Drawing:
    """Test accuracy against counted training FLOPs, a point a setting (figure 1 of the paper).

    Raises:
        UserError: if no finished run is there whose FLOPs were counted.
    """
    complete = complete_runs(frames.runs, "figure1")
    complete = complete[complete["training_flops"].notna()]
    if complete.empty:
        raise UserError("figure1: needs a run whose training FLOPs were counted, but the experiments have none.")
    groups = panels(complete)
    rows: list[dict[str, Any]] = []
    with matplotlib.rc_context(style()):
        many = max(len(series(panel, along=("density",))) for _, panel in groups) > 5
        width = (0.75 * WIDE if many else COLUMN) if len(groups) == 1 else WIDE / 2 * len(groups)
        figure = Figure(figsize=(width, 3.4 if many else 2.6), layout="constrained")
        for axes, (title, panel) in zip(row_of_axes(figure, len(groups)), groups, strict=True):
            axes.set_title(title)
            found = _draw_tradeoff(axes, panel)
            fit_accuracy(axes, found, panel, room=0.14, intervals=True)
            rows += found
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy against training FLOPs, counted as if masked weights cost nothing. Points are means over seeds "
        f"with their 95 % t intervals ({n_text(rows)}); "
        f"numbers at them are densities in %.{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, caveats(frames.runs))


def _draw_tradeoff(axes: Axes, panel: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    axes.set_xscale("log")
    named: set[str] = set()
    for line in series(panel, along=("density",)):
        options = {"series": line.label, "method": line.method}
        groups = [Group(runs, {**options, "density": density}) for density, runs in line.runs.groupby("density")]
        flops = [float(FLOPS.of(group.runs).mean()) for group in groups]
        found = draw_intervals(axes, flops, groups, ACCURACY, line)
        rows += [{**row, "training_flops_mean": x} for row, x in zip(found, flops, strict=True)]
        if line.method in SPARSE and line.method not in named and len(found) > 1:
            named.add(line.method)
            _name_points(axes, flops, found, COLOURS[line.method], below=len(named) == 1)
    _flops_axis(axes, [row["training_flops_mean"] for row in rows])
    return rows


def _name_points(axes: Axes, x: list[float], rows: list[dict[str, Any]], colour: str, *, below: bool) -> None:
    for flops, row in zip(x, rows, strict=True):
        axes.annotate(
            percent(row["density"]),
            (flops, row["mean"]),
            xytext=(4, -4) if below else (-4, 4),
            textcoords="offset points",
            ha="left" if below else "right",
            va="top" if below else "bottom",
            fontsize=6.5,
            color=colour,
        )


def _flops_axis(axes: Axes, flops: list[float]) -> None:
    """A log axis with room at both ends, and more marks a decade the fewer decades it spans."""
    axes.set_xlabel(FLOPS.title)
    span = max(flops) / min(flops)
    margin = max(span**0.1, 1.25)
    axes.set_xlim(min(flops) / margin, max(flops) * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if span > 300 else (1, 3) if span > 30 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _scientific(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}{{\cdot}}{power}$"
