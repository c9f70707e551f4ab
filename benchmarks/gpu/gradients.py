"""Gradients of a layer with local reparameterisation, compiled and captured against eager."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from benchmarks.gpu.draws import alike, captured
from benchmarks.gpu.given import Fault, Given
from ssvi.bench.cuda import WAYS
from ssvi.layers import Operation, local_reparameterisation
from ssvi.noise import NormalSource, generator

# Shapes of weight and input; no two sizes that could be taken for each other are the same.
LAYERS = {
    "linear": (Operation(), (8, 12), (16, 12)),
    "convolution": (Operation(1, 1), (8, 4, 3, 3), (16, 4, 6, 6)),
    "strided convolution": (Operation(2, 0, kernel=1), (8, 4, 1, 1), (16, 4, 6, 6)),
}
# Largest difference over the norm of what it differs from.
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}


def _gradients(given: Given, layer: str, precision: str, way: str) -> dict[str, Tensor]:
    """The loss of one step and its gradients by mean, variance and input."""
    torch._dynamo.reset()
    operation, shape, inputs = LAYERS[layer]
    numbers = generator(0, layer)
    mean, x = (torch.randn(sizes, generator=numbers).to(given.device) for sizes in (shape, inputs))
    leaves = {"mean": mean, "variance": torch.full_like(mean, 0.01), "input": x}
    for leaf in leaves.values():
        leaf.requires_grad_()
    noise = NormalSource(0, "noise", given.device)

    def forward() -> Tensor:
        half = precision == "bf16"
        with torch.autocast(given.device, torch.bfloat16, cache_enabled=False) if half else nullcontext():
            # not a leaf in the layer, as the input of every layer but the first
            seen = operation.seen(x * 1.0)
            y = local_reparameterisation(seen, mean, leaves["variance"], None, operation, 1e-8, noise)
        return y.float().square().mean()

    switches = WAYS[way]
    passes = torch.compile(forward, dynamic=False, backend=given.backend) if switches["compile"] else forward
    found: dict[str, Tensor] = {}

    def work() -> None:
        for leaf in leaves.values():
            leaf.grad = None
        loss = passes()
        loss.backward()
        found["loss"] = loss.detach()

    with alike(noise):
        step: Callable[[], None] = captured(work) if switches["capture"] else work
        step()
    return {name: leaf.grad.double().cpu() for name, leaf in leaves.items()} | {"loss": found["loss"].double().cpu()}


def relative(found: Tensor, true: Tensor) -> float:
    """Norm of the difference over the norm of what should be there."""
    return float((found - true).norm() / true.norm().clamp_min(1e-30))


def gradients(given: Given) -> None:
    """Every kind of layer in both precisions, in every way that the device has."""
    ways, faults = given.ways(), []
    for layer, precision in itertools.product(LAYERS, TOLERANCES):
        eager = _gradients(given, layer, precision, "eager")
        for way in ways[1:]:
            off = {k: relative(v, eager[k]) for k, v in _gradients(given, layer, precision, way).items()}
            given.say(layer=layer, precision=precision, way=way, off=off)
            worst = max(off, key=off.__getitem__)
            if not off[worst] <= TOLERANCES[precision]:
                faults.append(f"{layer}, {precision}, {way}: {worst} is off by {off[worst]:.2g} of its norm")
    if faults:
        raise Fault(f"{len(faults)} of the gradients are not the eager ones: {'; '.join(faults)}")
