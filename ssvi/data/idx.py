"""IDX files, in which MNIST and the data sets after its pattern are published: numbers behind a short head.

The head says how large the file is. Both are compared before memory is asked for, so that a damaged file costs none.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ssvi.errors import UserError

# Two zeros, the type of the numbers (8: bytes without a sign), and how many dimensions there are.
BYTES = 8
GZIP = b"\x1f\x8b"


def read_idx(file: Path, shape: tuple[int, ...]) -> Tensor:
    """The bytes of an IDX file, gzipped or not, as uint8 of this shape.

    Args:
        file: where it is.
        shape: that its head has to name.

    Raises:
        UserError: if it cannot be read, is no such file, is of another shape, or is shorter or longer than it says.
    """
    try:
        with file.open("rb") as raw:
            zipped = raw.read(2) == GZIP
            raw.seek(0)
            if zipped:
                with gzip.open(raw) as stream:
                    return _read(stream, file, shape, None)  # type: ignore[arg-type]
            return _read(raw, file, shape, os.fstat(raw.fileno()).st_size)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); bring the file again.") from None


def _read(stream: BinaryIO, file: Path, shape: tuple[int, ...], size: int | None) -> Tensor:
    """What follows a head that names this shape, of a file of so many bytes, where that is known."""
    wanted = 4 + 4 * len(shape)
    head = stream.read(wanted)
    if len(head) < wanted or head[:2] != b"\x00\x00" or head[2:4] != bytes([BYTES, len(shape)]):
        magic = bytes([0, 0, BYTES, len(shape)]).hex(" ")
        raise UserError(
            f"{file}: begins with {head[:4].hex(' ') or 'nothing'}, but an IDX file of bytes in {len(shape)} "
            f"dimension{'s' if len(shape) > 1 else ''} begins with {magic}; bring the file again."
        )
    found = tuple(int.from_bytes(head[i : i + 4]) for i in range(4, wanted, 4))
    if found != shape:
        raise UserError(f"{file}: its head names {_times(found)} numbers, but must name {_times(shape)}.")
    length = math.prod(shape)
    if size is not None and size != wanted + length:
        raise UserError(f"{file}: has {size} bytes instead of {wanted + length}; bring the file again.")
    # one more than there may be, to see that there is not
    content = bytearray(stream.read(length + 1))
    if len(content) != length:
        more = "more" if len(content) > length else f"{len(content)}"
        raise UserError(f"{file}: holds {more} instead of {length} numbers behind its head; bring the file again.")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
