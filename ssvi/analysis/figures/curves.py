"""Training curves."""

from __future__ import annotations

import math

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.style import (
    Drawing,
    Series,
    complete_runs,
    footnote,
    legend,
    panels,
    series,
    style,
)
from ssvi.analysis.settings import caveats, settings
from ssvi.registry import KINDS
from ssvi.spec import FIELDS

MAX_VARIANTS = 3
CURVE_DENSITY = 0.1


def curves(frames: Frames) -> Drawing:
    """Likelihood loss, accuracy and KL by epoch: the dense methods, and the sparse ones near density 0.1.

    Lines are means over seeds, bands reach from the smallest to the largest.

    Raises:
        UserError: if no finished run is there.
    """
    runs, history = frames.runs, frames.history
    complete = complete_runs(runs, "curves")
    groups = panels(complete)
    rows: list[pd.DataFrame] = []
    quantities = _quantities(history[history["run"].isin(complete["run"])])
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(2.65 * len(quantities), 0.7 + 2.2 * len(groups)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08)
        grid = figure.subplots(len(groups), len(quantities), squeeze=False)
        for line_of_axes, (title, panel) in zip(grid, groups, strict=True):
            for position, line in enumerate(_chosen(panel)):
                mine = history[history["run"].isin(line.runs["run"])]
                for axes, (column, _) in zip(line_of_axes, quantities.items(), strict=True):
                    rows += _draw_curve(axes, line, mine, column, position)
            for axes, (column, heading) in zip(line_of_axes, quantities.items(), strict=True):
                _finish_curve(axes, column, heading)
            line_of_axes[0].set_title(title, loc="left")
        legend(figure)
        footnote(figure, runs)
    caption = (
        f"Training curves: the dense methods, and the sparse ones at the density nearest to {CURVE_DENSITY:.0%}. "
        "Lines are means over seeds, bands reach from the smallest to the largest."
    )
    return Drawing(figure, pd.concat(rows, ignore_index=True), caption, caveats(runs))


def _quantities(history: pd.DataFrame) -> dict[str, str]:
    """The columns to draw, with their axis titles."""
    held_out = history["validation_accuracy"].notna().any()
    accuracy = (
        ("validation_accuracy", "validation accuracy (%)") if held_out else ("train_accuracy", "training accuracy (%)")
    )
    wanted = [("loss", "likelihood loss (nats)"), accuracy, ("kl", "KL to the prior (nats)")]
    return {column: heading for column, heading in wanted if history[column].notna().any()}


def _chosen(panel: pd.DataFrame) -> list[Series]:
    """The settings that are drawn: few enough to read, those nearest to the defaults first."""
    parts = []
    for method in KINDS:
        runs = panel[panel["method"] == method]
        if runs.empty:
            continue
        nearest = min(runs["density"].unique(), key=lambda density: abs(math.log(density / CURVE_DENSITY)))
        groups = settings(runs[runs["density"] == nearest])
        parts += sorted(groups, key=_departures)[:MAX_VARIANTS]
    return series(pd.concat(parts), along=())


def _departures(group: pd.DataFrame) -> int:
    first = group.iloc[0]
    return sum(first[name] != field.default for name, field in FIELDS.items() if not pd.isna(first[name]))


def _draw_curve(axes: Axes, line: Series, history: pd.DataFrame, column: str, position: int) -> list[pd.DataFrame]:
    values = history.dropna(subset=[column])
    if values.empty:
        return []
    scale = 100 if column.endswith("accuracy") else 1
    summary = (
        (values.set_index("epoch")[column].astype(float) * scale).groupby(level=0).agg(["mean", "min", "max", "count"])
    )
    epochs = summary.index.to_numpy(dtype=float)
    look = line.look
    # Markers of different lines at different epochs, so that lines close together can be told apart.
    every = max(1, len(summary) // 4)
    marks = (position * every // 5 % every, every)
    axes.plot(
        epochs, summary["mean"], label=line.label, markevery=marks, markersize=3.8, linewidth=1.1, zorder=3, **look
    )
    axes.fill_between(epochs, summary["min"], summary["max"], color=look["color"], alpha=0.18, linewidth=0, zorder=2)
    first = line.runs.iloc[0]
    unit = f"{column}_percent" if scale == 100 else column
    where = {"dataset": first["dataset"], "model": first["model"], "series": line.label, "quantity": unit}
    return [pd.DataFrame({**where, **summary.rename(columns={"count": "n"}).reset_index()})]


def _finish_curve(axes: Axes, column: str, heading: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(heading)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not column.endswith("accuracy") and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
        axes.grid(True, which="minor", axis="y", linewidth=0.25)
