"""Run folders as tidy frames: a row a run, an epoch, a layer at an update, a pair of criteria, a sample size."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ssvi import runs as files
from ssvi.errors import UserError
from ssvi.evaluated import check_metrics, check_samples
from ssvi.spec import CRITERIA, FIELDS, RunSpec, options_of

METRIC_COLUMNS = (
    "status",
    "cause",
    "diverged_epoch",
    "evaluation_samples",
    "evaluation_bins",
    "evaluation_numerics",
    "accuracy",
    "nll",
    "ece",
    "ece_marginal",
    "brier",
    "temperature",
    "nll_scaled",
    "ece_scaled",
    "ece_marginal_scaled",
    "brier_scaled",
    "predictive_entropy",
    "mutual_information",
    "mutual_information_share",
    "accuracy_best_test",
    "best_epoch",
    "accuracy_best_checkpoint",
    "nll_best_checkpoint",
    "ece_best_checkpoint",
    "ece_marginal_best_checkpoint",
    "brier_best_checkpoint",
    "test_images",
    "density_actual",
    "sparsity",
    "active_weights",
    "maskable_weights",
    "complexity",
    "stored_numbers",
    "stored_bytes",
    "training_flops",
    "training_flops_dense",
    "inference_flops",
    "training_seconds",
    "parent_flops",
    "parent_seconds",
    "evaluation_seconds",
    "peak_memory_bytes",
    "images_per_second",
    "epochs_done",
    "steps",
)
PROVENANCE_COLUMNS = (
    *("commit", "dirty", "device", "computed_precision", "host_cpus", "threads"),
    *("ssvi", "numerics", "torch", "python", "data", "started"),
)
WORDS = {"status", "cause", "commit", "device", "computed_precision", "ssvi", "torch", "python", "data", "started"}
TRUTHS = {"dirty"}
# What every run has that did not diverge.
RESULTS = ("accuracy", "nll", "ece", "ece_marginal", "brier")
RUN_COLUMNS = ("run", *FIELDS, *METRIC_COLUMNS, *PROVENANCE_COLUMNS)

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

# What stands where in records of updates that carry no names: those of format 1, which had one order alone.
UNNAMED_CRITERIA = ("abs_mu", "snr", "e_abs", "snr_abs", "e_exp", "snr_exp")
UNNAMED_QUANTILES = ("q05", "q25", "q50", "q75", "q95")

# What to do where a CSV file of a run folder is damaged.
REMEDIES = {files.HISTORY: files.ANEW, files.SAMPLES: "delete this file to measure it anew."}

COMPLETE, DIVERGED = "complete", "diverged"

Row = dict[str, Any]


@dataclass(frozen=True)
class Frames:
    """What tables and figures are made from; all but `runs` are empty unless asked for.

    Attributes:
        runs: a row a run: path, options, metrics, provenance (`RUN_COLUMNS`). `status` is `complete`, `diverged`,
            or, where a partial report was asked for, `failed`, `in training` or `missing`.
        history: a row an epoch (`HISTORY_COLUMNS`).
        updates: a row a layer and recorded subspace update (`UPDATE_COLUMNS`); `progress` is step / all steps.
        overlap: a row a pair of removal criteria and recorded update (`OVERLAP_COLUMNS`), `first` before `second`
            in the order of `CRITERIA`; a criterion that this version does not have is in none.
        samples: a row a number of weight samples (`SAMPLES_COLUMNS`).
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    updates: pd.DataFrame
    overlap: pd.DataFrame
    samples: pd.DataFrame


