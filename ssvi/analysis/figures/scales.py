"""Axes: what is marked on them, and how far they reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ssvi.analysis.figures.style import percent
from ssvi.analysis.quantities import ACCURACY, NLL

# What a stretched accuracy axis is marked at, in percent, as far as it reaches.
ACCURACY_TICKS = (1, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)
FINER_TICKS = (3, 15, 27, 42, 58, 73, 85, 93, 96, 97, 98.5, 99.3)
# An accuracy axis whose errors span more than this factor is logarithmic in the odds.
ERROR_SPAN = 8.0
# Where nothing else in the figure says of which set it is.
TEST_NLL = dataclasses.replace(NLL, titled="test NLL (nats)")


def mark(axis: Axis, places: Iterable[float], text: Callable[[float], str] = "{:g}".format) -> None:
    """Mark an axis at these places alone."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def log_ticks(axes: Axes, values: Sequence[float], *, room: float = 0.06) -> None:
    """A log x axis that is marked at these values alone, with room at both ends."""
    axes.set_xscale("log")
    margin = max(1.25, (max(values) / min(values)) ** room)
    axes.set_xlim(min(values) / margin, max(values) * margin)
    mark(axes.xaxis, values)


def density_axis(axes: Axes, densities: list[float]) -> float:
    """A log axis from dense on the left to sparse on the right; returns its width in powers of e."""
    axes.set_xlabel("density (kept weights, %)")
    axes.set_xscale("log")
    ticks = densities or [0.01, 0.1, 1.0]
    margin = max(1.15, (ticks[-1] / ticks[0]) ** 0.06)
    mark(axes.xaxis, ticks, percent)
    axes.set_xlim(ticks[-1] * margin, ticks[0] / margin)
    return math.log(ticks[-1] / ticks[0] * margin**2)


def progress_axis(axes: Axes) -> None:
    """A shared x axis from the start to the end of training, titled below the last row."""
    last_row = axes.get_subplotspec().is_last_row()
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("training progress (%)" if last_row else "")
    axes.tick_params(labelbottom=last_row)


def rows_from_the_top(axes: Axes, names: Sequence[str]) -> None:
    """A y axis of names below each other, and few marks on the x axis."""
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def accuracy_axis(axes: Axes, shown: Sequence[float], test_images: float, room: float = 0.08) -> None:
    """A y axis of accuracies (%): linear, or logarithmic in the odds (a logit) where the errors span a wide range.

    Accuracies of 99 and 98 % then lie as far apart as 67 and 50 %, and both are seen.

    Args:
        axes: whose y axis it is.
        shown: all the accuracies in percent that it must hold, ends of error bars too.
        test_images: how many images they were measured on; none wrong is drawn as half of one.
        room: left free at both ends, as a fraction.
    """
    axes.set_ylabel(ACCURACY.title)
    least = 50.0 / test_images if test_images > 0 else 0.5
    inside = [min(max(value, least), 100.0 - least) for value in shown if not math.isnan(value)]
    if not inside or (100 - min(inside)) / (100 - max(inside)) < ERROR_SPAN:
        axes.margins(y=room)
        return

    def logit(accuracy: Any) -> Any:
        kept = np.clip(accuracy, least / 10, 100 - least / 10)
        return np.log(kept / (100 - kept))

    def back(odds: Any) -> Any:
        return 100 / (1 + np.exp(-np.asarray(odds, dtype=float)))

    axes.set_yscale("function", functions=(logit, back))
    low, high = logit(min(inside)), logit(max(inside))
    axes.set_ylim(back(low - room * (high - low)), back(high + room * (high - low)))
    bottom, top = axes.get_ylim()
    few = sum(bottom <= tick <= top for tick in ACCURACY_TICKS) < 5
    mark(axes.yaxis, ACCURACY_TICKS + FINER_TICKS if few else ACCURACY_TICKS)


def fit_accuracy(
    axes: Axes, rows: Sequence[Mapping[str, Any]], runs: pd.DataFrame, room: float = 0.08, *, intervals: bool = False
) -> None:
    """Give the axes an accuracy axis that holds these rows with one standard deviation, or with their intervals."""
    rows = [row for row in rows if row["quantity"] == ACCURACY.key]
    ends = [(r["low"], r["high"]) if intervals else (r["mean"] - r["sd"], r["mean"] + r["sd"]) for r in rows]
    shown = [row["mean"] if math.isnan(end) else end for row, both in zip(rows, ends, strict=True) for end in both]
    images = pd.to_numeric(runs["test_images"], errors="coerce").max()
    accuracy_axis(axes, shown, 0.0 if math.isnan(images) else float(images), room)
