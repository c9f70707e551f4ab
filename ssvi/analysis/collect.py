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
from ssvi.analysis import ranges
from ssvi.analysis.made import completed
from ssvi.errors import UserError
from ssvi.evaluated import check_metrics, check_samples
from ssvi.spec import CRITERIA, FIELDS, RunSpec, options_of, parents, run_path

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
    "step_seconds",
    "parent_flops",
    "parent_seconds",
    "evaluation_seconds",
    "peak_memory_bytes",
    "images_per_second",
    "epochs_done",
    "steps",
    "machines",
)
PROVENANCE_COLUMNS = (
    *("commit", "dirty", "device", "cpu", "computed_precision", "host_cpus", "threads"),
    *("ssvi", "numerics", "torch", "python", "data", "started", "network", "verified"),
)
WORDS = {
    *("status", "cause", "commit", "device", "cpu", "computed_precision"),
    *("ssvi", "torch", "python", "data", "started", "network"),
}
TRUTHS = {"dirty", "verified"}
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

COMPLETE, DIVERGED, REFUSED = "complete", "diverged", "refused"

Row = dict[str, Any]


@dataclass(frozen=True)
class Frames:
    """What tables and figures are made from; all but `runs` are empty unless asked for.

    Attributes:
        runs: a row a run: path, options, metrics, provenance (`RUN_COLUMNS`). `status` is `complete`, `diverged`,
            `refused` or, where a partial report was asked for, `failed`, `in training` or `missing`. `verified` says
            whether the files of its folder say of each other that they belong together (not in formats before 3),
            `network` is the fingerprint of its model.
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

    A run is refused, and left out of all frames but `runs`, where its status is then `refused` and its cause says why:
    its files are missing, unreadable, impossible, not of one training, or made under other options or on other images;
    or it is a copy. The others go on.

    Args:
        results: the results folder.
        specs: run paths and their specs.
        needs: which of history, updates, overlap, samples to read beside the runs.
        partial: name unfinished runs by how far they have got instead of refusing them.
        evaluation: `evaluation` of the config, under which all of them must have been evaluated; None takes them as
            they are.
    """
    runs = load_runs(results, specs, partial=partial, evaluation=evaluation)
    finished = _finished(runs, specs)
    try:
        more = _read(results, finished, needs, evaluation)
    except UserError:
        # The files of all runs are parsed at once, so which of them are to blame is asked for only now.
        found = {run: _problem(results, {run: spec}, needs, evaluation) for run, spec in finished.items()}
        runs = _refused(runs, {run: cause for run, cause in found.items() if cause})
        more = _read(results, _finished(runs, specs), needs, evaluation)
    return Frames(runs, **more)


