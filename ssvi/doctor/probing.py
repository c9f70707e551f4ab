"""Where something is written for a moment to see whether that works: beside what will be written there, and removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssvi.doctor.base import Asked, Result

PREFIX = ".ssvi-doctor-"


def nearest(path: Path) -> Path:
    """The folder, or the innermost of those around it that is there."""
    path = Path(os.path.abspath(path))
    return next(folder for folder in (path, *path.parents) if folder.exists())


@contextlib.contextmanager
def scratch(folder: Path, asked: Asked) -> Iterator[Path]:
    """A folder of one's own in the nearest one that is there."""
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{asked.token}-", dir=nearest(folder)))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def cleaned(asked: Asked) -> Result:
    """Remove what this doctor's own checks have left because they were killed."""
    for folder in {nearest(asked.results), nearest(asked.data_root), Path(tempfile.gettempdir())}:
        for left in folder.glob(f"{PREFIX}{asked.token}-*"):
            shutil.rmtree(left, ignore_errors=True)
    return Result("ok", "removed")
