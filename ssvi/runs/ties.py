"""What ties the files of a run folder together, so that those of two runs, or of two trainings, are told apart.

training.json and metrics.json hold the identities of the files that they were made of or with (`TIES`), and their own;
what was measured beside (`SEALED`), samples.csv say, has a seal of its rows and its network in a last column. Folders
of formats before 3 have none of it.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, told
from ssvi.machine.disk import write_json
from ssvi.runs.files import (
    BEST_MODEL,
    ENTRY,
    HISTORY,
    METRICS,
    MODEL,
    PREDICTIONS,
    SAMPLES,
    SEALED,
    SPEC,
    TESTED_ON,
    TOPOLOGY,
    TRAINING,
    UNCERTAINTY,
    measuring,
)
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import ANEW, csv_rows, read_bytes, read_record, read_text, told_by_version
from ssvi.runs.runfolder import read_spec_record
from ssvi.runs.spec import RunSpec

# The files that each of these records was made of or with; it holds their identities, under `files`.
TIES = {
    TRAINING: (SPEC, HISTORY, TOPOLOGY, MODEL, BEST_MODEL),
    METRICS: (SPEC, TRAINING, MODEL, BEST_MODEL, PREDICTIONS),
}
# The same of figures on another data set.
ON_TIES = (SPEC, TRAINING, MODEL)
# What not every run has.
OPTIONAL = frozenset({BEST_MODEL})
TIED_SINCE = 3
# What a sealed file was measured on, which its seal holds.
MEASURED_ON = {SAMPLES: (MODEL,), UNCERTAINTY: (MODEL, PREDICTIONS)}
# The last column of the files that are sealed.
SEAL = "seal"


def identity(path: Path) -> str:
    """What a file is told from another one by: the fingerprint of its tensors, else the SHA-256 of its bytes, in hex.

    Raises:
        UserError: if it cannot be read, or is a damaged file of tensors.
    """
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise UserError(f"{path}: is not a file.")  # but a pipe, say, that nobody ever writes to
        if path.suffix == ".safetensors":
            return _fingerprint(path)
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(told(error)) from None


def _fingerprint(path: Path) -> str:
    """The fingerprint that a file of tensors says it has, which is checked wherever the tensors are read.

    Files of versions before that wrote none are identified by their bytes.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(min(length, size)))
            ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
            whole = 8 + length + max(ends, default=0) == size
            metadata = head.get("__metadata__") or {}
            known = (json.loads(metadata[ENTRY]) if ENTRY in metadata else metadata).get("fingerprint")
        except (struct.error, ValueError, LookupError, AttributeError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(f"{path}: truncated or damaged (not a whole file of tensors); {ANEW}")
        if isinstance(known, str):
            return known
        file.seek(0)
        return hashlib.sha256(file.read()).hexdigest()


def write_tied(folder: Path, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write training.json, metrics.json or one in on/ (`name`) with the identities of what it was made of or with, and
    its own.

    Returns:
        what the file holds.
    """
    found = {other: identity(folder / other) for other in _tied_to(name) if os.path.exists(folder / other)}
    whole = {**record, "files": {**found, name: _seal(record)}}
    write_json(folder / name, whole)
    return whole


def _seal(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its `files`, however its JSON is laid out."""
    # what comes back from a file has words for keys and lists for tuples
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != "files"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _tied_to(name: str) -> tuple[str, ...]:
    return TIES.get(name, ON_TIES)


def check_ties(folder: Path, name: str) -> bool:
    """Refuse training.json, metrics.json or one in on/ (`name`) beside other files than it was made of or with.

    A file that is missing is no contradiction: whoever needs it says so.

    Returns:
        whether that could be checked: False for folders of a format that did not tie its files together.

    Raises:
        UserError: naming the record and the file that does not belong to it.
    """
    path = folder / name
    record = read_record(path)
    if "files" not in record and read_spec_record(folder).get("format", 1) < TIED_SINCE:
        return False
    files = read_record(path, files=dict)["files"]
    anew = f"or let `ssvi evaluate {folder}` make it anew." if name == METRICS else f"or {ANEW}"
    if name not in TIES:
        anew = f"or delete this file and let `ssvi evaluate {folder} --on` make it anew."
    for other in (name, *_tied_to(name)):
        if other not in files:
            if other not in OPTIONAL:
                raise UserError(f"{path}: files has no {other!r}; {told_by_version(folder)}")
            if os.path.exists(folder / other):
                raise UserError(f"{folder / other}: does not belong to this run, by its {name}; delete it.")
        elif other == name:
            if files[name] != _seal(record):
                raise UserError(f"{path}: was changed since it was written; bring it back as it was, {anew}")
        elif os.path.exists(folder / other) and files[other] != identity(folder / other):
            back = "bring back the one that belongs to it,"
            raise UserError(f"{path}: was made with another {other} than lies beside it; {back} {anew}")
    return True


def check_parents(folder: Path, runs: Path, spec: RunSpec) -> None:
    """Refuse a trained run that started from another training of a parent than lies there now, and so belongs to none.

    A parent that is not there, or whose own files do not belong together, says nothing.

    Args:
        folder: the run folder.
        runs: where its parents lie, by their run paths.
        spec: the run's.

    Raises:
        UserError: naming the run and its parent.
    """
    if (parent := changed_parent(folder, runs, spec)) is not None:
        raise UserError(
            f"{folder / TRAINING}: started from another training of {runs / parent} than lies there now; bring "
            "that one back, or delete this run's folder to train it anew."
        )


def changed_parent(folder: Path, runs: Path, spec: RunSpec) -> str | None:
    """The run path of a parent, as for `check_parents`, that a trained run started from another training of.

    Raises:
        UserError: if its training.json cannot be read.
    """
    started = read_record(folder / TRAINING).get("parents")
    for parent in map(run_path, parents_of(spec)) if isinstance(started, dict) else ():
        try:
            check_ties(runs / parent, TRAINING)
            now = identity(runs / parent / MODEL)
        except UserError:
            continue
        if started.get(parent) != now:
            return parent
    return None


def is_of_another_training(folder: Path, name: str) -> bool:
    """Whether metrics.json or one of `SEALED` (`name`) was made with another training than lies whole beside it.

    What says nothing of it, of an older format, counts as right; what cannot be read, or lies beside a training of
    which the files do not belong together, is refused where it is used. A sealed one that was changed by hand cannot
    be told from one of another training.
    """
    try:
        if name in SEALED:
            return not _is_sealed(folder, name) and check_ties(folder, TRAINING)
        tied = read_record(folder / name).get("files")
        made_with = (other for other in (TRAINING, MODEL, BEST_MODEL) if isinstance(tied, dict) and other in tied)
        other = any(os.path.exists(folder / one) and tied[one] != identity(folder / one) for one in made_with)
        return other and check_ties(folder, TRAINING)
    except UserError:
        return False


def sealed(network: str, text: str) -> str:
    """The text of a CSV file, measured on the network of this fingerprint, with a last column that says so."""
    seal = hashlib.sha256(f"{network}\n{text}".encode()).hexdigest()
    head, *rows = text.splitlines() or [""]
    return "".join(f"{line}\n" for line in [f"{head},{SEAL}", *(f"{row},{seal}" for row in rows)])


def seal(folder: Path, name: str, text: str) -> str:
    """The text of one of `SEALED`, as it is to be written into a run folder."""
    return sealed(" ".join(identity(folder / one) for one in MEASURED_ON[name]), text)


def check_sealed(folder: Path, name: str) -> None:
    """Refuse one of `SEALED` that was measured on another network than this run's, on other test images than its
    metrics.json, or changed since.

    Raises:
        UserError: naming the file.
    """
    path = folder / name
    if not _is_sealed(folder, name):
        problem = f"{path}: was measured on another {' or '.join(MEASURED_ON[name])} than this run's, or changed since"
        raise UserError(f"{problem}; delete this file to measure it anew.")
    if is_of_other_tests(folder, name):
        problem = f"{path}: was measured on other test images than {METRICS}"
        raise UserError(f"{problem}; make both anew with `ssvi evaluate {folder}` and `{measuring(path)}`.")
    rows = read_text(path).splitlines()
    if (
        len(rows) == 1
        and rows[0].endswith(f",{SEAL}")
        and read_record(folder / METRICS, status=str)["status"] == "complete"
    ):
        raise UserError(f"{path}: has no rows; delete this file to measure it anew.")


def is_of_other_tests(folder: Path, name: str) -> bool:
    """Whether one of `SEALED` was measured on other test images than metrics.json; what does not say counts as right.

    Raises:
        UserError: if it cannot be read.
    """
    measured = next(iter(csv_rows(folder / name)), {}).get(TESTED_ON)
    return measured is not None and measured != read_record(folder / METRICS).get(TESTED_ON, measured)


def measured_on(folder: Path, name: str) -> str:
    """What one of `SEALED` has to be measured on, by what the records say of these files, or else by them."""
    found = []
    for one in MEASURED_ON[name]:
        tied = read_record(folder / (TRAINING if one == MODEL else METRICS)).get("files")
        known = tied.get(one) if isinstance(tied, dict) else None
        found.append(identity(folder / one) if known is None else str(known))
    return " ".join(found)


def _is_sealed(folder: Path, name: str) -> bool:
    """Whether the rows of a file are as they were measured, on this run's network; of a format before, true."""
    lines = [line.rpartition(",") for line in read_text(folder / name).splitlines()]
    if (not lines or lines[0][2] != SEAL) and read_spec_record(folder).get("format", 1) < TIED_SINCE:
        return True
    text = "".join(f"{line}\n" for line, _, _ in lines)
    return sealed(measured_on(folder, name), text) == "".join(f"{line},{seal}\n" for line, _, seal in lines)
