"""What identifies tensors: a checksum over their names and contents, which a safetensors file carries along."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor], head: bytes = b"") -> str:
    """The SHA-256, in hex, of `head` and of every tensor's name, type, shape and bytes, in the mapping's order."""
    digest = hashlib.sha256(head)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
