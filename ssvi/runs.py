"""The files of a run folder: their names, and how they are read and written (always whole or not at all).

    spec.json           the format of these files, the full spec, written first, with the commit, versions and data it
                        was made with
    live/               what a training needs to go on, from its start to its evaluation: checkpoint.pt and the one
                        before it, history.jsonl, topology.jsonl, lock, owner.json
    history.csv         a row an epoch                       |
    topology.jsonl      a record per kept subspace update    |  published by `ssvi train` when it ends
    model.safetensors   final parameters and masks           |
    training.json       status, seconds, memory, FLOPs       |
    best.safetensors    the network of the epoch with the best test accuracy, where a spec asks to `record_best_test`
    predictions.npz     averaged test probabilities and labels   | written by `ssvi evaluate`
    metrics.json        every figure of the run, final           |
    samples.csv         metrics by the number of weight samples, written by `ssvi samples` where a figure needs it

Whatever could come in another order under another version is written with its name, and read by it. `FORMAT` counts
the changes that an older version would misread. How files of two runs in one folder are noticed: `ssvi.ties`.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssvi import __version__, plugins
from ssvi.disk import check_replaceable, remove_leftovers
from ssvi.disk import write_bytes as write_bytes  # the writers of these files are called by this module's name too
from ssvi.disk import write_json as write_json
from ssvi.disk import write_text as write_text
from ssvi.errors import UserError, told
from ssvi.spec import FIELDS, RunSpec, options_of, validate

SPEC = "spec.json"
HISTORY = "history.csv"
TOPOLOGY = "topology.jsonl"
MODEL = "model.safetensors"
BEST_MODEL = "best.safetensors"
TRAINING = "training.json"
PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
SAMPLES = "samples.csv"
LIVE = "live"
CHECKPOINT = "live/checkpoint.pt"
PREVIOUS_CHECKPOINT = "live/checkpoint.previous.pt"
LIVE_HISTORY = "live/history.jsonl"
LIVE_TOPOLOGY = "live/topology.jsonl"
LOCK = "live/lock"
OWNER = "live/owner.json"

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
    "step_seconds",
)

SAMPLES_COLUMNS = (
    *("samples", "accuracy", "nll", "ece", "ece_marginal", "brier"),
    *("predictive_entropy", "mutual_information", "mutual_information_share", "seconds", "bins", "numerics"),
)

# What `ssvi train` publishes; the folder is complete when all of them are there.
TRAINED = (SPEC, HISTORY, TOPOLOGY, MODEL, TRAINING)
# All that it writes.
WRITTEN = (*TRAINED, BEST_MODEL, CHECKPOINT, LIVE_HISTORY, LIVE_TOPOLOGY, OWNER)
# What is in `live/`; the lock goes last, because whoever waits for it begins when it is gone.
IN_LIVE = (CHECKPOINT, PREVIOUS_CHECKPOINT, LIVE_HISTORY, LIVE_TOPOLOGY, OWNER, LOCK)

# By what the files of a run folder are told from others of their names; what is empty is nobody's loss.
SIGNS = {
    SPEC: rb'"spec"\s*:\s*\{',
    HISTORY: rb"\A([a-z_]+,)*epoch\b",
    TOPOLOGY: rb'\A\{.*"step"',
    MODEL: rb"\A[^\0].{5}\0\0\{",
    BEST_MODEL: rb"\A[^\0].{5}\0\0\{",
    TRAINING: rb'"status"\s*:\s*"(complete|diverged)"',
    METRICS: rb'"status"\s*:\s*"(complete|diverged)"',
    PREDICTIONS: rb"\APK",
    SAMPLES: rb"\A([a-z_]+,)*samples\b",
    CHECKPOINT: rb"\Assvi checkpoint ",
    PREVIOUS_CHECKPOINT: rb"\Assvi checkpoint ",
    LIVE_HISTORY: rb'\A\{.*"epoch"',
    LIVE_TOPOLOGY: rb'\A\{.*"step"',
    OWNER: rb'"process"\s*:\s*\d',
    LOCK: rb"\A\Z",
}
SIGN_BYTES = 1 << 16

# Of the files of a run folder; spec.json says it, but not in folders of format 1. Raised when a version before would
# misread what is written now; what was written before stays readable.
#   2: the overlap matrices and the quantiles of topology.jsonl carry names.
#   3: the files of a folder are tied together.
FORMAT = 3

# What to do where a file of a run folder is not what was written: damage alone, nothing that another version may have
# written. For that there is `told_by_version`.
ANEW = "delete the run folder to train it anew."
EVALUATE_ANEW = "let `ssvi evaluate` make it anew."
MEASURE_ANEW = "delete this file to measure it anew."
WORDS = {str: "a word", dict: "an object", float: "a number"}


def anew(path: Path) -> str:
    """What to do where this file of a run folder is damaged."""
    return {METRICS: EVALUATE_ANEW, SAMPLES: MEASURE_ANEW}.get(path.name, ANEW)


def read_text(path: Path) -> str:
    """A text file, with a one-line error that names it.

    Raises:
        UserError: if the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: is not a file.")  # but a pipe, say, that nobody ever writes to
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(told(error)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as text ({error}); {anew(path)}") from None


def told_by_version(folder: Path) -> str:
    """The end of a line about a file of a run folder that is whole but not as expected.

    The cause may be another version, and then nothing is lost; which one wrote the folder is said as far as its
    spec.json can be read.
    """
    try:
        provenance = json.loads((folder / SPEC).read_text(encoding="utf-8"))["provenance"]
        version, commit = provenance["ssvi"], provenance["commit"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        version = commit = None
    known = isinstance(version, str) and version.isprintable()
    who = f"ssvi {version[:20]}" if known else "a version that spec.json does not name"
    if isinstance(commit, str) and commit.isprintable():
        who += f" (commit {commit[:12]})"
    return f"this is ssvi {__version__}, and {who} wrote it: read it with that one, or restore what was changed since."


def read_json(path: Path) -> Any:
    """Read a JSON file, with a one-line error that names it."""
    return _parsed(read_text(path), path)


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {anew(path)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def read_record(path: Path, *keys: str, **kinds: type) -> dict[str, Any]:
    """A JSON object that has to hold all these keys, `kinds` with a value of that type (float: of any finite number).

    Raises:
        UserError: if the file is missing, is not JSON, or is not such an object.
    """
    record = read_json(path)
    for key in (*kinds, *keys):
        if not isinstance(record, dict) or key not in record:
            raise UserError(f"{path}: has no {key!r}; {told_by_version(path.parent)}")
    if not isinstance(record, dict):
        raise UserError(f"{path}: is {reprlib.repr(record)}, but must be an object; {told_by_version(path.parent)}")
    for key, kind in kinds.items():
        if not (is_number(record[key]) if kind is float else isinstance(record[key], kind)):
            problem = f"{path}: {key} is {reprlib.repr(record[key])}, but must be {WORDS[kind]}"
            raise UserError(f"{problem}; {told_by_version(path.parent)}")
    return record


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def read_jsonl(path: Path) -> list[Any]:
    """All records of a JSON-lines file.

    Raises:
        UserError: if the file is missing, or a line is not JSON.
    """
    return [_parsed(line, path) for line in read_text(path).split("\n") if line]


def to_jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a JSON-lines file.

    Raises:
        OSError: naming the file, of which the last line may then be a part.
    """
    try:
        with path.open("a") as file:
            file.write(to_jsonl([record]))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_csv(path: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write rows under the given columns; None becomes an empty cell."""
    write_text(path, to_csv(rows, columns))


def to_csv(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows as the text of a CSV file."""
    lines = [columns, *([_cell(row.get(c)) for c in columns] for row in rows)]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def is_trained(folder: Path) -> bool:
    """Whether a training of this folder has ended (completed or diverged) and published all its files."""
    # what may not be looked at is not trained, and whoever uses it says why
    return all(os.path.isfile(folder / name) for name in TRAINED)


def remove_live(folder: Path) -> None:
    """Delete what a training needs to go on; what somebody is using just now may stay, and what others put there."""
    remove_leftovers(folder / LIVE)
    with contextlib.suppress(OSError):
        for name in IN_LIVE:
            (folder / name).unlink(missing_ok=True)
        (folder / LIVE).rmdir()


def check_own(folder: Path) -> None:
    """Refuse to train in a folder where something else than a run has files of the names that a run's would replace.

    Whatever says of itself that it is of a run makes it a run folder, damaged or not: a workflow that cleans up may
    have deleted any of the others.

    Raises:
        UserError: naming the first such file.
        OSError: if the folder cannot be read.
    """
    for name in SIGNS:
        check_replaceable(folder / name)
    foreign = []
    for name, sign in SIGNS.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                content = file.read(SIGN_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if name in (SPEC, OWNER) and re.search(sign, content, re.DOTALL):
            return
        if content and not re.search(sign, content, re.DOTALL):
            foreign.append(path)
    if foreign:
        raise UserError(
            f"{foreign[0]}: was not written by ssvi, and a training here would replace it; move it away, or choose "
            "another run folder with --out."
        )


def check_record(path: Path, *keys: str) -> None:
    """Refuse to replace a file by a record that is not an older one of the same kind: a JSON object with these keys.

    Raises:
        UserError: naming it.
    """
    check_replaceable(path)
    if not path.exists() or not path.stat().st_size:
        return
    try:
        old = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        old = None
    if not isinstance(old, dict) or not set(keys) <= old.keys():
        raise UserError(f"{path}: holds something else than such a record, which would be lost; name another file.")


def remove_outdated(folder: Path) -> None:
    """Delete what says that this folder's training has ended, and what was measured of it then."""
    for name in (TRAINING, BEST_MODEL, METRICS, PREDICTIONS, SAMPLES):
        (folder / name).unlink(missing_ok=True)


def read_spec(folder: Path) -> RunSpec:
    """The spec a run folder was made with; the plugins that it names are loaded.

    Raises:
        UserError: if the file is missing, broken, of a newer format, holds an option this version does not know, or
            names a plugin that cannot be loaded.
    """
    record = read_spec_record(folder)
    plugins.load((one["module"] for one in plugins_of(folder, record)), f"{folder / SPEC}: provenance.plugins", folder)
    return _spec_of(folder / SPEC, record)


def plugins_of(folder: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plugins that a run was trained with, as `ssvi.plugins.used` gives them; none where spec.json does not say.

    Args:
        folder: of the run, for messages.
        record: what its spec.json holds.

    Raises:
        UserError: if it says something else.
    """
    path, origin = folder / SPEC, record.get("provenance")
    found = origin.get("plugins", []) if isinstance(origin, dict) else []
    for one in found if isinstance(found, list) else [None]:
        hashes = one.get("files") if isinstance(one, dict) else None
        if not isinstance(hashes, dict) or not all(isinstance(x, str) for x in (one.get("module"), *hashes.values())):
            problem = (
                f"{path}: provenance.plugins has {reprlib.repr(one)}, but must have modules and their files' hashes"
            )
            raise UserError(f"{problem}; {told_by_version(folder)}")
    return found


def read_spec_record(folder: Path) -> dict[str, Any]:
    """What spec.json holds, of a format that this version knows.

    Raises:
        UserError: if the file is missing, broken, or of a newer format.
    """
    path = folder / SPEC
    record = read_record(path, spec=dict)
    found = record.get("format", 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        problem = f"{path}: format is {reprlib.repr(found)}, but must be a whole number >= 1"
        raise UserError(f"{problem}; {told_by_version(folder)}")
    if found > FORMAT:
        raise UserError(
            f"{path}: format is {reprlib.repr(found)}, but ssvi {__version__} knows none beyond {FORMAT}: a newer "
            "version wrote this run folder; update ssvi to read it."
        )
    return record


def _spec_of(path: Path, record: Mapping[str, Any]) -> RunSpec:
    validate(record["spec"], where=str(path))
    try:
        return RunSpec(**record["spec"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_data(folder: Path) -> str:
    """The fingerprint of the images that a run was trained on.

    Raises:
        UserError: if spec.json is missing, broken, or does not say.
    """
    path = folder / SPEC
    data = read_record(path, provenance=dict)["provenance"].get("data")
    if not isinstance(data, str):
        raise UserError(f"{path}: provenance.data is {data!r}, but must be a word; {told_by_version(path.parent)}")
    return data


def read_training(folder: Path) -> dict[str, Any]:
    """What training.json says.

    Raises:
        UserError: if the file is missing, broken, or no record of a training that has ended.
    """
    path = folder / TRAINING
    record = read_record(path, "cause", "diverged_epoch", status=str, epochs_done=float, positions=dict)
    if record["status"] not in ("complete", "diverged"):
        problem = f"{path}: status is {record['status']!r}, but must be complete or diverged"
        raise UserError(f"{problem}; {told_by_version(path.parent)}")
    return record


def check_spec(folder: Path, spec: RunSpec) -> dict[str, Any]:
    """Refuse a run folder that was made with other options, or other defaults, than `spec`.

    An option newer than the folder counts as at its default, which by rule changes nothing.

    Returns:
        what spec.json holds.

    Raises:
        UserError: naming each option, the value found and the value expected; or if the folder is of a newer format.
    """
    path = folder / SPEC
    record = read_spec_record(folder)
    if not isinstance(record.get("provenance", {}), dict):
        problem = f"{path}: provenance is {reprlib.repr(record['provenance'])}, but must be an object"
        raise UserError(f"{problem}; {told_by_version(path.parent)}")
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
            "Go back to the old option, or move this run folder to where it is kept."
        )


def spec_record(spec: RunSpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What spec.json holds: the files' format, every option, defaults included, and where the run came from."""
    return {"format": FORMAT, "spec": dataclasses.asdict(spec), "provenance": dict(provenance)}
