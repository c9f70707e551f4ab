"""The files of run folders as frames: of epochs, of layers at updates, of pairs of criteria, of what was measured."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ssvi.analysis import ranges
from ssvi.errors import UserError, one_line
from ssvi.registry import CRITERIA
from ssvi.runs import files
from ssvi.runs.options import FIELDS, options_of
from ssvi.runs.records import ANEW, anew, read_jsonl, read_record, read_text, reading_once, told_by_version
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import check_sealed

# `lr` is the epoch's own learning rate, so the one of the spec needs another name here.
HISTORY_COLUMNS = ("run", "method", "dataset", "seed", "density", "lr_start", *files.HISTORY_COLUMNS)

QUANTILES = ("q05", "q25", "q50", "q75", "q95")
MEASURES = ("iou", "spearman")
UPDATE_COLUMNS = (
    *("run", "step", "epoch", "progress", "drop_fraction", "layer", "position"),
    *("size", "active", "removed", "added", "born", "survivors"),
    *(f"sigma_{q}" for q in QUANTILES),
    *(f"snr_{q}" for q in QUANTILES),
    *("sigma_drift_gradient", "sigma_drift_topology"),
)
OVERLAP_COLUMNS = ("run", "step", "epoch", "progress", "first", "second", *MEASURES)
SAMPLES_COLUMNS = ("run", *files.SAMPLES_COLUMNS)
UNCERTAINTY_COLUMNS = ("run", *(name for name in files.UNCERTAINTY_COLUMNS if name != files.TESTED_ON))
UNCERTAINTY_WORDS = ("run", "part", "name", "score", "metric")
# The frames of what was measured beside metrics.json.
BESIDE = {"samples": files.SAMPLES, "uncertainty": files.UNCERTAINTY}

# What stands where in records of updates that carry no names: those of format 1, which had one order alone.
UNNAMED_CRITERIA = ("abs_mu", "snr", "e_abs", "snr_abs", "e_exp", "snr_exp")
UNNAMED_QUANTILES = ("q05", "q25", "q50", "q75", "q95")

# What to do where a CSV file of a run folder is damaged.
REMEDIES = {name: anew(Path(name)) for name in (files.HISTORY, *files.SEALED)}

Row = dict[str, Any]


def run_folder(results: Path, run: str) -> Path:
    """The folder of a run path."""
    return results / "runs" / run


class RunFiles:
    """The files of the runs of a results folder that become frames, each read once."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.csv_rows, self.figures, self.updates = cache(_csv_rows), cache(_figures), cache(_recorded)

    def folder(self, run: str) -> Path:
        """The folder of a run path."""
        return run_folder(self.results, run)


def used_options(spec: RunSpec) -> dict[str, Any]:
    """Every option of a spec, None where its method does not use it; a dense method has density 1."""
    used = options_of(spec.method)
    options = {name: getattr(spec, name) if name in used else None for name in FIELDS}
    return options if "density" in used else options | {"density": 1.0}


def published_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one history.csv as they are written, all cells text.

    Raises:
        UserError: if it is none.
    """
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a history ({error}); {ANEW}") from None


def live_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a history that is being written; a last line without its end is not there yet.

    Raises:
        UserError: if it is none.
    """
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if odd := [row for row in rows if not isinstance(row, dict)]:
            raise ValueError(f"{reprlib.repr(odd[0])} is no row")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a history ({error}); the training writes it anew when it goes on.") from None
    return rows


