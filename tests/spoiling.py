"""Files as they must not be: how a good one is spoiled."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import tie
from PIL import Image

from ssvi.runs import files
from ssvi.training import checkpoint
from ssvi.training.stored import read_model, save_model

# What is done to a good folder.
Spoil = Callable[[Path], object]


class Trap:
    """Unpickled, it makes a file named evil in the working folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("evil", "w"))


def nothing(folder: Path) -> None:
    pass


def write(name: str, content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def change(name: str, by: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        changed = by(content)
        assert changed != content
        (folder / name).write_bytes(changed)

    return spoil


def remove(name: str) -> Spoil:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def link(name: str, target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def make_folder(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return spoil


def pipe(name: str) -> Spoil:
    """A file that nobody writes to: whoever opens it waits for ever."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def unreadable(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).chmod(0)
        if os.access(folder / name, os.R_OK):
            pytest.skip("root may read everything")

    return spoil


def record(name: str, **values: Any) -> Spoil:
    """Values in a JSON file replaced or, where they are `...`, taken away; `a__b` is b in a.

    The folder's other files then belong to it as before.
    """

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        for key, value in values.items():
            *outer, last = key.split("__")
            place = content
            for part in outer:
                place = place[part]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        (folder / name).write_text(json.dumps(content))
        tie((folder / name).parent)

    return spoil


def tensors(run: str, by: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    """Other tensors in a run's model, with a right checksum, and its record says so."""

    def spoil(folder: Path) -> None:
        save_model(folder / run, by(read_model(folder / run)))
        tie(folder / run)

    return spoil


def checkpoints(by: Callable[[bytes], bytes]) -> Spoil:
    """Both checkpoints of the interrupted run, so that no other is left."""

    def spoil(folder: Path) -> None:
        for name in (files.CHECKPOINT, files.PREVIOUS_CHECKPOINT):
            change(f"cut/{name}", by)(folder)

    return spoil


def blank(name: str) -> Spoil:
    """Every PNG file in a folder of one colour."""

    def spoil(folder: Path) -> None:
        for file in (folder / name).rglob("*.png"):
            Image.new("RGB", (8, 8), (40, 40, 40)).save(file)

    return spoil


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def framed(content: bytes, version: int = checkpoint.VERSION) -> bytes:
    """A checkpoint file with a right checksum, whatever is in it."""
    return f"{checkpoint.MAGIC} {version} {checkpoint._checksum(version, content)}\n".encode() + content


def state_of(content: bytes) -> bytes:
    """What is behind the first line of a checkpoint."""
    return content[content.index(b"\n") + 1 :]


def with_seed(content: bytes, seed: int) -> bytes:
    """A whole checkpoint, but of another spec."""
    state = torch.load(io.BytesIO(state_of(content)), weights_only=True)
    state["spec"]["spec"]["seed"] = seed
    return framed(saved(state))


def saved(value: Any) -> bytes:
    """What `torch.save` makes of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def png(width: int, height: int, pixels: bytes = b"", *chunks: bytes) -> bytes:
    """A PNG file of grey pixels that says it is this large, whatever it holds, with more chunks."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (head, *chunks, b"IDAT" + zlib.compress(pixels), b"IEND")
    whole = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def encoded(format: str, mode: str = "RGB", **options: Any) -> bytes:
    """An image of noise, 32 x 32 pixels."""
    buffer = io.BytesIO()
    noise = Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(32 * 32 * 3))
    noise.convert(mode).save(buffer, format, **options)
    return buffer.getvalue()
