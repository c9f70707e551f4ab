"""A prepared data set and its file: one safetensors file with its own checksum, quick to read, written atomically."""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssvi.core.tensors import fingerprint, fingerprints
from ssvi.errors import UserError, one_line
from ssvi.machine.disk import remove_leftovers, write_bytes
from ssvi.runs.identity import Identity
from ssvi.runs.images import Content

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A data set in memory: images uint8 [n, C, H, W], labels int64 [n] that index `classes`.

    `fingerprint` is the SHA-256, in hex, of the class names and of every tensor's name, type, shape and bytes;
    `training_fingerprint` and `test_fingerprint` are of the tensors of one part. Of a folder of images, `content` is
    that of its files (`ssvi.runs.images`), `reading` what was noticed when they were read, `left_out` counts, by
    reason, the files that are not, and `images` has a row for each class (`Content.images`).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    training_fingerprint: str
    test_fingerprint: str
    content: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """What tells this data set from others."""
        files = Content(self.images, "").identity() if self.images else {}
        return Identity(self.fingerprint, self.training_fingerprint, self.test_fingerprint, **files)


def prepared(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Sequence[str],
    content: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Prepared:
    """A data set from the (images, labels) of its two parts, with its fingerprints."""
    tensors = dict(zip(TENSORS, (*train, *test), strict=True))
    head = json.dumps(list(classes)).encode()
    _, _, training, _, whole = fingerprints(tensors, head)
    return Prepared(
        **tensors,
        classes=tuple(classes),
        fingerprint=whole,
        training_fingerprint=training,
        test_fingerprint=fingerprint_of_tests(*test, classes),
        content=content,
        reading=reading or {},
    )


def fingerprint_of_tests(images: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """The fingerprint of test images, as `Prepared` has it."""
    return fingerprint(dict(zip(TENSORS[2:], (images, labels), strict=True)), json.dumps(list(classes)).encode())


@dataclass(frozen=True)
class Form:
    """What is known of a data set before it is read: how many classes it has, the shape [C, size, size] of its images,
    and, of a folder, their content."""

    classes: int
    channels: int
    size: int
    content: str | None = None


def cached(path: Path, build: Callable[[], Prepared], form: Form | None = None) -> Prepared:
    """The data set stored at `path`, built and stored first if it is not there or damaged.

    Processes that do this at the same time each write the same whole file, so any order is harmless.

    Args:
        path: of the file.
        build: makes the data set from its source.
        form: what the file has to hold.

    Raises:
        UserError: if the file cannot be read or written, or is whole and holds something else than a data set of that
            form, or from `build`.
    """
    remove_leftovers(path.parent)
    if path.is_file():
        if (found := _read(path)) is not None:
            if problem := _problem(found, form):
                raise UserError(f"{path}: {problem}; delete this file, and it is made anew.")
            return found
        log.warning("%s: damaged, made anew", one_line(str(path)))
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
            about = (_words(metadata["classes"]), metadata["content"], dict(metadata["reading"]))
            data = prepared((tensors[0], tensors[1]), (tensors[2], tensors[3]), *about)
    except (SafetensorError, KeyError, ValueError, TypeError):
        # However the file is broken, the remedy is the same: the caller builds it again.
        return None
    except OSError as error:
        raise UserError(f"{path}: the prepared data set cannot be read ({error}).") from None
    return data if data.fingerprint == metadata.get("fingerprint") else None


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{value!r} is no list of words")
    return value


def _problem(data: Prepared, form: Form | None) -> str:
    """What is wrong with a data set whose file is whole; empty if nothing is."""
    number = len(data.classes)
    if number < 2 or len(set(data.classes)) < number:
        return f"has the classes {reprlib.repr(list(data.classes))}, but must have at least 2, each once"
    if form and (form.classes, form.content) != (number, data.content):
        other = "is of other images" if form.classes == number else f"has {number} classes instead of {form.classes}"
        return f"{other}, by what it says"
    size = data.train_images.shape[-1:].numel()
    shape = (form.channels, form.size, form.size) if form else (*data.train_images.shape[1:2], size, size)
    for part in ("train", "test"):
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
            return f"{part}_images are {images.dtype} {list(images.shape[1:])}, but must be torch.uint8 {list(shape)}"
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
            return f"{part}_labels are {labels.dtype} {list(labels.shape)}, but must be one torch.int64 for each image"
        if (low := int(labels.min())) < 0 or (high := int(labels.max())) >= number:
            odd = low if low < 0 else high
            return f"{part}_labels has {odd}, but must be from 0 to {number - 1}, which are its classes"
    if missing := set(range(number)) - set(data.train_labels.unique().tolist()):
        return f"has no training image of class {data.classes[min(missing)]!r}"
    return ""
