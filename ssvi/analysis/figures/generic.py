"""A figure described by config alone: any column of the runs against any other, coloured and split by two more."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.style import (
    LINES,
    PALETTE,
    SYMBOLS,
    Drawing,
    complete_runs,
    left_out,
    legend,
    row_of_axes,
    style,
)
from ssvi.analysis.settings import METHOD_NAMES, option_text
from ssvi.analysis.stats import mean_sd
from ssvi.errors import UserError

# A numeric axis whose values span more than this factor is logarithmic.
LOG_SPAN = 20.0
PERCENT = ("accuracy", "accuracy_best_test", "sparsity", "density", "density_actual")
UNITS = {
    "training_seconds": "s",
    "evaluation_seconds": "s",
    "training_flops": "FLOPs",
    "inference_flops": "FLOPs",
    "nll": "nats",
    "peak_memory_bytes": "bytes",
}


def generic(frames: Frames, name: str, *, x: str, y: str, hue: str | None = None, facets: str | None = None) -> Drawing:
    """Mean of `y` over the runs at each `x`, with one standard deviation; a line a value of `hue`, a panel a facet.

    Args:
        frames: only the runs are used.
        name: the figure's, for messages.
        x: a column of the runs, numbers or words.
        y: a column of numbers.
        hue: a column whose values become lines.
        facets: a column whose values become panels.

    Raises:
        UserError: if no finished run has both x and y, or y is not a number.
    """
    complete = complete_runs(frames.runs, name)
    wanted = complete[complete[x].notna() & complete[y].notna()]
    if wanted.empty:
        raise UserError(f"figure {name}: no finished run of its experiments has both {x} and {y}.")
    if not _is_number(wanted[y]):
        raise UserError(f"figure {name}: y is {y!r}, which is not a number in the runs.")
    groups = [("", wanted)] if facets is None else [(v, g) for v, g in wanted.groupby(facets, sort=True, dropna=False)]
    rows: list[dict[str, Any]] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(max(3.6, 3.2 * len(groups)), 3.2), layout="constrained")
        for axes, (facet, panel) in zip(row_of_axes(figure, len(groups)), groups, strict=True):
            if facets is not None:
                axes.set_title(f"{_label(facets)} {_text(facets, facet)}")
            place = _x_axis(axes, wanted[x], x)
            lines = [("", panel)] if hue is None else list(panel.groupby(hue, sort=True, dropna=False))
            known = [""] if hue is None else sorted(wanted[hue].unique(), key=str)
            for value, line in lines:
                points = _draw(axes, line, x, y, known.index(value), _text(hue, value) if hue else None, place)
                where = ({facets: facet} if facets else {}) | ({hue: value} if hue else {})
                rows += [where | point for point in points]
            axes.set_ylabel(_title(y))
        if hue is not None:
            legend(figure, title=_label(hue))
    by = f", by {_label(hue)}" if hue else ""
    caption = f"{_label(y)} against {_label(x)}{by}: means over runs with one sample standard deviation."
    return Drawing(figure, pd.DataFrame(rows), caption[0].upper() + caption[1:], left_out(frames.runs))


def _is_number(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().all()) and not values.map(type).eq(bool).any()


def _label(column: str) -> str:
    return column.replace("_", " ")


def _title(column: str) -> str:
    unit = "%" if column in PERCENT else UNITS.get(column)
    return f"{_label(column)} ({unit})" if unit else _label(column)


def _text(column: str, value: Any) -> str:
    if pd.isna(value):
        return "none"
    if column == "method":
        return METHOD_NAMES[value]
    return option_text(value)


def _x_axis(axes: Axes, values: pd.Series, column: str) -> dict[Any, float]:
    """Prepare the axis for all values; returns where each of them is."""
    axes.set_xlabel(_title(column))
    scale = 100.0 if column in PERCENT else 1.0
    if not _is_number(values):
        names = sorted(values.unique(), key=str)
        axes.set_xticks(range(len(names)), [_text(column, v) for v in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        return {name: float(i) for i, name in enumerate(names)}
    ticks = sorted(values.unique())
    place = {value: float(value) * scale for value in ticks}
    if ticks[0] > 0 and ticks[-1] / ticks[0] > LOG_SPAN:
        axes.set_xscale("log")
    if len(ticks) <= 8:
        axes.xaxis.set_major_locator(FixedLocator(list(place.values())))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.6g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    return place


def _draw(
    axes: Axes, runs: pd.DataFrame, x: str, y: str, number: int, label: str | None, place: dict[Any, float]
) -> list[dict[str, Any]]:
    rows = []
    factor = 100.0 if y in PERCENT else 1.0
    for value, group in runs.groupby(x, sort=True):
        mean, sd = mean_sd(group[y], factor)
        rows.append({x: value, f"{y}_mean": mean, f"{y}_sd": sd, "n": len(group), "_x": place[value]})
    rows.sort(key=lambda row: row["_x"])
    at = [row.pop("_x") for row in rows]
    words = not _is_number(runs[x])
    axes.errorbar(
        at,
        [row[f"{y}_mean"] for row in rows],
        yerr=[0.0 if pd.isna(row[f"{y}_sd"]) else row[f"{y}_sd"] for row in rows],
        label=label,
        color=PALETTE[number % len(PALETTE)],
        marker=SYMBOLS[number % len(SYMBOLS)],
        linestyle="none" if words else LINES[number // len(PALETTE) % len(LINES)],
        elinewidth=0.9,
    )
    return rows
