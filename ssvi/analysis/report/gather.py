"""What the report reads from run folders beside the frames: every run's curves, thinned."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssvi import runs as files
from ssvi.analysis.records import run_folder
from ssvi.errors import one_line

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


def read_curves(results: Path, runs: Sequence[str], refused: Collection[str] = ()) -> list[Curves]:
    """The curves of each run, from its history or, while it trains, from the history so far; none of one refused."""
    points = max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(runs))))
    return [Curves({}, 0) if run in refused else _curves(run_folder(results, run), points) for run in runs]


def _curves(folder: Path, points: int) -> Curves:
    try:
        rows = _rows(folder)
        kept = [rows[i] for i in thin(len(rows), points)]
        columns = {name: [rounded(_number(row.get(name))) for row in kept] for name in CURVES}
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        return Curves({}, 0, one_line(f"{folder.name}/{files.HISTORY} cannot be read ({error})"))
    return Curves({k: v for k, v in columns.items() if any(x is not None for x in v)}, len(rows))


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / files.HISTORY
    if not path.is_file():
        return _live_rows(folder / files.LIVE_HISTORY)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _number(cell: Any) -> Any:
    return (float(cell) if cell else None) if isinstance(cell, str) else cell


def _live_rows(path: Path) -> list[dict[str, Any]]:
    """The epochs that a running training has written; a line it is just writing is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if isinstance(row, dict):
            rows.append(row)
    return rows


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
