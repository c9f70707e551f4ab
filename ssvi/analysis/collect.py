"""Gather run folders into two tidy frames: a row a run, and a row an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ssvi import runs as files
from ssvi.errors import UserError
from ssvi.spec import FIELDS, RunSpec, options_of

RUNS_CSV = "runs.csv"
HISTORY_CSV = "history.csv"

METRIC_COLUMNS = (
    "status",
    "cause",
    "diverged_epoch",
    "evaluation_samples",
    "evaluation_bins",
    "accuracy",
    "nll",
    "ece",
    "ece_marginal",
    "brier",
    "accuracy_best_test",
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
    "evaluation_seconds",
    "peak_memory_bytes",
    "images_per_second",
    "epochs_done",
    "steps",
)
PROVENANCE_COLUMNS = ("commit", "dirty", "device", "host_cpus", "threads", "ssvi", "torch", "python", "data", "started")
RUN_COLUMNS = ("run", *FIELDS, *METRIC_COLUMNS, *PROVENANCE_COLUMNS)

# `lr` is the epoch's own learning rate, so the one of the spec needs another name here.
HISTORY_COLUMNS = ("run", "method", "dataset", "seed", "density", "lr_start", *files.HISTORY_COLUMNS)


def run_folder(results: Path, run: str) -> Path:
    """The folder of a run path."""
    return results / "runs" / run


def load_runs(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    """One row a run: its path, options, metrics and provenance.

    Options that a method does not use are empty; the density of a dense method is 1. `density` is
    the one asked for, `density_actual` the measured one.

    Raises:
        UserError: if a run is unfinished, unreadable, was made under other options than its spec, or on
            other images than the runs beside it.
    """
    rows = [_run_row(results, run, spec) for run, spec in specs.items()]
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    _check_same_data(frame)
    return frame


def _check_same_data(runs: pd.DataFrame) -> None:
    """Refuse to put runs side by side that were trained on different images under one name."""
    for (dataset, _), group in runs.groupby(["dataset", "image_size"]):
        first = group.iloc[0]
        for _, other in group[group["data"] != first["data"]].iterrows():
            raise UserError(
                f"{other['run']}: was trained on other images of {dataset!r} than {first['run']} (fingerprints "
                f"{str(other['data'])[:12]} and {str(first['data'])[:12]}); delete the folders of the older runs."
            )


def load_history(results: Path, specs: Mapping[str, RunSpec]) -> pd.DataFrame:
    """One row an epoch of every run, after the columns that say which run it is.

    Raises:
        UserError: as `load_runs`, or for a history that holds something else than numbers.
    """
    rows: list[dict[str, Any]] = []
    for run, spec in specs.items():
        folder = run_folder(results, run)
        files.check_spec(folder, spec)
        options = used_options(spec)
        known = {name: options[name] for name in ("method", "dataset", "seed", "density")}
        rows += [{"run": run, **known, "lr_start": spec.lr, **row} for row in read_history(folder)]
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def used_options(spec: RunSpec) -> dict[str, Any]:
    """Every option of a spec, None where its method does not use it; a dense method has density 1."""
    used = options_of(spec.method)
    options = {name: getattr(spec, name) if name in used else None for name in FIELDS}
    return options if "density" in used else options | {"density": 1.0}


def read_history(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run's history.csv as numbers, None for an empty cell.

    Raises:
        UserError: if the file is missing or a cell is not a number.
    """
    path = folder / files.HISTORY
    try:
        with path.open(newline="") as file:
            return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a history ({error}); delete the run folder to train it anew.") from None


def _run_row(results: Path, run: str, spec: RunSpec) -> dict[str, Any]:
    folder = run_folder(results, run)
    files.check_spec(folder, spec)
    metrics = files.read_json(folder / files.METRICS)
    provenance = files.read_json(folder / files.SPEC).get("provenance", {})
    evaluation = metrics.get("evaluation") or {}
    measured = {
        "evaluation_samples": evaluation.get("samples"),
        "evaluation_bins": evaluation.get("bins"),
        "density_actual": metrics.get("density"),
    }
    measured |= {name: metrics.get(name) for name in METRIC_COLUMNS if name not in measured}
    return {
        "run": run,
        **used_options(spec),
        **measured,
        **{name: provenance.get(name) for name in PROVENANCE_COLUMNS},
    }


def write_collected(results: Path, specs: Mapping[str, RunSpec], out: Path) -> None:
    """Write `out`/runs.csv and `out`/history.csv, each atomically."""
    for name, frame in ((RUNS_CSV, load_runs(results, specs)), (HISTORY_CSV, load_history(results, specs))):
        files.write_text(out / name, frame.to_csv(index=False, lineterminator="\n"))


def read_collected(folders: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs and the history of several collected experiments, a run that they share once.

    Raises:
        UserError: if a folder was not written by `write_collected`, or runs saw different images.
    """
    runs = [_read_csv(folder / RUNS_CSV, RUN_COLUMNS) for folder in folders]
    history = [_read_csv(folder / HISTORY_CSV, HISTORY_COLUMNS) for folder in folders]
    together = _together(runs, ["run"], RUN_COLUMNS)
    _check_same_data(together)
    return together, _together(history, ["run", "epoch"], HISTORY_COLUMNS)


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; collect the experiment first.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); collect the experiment anew.") from None
    if missing := [name for name in columns if name not in frame]:
        raise UserError(f"{path}: has no column {missing[0]!r}; collect the experiment anew.")
    return frame


def _together(frames: list[pd.DataFrame], key: list[str], columns: tuple[str, ...]) -> pd.DataFrame:
    # Object columns, because joining an empty column with a filled one must not change a number's type.
    joined = (
        pd.concat([f.astype(object) for f in frames], ignore_index=True)
        if frames
        else pd.DataFrame([], columns=list(columns))
    )
    return joined.drop_duplicates(key, ignore_index=True).infer_objects()