def _finished(runs: pd.DataFrame, specs: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
    return {run: specs[run] for run in runs.loc[runs["status"].isin([COMPLETE, DIVERGED]), "run"]}


def _read(
    results: Path, specs: Mapping[str, RunSpec], needs: Collection[str], evaluation: Mapping[str, int] | None
) -> dict[str, pd.DataFrame]:
    """The frames beside the runs.

    Raises:
        UserError: at the first file that is unusable, or was made otherwise than the config says.
    """
    frames = {
        name: read(results, specs)[list(columns)] if name in needs else pd.DataFrame([], columns=list(columns))
        for name, (read, columns) in READERS.items()
    }
    for run in frames["samples"]["run"].unique() if evaluation is not None else ():
        check_samples(run_folder(results, run) / files.SAMPLES, specs[run], evaluation)
    return frames


def _problem(
    results: Path, spec: Mapping[str, RunSpec], needs: Collection[str], evaluation: Mapping[str, int] | None
) -> str | None:
    try:
        _read(results, spec, needs, evaluation)
    except UserError as error:
        return str(error)
    return None


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
    """One row a run: its path, options, metrics and provenance; of one that is refused, the cause.

    Options that a method does not use are empty; the density of a dense method is 1. `density` is
    the one asked for, `density_actual` the measured one.
    """
    rows = []
    for run, spec in specs.items():
        unfinished = partial and not (run_folder(results, run) / files.METRICS).is_file()
        try:
            row = _unfinished_row(results, run, spec) if unfinished else _run_row(results, run, spec, evaluation)
        except UserError as error:
            row = {"run": run, **used_options(spec), "status": REFUSED, "cause": str(error)}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    frame = _refused(frame, _on_other_images(frame))
    return _refused(frame, _copies(frame))


def _refused(runs: pd.DataFrame, causes: Mapping[str, str]) -> pd.DataFrame:
    """The runs, some of which are refused for a cause: of those the options stay, and nothing that was measured."""
    if not causes:
        return runs
    kept = ("run", *FIELDS)
    rows = [
        {**{name: row[name] for name in kept}, "status": REFUSED, "cause": causes[row["run"]]}
        if row["run"] in causes
        else row
        for row in runs.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _on_other_images(runs: pd.DataFrame) -> dict[str, str]:
    """Why runs are refused that were trained on other images than most of the same data set: by run path."""
    causes = {}
    for (dataset, _), group in runs[runs["data"].notna()].groupby(["dataset", "image_size"], dropna=False):
        usual = group["data"].mode().iloc[0] if group["data"].nunique() > 1 else group["data"].iloc[0]
        others = group[group["data"] == usual]
        for _, row in group[group["data"] != usual].iterrows():
            causes[row["run"]] = (
                f"{row['run']}: was trained on other images of {dataset!r} than {others.iloc[0]['run']} (fingerprints "
                f"{row['data'][:12]} and {usual[:12]}, the latter of {len(others)} runs); keep the runs on other "
                "images elsewhere."
            )
    return causes


def _copies(runs: pd.DataFrame) -> dict[str, str]:
    """Why runs are refused that have the very network, or results, of another one with another seed: by run path.

    No two seeds give the same; a copy would make an interval of no width.
    """
    done = runs[runs["status"] == COMPLETE]
    options = [name for name in FIELDS if name != "seed"]
    causes = {}
    for same in ([*options, "network"], [*options, "nll", "brier", "ece"]):
        # the numbers of a checked folder are its own: two networks that say the same of every image are no copies
        rows = done[done["network"].notna()] if same[-1] == "network" else done[~done["verified"].eq(True)]
        for _, group in rows.groupby(same, dropna=False, sort=False):
            first, *others = group["run"]
            what = "network" if same[-1] == "network" else "results"
            causes |= {run: f"{run}: has the very {what} of {first}; one of the two is a copy." for run in others}
    return causes


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
    verified = files.check_ties(folder, files.TRAINING) and files.check_ties(folder, files.METRICS)
    if verified:
        _check_parents(results, folder, spec)
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
    origin = completed(stored.get("provenance", {}), metrics.get("sessions"), spec)
    origin |= {"network": metrics["files"].get(files.MODEL) if verified else None, "verified": verified}
    measured["machines"] = origin["machines"]
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


def _check_parents(results: Path, folder: Path, spec: RunSpec) -> None:
    """Refuse a run that started from another training of a parent than lies there now, and so belongs to none."""
    started = files.read_record(folder / files.TRAINING, parents=dict)["parents"]
    for parent in map(run_path, parents(spec)):
        path = run_folder(results, parent) / files.MODEL
        if path.exists() and started.get(parent) != files.identity(path):
            raise UserError(
                f"{folder / files.TRAINING}: started from another {path} than lies there now; bring that one back, "
                "or delete the run folder to train it anew."
            )


def _check_values(path: Path, values: Mapping[str, Any]) -> None:
    """Each a number of its range unless named in `WORDS` or `TRUTHS`, or None."""
    for name, value in values.items():
        kind = str if name in WORDS else bool if name in TRUTHS else float
        if value is not None and not (files.is_number(value) if kind is float else isinstance(value, kind)):
            must = {str: "a word", bool: "true or false", float: "a number"}[kind]
            problem = f"{path}: {name} is {reprlib.repr(value)}, but must be {must}"
            raise UserError(f"{problem}; {files.told_by_version(path.parent)}")
        if value is not None and kind is float and not ranges.inside(name, value):
            problem = f"{path}: {name} is {value!r}, but must be {ranges.allowed(name)}"
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
    for run in asked:
        files.check_samples(run_folder(results, run))
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
        if (odd := numbers.notna() & ~ranges.inside(column, numbers)).any():
            row = frame[odd].iloc[0]
            raise UserError(problem(row, f"{column} is {numbers[row.name]:g}, but must be {ranges.allowed(column)}"))
        frame[column] = numbers
    if (twice := frame.duplicated(list(unique))).any():
        row = frame[twice].iloc[0]
        said = ", ".join(f"{name} {_plain(row[name])}" for name in unique if name != "run")
        raise UserError(problem(row, f"{said} is there twice"))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


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

    numbers = [column for column in columns if column not in words]
    _to_numbers(frame, numbers, (*words, "step"), problem)
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
