"""Noise: that compiled and captured code draws it as it should."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.given import Fault, Given
from ssvi.bench.cuda import WAYS
from ssvi.core.noise import NormalSource
from ssvi.doctor.passes import captured

NUMBERS = 100_000
DRAWS = 10
# Standard errors that a moment or a correlation may be off.
ERRORS = 6.0


def _sequence(given: Given, compiled: bool, capture: bool) -> Tensor:
    """Draws [DRAWS, NUMBERS] of a source with seed 0, one after the other, once everything is compiled and captured."""
    torch._dynamo.reset()
    source = NormalSource(0, "noise", given.device)
    start = source.get_state()
    like = torch.empty(NUMBERS, device=given.device)
    draw = torch.compile(source.normal, dynamic=False, backend=given.backend) if compiled else source.normal
    drawn = torch.empty_like(like)

    def work() -> None:
        drawn.copy_(draw(like) * 1.0)

    step = captured(work) if capture else work
    step()
    source.set_state(start)
    found = []
    for _ in range(DRAWS):
        step()
        found.append(drawn.clone())
    return torch.stack(found).double().cpu()


def draws(given: Given) -> None:
    """Standard normal numbers, new ones at every replay, the same ones from the same seed."""
    bound = ERRORS / NUMBERS**0.5
    faults = []
    for way in given.ways():
        numbers, again = (_sequence(given, WAYS[way]["compile"], WAYS[way]["capture"]) for _ in range(2))
        mean = float(numbers.mean(1).abs().max())
        variance = float((numbers.square().mean(1) - 1).abs().max())
        correlation = float((numbers[:-1] * numbers[1:]).mean(1).abs().max())
        repeatable = bool(torch.equal(numbers, again))
        given.say(way=way, mean=mean, variance=variance, correlation=correlation, repeatable=repeatable)
        # the variance of a square of a normal number is 2
        if mean > bound or variance > bound * 2**0.5:
            faults.append(f"{way}: draws are not standard normal (mean off by {mean:.3g}, variance by {variance:.3g})")
        if correlation > bound:
            faults.append(f"{way}: draws of steps in turn are correlated ({correlation:.3g})")
        if not repeatable:
            faults.append(f"{way}: the same seed gives other draws")
    if faults:
        raise Fault("; ".join(faults))
