"""Before compiled or captured passes train anything: one batch through them and through the plain ones.

A compiler that drops a gradient, or a graph that replays another computation, would train to the end and say nothing.
So loss and gradients of the first batch are compared, tensor by tensor, in the precision at hand, with all noise held
(`NormalSource.held`), because the runs before a capture draw too. What disagrees is switched off.

How far two right computations are apart depends on the network, so that is measured too: the plain passes on images
that differ in their last digit, and for bf16 those in float32. A gradient that is itself nothing but rounding (of
channels without weights behind BatchNorm, say) judges nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.core.active import active_weights
from ssvi.core.layers import MaskedLayer
from ssvi.methods.context import Batch
from ssvi.training.step import WARM_UP_STEPS, Passes, Stepper, still_usable, told_cause

# How far a tensor may be off, and twice as far as plain passes are from each other; in float32 the distance, in bf16,
# where fused kernels round elsewhere and distances are large, the share along the right direction that is missing or
# too much. A lost gradient is 1 off by both, a halved one 0.5.
TOLERANCE, TIMES = {"fp32": 0.05, "bf16": 0.3}, 2.0
# Where plain passes are that far from each other, nothing can be told.
VAGUE = 0.3
# A gradient that is exactly 0 may become this share of the mean gradient of its kind.
NOTHING = 1e-6
LAST_DIGIT = 2.0**-22
FAR = 1e9

Gradients = dict[str, Tensor]


def self_check(stepper: Stepper) -> dict[str, Any] | None:
    """Compare the passes of a training that is to be compiled or captured with the plain ones, and switch off what
    disagrees, which is said.

    The network, its statistics and all random streams are left as they were.

    Args:
        stepper: of a training that is about to take its first step.

    Returns:
        what training.json holds: what is allowed and, for each switch, what was found, by kind of layer the worst; None
        where nothing is compiled or captured, no step is left, or there are fewer images than a batch has.

    Raises:
        UserError: if an attempt to capture left the device unusable.
    """
    size, switches = stepper.spec.batch_size, [s for s in ("compile", "capture") if getattr(stepper.machine, s)]
    left = stepper.clock.total_steps - stepper.clock.step
    if not switches or not left or stepper.data.n_train < size:
        return None
    start = time.perf_counter()
    found: dict[str, Any] = {}
    with _as_it_was(stepper), stepper.streams.noise.held():
        batch = stepper.batch(torch.arange(size, device=stepper.machine.device))
        plain, allowed = _yardstick(stepper, batch)
        for switch in switches:
            found[switch] = result = _compare(stepper, switch, batch, plain, allowed)
            if not result["agrees"]:
                stepper.switch_off(switch, result["said"])
    judged = sum(limit is not None for limit in allowed.values())
    seconds = time.perf_counter() - start
    return {"precision": stepper.precision, "seconds": seconds, "judged": judged, "tensors": len(allowed), **found}


def _yardstick(stepper: Stepper, batch: Batch) -> tuple[Gradients, dict[str, float | None]]:
    """What the plain passes find, and how far each tensor of others may be off; None where nothing can be told."""
    plain = _look(stepper, stepper.loss, batch)
    others = [_look(stepper, stepper.loss, (batch[0] * (1 + LAST_DIGIT), batch[1]))]
    if stepper.precision != "fp32":
        try:
            others.append(_look(stepper, stepper.exact_loss, batch))
        except torch.OutOfMemoryError:  # what trains in bf16 need not fit in float32
            torch.cuda.empty_cache()
    apart = [_off(other, plain, stepper.precision) for other in others]
    vague = {name: max(one[name] for one in apart) for name in plain}
    return plain, {n: None if v >= VAGUE else TOLERANCE[stepper.precision] + TIMES * v for n, v in vague.items()}


def _compare(
    stepper: Stepper, switch: str, batch: Batch, plain: Gradients, allowed: dict[str, float | None]
) -> dict[str, Any]:
    try:
        seen = _look(stepper, stepper.passes, batch, replayed=switch == "capture")
    except (RuntimeError, torch.OutOfMemoryError) as error:
        # what compilers and CUDA graphs raise when they cannot do it at all
        said = told_cause(error)
        still_usable(stepper.machine.device, switch, said)
        return {"agrees": False, "said": f"it failed with {said}"}
    off = _off(seen, plain, stepper.precision)
    judged = {name: off[name] / limit for name, limit in allowed.items() if limit is not None}
    worst = max(judged, key=lambda name: judged[name], default="loss")
    limit = allowed[worst]
    kinds: dict[str, float] = {}
    for name in judged:
        kinds[_kind(name)] = max(off[name], kinds.get(_kind(name), 0.0))
    return {
        "agrees": limit is None or off[worst] <= limit,
        "said": f"{worst} is {off[worst]:.2g} from where it should be (allowed: {limit or math.inf:.2g})",
        "worst": kinds,
    }


def _off(found: Gradients, plain: Gradients, precision: str) -> dict[str, float]:
    """How far each tensor is from the plain one, by the measure of the precision; what is no number is far."""
    means: dict[str, list[float]] = {}
    for name, tensor in plain.items():
        means.setdefault(_kind(name), []).append(float(tensor.double().square().mean()))
    off = {}
    for name, tensor in plain.items():
        a, b = found[name].double().flatten(), tensor.double().flatten()
        least = NOTHING * math.sqrt(max(means[_kind(name)]) * len(b))
        norm = float(b.norm())
        if precision == "fp32" or norm <= least:
            off[name] = float((a - b).norm()) / max(norm, least, 1e-150)
        else:
            off[name] = abs(float(a @ b) / norm**2 - 1)
    return {name: value if value < FAR else FAR for name, value in off.items()}


def _look(stepper: Stepper, passes: Passes, batch: Batch, replayed: bool = False) -> Gradients:
    """The loss and the gradients of a batch, by names that begin with their kind."""

    def forth_and_back() -> Tensor:
        stepper.model.zero_grad()
        loss = passes(batch)[0]
        loss.backward()
        return loss

    loss = _replay(stepper, forth_and_back) if replayed else forth_and_back()
    found = {"loss": loss.detach()}
    return found | {name: gradient.clone() for name, gradient in _gradients(stepper.model)}


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


def _gradients(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What came back, each by its kind (the layer's, and which of its tensors) and the layer's name."""
    paths = {id(module): path for path, module in model.named_modules()}
    vectors: set[int] = set()
    for weights in active_weights(model):
        for name, vector in zip(("mean", "rho"), weights.parameters(), strict=False):
            vectors.add(id(vector))
            parts = _came_back(vector).split(weights.counts().sizes)
            for layer, part in zip(weights.layers, parts, strict=True):
                yield f"{type(layer).__name__} ({layer.operation.kind}) {name} of {paths[id(layer)]}", part
    for path, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, MaskedLayer):
            kind += f" ({module.operation.kind})"
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in vectors:
                yield f"{kind} {name} of {path}", _came_back(parameter)


def _came_back(parameter: Tensor) -> Tensor:
    # where nothing came back, a gradient of 0 did
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _kind(name: str) -> str:
    return name.split(" of ")[0]


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
        stepper.model.zero_grad()
