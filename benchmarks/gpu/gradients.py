"""Gradients of every kind of layer, compiled and captured against eager."""

from __future__ import annotations

from benchmarks.gpu.given import Fault, Given
from ssvi.doctor import passes


def gradients(given: Given) -> None:
    """In both precisions, in every way that the device has."""
    ways, faults = given.ways(), list[str]()
    for precision in passes.TOLERANCES:
        eager = passes.gradients(given.device, precision, "eager", given.backend)
        for way in ways[1:]:
            apart = passes.off(passes.gradients(given.device, precision, way, given.backend), eager)
            given.say(precision=precision, way=way, off=apart)
            faults += passes.disagreements(apart, precision, way)
    if faults:
        raise Fault(f"{len(faults)} of the gradients are not the eager ones: {'; '.join(faults)}")
