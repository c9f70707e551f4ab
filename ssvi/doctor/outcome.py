"""What a training ends with, to the byte."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from ssvi.runs import files

# Columns of its history that no two trainings have in common.
SECONDS = ("seconds", "step_seconds")


def results(folder: Path) -> str:
    """A digest of the bytes that a training publishes, but for the seconds in its history."""
    with (folder / files.HISTORY).open(newline="") as file:
        history = [[value for name, value in row.items() if name not in SECONDS] for row in csv.DictReader(file)]
    parts = [(folder / files.MODEL).read_bytes(), repr(history).encode(), (folder / files.TOPOLOGY).read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
