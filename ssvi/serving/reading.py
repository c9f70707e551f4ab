"""Images of a user as the pixels that a network takes, each with its name; one that cannot be read has a cause instead.

The pixels are made where those of data sets are (`ssvi.data.pixels`), by the same steps.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvi.data.pixels import decode, single
from ssvi.errors import Misuse, UserError, one_line
from ssvi.runs.card import Inputs
from ssvi.runs.images import SUFFIXES

WANTED = (
    "paths, bytes of image files, PIL images, uint8 arrays [height, width] or [height, width, 3 or 4], or one uint8 "
    "tensor [n, channels, size, size]"
)


@dataclass(frozen=True)
class Image:
    """An image as it was read.

    Attributes:
        name: its path, or where it stands among the others.
        pixels: uint8 [channels, size, size]; None if it could not be read.
        cause: why not.
    """

    name: str
    pixels: Tensor | None
    cause: str | None = None


def read(images: Any, inputs: Inputs) -> Iterator[Image]:
    """Images one after the other.

    Args:
        images: one or several, as `WANTED` says; of a tensor nothing is changed.
        inputs: what the network takes.

    Raises:
        Misuse: if they are something else.
    """
    if isinstance(images, Tensor):
        shape = (inputs.channels, inputs.image_size, inputs.image_size)
        if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != shape:
            raise Misuse(f"the tensor is {images.dtype} {list(images.shape)}, but must be uint8 {['n', *shape]}.")
        yield from (Image(str(i), one) for i, one in enumerate(images))
        return
    several = [images] if _is_one(images) else images
    if not isinstance(several, Iterable):
        raise Misuse(f"images are {type(images).__name__}, but must be {WANTED}.")
    for i, one in enumerate(several):
        yield _read_one(one, i, inputs)


def _is_one(images: Any) -> bool:
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or _is_picture(images)


def _is_picture(one: Any) -> bool:
    """An image of PIL, which is not imported to find out, or an array of one."""
    of_image = isinstance(one, np.ndarray) and (one.ndim == 2 or (one.ndim == 3 and one.shape[2] in (3, 4)))
    return (of_image and one.dtype == np.uint8 and one.size > 0) or hasattr(one, "getexif")


def _read_one(one: Any, place: int, inputs: Inputs) -> Image:
    name = os.fspath(one) if isinstance(one, str | os.PathLike) else str(place)
    content = None
    if isinstance(one, bytes | bytearray | memoryview):
        content = bytes(one)
    elif _is_picture(one):
        try:
            content = _as_file(one)
        except (OSError, TypeError, ValueError) as error:
            return Image(name, None, f"cannot be read as an image ({one_line(str(error))})")
    elif not isinstance(one, str | os.PathLike):
        shape = f" of {one.dtype} {list(one.shape)}" if isinstance(one, np.ndarray) else ""
        raise Misuse(f"image {place} is {type(one).__name__}{shape}, but images must be {WANTED}.")
    elif (problem := _problem(name)) is not None:
        return Image(name, None, problem)
    try:
        decoded = decode(Path(name), inputs.image_size, content)
        return Image(name, single(decoded, inputs.bits, inputs.channels))
    except (UserError, ValueError) as error:
        return Image(name, None, one_line(str(error)).removeprefix(f"{one_line(name)}: ").rstrip("."))


def _problem(name: str) -> str | None:
    """Why a file is not even opened: it is not there, or a pipe, say, that nobody ever writes to."""
    try:
        mode = os.stat(name).st_mode
    except OSError as error:
        return error.strerror
    except ValueError:
        return "is no path"  # of a null byte, say
    return None if stat.S_ISREG(mode) else "is not a file"


def _as_file(one: Any) -> bytes:
    """A picture in memory as a file that loses nothing of it, so that it is read as one."""
    from PIL import Image as Images

    picture = Images.fromarray(one) if isinstance(one, np.ndarray) else one
    buffer = io.BytesIO()
    if picture.mode == "CMYK":
        picture.save(buffer, "TIFF", exif=picture.getexif())
    else:
        picture.save(buffer, "PNG", compress_level=1, exif=picture.getexif())
    return buffer.getvalue()


def files_in(places: Sequence[Path]) -> Iterator[Path]:
    """Files as they are given, and of a folder all images in it and in the folders inside it, sorted.

    Raises:
        UserError: if a folder has none, or cannot be read.
    """
    for place in places:
        if not os.path.isdir(place):
            yield place
            continue
        found = sorted(_walk(place))
        if not found:
            raise UserError(f"{place}: has no images; files that end in {', '.join(sorted(SUFFIXES))} are read.")
        yield from found


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
