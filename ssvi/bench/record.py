"""Figures, what they must reach, and the record that is written."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import torch

from ssvi.machine.devices import processor_name

VERSIONS = ("ssvi", "torch", "numpy", "torchbnn", "bayesian-torch")


@dataclass(frozen=True)
class Target:
    """What a figure must not exceed (or must reach, if `more` is better), and what would be better still."""

    must: float | None
    stretch: float | None
    more: bool = False

    def met(self, value: float) -> str:
        """`stretch`, `yes`, `no`, or nothing if there is only something to report."""
        sign = -1 if self.more else 1
        if self.stretch is not None and sign * value <= sign * self.stretch:
            return "stretch"
        if self.must is None:
            return ""
        return "yes" if sign * value <= sign * self.must else "no"


TARGETS = {
    "cpu.lrt_over_plain": Target(2.2, 1.95),
    "cpu.sampling_over_plain": Target(1.15, 1.08),
    "cpu.natural_over_plain": Target(1.10, 1.05),
    "cpu.library_over_trainer": Target(1.05, None),
    "cpu.lrt_over_flipout": Target(0.65, 0.6),
    "cpu.sampling_over_torchbnn": Target(1.0, 0.9),
    "cpu.sampling_over_bayesian_torch": Target(1.0, 0.9),
    "cpu.best_over_fp32": Target(0.65, 0.45),
    "gpu.seconds_per_epoch": Target(2.5, 1.5),
    "gpu.lrt_over_plain": Target(2.2, 1.8),
    "gpu.packed_speedup": Target(1.3, 2.0, more=True),
    "gpu.syncs_per_step": Target(0.0, None),
    "memory.lrt_over_plain": Target(None, 1.7),
    "topology.share": Target(0.01, None),
    "startup.seconds": Target(4.0, 2.5),
}
# On a GPU the steps are faster, so an update weighs more.
GPU_TOPOLOGY = Target(0.05, 0.02)


@dataclass(frozen=True)
class Figure:
    """One measured quantity: the values of its repeats, of which the median is quoted."""

    name: str
    unit: str
    values: tuple[float, ...]
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.values)

    def target(self) -> Target | None:
        """What it must reach; None if there is only something to know."""
        if self.name == "topology.share" and self.note.endswith("cuda"):
            return GPU_TOPOLOGY
        return TARGETS.get(self.name)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def record(figures: list[Figure]) -> dict[str, Any]:
    """What `--json` writes: one entry a figure, with the hardware and the versions it was measured with."""
    hardware = processor_name()
    if torch.cuda.is_available():
        hardware = f"{torch.cuda.get_device_name()}; {hardware}"
    versions = {"python": platform.python_version()} | {n: v for n in VERSIONS if (v := _version(n))}
    rows = []
    for figure in figures:
        target = figure.target()
        rows.append(
            {
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "median": figure.value,
                "minimum": min(figure.values),
                "maximum": max(figure.values),
                "repeats": len(figure.values),
                "note": figure.note,
                "target": asdict(target) | {"met": target.met(figure.value)} if target else None,
                "hardware": hardware,
                "threads": torch.get_num_threads(),
                "versions": versions,
            }
        )
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "hardware": hardware, "figures": rows}


def table(figures: list[Figure]) -> str:
    """The figures as a table for people."""
    rows = [("figure", "median", "min", "max", "n", "must", "reached", "")]
    for f in figures:
        target = f.target()
        must = "" if target is None or target.must is None else f"{'>=' if target.more else '<='} {target.must:g}"
        cells = (f"{f.value:.3g} {f.unit}".strip(), f"{min(f.values):.3g}", f"{max(f.values):.3g}", str(len(f.values)))
        rows.append((f.name, *cells, must, target.met(f.value) if target else "", f.note))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
