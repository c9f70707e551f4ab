"""The state of a running training in one file: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ssvi.errors import UserError
from ssvi.runs import CHECKPOINT, write_bytes

# Raised whenever a checkpoint's content changes its meaning.
VERSION = 2


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint by `state` (tensors, numbers, text, lists and dicts)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / CHECKPOINT, buffer.getvalue())


def load(folder: Path, device: torch.device, keys: frozenset[str]) -> dict[str, Any] | None:
    """The run's checkpoint, or None if it has none.

    Raises:
        UserError: if the file is there and cannot be read, or does not hold just `keys`.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    remedy = f"delete {path.parent} to start this run anew."
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, ValueError, OSError) as error:
        raise UserError(f"{path}: truncated or damaged checkpoint ({type(error).__name__}); {remedy}") from None
    if not isinstance(state, dict) or set(state) != keys or state["version"] != VERSION:
        raise UserError(f"{path}: not a checkpoint of this version; {remedy}")
    return state
