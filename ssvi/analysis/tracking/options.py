"""What MLflow is told of a run's options: as params, and as numbers, because it compares params as words."""

from __future__ import annotations

from mlflow.entities import Metric, Param

from ssvi.analysis.tracking.experiment import OPTIONS
from ssvi.runs.completion import idle
from ssvi.runs.options import options_of
from ssvi.runs.records import is_number
from ssvi.runs.spec import RunSpec


def told(spec: RunSpec) -> list[str]:
    """The options that the spec's method uses and that have an effect beside the others."""
    return sorted(options_of(spec.method) - idle(vars(spec)))


def params_of(spec: RunSpec) -> list[Param]:
    """The options that are told."""
    return [Param(name, str(getattr(spec, name))) for name in told(spec)]


def numbers_of(spec: RunSpec, time: int) -> list[Metric]:
    """Those that are numbers as metrics, and the density of a dense method: `metrics.`options/density` < 0.1`.

    Args:
        spec: the run's.
        time: of the metrics, in milliseconds.
    """
    found = {"density": 1.0} | {name: getattr(spec, name) for name in told(spec)}
    return [Metric(f"{OPTIONS}/{name}", float(value), time, 0) for name, value in found.items() if is_number(value)]


def tags_of(spec: RunSpec) -> dict[str, str]:
    """What people look for in any run, whatever its method uses."""
    density = spec.density if "density" in options_of(spec.method) else 1.0
    return {"method": spec.method, "dataset": spec.dataset, "density": repr(density)}