def load_frames(
    results: Path,
    specs: Mapping[str, RunSpec],
    needs: Collection[str] = (),
    *,
    partial: bool = False,
    evaluation: Mapping[str, int] | None = None,
) -> Frames:
    """The frames of these runs.

    Args:
        results: the results folder.
        specs: run paths and their specs.
        needs: which of history, updates, overlap, samples to read beside the runs.
        partial: name unfinished runs by their status instead of refusing them.
        evaluation: `evaluation` of the config, under which all of them must have been evaluated; None takes them as
            they are.

    Raises:
        UserError: if a run is unreadable, was made under other options than its spec, on other images than the
            runs beside it, was evaluated otherwise, or is unfinished and `partial` is false.
    """
    runs = load_runs(results, specs, partial=partial, evaluation=evaluation)
    finished = {run: specs[run] for run in runs.loc[runs["status"].isin([COMPLETE, DIVERGED]), "run"]}
    more = {
        name: read(results, finished)[list(columns)] if name in needs else pd.DataFrame([], columns=list(columns))
        for name, (read, columns) in READERS.items()
    }
    if evaluation is not None:
        for run in more["samples"]["run"].unique():
            check_samples(run_folder(results, run) / files.SAMPLES, specs[run], evaluation)
    return Frames(runs, **more)


def run_folder(results: Path, run: str) -> Path:
    """The folder of a run path."""
    return results / "runs" / run


