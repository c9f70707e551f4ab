"""The first steps of every method in every way that they can be taken, against the eager ones."""

from __future__ import annotations

import traceback

import torch

from benchmarks.gpu.given import Fault, Given
from ssvi.bench.cuda import WAYS
from ssvi.doctor.agreement import faults, moved_off, options_of_walk, walk
from ssvi.training.step import Machine


def agreement(method: str, precision: str, given: Given) -> None:
    """A method's walk in every way against the eager one; the others are still seen when one breaks."""
    ways, options, wrong, eager = given.ways(), options_of_walk(method, precision), [], None
    for way in ways:
        machine = Machine(torch.device(given.device), channels_last=True, **WAYS[way])
        try:
            seen = walk(given.data, options, machine, given.backend)
        except Exception as error:  # a way that breaks says nothing of the others
            traceback.print_exc()
            wrong.append(f"{way}: {type(error).__name__}: {error}")
            given.say(way=way, error=wrong[-1])
            continue
        eager = eager or seen
        wrong += [f"{way}: {fault}" for fault in faults(way, seen, eager, precision)]
        given.say(way=way, losses=seen.losses, moved_off=max(moved_off(seen, eager).values()), **seen.notes)
    if wrong:
        raise Fault("; ".join(wrong))
