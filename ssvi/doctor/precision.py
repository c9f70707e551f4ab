"""Whether fp32 is float32 on a device: by what products and convolutions come out as, and by torch's switches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssvi.core.noise import generator

# Relative errors: of fp32 below 1e-6, of TF32, which rounds what it multiplies to 11 bits, about 3e-4.
FP32 = 3e-5


def switches() -> dict[str, Any]:
    """What says in which precision torch computes on this device."""
    return {
        "matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def errors(device: str) -> dict[str, float]:
    """Relative errors of a matrix product and of a convolution with its gradients, against float64 on the CPU."""
    numbers = generator(0, "precision")
    a, b = (torch.randn(512, 512, generator=numbers) for _ in range(2))
    x, weight = torch.randn(16, 64, 16, 16, generator=numbers), torch.randn(64, 64, 3, 3, generator=numbers)

    def results(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = [t.to(device, dtype).requires_grad_() for t in (x, weight)]
        with torch.inference_mode(False), torch.enable_grad():
            y = functional.conv2d(*leaves, padding=1)
            of_input, of_weight = torch.autograd.grad(y.square().sum(), leaves)
        found = {"product": a.to(device, dtype) @ b.to(device, dtype), "convolution": y.detach()}
        found |= {"its gradient by the input": of_input, "its gradient by the weight": of_weight}
        return {name: value.double().cpu() for name, value in found.items()}

    true = results("cpu", torch.float64)
    found = results(device, torch.float32)
    return {name: float((value - true[name]).norm() / true[name].norm()) for name, value in found.items()}
