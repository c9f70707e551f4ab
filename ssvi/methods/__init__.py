"""Training methods: a file each, entered in `ssvi.registry.KINDS`."""

from __future__ import annotations

import importlib

from ssvi.methods.base import Method
from ssvi.registry import KINDS

__all__ = ["Method", "method_class"]


def method_class(name: str) -> type[Method]:
    """The class of a registered method."""
    module, _, attribute = KINDS[name].code.partition(":")
    return getattr(importlib.import_module(module), attribute)
