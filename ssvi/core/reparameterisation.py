"""Local reparameterisation (eq. 4): a layer's outputs under Gaussian weights, as one node of autograd's graph."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from ssvi.core.noise import NormalSource
from ssvi.core.operations import Operation

_scratch = threading.local()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a * b for use until the next product: on a CPU always in the same memory, which is warm and never asked for."""
    dense = a.is_contiguous() or (a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last))
    # what is made in inference mode can be used nowhere else
    elsewhere = a.is_cuda or torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    if elsewhere or not dense or a.stride() != b.stride():
        return a * b
    buffers: dict[torch.dtype, Tensor] = _scratch.__dict__.setdefault("buffers", {})
    buffer = buffers.get(a.dtype)
    if buffer is None or buffer.numel() < a.numel():
        buffer = buffers[a.dtype] = torch.empty(a.numel(), dtype=a.dtype)
    return torch.mul(a, b, out=buffer.as_strided(a.shape, a.stride()))


class _LocalReparameterisation(torch.autograd.Function):
    """y = f(x, mean) + sqrt(f(x^2, variance) + epsilon) * noise (eq. 4) for a linear operation f, as one node.

    Beside its inputs it keeps one tensor for the backward pass, noise / (2 sd); x^2 is computed again. Sums and
    products are formed in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        bias: Tensor | None,
        operation: Operation,
        epsilon: float,
        noise: NormalSource,
    ) -> Tensor:
        out = operation(x, mean, bias)
        out, slope = noise.add_noise(out, operation(_product(x, x), variance, None), epsilon)
        ctx.save_for_backward(x, mean, variance, slope)
        ctx.operation, ctx.has_bias = operation, bias is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, slope = ctx.saved_tensors
        operation: Operation = ctx.operation
        wants_x = ctx.needs_input_grad[0]
        to_x, to_mean, to_bias = operation.backward(grad, x, mean, wants_x, ctx.has_bias)
        squared_x, to_variance, _ = operation.backward(grad * slope, _product(x, x), variance, wants_x, False)
        if wants_x:
            to_x = to_x.addcmul_(x, squared_x, value=2)
        return to_x, to_mean, to_variance, to_bias, None, None, None


def local_reparameterisation(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    bias: Tensor | None,
    operation: Operation,
    epsilon: float,
    noise: NormalSource,
) -> Tensor:
    """A draw of the outputs under weights N(mean, variance), independent per output (eq. 4).

    Under autocast everything is computed in its type, gradients come back in the parameters' own.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        bias = None if bias is None else bias.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            return local_reparameterisation(
                x.to(dtype), mean.to(dtype), variance.to(dtype), bias, operation, epsilon, noise
            )
    rows = operation.rows(x)
    out = _LocalReparameterisation.apply(rows, mean, variance, bias, operation, epsilon, noise)
    return operation.like(out, x)
