"""Arrays of predictions in a compressed file, read so that a file of somebody's can do no harm.

Nothing in it is run, and no memory is asked for numbers that it only says it has.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssvi.errors import UserError

# Of an array.
MOST_BYTES = 1 << 30


def read_arrays(path: Path, remedy: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
        path: of the file.
        remedy: what to do where it cannot be read.
        names: of the arrays that are wanted; all that are there unless told.

    Raises:
        UserError: naming the file and the remedy, if it is damaged or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array alone")
            return {name: _array(file, name) for name in (file.files if names is None else names)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a file of predictions ({error}); {remedy}") from None


def _array(arrays: Any, name: str) -> np.ndarray:
    """An array of an .npz file, once it is known that its numbers are in the file, and not too many.

    Raises:
        ValueError, KeyError: if they are not.
    """
    member = arrays.zip.getinfo(f"{name}.npy")
    with arrays.zip.open(member) as opened:
        np.lib.format.read_magic(opened)
        shape, _, kind = np.lib.format.read_array_header_1_0(opened)
    size = math.prod(shape) * kind.itemsize
    if size > min(member.file_size, MOST_BYTES):
        raise ValueError(f"{name} has {list(shape)} numbers in {member.file_size} bytes")
    return arrays[name]
