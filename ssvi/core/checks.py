"""Checks of what is handed to the library's functions; each names the option, what was given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from ssvi.errors import Misuse, quoted


def number(name: str, value: object, zero: bool = False) -> float:
    """A number above 0, or from 0 on, as a plain float, whatever kind of number it was given as.

    Raises:
        Misuse: if it is none; so do all checks.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise Misuse(f"{name} is {quoted(value)}, but must be {'>=' if zero else '>'} 0 and finite.")
    return float(value)


def share(name: str, value: object) -> float:
    """A number from 0 to 1."""
    if not (isinstance(value, Real) and 0 <= value <= 1):
        raise Misuse(f"{name} is {quoted(value)}, but must be >= 0 and <= 1.")
    return float(value)


def whole(name: str, value: object) -> int:
    """A whole number from 1 on."""
    if not (isinstance(value, Integral) and value >= 1):
        raise Misuse(f"{name} is {quoted(value)}, but must be a whole number >= 1.")
    return int(value)


def choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """One of some names."""
    if value not in (allowed := list(allowed)):
        raise Misuse(f"{name} is {quoted(value)}, but must be one of {', '.join(allowed)}.")


def function(name: str, value: object) -> None:
    """What can stand in place of a name."""
    if not callable(value):
        raise Misuse(f"{name} is {quoted(value)}, but must be a name or a function.")
