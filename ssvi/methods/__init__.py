"""Training methods: a file each, entered in `ssvi.registry.KINDS`."""

from __future__ import annotations

from ssvi.errors import UserError
from ssvi.methods.base import Method
from ssvi.registry import KINDS, found

__all__ = ["Method", "method_class"]


def method_class(name: str) -> type[Method]:
    """The class of a registered method.

    Raises:
        UserError: if there is none.
    """
    code = KINDS.code(name)
    there = found(code, f"method {name!r}")
    if not (isinstance(there, type) and issubclass(there, Method)):
        raise UserError(f"method {name!r}: {code} is {there!r}, but must be a subclass of ssvi.methods.Method.")
    return there
