"""A prepared data set and its file: one safetensors file with its own checksum, quick to read, written atomically."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssvi.disk import remove_leftovers, write_bytes
from ssvi.errors import UserError
from ssvi.tensors import fingerprint

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A data set in memory: images uint8 [n, C, H, W], labels int64 [n] that index `classes`.

    `fingerprint` is the SHA-256, in hex, of the class names and of every tensor's name, type, shape and bytes. Of a
    folder of images, `content` is that of its files (`ssvi.images`), `reading` what was noticed when they were read,
    `left_out` counts, by reason, the files that are not, and `images` has a row for each class (`Content.images`).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    content: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)


def prepared(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Sequence[str],
    content: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Prepared:
    """A data set from the (images, labels) of its two parts, with its fingerprint."""
    tensors = dict(zip(TENSORS, (*train, *test), strict=True))
    head = json.dumps(list(classes)).encode()
    return Prepared(
        **tensors,
        classes=tuple(classes),
        fingerprint=fingerprint(tensors, head),
        content=content,
        reading=reading or {},
    )


def cached(path: Path, build: Callable[[], Prepared]) -> Prepared:
    """The data set stored at `path`, built and stored first if it is not there or damaged.

    Processes that do this at the same time each write the same whole file, so any order is harmless.

    Raises:
        UserError: if the file cannot be read or written, or from `build`.
    """
    remove_leftovers(path.parent)
    if path.is_file():
        if (found := _read(path)) is not None:
            return found
        log.warning("%s: damaged, made anew", path)
    data = build()
    # One entry, because safetensors writes several in any order, and the same data should give the same file.
    told = {name: getattr(data, name) for name in ("classes", "fingerprint", "content", "reading")}
    metadata = {"data": json.dumps(told)}
    tensors = {name: getattr(data, name).contiguous() for name in TENSORS}
    try:
        write_bytes(path, save(tensors, metadata))
    except OSError as error:
        raise UserError(f"{path}: the prepared data set cannot be written there ({error}).") from None
    return data


def _read(path: Path) -> Prepared | None:
    """What `path` holds, or None if that is not a whole data set with the fingerprint it was written with."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["data"])
            tensors = [file.get_tensor(name) for name in TENSORS]
            about = (metadata["classes"], metadata["content"], metadata["reading"])
            data = prepared((tensors[0], tensors[1]), (tensors[2], tensors[3]), *about)
    except (SafetensorError, KeyError, ValueError, TypeError):
        # However the file is broken, the remedy is the same: the caller builds it again.
        return None
    except OSError as error:
        raise UserError(f"{path}: the prepared data set cannot be read ({error}).") from None
    return data if data.fingerprint == metadata.get("fingerprint") else None