def _history(of: RunFiles, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    frame = _joined(of, specs, files.HISTORY, files.HISTORY_COLUMNS)
    for column in ("method", "dataset", "seed", "density"):
        frame[column] = frame["run"].map({run: used_options(spec)[column] for run, spec in specs.items()})
    frame["lr_start"] = frame["run"].map({run: spec.lr for run, spec in specs.items()})
    return frame


def _samples(of: RunFiles, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    asked = {run: spec for run, spec in specs.items() if (of.folder(run) / files.SAMPLES).exists()}
    frame = _joined(of, asked, files.SAMPLES, files.SAMPLES_COLUMNS)
    for run in asked:
        check_sealed(of.folder(run), files.SAMPLES)
    return frame.fillna({"numerics": 1})  # of versions that did not say


def _uncertainty(of: RunFiles, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    """The figures of every run; of a training that diverged there are none, and need be no file."""
    rows = [
        dict(zip(UNCERTAINTY_COLUMNS, (run, *cells), strict=True))
        for run in specs
        for cells in of.figures(of.folder(run))
    ]
    frame = _frame(of, rows, UNCERTAINTY_COLUMNS, UNCERTAINTY_WORDS, "level", files.UNCERTAINTY)
    for (part, name, metric), group in frame.groupby(["part", "name", "metric"], sort=False, dropna=False):
        # coverage and size of prediction sets, called as they are under shift
        called = f"{name}_{metric}" if part == "conformal" else str(metric)
        _check_range(group, "value", called, _problem(of, files.UNCERTAINTY))
    return frame


def _figures(folder: Path) -> list[list[str | None]]:
    """The rows of a run's uncertainty.csv, None for an empty cell."""
    path = folder / files.UNCERTAINTY
    with reading_once():
        if not os.path.exists(path):
            if read_record(folder / files.METRICS, status=str)["status"] == "diverged":
                return []
            raise UserError(f"{path}: no such file; make it: {files.measuring(path)}")
        rows = _csv_cells(path, UNCERTAINTY_COLUMNS[1:])
        check_sealed(folder, files.UNCERTAINTY)
    return [[one_line(cell) or None for cell in row] for row in rows]


def _joined(of: RunFiles, specs: Mapping[str, RunSpec], name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file of numbers of every run, one under the other, with the run in front.

    The files are joined as text and parsed at once, because a million rows are no rarity.

    Raises:
        UserError: naming the file that is missing, is damaged, or holds something else than numbers.
    """
    runs = list(specs)
    parts = [f"run,{','.join(columns)}\n"]
    for number, run in enumerate(runs):
        parts += [f"{number},{row}\n" for row in of.csv_rows(of.folder(run) / name, columns)]
    # an empty cell is none, and nothing else is
    as_written = {"quoting": csv.QUOTE_NONE, "keep_default_na": False, "na_values": [""]}
    frame = pd.read_csv(io.StringIO("".join(parts)), low_memory=False, **as_written)

    def problem(row: pd.Series, text: str) -> str:
        return f"{of.folder(runs[int(row['run'])]) / name}: {text}; {REMEDIES[name]}"

    _to_numbers(frame, columns, ("run", columns[0]), problem)
    frame["run"] = frame["run"].map(dict(enumerate(runs)))
    return frame


def _csv_rows(path: Path, columns: tuple[str, ...]) -> list[str]:
    """The rows of a CSV file as text, with the cells of these columns in this order.

    Another version may have written more columns, fewer, or in another order: a column that is not there is empty, one
    that is not asked for is left out. The first one tells of what a row is, and no version is without it.

    Raises:
        UserError: if the file has not that column, has a column twice, or a row with more or fewer cells than columns.
    """
    found, rows = _opened(path, columns)
    if found != list(columns):
        rows = [",".join(row) for row in _csv_cells(path, columns)]
    # also of cells that were quoted because a comma is in them, where numbers are to be
    if wrong := {row.count(",") + 1 for row in rows} - {len(columns)}:
        raise UserError(f"{path}: a row has {max(wrong)} cells instead of {len(columns)}; {REMEDIES[path.name]}")
    return rows


def _opened(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The columns of a CSV file, among them the first of these, and its rows as text."""
    first, _, rest = read_text(path).partition("\n")
    found, rows = first.split(","), rest.splitlines() if rest.strip() else []
    if columns[0] not in found:
        problem = f"{path}: has the columns {reprlib.repr(first)}, but no {columns[0]!r}"
        raise UserError(f"{problem}; {told_by_version(path.parent)}")
    if len(set(found)) < len(found):
        raise UserError(f"{path}: has a column twice ({reprlib.repr(first)}); {REMEDIES[path.name]}")
    return found, rows


def _csv_cells(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """The same with each row as its cells, of which words may be quoted."""
    found, rows = _opened(path, columns)
    places = [found.index(column) if column in found else len(found) for column in columns]
    try:
        table = list(csv.reader(rows))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {REMEDIES[path.name]}") from None
    if wrong := {len(row) for row in table} - {len(found)}:
        raise UserError(f"{path}: a row has {max(wrong)} cells instead of {len(found)}; {REMEDIES[path.name]}")
    return [list(map([*row, ""].__getitem__, places)) for row in table]


def _to_numbers(
    frame: pd.DataFrame,
    columns: Iterable[str],
    unique: Sequence[str],
    problem: Callable[[pd.Series, str], str],
) -> None:
    """Make columns numbers, in place, and refuse what they cannot be.

    Args:
        frame: what holds them.
        columns: their names.
        unique: the columns that tell a row from all others.
        problem: the line to raise for a row, and for what is wrong with it.

    Raises:
        UserError: at the first row that holds something else, or a number out of its range, or is there twice.
    """
    for column in columns:
        # pandas has read a column without anything else as numbers
        read = is_numeric_dtype(frame[column]) and not is_bool_dtype(frame[column])
        numbers = frame[column] if read else frame[column].astype(object).map(_number)
        bad = (numbers.isna() & frame[column].notna()) | numbers.abs().eq(math.inf)
        if bad.any():
            row = frame[bad].iloc[0]
            raise UserError(problem(row, f"{column} is {row[column]!r}, but must be a number"))
        frame[column] = numbers
        _check_range(frame, column, column, problem)
    if (twice := frame.duplicated(list(unique))).any():
        row = frame[twice].iloc[0]
        said = ", ".join(f"{name} {_plain(row[name])}" for name in unique if name != "run" and pd.notna(row[name]))
        raise UserError(problem(row, f"{said} is there twice"))


def _check_range(frame: pd.DataFrame, column: str, called: str, problem: Callable[[pd.Series, str], str]) -> None:
    """Refuse numbers of a column that what is `called` so cannot be."""
    numbers = frame[column]
    if (odd := numbers.notna() & ~ranges.inside(called, numbers)).any():
        row = frame[odd].iloc[0]
        raise UserError(problem(row, f"{called} is {row[column]:g}, but must be {ranges.allowed(called)}"))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _number(value: Any) -> float:
    """NaN for what is no number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _records(
    of: RunFiles, specs: Mapping[str, RunSpec], rows_of: Callable[[dict[str, Any], dict[str, Any]], list[Row]]
) -> list[Row]:
    """The rows that `rows_of` makes of every recorded subspace update and the columns that say which and when.

    Raises:
        UserError: naming the file that is missing, or is not such records.
    """
    rows = []
    for run in specs:
        folder = of.folder(run)
        steps, records = of.updates(folder)
        try:
            for record in records:
                at = {"run": run, "step": record["step"], "epoch": record["epoch"], "progress": record["step"] / steps}
                rows += rows_of(at, record)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"{folder / files.TOPOLOGY}: not a record of updates ({error!r})"
            raise UserError(f"{problem}; {told_by_version(folder)}") from None
    return rows


def _recorded(folder: Path) -> tuple[float, list[Any]]:
    """The number of a run's steps, and its records of updates."""
    return read_record(folder / files.METRICS, steps=float)["steps"], read_jsonl(folder / files.TOPOLOGY)


def _updates(of: RunFiles, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    def rows_of(at: dict[str, Any], record: dict[str, Any]) -> list[Row]:
        rows = []
        for position, layer in enumerate(record["layers"]):
            if not isinstance(layer["layer"], str):
                raise TypeError(f"layer is {layer['layer']!r}")
            quantiles = {
                f"{name}_{q}": value
                for name in ("sigma", "snr")
                for q, value in _quantiles(layer.get(name, {})).items()
            }
            named = {**layer, "layer": one_line(layer["layer"])}
            rows.append({**at, "drop_fraction": record["drop_fraction"], "position": position, **named, **quantiles})
        return rows

    return _frame(of, _records(of, specs, rows_of), UPDATE_COLUMNS, words=("run", "layer"))


def _quantiles(values: Mapping[str, float] | Sequence[float]) -> Mapping[str, float]:
    """Quantiles by name, of records with and without names."""
    return values if isinstance(values, dict) else dict(zip(UNNAMED_QUANTILES, values, strict=True))


def _overlap(of: RunFiles, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    def rows_of(at: dict[str, Any], record: dict[str, Any]) -> list[Row]:
        return [{**at, **pair} for pair in _pairs(record)] if "iou" in record else []

    return _frame(of, _records(of, specs, rows_of), OVERLAP_COLUMNS, words=("run", "first", "second"))


def _pairs(record: Mapping[str, Any]) -> list[Row]:
    """The measures of every pair of criteria that both the record and this version have.

    Raises:
        LookupError, TypeError, ValueError: if the record does not name each row and column of its matrices once.
    """
    names = record.get("criteria", UNNAMED_CRITERIA)
    if not isinstance(names, list | tuple) or len(set(names)) < len(names):
        raise ValueError(f"criteria is {names!r}")
    for measure in MEASURES:
        if [len(row) for row in record[measure]] != [len(names)] * len(names):
            raise ValueError(f"{measure} is not {len(names)} x {len(names)}")
    places = {name: names.index(name) for name in CRITERIA if name in names}
    return [
        {"first": a, "second": b, **{measure: record[measure][places[a]][places[b]] for measure in MEASURES}}
        for a, b in itertools.combinations(places, 2)
    ]


def _frame(
    of: RunFiles,
    rows: list[Row],
    columns: Sequence[str],
    words: Sequence[str],
    at: str = "step",
    file: str = files.TOPOLOGY,
) -> pd.DataFrame:
    """Rows that came of a file, told from each other by their words and the number `at`."""
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = [column for column in columns if column not in words]
    _to_numbers(frame, numbers, (*words, at), _problem(of, file))
    return frame


def _problem(of: RunFiles, file: str) -> Callable[[pd.Series, str], str]:
    """The line about a row that came of this file of its run."""

    def problem(row: pd.Series, text: str) -> str:
        folder = of.folder(row["run"])
        return f"{folder / file}: {text}; {REMEDIES[file] if file in REMEDIES else told_by_version(folder)}"

    return problem


READERS: dict[str, tuple[Callable[[RunFiles, Mapping[str, RunSpec]], pd.DataFrame], tuple[str, ...]]] = {
    "history": (_history, HISTORY_COLUMNS),
    "updates": (_updates, UPDATE_COLUMNS),
    "overlap": (_overlap, OVERLAP_COLUMNS),
    "samples": (_samples, SAMPLES_COLUMNS),
    "uncertainty": (_uncertainty, UNCERTAINTY_COLUMNS),
}
