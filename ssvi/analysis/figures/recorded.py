"""What runs recorded while they trained, or when they were sampled: of which runs it is, and at which moments."""

from __future__ import annotations

import pandas as pd

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels
from ssvi.analysis.figures.panels import Panel
from ssvi.analysis.figures.style import words
from ssvi.analysis.settings import SETTING, is_missing, settings, without_effect

RECORDS = {
    "updates": "a recorded update of its subspace",
    "overlap": "a recorded overlap of the removal criteria",
    "samples": "metrics by the number of weight samples (`ssvi samples`)",
    "uncertainty": "uncertainty.csv (`ssvi evaluate --suite uncertainty`)",
}
MOMENTS = ("first update", "middle update", "last update")


def recorded(frames: Frames, table: str, figure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs that have rows in one of the frames, and these rows.

    Raises:
        UserError: if there is no such run.
    """
    complete = panels.finished(frames, figure)
    rows: pd.DataFrame = getattr(frames, table)
    rows = rows[rows["run"].isin(complete["run"])]
    runs = complete[complete["run"].isin(rows["run"])]
    return panels.needed(runs, figure, f"a finished run with {RECORDS[table]}"), rows


def of_runs(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of these runs."""
    return rows[rows["run"].isin(runs["run"])]


def setting_panels(runs: pd.DataFrame) -> list[Panel]:
    """A panel a setting, named by the options in which the settings differ; unnamed if there is only one."""
    differing = [name for name in SETTING if runs[name].dropna().nunique() > 1]
    found = []
    for group in settings(runs):
        first = group.iloc[0]
        idle = without_effect(first)
        said = [name for name in differing if not is_missing(first[name]) and name not in idle]
        title = ", ".join(words(name, first[name]) for name in said)
        found.append(Panel(title, group))
    return found


def at_moments(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's first, middle and last recorded update, with that in a column `moment`."""
    found = [rows.iloc[:0].assign(moment="")]
    for _, mine in rows.groupby("run"):
        steps = sorted(mine["step"].unique())
        for moment, step in zip(MOMENTS, (steps[0], steps[(len(steps) - 1) // 2], steps[-1]), strict=True):
            found.append(mine[mine["step"] == step].assign(moment=moment))
    return pd.concat(found[1:] or found, ignore_index=True)
