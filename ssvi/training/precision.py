"""What is computed is what was asked for: float32 in full, and the same bytes each time.

Nothing of a training or an evaluation is rounded to TF32 or bf16 behind its back. PyTorch lets cuDNN's convolutions use
TF32 (10 bits of mantissa) unless told otherwise, and its users' and systems' settings do so for matrix products. bf16
is used where a spec says so, by autocast, and nowhere else.
"""

from __future__ import annotations

import os
from typing import Any

import torch

FULL = "ieee"


def full_float32() -> None:
    """Compute in float32 what is float32, in this process from here on, whatever was set before.

    Covers CUDA, cuDNN and oneDNN, by the switches of every supported version of PyTorch.
    """
    # NVIDIA's libraries read it when they start, and it would overrule everything else
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for part in _parts():
        part.fp32_precision = FULL


def repeatable() -> None:
    """Let cuDNN take kernels alone that give the same bytes each time, in this process from here on.

    Its fastest gradients of convolutions add up in whatever order threads arrive. Without them two trainings of a spec
    on one kind of GPU, and one that was stopped and went on, end with the same bytes.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def float32_is_full() -> bool:
    """Whether PyTorch's switches say so."""
    if parts := _parts():
        # the older switches raise an error where the newer ones were used
        return all(part.fp32_precision == FULL for part in parts)
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return torch.get_float32_matmul_precision() == "highest" and not tf32


def _parts() -> list[Any]:
    """Where PyTorch keeps the precision of float32 since 2.9; none before."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    families = [(backends.cuda, ("matmul",)), (backends.cudnn, ("conv", "rnn"))]
    families.append((backends.mkldnn, ("matmul", "conv", "rnn")))
    operations = [getattr(family, name) for family, names in families for name in names]
    return [backends, backends.cudnn, backends.mkldnn, *operations]
