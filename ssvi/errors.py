"""The errors a user can cause, each ending in one clear line instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave is wrong: the message names it, the value, and what is allowed."""


class Diverged(Exception):
    """Training left the finite numbers; `cause` says where it was noticed."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def unknown(kind: str, value: object, allowed: Iterable[str], where: str) -> UserError:
    """The error for a name that is not among the allowed ones, with the nearest right one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return UserError(f"{where}: {kind} {value!r} is unknown{hint} Choose from {', '.join(names)}.")
