"""Predictions as CSV, JSON lines or Parquet, batch by batch as they come.

A row is an image: what `COLUMNS` name, then the probability of every class. Where there is nothing to tell, a cell is
empty, a value null. In CSV no cell and no heading is a formula of a spreadsheet.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvi.errors import UserError
from ssvi.runs.escaped import cell
from ssvi.runs.records import csv_lines, to_jsonl
from ssvi.serving.predictor import TOLD, Predictions

COLUMNS = ("image", *TOLD, "cause")
# In front of a class in a heading, so that a class may be called as any column is.
CLASS = "p:"


def format_of(out: Path | None, asked: str | None) -> str:
    """The format that rows are to have: the one asked for, or that of the file's suffix, or CSV.

    Raises:
        UserError: if the two contradict each other, or the suffix says nothing.
    """
    suffix = None if out is None else out.suffix.lower().removeprefix(".")
    if suffix in FORMATS and asked not in (None, suffix):
        raise UserError(f"--format is {asked}, but --out is {str(out)!r}, which would be {suffix}.")
    if suffix is not None and suffix not in FORMATS and asked is None:
        raise UserError(
            f"--out is {str(out)!r}, whose suffix is none of {', '.join(f'.{name}' for name in FORMATS)}; name one of "
            "these, or say by --format what it is to hold."
        )
    return asked or suffix or "csv"


def to_csv(parts: Iterable[Predictions], classes: Sequence[str]) -> Iterator[bytes]:
    """The heading, then the rows of each part."""
    shown = distinct(map(_cell, classes))
    yield csv_lines([_headings(shown)]).encode()
    for part in parts:
        yield csv_lines(map(_values, _renamed(part, shown, _cell).rows())).encode()


def to_json_lines(parts: Iterable[Predictions], classes: Sequence[str]) -> Iterator[bytes]:
    """A line an image, as `Predictions.rows` has it."""
    shown = distinct(map(_text, classes))
    for part in parts:
        yield to_jsonl(_renamed(part, shown, _text).rows()).encode()


def to_parquet(parts: Iterable[Predictions], classes: Sequence[str]) -> Iterator[bytes]:
    """A row group each part."""
    import pyarrow
    import pyarrow.parquet

    shown = distinct(map(_text, classes))
    kinds = dict.fromkeys(("image", "class", "cause"), pyarrow.string()) | {"abstain": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in _headings(shown)])

    def chunks() -> Iterator[bytes]:
        sink = _Sink()
        with pyarrow.parquet.ParquetWriter(sink, schema) as writer:
            for part in parts:
                columns = zip(*map(_values, _renamed(part, shown, _text).rows()), strict=True)
                arrays = [pyarrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
                yield sink.taken()
        yield sink.taken()

    return chunks()


FORMATS: dict[str, Callable[[Iterable[Predictions], Sequence[str]], Iterator[bytes]]] = {
    "csv": to_csv,
    "jsonl": to_json_lines,
    "parquet": to_parquet,
}


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names, of which one that was there already has a number behind it: two may look alike once they are shown."""
    found: dict[str, None] = {}
    again: Counter[str] = Counter()
    for name in names:
        own = name
        while own in found:
            again[name] += 1
            own = f"{name} ({again[name] + 1})"
        found[own] = None
    return tuple(found)


def _cell(text: str) -> str:
    return str(cell(text))


def _text(text: str) -> str:
    """As UTF-8 can hold it: what of a file's name is no text is written as `\\udcff` etc."""
    return text.encode("utf-8", "backslashreplace").decode()


def _headings(classes: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"{CLASS}{name}" for name in classes)]


def _values(row: dict[str, Any]) -> list[Any]:
    return [*(row[name] for name in COLUMNS), *row["probabilities"].values()]


def _renamed(part: Predictions, classes: tuple[str, ...], words: Callable[[str], str]) -> Predictions:
    """The same in words that may stand where the rows are to be."""
    causes = tuple(cause and words(cause) for cause in part.causes)
    return replace(part, names=tuple(map(words, part.names)), classes=classes, causes=causes)


class _Sink(io.RawIOBase):
    """A file that is taken away as it is written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
