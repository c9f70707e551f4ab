"""Training curves."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, recorded
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import KL, LOSS, TRAIN_ACCURACY, VALIDATION_ACCURACY, Quantity
from ssvi.analysis.settings import settings
from ssvi.registry import KINDS
from ssvi.runs.options import FIELDS

MAX_VARIANTS = 3
CURVE_DENSITY = 0.1


def curves(frames: Frames) -> Drawing:
    """Likelihood loss, accuracy and KL by epoch: the dense methods, and the sparse ones near density 0.1."""
    complete = panels.finished(frames, "curves")
    history = recorded.of_runs(frames.history, complete)
    accuracy = VALIDATION_ACCURACY if history["validation_accuracy"].notna().any() else TRAIN_ACCURACY
    quantities = [one for one in (LOSS, accuracy, KL) if history[one.column].notna().any()]

    def draw(row: list[Axes], panel: Panel) -> Rows:
        found: Rows = []
        for position, line in enumerate(_chosen(panel.runs)):
            mine = recorded.of_runs(history, line.runs)
            for axes, quantity in zip(row, quantities, strict=True):
                found += _draw_curve(axes, line, mine.dropna(subset=[quantity.column]), quantity, position)
        for axes, quantity in zip(row, quantities, strict=True):
            _finish(axes, quantity)
        return found

    parts = panels.split(complete)
    return panels.draw(
        *(frames, parts, draw),
        f"Training curves: the dense methods, and the sparse ones at the density nearest to {CURVE_DENSITY:.0%}. "
        f"{lines.BANDS}.",
        size=(2.65 * len(quantities), 0.7 + 2.2 * len(parts)),
        axes=len(quantities),
        pads={"w_pad": 0.08},
    )


def _chosen(panel: pd.DataFrame) -> list[lines.Series]:
    """The settings that are drawn: few enough to read, those nearest to the defaults first."""
    parts = []
    for method in (m for m in KINDS if m in set(panel["method"])):
        runs = panel[panel["method"] == method]
        nearest = min(runs["density"].unique(), key=lambda density: abs(math.log(density / CURVE_DENSITY)))
        groups = settings(runs[runs["density"] == nearest])
        parts += sorted(groups, key=_departures)[:MAX_VARIANTS]
    return lines.series(pd.concat(parts))


def _departures(group: pd.DataFrame) -> int:
    first = group.iloc[0]
    return sum(first[name] != field.default for name, field in FIELDS.items() if not pd.isna(first[name]))


def _draw_curve(axes: Axes, line: lines.Series, history: pd.DataFrame, quantity: Quantity, position: int) -> Rows:
    if history.empty:
        return []
    summary = lines.over_runs(history, "epoch", quantity.column, quantity.factor)
    # Markers of different lines at different epochs, so that lines close together can be told apart.
    every = max(1, len(summary) // 4)
    look = line.look | {"markevery": (position * every // 5 % every, every), "linewidth": 1.1}
    lines.draw_band(axes, summary["epoch"], summary, label=line.label, **look)
    return panels.rows_of(line.runs, summary, series=line.label, quantity=quantity.key)


def _finish(axes: Axes, quantity: Quantity) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity.title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if quantity in (LOSS, KL) and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
        axes.grid(True, which="minor", axis="y", linewidth=0.25)
