"""Every run's curves, thinned: of runs that have ended from the frames, of others from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE, DIVERGED, REFUSED
from ssvi.analysis.records import live_rows, published_rows, run_folder
from ssvi.errors import UserError, one_line
from ssvi.runs import files

# The columns of a history that a run's curves are drawn from.
CURVES = ("epoch", "loss", "kl", "sigma_mean", "train_accuracy", "validation_accuracy", "test_accuracy")
MOST_POINTS, FEWEST_POINTS = 60, 20
# All runs together; beyond it each gets fewer points, so that thousands of runs still open in a browser.
ALL_POINTS = 200_000


@dataclass(frozen=True)
class Curves:
    """What is drawn of a run: columns of numbers, and how many epochs they were thinned from."""

    columns: dict[str, list[float | int | None]]
    epochs: int
    problem: str = ""


def curves_of(results: Path, runs: pd.DataFrame, history: pd.DataFrame) -> list[Curves]:
    """The curves of each run, none of one refused.

    Args:
        results: the results folder, for runs that have not ended: of these what was published or, of one that trains,
            the history so far is read.
        runs: the frame of the runs.
        history: the frame of the histories of those that have ended.
    """
    points = max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(runs))))
    ended = dict(list(history.groupby("run", sort=False)))
    found = []
    for run, status in runs[["run", "status"]].itertuples(index=False, name=None):
        if status in (COMPLETE, DIVERGED):
            rows = ended.get(run, history.iloc[:0])
            found.append(_curves({name: rows[name].tolist() for name in CURVES}, len(rows), points))
        else:
            found.append(Curves({}, 0) if status == REFUSED else _unfinished(run_folder(results, run), points))
    return found


def _curves(columns: Mapping[str, Sequence[Any]], epochs: int, points: int) -> Curves:
    """The columns without those that have no number."""
    kept = {name: [rounded(values[i]) for i in thin(epochs, points)] for name, values in columns.items()}
    return Curves({k: v for k, v in kept.items() if any(x is not None for x in v)}, epochs)


def _unfinished(folder: Path, points: int) -> Curves:
    published, live = folder / files.HISTORY, folder / files.LIVE_HISTORY
    try:
        rows = published_rows(published) if published.is_file() else live_rows(live) if live.is_file() else []
        return _curves({name: [_number(row.get(name)) for row in rows] for name in CURVES}, len(rows), points)
    except (UserError, OSError, ValueError, OverflowError) as error:
        return Curves({}, 0, one_line(f"{folder.name}/{files.HISTORY} cannot be read ({error})"))


def _number(cell: Any) -> Any:
    return (float(cell) if cell else None) if isinstance(cell, str) else cell


def thin(n: int, points: int) -> list[int]:
    """At most `points` of the positions 0 to n - 1, evenly spread, the first and the last among them."""
    if n <= points:
        return list(range(n))
    return sorted({round(i * (n - 1) / (points - 1)) for i in range(points)})


def rounded(value: Any) -> float | int | None:
    """A number to 5 significant digits, whole ones as integers; None for what is missing or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
