"""A run folder against what it should be: whose files are in it, of which format and spec, and what it says of itself.

Where it lies is `ssvi.runs.paths.run_path`, what its files are called `ssvi.runs.files`.

Whatever could come in another order under another version is written with its name, and read by it. `FORMAT` counts
the changes that an older version would misread.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssvi import __version__
from ssvi.errors import UserError
from ssvi.machine.disk import check_replaceable
from ssvi.runs import plugins
from ssvi.runs.files import (
    BEST_MODEL,
    CHECKPOINT,
    HISTORY,
    LIVE_HISTORY,
    LIVE_TOPOLOGY,
    LOCK,
    METRICS,
    MODEL,
    OWNER,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SAMPLES,
    SPEC,
    TOPOLOGY,
    TRAINING,
    UNCERTAINTY,
    UNCERTAINTY_PREDICTIONS,
)
from ssvi.runs.identity import TRAINED_ON
from ssvi.runs.options import FIELDS, options_of
from ssvi.runs.records import read_record, told_by_version
from ssvi.runs.spec import RunSpec
from ssvi.runs.values import validate

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
    UNCERTAINTY: rb"\A([a-z_]+,)*part\b",
    UNCERTAINTY_PREDICTIONS: rb"\APK",
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
#   4: model.safetensors holds the active values and their positions (`ssvi.core.packing`); the test images of a run may
#      be others than those that `data` of spec.json counts in (`ssvi.runs.identity`).
FORMAT = 4


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
    """The plugins that a run was trained with, as `plugins.used` gives them; none where spec.json does not say.

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


def read_data(folder: Path) -> dict[str, str]:
    """What identifies the images that a run was trained on, by name, as far as spec.json says (`TRAINED_ON`).

    Raises:
        UserError: if spec.json is missing, broken, or does not even say the whole.
    """
    path = folder / SPEC
    origin = read_record(path, provenance=dict)["provenance"]
    found = {name: origin.get(name) for name in TRAINED_ON if origin.get(name) is not None or name == "data"}
    for name, value in found.items():
        if not isinstance(value, str):
            problem = f"{path}: provenance.{name} is {reprlib.repr(value)}, but must be a word"
            raise UserError(f"{problem}; {told_by_version(path.parent)}")
    return found


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