def load_runs(
    results: Path,
    specs: Mapping[str, RunSpec],
    *,
    partial: bool = False,
    evaluation: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """One row a run: its path, options, metrics and provenance.

    Options that a method does not use are empty; the density of a dense method is 1. `density` is
    the one asked for, `density_actual` the measured one.

    Raises:
        UserError: as `load_frames`.
    """
    rows = []
    for run, spec in specs.items():
        unfinished = partial and not (run_folder(results, run) / files.METRICS).is_file()
        rows.append(_unfinished_row(results, run, spec) if unfinished else _run_row(results, run, spec, evaluation))
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    _check_same_data(frame)
    return frame


def _check_same_data(runs: pd.DataFrame) -> None:
    """Refuse to put runs side by side that were trained on different images under one name."""
    for (dataset, _), group in runs[runs["data"].notna()].groupby(["dataset", "image_size"]):
        first = group.iloc[0]
        for _, other in group[group["data"] != first["data"]].iterrows():
            raise UserError(
                f"{other['run']}: was trained on other images of {dataset!r} than {first['run']} (fingerprints "
                f"{str(other['data'])[:12]} and {str(first['data'])[:12]}); keep the runs on other images elsewhere."
            )


def _unfinished_row(results: Path, run: str, spec: RunSpec) -> dict[str, Any]:
    """A run without metrics: failed (with the last words of its log), in training, or not begun."""
    status, cause = "missing", None
    if (run_folder(results, run) / files.LIVE).is_dir():
        status = "in training"
    for step in ("evaluate", "train"):
        log = results / "logs" / step / f"{run}.log"
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
        if said and not PROGRESS.search(said[-1]):
            status, cause = "failed", said[-1].strip().removeprefix("ssvi: ")
            break
    return {"run": run, **used_options(spec), "status": status, "cause": cause}


# The last line of a log whose command was still at work, or had done its work, when it was looked at.
PROGRESS = re.compile(r"^epoch \d|^note: |: trained in |: already trained|: stopped by SIG|^accuracy ")


def used_options(spec: RunSpec) -> dict[str, Any]:
    """Every option of a spec, None where its method does not use it; a dense method has density 1."""
    used = options_of(spec.method)
    options = {name: getattr(spec, name) if name in used else None for name in FIELDS}
    return options if "density" in used else options | {"density": 1.0}


def _run_row(results: Path, run: str, spec: RunSpec, wanted: Mapping[str, int] | None = None) -> dict[str, Any]:
    folder = run_folder(results, run)
    stored = files.check_spec(folder, spec)
    path = folder / files.METRICS
    metrics = files.read_record(path, status=str)
    evaluation = metrics.get("evaluation") or {}
    if not isinstance(evaluation, dict):
        raise UserError(f"{path}: evaluation is {reprlib.repr(evaluation)}, but must be an object; evaluate it anew.")
    measured = {
        "evaluation_samples": evaluation.get("samples"),
        "evaluation_bins": evaluation.get("bins"),
        "evaluation_numerics": metrics.get("evaluation_numerics", 1),
        "density_actual": metrics.get("density"),
    }
    measured |= {name: metrics.get(name) for name in METRIC_COLUMNS if name not in measured}
    # versions that did not say computed by numerics 1
    origin = {"numerics": 1} | stored.get("provenance", {})
    provenance = {name: origin.get(name) for name in PROVENANCE_COLUMNS}
    _check_values(path, measured)
    _check_values(folder / files.SPEC, provenance)
    if measured["status"] not in (COMPLETE, DIVERGED):
        raise UserError(f"{path}: status is {measured['status']!r}, but must be {COMPLETE} or {DIVERGED}.")
    if measured["status"] == COMPLETE and (missing := [name for name in RESULTS if measured[name] is None]):
        raise UserError(f"{path}: has no {missing[0]!r}; evaluate the run anew.")
    if wanted is not None:
        check_metrics(path, metrics, spec, wanted)
    return {"run": run, **used_options(spec), **measured, **provenance}


def _check_values(path: Path, values: Mapping[str, Any]) -> None:
    """Each a number unless named in `WORDS` or `TRUTHS`, or None."""
    for name, value in values.items():
        kind = str if name in WORDS else bool if name in TRUTHS else float
        if value is not None and not (files.is_number(value) if kind is float else isinstance(value, kind)):
            must = {str: "a word", bool: "true or false", float: "a number"}[kind]
            problem = f"{path}: {name} is {reprlib.repr(value)}, but must be {must}"
            raise UserError(f"{problem}; {files.told_by_version(path.parent)}")


def _history(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    frame = _joined(results, specs, files.HISTORY, files.HISTORY_COLUMNS)
    for column in ("method", "dataset", "seed", "density"):
        frame[column] = frame["run"].map({run: used_options(spec)[column] for run, spec in specs.items()})
    frame["lr_start"] = frame["run"].map({run: spec.lr for run, spec in specs.items()})
    return frame


def _samples(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    asked = {run: spec for run, spec in specs.items() if (run_folder(results, run) / files.SAMPLES).is_file()}
    frame = _joined(results, asked, files.SAMPLES, files.SAMPLES_COLUMNS)
    return frame.fillna({"numerics": 1})  # of versions that did not say


def _joined(results: Path, specs: Mapping[str, RunSpec], name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file of numbers of every run, one under the other, with the run in front.

    The files are joined as text and parsed at once, because a million rows are no rarity.

    Raises:
        UserError: naming the file that is missing, is damaged, or holds something else than numbers.
    """
    runs = list(specs)
    parts = [f"run,{','.join(columns)}\n"]
    for number, run in enumerate(runs):
        parts += [f"{number},{row}\n" for row in _csv_rows(run_folder(results, run) / name, columns)]
    frame = pd.read_csv(io.StringIO("".join(parts)), low_memory=False, quoting=csv.QUOTE_NONE)

    def problem(row: pd.Series, text: str) -> str:
        return f"{run_folder(results, runs[int(row['run'])]) / name}: {text}; {REMEDIES[name]}"

    _to_numbers(frame, columns, problem)
    frame["run"] = frame["run"].map(dict(enumerate(runs)))
    return frame


def _csv_rows(path: Path, columns: tuple[str, ...]) -> list[str]:
    """The rows of a CSV file as text, with the cells of these columns in this order.

    Another version may have written more columns, fewer, or in another order: a column that is not there is empty, one
    that is not asked for is left out. The first one tells of what a row is, and no version is without it.

    Raises:
        UserError: if the file has not that column, has a column twice, or a row with more or fewer cells than columns.
    """
    first, _, rest = files.read_text(path).partition("\n")
    found, rows = first.split(","), rest.splitlines() if rest.strip() else []
    if columns[0] not in found:
        problem = f"{path}: has the columns {reprlib.repr(first)}, but no {columns[0]!r}"
        raise UserError(f"{problem}; {files.told_by_version(path.parent)}")
    if len(set(found)) < len(found):
        raise UserError(f"{path}: has a column twice ({reprlib.repr(first)}); {REMEDIES[path.name]}")
    if found != list(columns):
        rows = _reordered(path, rows, found, columns)
        found = list(columns)
    if wrong := {row.count(",") + 1 for row in rows} - {len(found)}:
        raise UserError(f"{path}: a row has {max(wrong)} cells instead of {len(found)}; {REMEDIES[path.name]}")
    return rows


def _reordered(path: Path, rows: list[str], found: list[str], columns: tuple[str, ...]) -> list[str]:
    """Rows with the cells of other columns than they were written with; words in those left out may be quoted."""
    places = [found.index(column) if column in found else len(found) for column in columns]
    try:
        table = list(csv.reader(rows))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {REMEDIES[path.name]}") from None
    if wrong := {len(row) for row in table} - {len(found)}:
        raise UserError(f"{path}: a row has {max(wrong)} cells instead of {len(found)}; {REMEDIES[path.name]}")
    return [",".join(map([*row, ""].__getitem__, places)) for row in table]


def _to_numbers(frame: pd.DataFrame, columns: Iterable[str], problem: Callable[[pd.Series, str], str]) -> None:
    """Make columns numbers, in place.

    Args:
        frame: what holds them.
        columns: their names.
        problem: the line to raise for a row, and for what is wrong with it.

    Raises:
        UserError: at the first row that holds something else, or an infinite number.
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


def _number(value: Any) -> float:
    """NaN for what is no number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _records(
    results: Path, specs: Mapping[str, RunSpec], rows_of: Callable[[dict[str, Any], dict[str, Any]], list[Row]]
) -> list[Row]:
    """The rows that `rows_of` makes of every recorded subspace update and the columns that say which and when.

    Raises:
        UserError: naming the file that is missing, or is not such records.
    """
    rows = []
    for run in specs:
        folder = run_folder(results, run)
        path = folder / files.TOPOLOGY
        steps = files.read_record(folder / files.METRICS, steps=float)["steps"]
        try:
            for record in files.read_jsonl(path):
                at = {"run": run, "step": record["step"], "epoch": record["epoch"], "progress": record["step"] / steps}
                rows += rows_of(at, record)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"{path}: not a record of updates ({error!r})"
            raise UserError(f"{problem}; {files.told_by_version(folder)}") from None
    return rows


def _updates(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
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
            rows.append({**at, "drop_fraction": record["drop_fraction"], "position": position, **layer, **quantiles})
        return rows

    return _frame(results, _records(results, specs, rows_of), UPDATE_COLUMNS, words=("run", "layer"))


def _quantiles(values: Mapping[str, float] | Sequence[float]) -> Mapping[str, float]:
    """Quantiles by name, of records with and without names."""
    return values if isinstance(values, dict) else dict(zip(UNNAMED_QUANTILES, values, strict=True))


def _overlap(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    def rows_of(at: dict[str, Any], record: dict[str, Any]) -> list[Row]:
        return [{**at, **pair} for pair in _pairs(record)] if "iou" in record else []

    return _frame(results, _records(results, specs, rows_of), OVERLAP_COLUMNS, words=("run", "first", "second"))


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


def _frame(results: Path, rows: list[Row], columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))

    def problem(row: pd.Series, text: str) -> str:
        folder = run_folder(results, row["run"])
        return f"{folder / files.TOPOLOGY}: {text}; {files.told_by_version(folder)}"

    _to_numbers(frame, [column for column in columns if column not in words], problem)
    return frame


READERS: dict[str, tuple[Callable[[Path, Mapping[str, RunSpec]], pd.DataFrame], tuple[str, ...]]] = {
    "history": (_history, HISTORY_COLUMNS),
    "updates": (_updates, UPDATE_COLUMNS),
    "overlap": (_overlap, OVERLAP_COLUMNS),
    "samples": (_samples, SAMPLES_COLUMNS),
}


def write_collected(frames: Frames, out: Path) -> None:
    """Write the runs and whichever other frames are not empty as CSV files into `out`, each atomically."""
    for name in ("runs", *READERS):
        frame = getattr(frames, name)
        if name == "runs" or len(frame):
            files.write_text(out / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
