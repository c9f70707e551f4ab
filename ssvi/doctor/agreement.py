"""The first steps of every method in every way that they can be taken: losses, what moved, graphs and graph breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvi.bench.contestants import Training
from ssvi.bench.cuda import WAYS, waits
from ssvi.data import load
from ssvi.doctor.passes import alike
from ssvi.registry import KINDS
from ssvi.runs.spec import RunSpec
from ssvi.training.step import Machine

# Trainings on images of 8 x 8 pixels, which take seconds and show whether a method works.
DIGITS = {"dataset": "digits", "model": "resnet8", "batch_size": 64, "lr": 0.1, "delta_t": 10, "prior_sigma": 0.05,
          "density": 0.25, "sigma_init": 0.02, "adam_lr": 0.002, "aeb_lr": 0.003}  # fmt: skip
# Steps before an update, after which rounding may decide which weight is kept, and from it on.
BEFORE, AFTER = 9, 4
# In nats, for the losses before the update, then for those from it on; and relative, for the way that each tensor of
# the network went before it. On a CPU, compiled and eager steps differ by 1e-5, 4e-3 and 4e-3 in fp32.
TOLERANCES = {"fp32": (1e-3, 0.1, 0.05), "bf16": (2e-2, 0.2, 0.5)}
# A tensor that moved less than this share of the whole network's way is held against that.
LEAST_WAY = 1e-4


@dataclass
class Walk:
    """What was seen on the way."""

    losses: list[float] = field(default_factory=list)
    moved: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def options_of_walk(method: str, precision: str) -> dict[str, Any]:
    """A training in which a few steps show something of each part of a method."""
    used = {name: value for name, value in DIGITS.items() if name in KINDS[method].options}
    # steps so small that rounding stays rounding: larger ones of a chain of weights multiply it tenfold each
    small = {"lr": 0.01, "adam_lr": 1e-4, "mbnn_lr": 1e-3, "epochs": 40, "precision": precision}
    return {**used, **{k: v for k, v in small.items() if k in KINDS[method].options}, "method": method}


def walk(data_root: Path, options: dict[str, Any], machine: Machine, backend: str) -> Walk:
    """Some steps, an update, some more steps, on real images."""
    with replaced(torch, "compile", partial(torch.compile, backend=backend)):
        return _walk(data_root, options, machine)


def _walk(data_root: Path, options: dict[str, Any], machine: Machine) -> Walk:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    data = load(RunSpec(**options), data_root, machine.device)
    training, seen = Training(data, machine, options), Walk()
    take, model = training.trainer.take_step, training.trainer.model

    def state() -> dict[str, Tensor]:
        return {k: v.detach().double().cpu() for k, v in model.state_dict().items() if v.is_floating_point()}

    start = state()
    with alike(training.trainer.streams.noise):
        for i in range(BEFORE + 1 + AFTER):
            before = take.totals.clone()
            training.update_step() if i == BEFORE and _has_updates(training) else training.step()
            loss, _, count = (take.totals - before).tolist()
            seen.losses.append(loss / count)
            if i + 1 == BEFORE:
                seen.moved = {name: value - start[name] for name, value in state().items()}
    counters = torch._dynamo.utils.counters
    seen.notes = {
        "graphs": counters["stats"].get("unique_graphs", 0),
        "breaks": sum(counters["graph_break"].values()),
        "finite": all(bool(value.isfinite().all()) for value in state().values()),
        "captured": take._graph is not None,
        "switches": {name: getattr(take.machine, name) for name in ("compile", "capture")},
        "waits": waits(training.step) if machine.device.type == "cuda" else None,
    }
    return seen


def _has_updates(training: Training) -> bool:
    period = range(training.clock.step + 1, training.clock.step + 1000)
    return any(training.trainer.method.subspace.is_due(step) for step in period)


def moved_off(seen: Walk, eager: Walk) -> dict[str, float]:
    """How far each tensor's way is from the eager one, relative to it."""
    least = LEAST_WAY * float(torch.stack([value.norm() for value in eager.moved.values()]).norm())
    ways = eager.moved.items()
    return {name: float((seen.moved[name] - way).norm()) / max(float(way.norm()), least, 1e-30) for name, way in ways}


def faults(way: str, seen: Walk, eager: Walk, precision: str) -> list[str]:
    """What of a walk is not as it should be."""
    early, late, way_off = TOLERANCES[precision]
    found, notes, wanted = [], seen.notes, WAYS[way]
    off = [abs(a - b) for a, b in zip(seen.losses, eager.losses, strict=True)]
    if not notes["finite"]:
        found.append("a parameter is not finite")
    if not max(off[:BEFORE]) <= early or not max(off[BEFORE:]) <= late:
        found.append(f"losses are off by {max(off[:BEFORE]):.2g}, after the update by {max(off[BEFORE:]):.2g} nats")
    astray = {name: value for name, value in moved_off(seen, eager).items() if not value <= way_off}
    if astray:
        name, value = max(astray.items(), key=lambda item: item[1])
        found.append(f"{len(astray)} tensors went another way, {name} by {value:.2g} of its own")
    if notes["breaks"]:
        found.append(f"{notes['breaks']} graph breaks")
    if wanted["compile"] and not notes["graphs"]:
        found.append("nothing was compiled")
    if wanted["capture"] and not notes["captured"]:
        found.append("nothing was captured")
    for switch, on in notes["switches"].items():
        if on != wanted[switch]:
            found.append(f"{switch} was switched off on the way")
    return found


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a module or class is another one for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
