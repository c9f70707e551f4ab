"""The files of a run folder: their names, and how they are read and written (always whole or not at all).

    spec.json           the full spec, written first, with the commit, versions and data it was made with
    live/               what a running training writes: checkpoint.pt, history.jsonl, topology.jsonl
    history.csv         a row an epoch                       |
    topology.jsonl      a record per kept subspace update    |  published by `ssvi train` when it ends
    model.safetensors   final parameters and masks           |
    training.json       status, seconds, memory, FLOPs       |
    predictions.npz     averaged test probabilities and labels   | written by `ssvi evaluate`
    metrics.json        every figure of the run, final           |
    samples.csv         metrics by the number of weight samples, written by `ssvi samples` where a figure needs it

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssvi.errors import UserError
from ssvi.spec import FIELDS, RunSpec, options_of, validate

SPEC = "spec.json"
HISTORY = "history.csv"
TOPOLOGY = "topology.jsonl"
MODEL = "model.safetensors"
TRAINING = "training.json"
PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
SAMPLES = "samples.csv"
LIVE = "live"
CHECKPOINT = "live/checkpoint.pt"
LIVE_HISTORY = "live/history.jsonl"
LIVE_TOPOLOGY = "live/topology.jsonl"

# Columns of history.csv, a row an epoch; empty where a method or a run does not have one.
HISTORY_COLUMNS = (
    "epoch",
    "step",
    "loss",
    "kl",
    "beta",
    "train_accuracy",
    "validation_accuracy",
    "lr",
    "active_weights",
    "sigma_mean",
    "test_accuracy",
    "seconds",
)

SAMPLES_COLUMNS = ("samples", "accuracy", "nll", "ece", "ece_marginal", "brier", "seconds")

# What `ssvi train` publishes; the folder is complete when all of them are there.
TRAINED = (SPEC, HISTORY, TOPOLOGY, MODEL, TRAINING)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinity are refused, because they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, with a one-line error that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); delete the run folder to train it anew.") from None


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that has to hold `keys`.

    Raises:
        UserError: if the file is missing, is not JSON, or lacks one of them.
    """
    record = read_json(path)
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise UserError(f"{path}: has no {missing[0]!r}; delete the run folder to train it anew.")
    return record


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def to_jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def write_csv(path: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write rows under the given columns; None becomes an empty cell."""
    lines = [columns, *([_cell(row.get(c)) for c in columns] for row in rows)]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    write_text(path, buffer.getvalue())


def _cell(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def is_trained(folder: Path) -> bool:
    """Whether a training of this folder has ended (completed or diverged) and published all its files."""
    return all((folder / name).is_file() for name in TRAINED)


def remove_live(folder: Path) -> None:
    """Delete what only a running training needs."""
    if (folder / LIVE).exists():
        shutil.rmtree(folder / LIVE)


def read_spec(folder: Path) -> RunSpec:
    """The spec a run folder was made with.

    Raises:
        UserError: if the file is missing, broken, or holds an option this version does not know.
    """
    return _spec_of(folder / SPEC, read_record(folder / SPEC, "spec"))


def _spec_of(path: Path, record: Mapping[str, Any]) -> RunSpec:
    if not isinstance(record["spec"], dict):
        raise UserError(f"{path}: has no 'spec'; delete the run folder to train it anew.")
    validate(record["spec"], where=str(path))
    return RunSpec(**record["spec"])


def check_spec(folder: Path, spec: RunSpec) -> dict[str, Any]:
    """Refuse a run folder that was made with other options, or other defaults, than `spec`.

    An option newer than the folder counts as at its default, which by rule changes nothing.

    Returns:
        what spec.json holds.

    Raises:
        UserError: naming each option, the value found and the value expected.
    """
    path = folder / SPEC
    record = read_record(path, "spec")
    # Most folders hold just what is expected, and that needs no second validation.
    if record["spec"] != dataclasses.asdict(spec):
        compare_specs(_spec_of(path, record), spec, path)
    return record


def compare_specs(found: RunSpec, spec: RunSpec, where: Path) -> None:
    """Refuse a `found` spec that differs from `spec` in an option the method uses.

    Raises:
        UserError: naming each such option with both values, and `where` it was found.
    """
    different = [
        f"{name} was {getattr(found, name)!r} and is now {getattr(spec, name)!r}"
        for name in FIELDS
        if name in options_of(spec.method) and getattr(found, name) != getattr(spec, name)
    ]
    if different:
        raise UserError(
            f"{where}: these results were made under other options or defaults: {'; '.join(different)}. "
            "Move or delete this run folder, or go back to the old option."
        )


def spec_record(spec: RunSpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What spec.json holds: every option, defaults included, and where the run came from."""
    return {"spec": dataclasses.asdict(spec), "provenance": dict(provenance)}
