"""Before compiled or captured passes train anything: one batch through them and through the plain ones.

A compiler that drops a gradient, or a graph that replays another computation, would train to the end and say nothing.
So loss and gradients of the first batch are compared, in the precision at hand, with all noise held at 1, because
eager and compiled code draw different numbers on CUDA. In bf16, where kernels round at different places, both are held
against plain passes in float32. What disagrees is switched off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.layers import MaskedLayer
from ssvi.methods.base import Batch
from ssvi.step import WARM_UP_STEPS, Passes, Stepper

# How far loss and gradients may be from those of the plain passes in float32, relative to their size: this much, since
# rounding turns a ReLU here and there, and twice as far as the plain passes in the precision at hand, but never as far
# as nothing at all, which is 1.
TOLERANCE, TIMES, MOST = 0.05, 2.0, 0.9
FAR = 1e9

Kinds = dict[str, list[Tensor]]


def self_check(stepper: Stepper, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Compare the passes of a training that is to be compiled or captured with the plain ones, and switch off what
    disagrees, which is said.

    The network, its statistics and all random streams are left as they were.

    Args:
        stepper: of a training that is about to take its first step.
        say: where a line goes that a person must see.

    Returns:
        what training.json holds: what is allowed and, for each switch, what was found; None where nothing is compiled
        or captured, or there are fewer images than a batch has.
    """
    size, switches = stepper.spec.batch_size, [s for s in ("compile", "capture") if getattr(stepper.machine, s)]
    if not switches or stepper.data.n_train < size:
        return None
    start = time.perf_counter()
    found: dict[str, Any] = {}
    with _as_it_was(stepper), stepper.streams.noise.held():
        stepper.method.before_step()
        batch = stepper.batch(torch.arange(size, device=stepper.machine.device))
        exact = _look(stepper, stepper.exact_loss, batch)
        plain = _distances(_look(stepper, stepper.loss, batch), exact)
        allowed = {kind: min(TOLERANCE + TIMES * off, MOST) for kind, off in plain.items()}
        for switch in switches:
            found[switch] = result = _compare(stepper, switch, batch, exact, allowed)
            if not result["agrees"]:
                stepper.switch_off(switch)
                say(f"WARNING: --{switch} is switched off: {result['said']}; the training is right, but slower")
    return {"precision": stepper.precision, "seconds": time.perf_counter() - start, "allowed": allowed, **found}


def _compare(stepper: Stepper, switch: str, batch: Batch, exact: Kinds, allowed: dict[str, float]) -> dict[str, Any]:
    try:
        off = _distances(_look(stepper, stepper.passes, batch, replayed=switch == "capture"), exact)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # what compilers and CUDA graphs raise when they cannot do it at all
        first = str(error).strip().split("\n")[0]
        return {"agrees": False, "said": f"it failed with {type(error).__name__}: {first}"}
    worst = max(off, key=lambda kind: off[kind] / allowed[kind])
    return {
        "agrees": off[worst] <= allowed[worst],
        "said": f"{worst} is {off[worst]:.2g} from where it should be (allowed: {allowed[worst]:.2g})",
        "relative": off,
    }


def _distances(found: Kinds, exact: Kinds) -> dict[str, float]:
    """How far each kind is off, relative to its size; what is no number is as far as can be."""
    off = {kind: _apart(found.get(kind, []), tensors) for kind, tensors in exact.items()}
    return {kind: value if value < FAR else FAR for kind, value in off.items()}


def _apart(found: list[Tensor], plain: list[Tensor]) -> float:
    """Distance of two lists of tensors relative to the second's size."""
    if len(found) != len(plain):
        return math.inf
    size = sum(float(b.double().square().sum()) for b in plain)
    distance = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found, plain, strict=True))
    return math.sqrt(distance / size) if size else math.inf * distance if distance else 0.0


def _look(stepper: Stepper, passes: Passes, batch: Batch, replayed: bool = False) -> Kinds:
    """The loss and the gradients of a batch, these by kind of layer and parameter."""

    def forth_and_back() -> Tensor:
        for _, leaf in _leaves(stepper.model):
            leaf.grad = None
        loss = passes(batch)[0]
        loss.backward()
        return loss

    kinds: Kinds = {"loss": [(_replay(stepper, forth_and_back) if replayed else forth_and_back()).detach()]}
    for kind, leaf in _leaves(stepper.model):
        if leaf.grad is not None:
            kinds.setdefault(kind, []).append(leaf.grad.clone())
    return kinds


def _replay(stepper: Stepper, work: Callable[[], Tensor]) -> Tensor:
    """Capture `work` as a CUDA graph of its own, after some runs on a side stream, and replay it once."""
    device, side = stepper.machine.device, torch.cuda.Stream(stepper.machine.device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    graph.replay()
    torch.cuda.synchronize(device)
    return result.clone()


def _leaves(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What gathers gradients, each with its kind: the layer's, and which of its tensors."""
    for module in model.modules():
        kind = type(module).__name__
        if isinstance(module, MaskedLayer):
            kind += " (matrix product)" if module.operation.stride is None else " (convolution)"
            if (realised := getattr(module, "realised", None)) is not None:
                yield f"{kind} realised", realised
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{kind} {name}", parameter


@contextmanager
def _as_it_was(stepper: Stepper) -> Iterator[None]:
    """Put back what passes change: BatchNorm's statistics, gradients, random streams."""
    streams = stepper.streams.state_dict()
    buffers = [(buffer, buffer.clone()) for buffer in stepper.model.buffers()]
    try:
        yield
    finally:
        stepper.streams.load_state_dict(streams)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for _, leaf in _leaves(stepper.model):
            leaf.grad = None
