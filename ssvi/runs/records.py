"""How records are read and written: JSON, JSON lines and CSV; what cannot be read is one line that names the file.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import csv
import io
import json
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ssvi import __version__
from ssvi.errors import UserError, told
from ssvi.machine.disk import check_replaceable, write_text
from ssvi.runs.files import METRICS, SEALED, SPEC

# What to do where a file of a run folder is not what was written: damage alone, nothing that another version may have
# written. For that there is `told_by_version`.
ANEW = "delete the run folder to train it anew."
EVALUATE_ANEW = "let `ssvi evaluate` make it anew."
MEASURE_ANEW = "delete this file to measure it anew."
WORDS = {str: "a word", dict: "an object", float: "a number"}


def anew(path: Path) -> str:
    """What to do where this file of a run folder is damaged."""
    return {METRICS: EVALUATE_ANEW, **dict.fromkeys(SEALED, MEASURE_ANEW)}.get(path.name, ANEW)


# What each file held when it was first read, within `reading_once`.
_read: ContextVar[dict[Path, bytes] | None] = ContextVar("read", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Meanwhile each file is read once, so that all checks of a run folder see the same."""
    before = _read.set({})
    try:
        yield
    finally:
        _read.reset(before)


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: as `Path.read_bytes`.
    """
    known = _read.get()
    if known is None:
        return path.read_bytes()
    if path not in known:
        known[path] = path.read_bytes()
    return known[path]


def read_text(path: Path) -> str:
    """A text file, with a one-line error that names it.

    Raises:
        UserError: if the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: is not a file.")  # but a pipe, say, that nobody ever writes to
        return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8").read()
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
    return csv_lines([columns, *([row.get(c) for c in columns] for row in rows)])


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns, all cells text.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return list(csv.DictReader(read_text(path).splitlines()))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {anew(path)}") from None


def csv_lines(lines: Iterable[Sequence[Any]]) -> str:
    """Lines of cells as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


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
