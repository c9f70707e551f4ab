"""The state of a running training in a file with its checksum, and the one before it; no code is unpickled from them.

A file is a line `ssvi checkpoint VERSION SHA-256` and what `torch.save` makes of the state, in which masked tensors are
packed (`ssvi.core.packing`). The checksum is taken over the version and the state, so that no flipped bit goes
unnoticed. Kept are the last two: when the newer one is damaged, the older one still goes on. What a state holds, and by
which names, is in `ssvi.training.state`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssvi.core.packing import restored, shrunk
from ssvi.errors import UserError
from ssvi.machine.disk import replace, write_bytes
from ssvi.runs.files import CHECKPOINT, PREVIOUS_CHECKPOINT
from ssvi.runs.records import told_by_version

# Raised whenever a checkpoint's content changes its meaning. Those of 4 are read too: nothing was packed in them.
VERSION = 5
READ = ("4", str(VERSION))
MAGIC = "ssvi checkpoint"


class Damaged(Exception):
    """A file that is not what was once written; the text says how that was noticed."""


def save(folder: Path, state: dict[str, Any]) -> None:
    """Make `state` (tensors, numbers, text, lists and dicts) the run's checkpoint; the last one is kept beside it."""
    buffer = io.BytesIO()
    torch.save(shrunk(state), buffer)
    content = buffer.getbuffer()
    head = f"{MAGIC} {VERSION} {_checksum(VERSION, content)}\n".encode()
    write_bytes(folder / CHECKPOINT, [head, content], keep=folder / PREVIOUS_CHECKPOINT)


def load(
    folder: Path, device: torch.device, keys: frozenset[str], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any] | None:
    """The run's last checkpoint that is whole, or None if it has none at all.

    Args:
        folder: the run folder.
        device: where the tensors are to lie.
        keys: what a checkpoint of this version holds.
        say: told in a line that the newer checkpoint was damaged, if it was; it is then replaced by the older one.

    Raises:
        UserError: if there are files and none is whole, or if they are of another version.
    """
    newest, previous = folder / CHECKPOINT, folder / PREVIOUS_CHECKPOINT
    problems = []
    for path in (newest, previous):
        if not path.exists():
            continue
        try:
            state = _read(path, device, keys)
        except Damaged as problem:
            problems.append(f"{path}: {problem}")
            continue
        if path == previous:
            # also after a crash between the two renamings of `save`, when there is no newer one
            replace(previous, newest)
        for problem in problems:
            say(f"{problem}; going on from the checkpoint before it")
        return state
    if problems:
        raise UserError(f"{'; '.join(problems)}. No other is left: delete {newest.parent} to start this run anew.")
    return None


def _read(path: Path, device: torch.device, keys: frozenset[str]) -> dict[str, Any]:
    """The state in one file.

    Raises:
        Damaged: if the file is not as it was written.
        UserError: if it is, but was written by another version.
    """
    try:
        with path.open("rb") as file:
            head, content = file.readline(200), file.read()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Damaged("damaged checkpoint (the disk cannot read it)") from None
    try:
        magic, version, checksum = head.decode("ascii").removesuffix("\n").rsplit(" ", 2)
    except ValueError:
        raise Damaged("truncated or damaged checkpoint (it does not begin as one)") from None
    if magic != MAGIC or checksum != _checksum(version, content):
        raise Damaged("truncated or damaged checkpoint (its checksum is wrong)")
    live = path.parent
    remedy = f"{told_by_version(live.parent)} To start this run anew, move {live} away."
    if version not in READ:
        raise UserError(f"{path}: a checkpoint of version {version}, but this is version {VERSION}; {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd it refuses, or it is no matter
            state = restored(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), device)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, ValueError, TypeError) as error:
        # whole, but of a torch that writes otherwise, or not written by `save`
        raise UserError(f"{path}: torch cannot read this checkpoint ({type(error).__name__}); {remedy}") from None
    if not isinstance(state, dict) or set(state) != keys:
        raise UserError(f"{path}: not a checkpoint of a training; {remedy}")
    return state


class Pace:
    """When the next checkpoint is due."""

    def __init__(self, wait: Callable[[float], float]) -> None:
        """`wait` gives the seconds from one checkpoint to the next, if writing one takes so many."""
        self._wait = wait
        self._cost, self._since = 0.0, time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the time to the next one is over."""
        return time.monotonic() - self._since >= self._wait(self._cost)

    def restart(self) -> None:
        """Count from now on: a training begins."""
        self._since = time.monotonic()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Meanwhile one is written."""
        start = time.monotonic()
        yield
        self._since = time.monotonic()
        self._cost = self._since - start


def _checksum(version: object, content: bytes | memoryview) -> str:
    digest = hashlib.sha256(f"{version}\n".encode())
    digest.update(content)
    return digest.hexdigest()
