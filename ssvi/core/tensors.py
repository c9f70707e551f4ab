"""What is not about any one kind of tensor: what identifies them, and how many of them reach the host at once."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor], head: bytes = b"") -> str:
    """The SHA-256, in hex, of `head` and of every tensor's name, type, shape and bytes, in the mapping's order."""
    return fingerprints(tensors, head)[-1]


def fingerprints(tensors: Mapping[str, Tensor], head: bytes = b"") -> list[str]:
    """The `fingerprint` of no tensor, of the first one, of the first two, ... of all."""
    digest = hashlib.sha256(head)
    found = [digest.hexdigest()]
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        found.append(digest.hexdigest())
    return found


def fetched(value: Any) -> Any:
    """A structure of dicts and lists in which each tensor is replaced by its number, or list of numbers.

    The host waits for the device once, however many tensors there are. Whole numbers must be below 2^53.
    """
    tensors: list[Tensor] = []

    def collect(part: Any) -> None:
        if isinstance(part, Tensor):
            tensors.append(part)
        elif isinstance(part, dict | list):
            for each in part.values() if isinstance(part, dict) else part:
                collect(each)

    def rebuilt(part: Any) -> Any:
        if isinstance(part, Tensor):
            own = numbers.narrow(0, next(starts), part.numel()).view(part.shape)
            return (own if part.is_floating_point() else own.long()).tolist()
        if isinstance(part, dict):
            return {key: rebuilt(each) for key, each in part.items()}
        return [rebuilt(each) for each in part] if isinstance(part, list) else part

    collect(value)
    numbers = torch.cat([t.detach().double().flatten() for t in tensors]).cpu() if tensors else torch.empty(0)
    starts = itertools.accumulate([0, *(t.numel() for t in tensors)])
    return rebuilt(value)
