"""What the figures of recorded posteriors share: the runs that have a record, their rows, mean and range over seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.style import NAMES, complete_runs, panels, percent
from ssvi.analysis.settings import SETTING, is_missing, option_text, settings
from ssvi.errors import UserError

RECORDS = {
    "updates": "a recorded update of its subspace",
    "overlap": "a recorded overlap of the removal criteria",
    "samples": "metrics by the number of weight samples (`ssvi samples`)",
}
MOMENTS = ("first update", "middle update", "last update")
PROGRESS = "training progress (%)"
# Test metrics: axis title, factor, and the values that they cannot pass.
METRICS = {
    "accuracy": ("test accuracy (%)", 100.0, (0.0, 100.0)),
    "nll": ("NLL (nats)", 1.0, (0.0, float("inf"))),
    "ece": ("ECE", 1.0, (0.0, 1.0)),
}


def recorded(frames: Frames, table: str, figure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs that have rows in one of the frames, and these rows.

    Raises:
        UserError: if there is no such run.
    """
    complete = complete_runs(frames.runs, figure)
    rows: pd.DataFrame = getattr(frames, table)
    rows = rows[rows["run"].isin(complete["run"])]
    runs = complete[complete["run"].isin(rows["run"])]
    if runs.empty:
        raise UserError(f"{figure}: no finished run of its experiments has {RECORDS[table]}.")
    return runs, rows


def panels_of(runs: pd.DataFrame, shown: Collection[str]) -> list[tuple[str, pd.DataFrame]]:
    """`panels`, with every column as it is in the runs."""
    return [(title, runs.loc[panel.index]) for title, panel in panels(runs, shown)]


def setting_rows(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each setting, named by the options in which the settings differ; unnamed if there is only one."""
    differing = [name for name in SETTING if runs[name].dropna().nunique() > 1]
    return [(", ".join(_words(group.iloc[0], differing)), group) for group in settings(runs)]


def _words(run: pd.Series, names: Sequence[str]) -> list[str]:
    return [_word(name, run[name]) for name in names if not is_missing(run[name])]


def _word(name: str, value: Any) -> str:
    if name == "method":
        return NAMES[value]
    if name == "density":
        return f"density {percent(value)}%"
    return option_text(value) if name in ("dataset", "model") else f"{name.replace('_', ' ')} {option_text(value)}"


def where(group: pd.DataFrame, *options: str) -> dict[str, Any]:
    """The columns that say of which runs the numbers of a figure are."""
    first = group.iloc[0]
    return {name: first[name] for name in ("dataset", "model", "method", "density", *options)}


def over_runs(rows: pd.DataFrame, by: str | list[str], value: str) -> pd.DataFrame:
    """Mean, smallest and largest of a column over the runs, and their number `n`, by the values of others."""
    summary = rows.groupby(by, sort=True)[value].agg(["mean", "min", "max", "count"])
    return summary.rename(columns={"count": "n"}).reset_index()


def at_moments(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's first, middle and last recorded update, with that in a column `moment`."""
    found = [rows.iloc[:0].assign(moment="")]
    for _, mine in rows.groupby("run"):
        steps = sorted(mine["step"].unique())
        for moment, step in zip(MOMENTS, (steps[0], steps[(len(steps) - 1) // 2], steps[-1]), strict=True):
            found.append(mine[mine["step"] == step].assign(moment=moment))
    return pd.concat(found[1:] or found, ignore_index=True)


def draw_band(axes: Axes, x: pd.Series, summary: pd.DataFrame, *, label: str | None, **look: Any) -> None:
    """A line of means and a band from the smallest to the largest."""
    axes.plot(x, summary["mean"], label=label, **{"zorder": 3, "linewidth": 1.2, "markersize": 3.8} | look)
    axes.fill_between(x, summary["min"], summary["max"], color=look["color"], alpha=0.18, linewidth=0, zorder=2)


def progress_axis(axes: Axes, *, last_row: bool = True) -> None:
    """A shared x axis from the start to the end of training, titled below the last row."""
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(PROGRESS if last_row else "")
    axes.tick_params(labelbottom=last_row)


def seeds(groups: Sequence[pd.DataFrame]) -> str:
    """How many runs the means are over, for a caption."""
    counts = sorted({len(group) for group in groups})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


BANDS = "Lines are means over seeds, bands reach from the smallest to the largest"
