"""What a step costs, by the parts of `ssvi bench gpu`."""

from __future__ import annotations

import torch

from benchmarks.gpu.given import Given, Skipped
from ssvi.bench.contestants import Training
from ssvi.bench.cuda import FULL, PARTS, TINY, Place
from ssvi.bench.record import record

REPEATS, TINY_REPEATS = 5, 2


def _place(given: Given) -> Place:
    return Place(torch.device(given.device), TINY if given.tiny else FULL)


def figures(part: str, given: Given) -> None:
    """One part, each figure as it comes."""
    repeats = TINY_REPEATS if given.tiny else REPEATS
    for figure in PARTS[part](_place(given), repeats, lambda line: print(line, flush=True)):
        given.say(figures=record([figure])["figures"])


def warm(contestant: str, given: Given) -> None:
    """Compile what is measured later, into the caches that all jobs share, while other things are checked."""
    if not given.cuda:
        raise Skipped("nothing that is measured on a CPU is compiled")
    place = _place(given)
    training = Training(place.data(), place.machine(), place.options(contestant))
    training.step()
    place.sync()
