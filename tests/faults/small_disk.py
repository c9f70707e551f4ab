"""A disk that is really full: a small file system in memory, where this user may mount one."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` (such as "4m") at `folder`, which is made; the test is skipped where that is not allowed.

    Yields:
        the folder.
    """
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder)]
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if (sudo and shutil.which("sudo") is None) or subprocess.run([*sudo, *words], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: this needs root, or sudo without a password")
    try:
        yield folder
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(folder)], check=True)


def free(folder: Path) -> int:
    """Bytes that are left."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """Fill the file system up to `leave` bytes; returns the file to delete to make space."""
    file = folder / "somebody_elses"
    with file.open("wb") as out:
        out.write(b"\0" * max(0, free(folder) - leave))
    return file
