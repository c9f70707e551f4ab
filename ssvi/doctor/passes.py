"""Forward and backward passes of every kind of layer, compiled and captured against eager."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ssvi.bench.cuda import WAYS
from ssvi.core.noise import NormalSource, generator
from ssvi.core.operations import Convolution, Operation
from ssvi.core.reparameterisation import local_reparameterisation
from ssvi.errors import UserError
from ssvi.training.step import choose_machine

# Operation, shapes of weight and input; no two sizes that could be taken for each other are the same.
OPERATIONS = {
    "linear": (Operation(), (8, 12), (16, 12)),
    "convolution": (Convolution((3, 3), 1, 1), (8, 4, 3, 3), (16, 4, 6, 6)),
    "strided convolution": (Convolution((1, 1), 2), (8, 4, 1, 1), (16, 4, 6, 6)),
}
# With local reparameterisation, and with a weight that was sampled.
LAYERS = tuple(f"{name}{how}" for how in ("", " of a sampled weight") for name in OPERATIONS)
# Largest difference over the norm of what it differs from.
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}


def ways(device: str, backend: str) -> tuple[list[str], dict[str, str]]:
    """The ways to take a step that can be compared on a device, eager first; which switches it cannot take, and why."""
    missing = {} if device == "cuda" else {"capture": "only CUDA has graphs"}
    missing |= {"compile": reason} if (reason := cannot_compile(device, backend)) else {}
    return [way for way, on in WAYS.items() if not any(on[switch] for switch in missing)], missing


def cannot_compile(device: str, backend: str) -> str:
    """Why nothing is compiled for a device, in a line; empty where it is."""
    if backend != "inductor":  # the others stay in Python
        return ""
    try:
        choose_machine(torch.device(device), {"compile": True})
    except UserError as error:
        return str(error)
    return ""


def alike(source: NormalSource) -> AbstractContextManager[None]:
    """Make its noise the same however a step is computed.

    On a CPU it is, by the same generators. On CUDA the runs before a capture draw too, so there every draw is the same
    pattern, and all that is done with it is still compared.
    """
    return source.held() if source.device.type == "cuda" else nullcontext()


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """Work on tensors that stay where they are, as a CUDA graph that is replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def gradients(device: str, precision: str, way: str, backend: str) -> dict[str, dict[str, Tensor]]:
    """Of every layer its loss and its gradients by what it is computed from, in one pass of all layers."""
    torch._dynamo.reset()
    leaves = {layer: _leaves(layer, device) for layer in LAYERS}
    noise, half = NormalSource(0, "noise", device), precision == "bf16"

    def forward() -> tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False) if half else nullcontext():
            outputs = [_output(layer, leaves[layer], noise) for layer in LAYERS]
        return tuple(y.float().square().mean() for y in outputs)

    passes = torch.compile(forward, dynamic=False, backend=backend) if WAYS[way]["compile"] else forward
    losses: list[Tensor] = []

    def work() -> None:
        for each in leaves.values():
            for leaf in each.values():
                leaf.grad = None
        found = passes()
        torch.stack(found).sum().backward()
        losses[:] = [loss.detach() for loss in found]

    with alike(noise):
        step: Callable[[], None] = captured(work) if WAYS[way]["capture"] else work
        step()
    found = {layer: {name: leaf.grad for name, leaf in each.items()} for layer, each in leaves.items()}
    return {
        layer: {name: value.double().cpu() for name, value in {**found[layer], "loss": loss}.items()}
        for layer, loss in zip(LAYERS, losses, strict=True)
    }


def _leaves(layer: str, device: str) -> dict[str, Tensor]:
    """What a layer is computed from."""
    name, _, sampled = layer.partition(" of a ")
    _, shape, inputs = OPERATIONS[name]
    numbers = generator(0, layer)
    weight, x = (torch.randn(sizes, generator=numbers).to(device) for sizes in (shape, inputs))
    leaves = {"weight": weight} if sampled else {"mean": weight, "variance": torch.full_like(weight, 0.01)}
    return {name: leaf.requires_grad_() for name, leaf in {**leaves, "input": x}.items()}


def _output(layer: str, leaves: dict[str, Tensor], noise: NormalSource) -> Tensor:
    operation = OPERATIONS[layer.partition(" of a ")[0]][0]
    # not a leaf in the layer, as the input of every layer but the first
    seen = operation.seen(leaves["input"] * 1.0)
    if "weight" in leaves:
        return operation(seen, leaves["weight"], None)
    return local_reparameterisation(seen, leaves["mean"], leaves["variance"], None, operation, 1e-8, noise)


def relative(found: Tensor, true: Tensor) -> float:
    """Norm of the difference over the norm of what should be there."""
    return float((found - true).norm() / true.norm().clamp_min(1e-30))


def off(found: dict[str, dict[str, Tensor]], true: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """How far everything is from where it should be, by layer."""
    return {
        layer: {name: relative(found[layer][name], value) for name, value in of.items()} for layer, of in true.items()
    }


def disagreements(apart: dict[str, dict[str, float]], precision: str, way: str) -> Iterable[str]:
    """A line for each layer that is too far off, with what of it is farthest."""
    for layer, values in apart.items():
        worst = max(values, key=lambda name: values[name] if values[name] == values[name] else float("inf"))
        if not values[worst] <= TOLERANCES[precision]:
            yield f"{layer}, {precision}, {way}: {worst} is off by {values[worst]:.2g} of its norm"
