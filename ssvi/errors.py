"""The errors a user can cause, each ending in one clear line instead of a traceback."""

from __future__ import annotations

import difflib
import errno
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

# Of a value in a message, in characters.
LONGEST_VALUE = 300


def one_line(text: str) -> str:
    """A text in which whatever is not seen itself is written as `\\n` etc.: what would start a new line, tell a
    terminal to do something, or make other characters seem to stand elsewhere. Spaces of any width are left."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text)


def say(line: object, file: TextIO | None = None) -> None:
    """Print a line for a person, on standard error unless told otherwise; no character of it reaches the terminal that
    it would obey, wherever the text came from."""
    print(one_line(str(line)), file=file or sys.stderr, flush=True)


class UserError(Exception):
    """Something the user gave is wrong: the message names it, the value, and what is allowed, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Misuse(UserError, ValueError):
    """The library was called in a way that cannot be right: one line, with what to do."""


class Diverged(Exception):
    """Training left the finite numbers; `cause` says where it was noticed."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def told(error: OSError) -> str:
    """What the system says, with the file first, and what to do where a disk is full."""
    line = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        line += "; what was there before is whole: make space, and the same command goes on"
    return one_line(line)


def quoted(value: object) -> str:
    """A value as Python writes it, of a long one the two ends."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE // 2]} ... {text[-20:]}"


def nearest(name: str, names: Iterable[str], cutoff: float) -> str | None:
    """The name most like this one, whatever is upper or lower case; None if none is like it by more than `cutoff`."""
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def unknown(kind: str, value: object, allowed: Iterable[str], where: str) -> UserError:
    """The error for a name that is not among the allowed ones, with the nearest right one."""
    names = sorted(allowed)
    near = nearest(str(value), names, cutoff=0.5)
    hint = "." if near is None else f", did you mean {near!r}?"
    return UserError(f"{where}: {kind} {quoted(value)} is unknown{hint} Choose from {', '.join(names)}.")
