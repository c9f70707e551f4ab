"""A value of an option: read from text, checked by itself, written as text.

Standard library only. An error names the option, its value, what is allowed, and `where` it was read.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ssvi.errors import UserError, quoted, unknown
from ssvi.runs.options import ANY_FOLDER, DATASETS, FIELDS, FOLDER_PREFIX

# What a path may not contain: it ends up in commands, patterns and messages.
REFUSED_IN_PATHS = re.compile(r"""[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff;&|<>$`"'\\*?{}]""")

# Numbers as they are written on a command line and in a parent's text.
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# Numbers that everything they come to can hold: counters, file names, and float32, in which networks are trained. In
# it a number below SMALLEST in size has lost digits or is 0.
LARGEST = {int: 2**63 - 1, float: (2 - 2**-23) * 2.0**127}
SMALLEST = 2.0**-126


def validate(options: Mapping[str, Any], where: str) -> None:
    """Check names, types, choices and ranges of run options, one by one.

    Raises:
        UserError: naming the option, its value, what is allowed, and `where` it was read.
    """
    for name, value in options.items():
        if name not in FIELDS:
            raise unknown("option", name, FIELDS, where)
        if (problem := _type_error(name, value, where)) is not None:
            raise problem
        meta = FIELDS[name].metadata
        if meta["choices"] and value not in meta["choices"]:
            raise unknown(name, value, meta["choices"], where)
        if not isinstance(value, bool) and isinstance(value, int | float):
            _check_range(name, value, where)
    if "dataset" in options:
        _check_dataset(options["dataset"], where)
    if not is_list_of_classes(held_out := options.get("held_out_classes", "")):
        raise UserError(
            f"{where}: held_out_classes is {quoted(held_out)}, but must be numbers of classes from 0 on, each larger "
            "than the one before, with + between them, as in 4+6."
        )


def _type_error(name: str, value: Any, where: str) -> UserError | None:
    expected = type(FIELDS[name].default)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[expected]
    good = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if good or (expected is float and isinstance(value, int) and not isinstance(value, bool)):
        return None
    hint = ""
    if isinstance(value, str) and "e" in value.lower() and DECIMAL.fullmatch(value):
        number = _number_for_yaml(name, value) if len(value) < 400 else ""
        hint = f" YAML reads {value} as text: write {number}." if number else ""
    elif isinstance(value, str) and re.fullmatch(r"[+-]?0[0-9_]+", value, re.ASCII):
        hint = f" YAML reads {value} as text: write it without the zero in front."
    elif isinstance(value, bool) and expected is str:
        hint = " YAML reads yes, no, on and off as true and false: write a word in quotes."
    elif isinstance(value, int) and expected is str:
        hint = f' YAML reads {value} as a number: write "{value}" in quotes.'
    return UserError(f"{where}: {name} is {quoted(value)}, but must be {words}.{hint}")


def _number_for_yaml(name: str, text: str) -> str:
    """A number with an exponent, written so that YAML reads it as one; empty where the option cannot have it."""
    number: int | float = float(text)
    lost = number == 0 and re.search("[1-9]", text.lower().split("e")[0])
    if lost or not math.isfinite(number):
        return ""
    if isinstance(FIELDS[name].default, int):
        if not number.is_integer():
            return ""
        number = int(Fraction(text)) if number else 0
    try:
        validate({name: number}, "")
    except UserError:
        return ""
    # YAML takes no number with an exponent for one unless there is a point in front of that
    return re.sub(r"^([+-]?\d+)e", r"\1.0e", repr(number))


def _check_range(name: str, value: int | float, where: str) -> None:
    meta = FIELDS[name].metadata
    low, high, open_low = meta["low"], meta["high"], meta["open_low"]
    largest = LARGEST[type(FIELDS[name].default)]
    too_low = low is not None and (value <= low if open_low else value < low)
    too_high = (high is not None and value > high) or value > largest
    too_small = isinstance(value, float) and 0 < abs(value) < SMALLEST and not too_low
    if too_low or too_high or too_small or not value >= -largest:
        allowed = [bounds(name)] if bounds(name) else []
        if too_high and high is None:
            allowed.append(f"<= {largest:g}")
        if too_small:
            allowed.append(f"{'' if open_low else '0 or '}at least {SMALLEST:g} in size, as float32 has it")
        raise UserError(f"{where}: {name} is {_number(value)}, but must be {' and '.join(allowed) or 'finite'}.")


def bounds(name: str) -> str:
    """The range of a numeric option in words, empty where it has none."""
    meta = FIELDS[name].metadata
    low = [f"{'>' if meta['open_low'] else '>='} {meta['low']:g}"] if meta["low"] is not None else []
    high = [f"<= {meta['high']:g}"] if meta["high"] is not None else []
    return " and ".join(low + high)


def _number(value: int | float) -> str:
    return "too large" if isinstance(value, int) and abs(value) > sys.float_info.max else f"{value:g}"


def _check_dataset(dataset: str, where: str) -> None:
    if dataset.startswith(FOLDER_PREFIX):
        if not dataset.removeprefix(FOLDER_PREFIX):
            raise UserError(f"{where}: dataset is {dataset!r}, but folder: needs a path, as in folder:images/pets.")
        if bad := REFUSED_IN_PATHS.search(dataset):
            raise UserError(
                f"{where}: dataset is {dataset!r}, but a path must not contain {bad[0]!r}, nor any other of "
                "; & | < > $ ` \" ' \\ * ? { } and control characters."
            )
    elif dataset not in DATASETS:
        raise unknown("dataset", dataset, [*DATASETS, ANY_FOLDER], where)


def is_list_of_classes(text: str) -> bool:
    """Whether a text names no class, or some in their one canonical form."""
    words = text.split("+") if text else []
    if not all(re.fullmatch(r"0|[1-9][0-9]{0,5}", word, re.ASCII) for word in words):
        return False
    numbers = [int(word) for word in words]
    return numbers == sorted({*numbers})


def plain(value: Any, like: Any) -> Any:
    """A value as a spec has it, so that equal specs have one path: no NumPy scalar, int for a float, or -0.0.

    What is of another kind than `like`, the option's default, is left to `validate`.
    """
    if not isinstance(value, str) and callable(item := getattr(value, "item", None)):
        value = item()
    if isinstance(value, str):
        return str(value)
    number = isinstance(like, float) and isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) + 0.0 if number and abs(value) <= LARGEST[float] else value


def parse(text: str, like: Any) -> Any:
    """A value from its text, of the type of another one; the text itself where it is none."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text, text)
    try:
        return text if isinstance(like, str) else parse_number(text, type(like))
    except ValueError:
        return text


def parse_number(text: str, kind: type[int] | type[float]) -> int | float:
    """A number in plain decimal notation, which is less than Python reads: no 1_000, 010, inf, blanks or other digits.

    Raises:
        ValueError: for any other text.
    """
    if not (WHOLE if kind is int else DECIMAL).fullmatch(text):
        raise ValueError(text)
    return kind(text)


def flag_text(value: Any) -> str:
    """A value as it stands behind the equals sign of a flag, or in a parent's text."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)
