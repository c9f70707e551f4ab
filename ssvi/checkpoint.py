"""The state of a running training in one file: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ssvi.errors import UserError
from ssvi.runs import CHECKPOINT, write_bytes


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint by `state` (tensors, numbers, text, lists and dicts)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / CHECKPOINT, buffer.getvalue())


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The run's checkpoint, or None if it has none.

    Raises:
        UserError: if the file is there and cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: truncated or damaged checkpoint ({reason}); delete {path.parent} to start this run anew."
        ) from None
