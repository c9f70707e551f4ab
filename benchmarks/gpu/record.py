"""What is written of a trial: hardware, versions, commit, how every job ended, figures and trainings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.running import Outcome

HEADER = ("when", "hardware", "torch", "commit", "dirty")
# Of what jobs say, not in the record: figures have a place of their own, and a path is this machine's business.
APART = ("figures", "dataset")


def found(outcomes: Iterable[Outcome], key: str, start: str = "") -> list[Any]:
    """Everything that jobs whose name begins with `start` said under a key."""
    return [line[key] for o in outcomes if o.name.startswith(start) for line in o.found if key in line]


def figures(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """The figures that were measured, as `ssvi bench` writes them."""
    return [row for rows in found(outcomes, "figures") for row in rows]


def record(outcomes: list[Outcome], device: str, tiny: bool, whole: bool, seconds: float) -> dict[str, Any]:
    """The record of a trial so far, without logs; `whole` if none of its jobs was left out."""
    environment = next((line for o in outcomes if o.name == "probe" for line in o.found if "hardware" in line), {})
    jobs = []
    for outcome in outcomes:
        said = [{key: value for key, value in line.items() if key not in APART} for line in outcome.found]
        jobs.append(
            {
                "name": outcome.name,
                "outcome": outcome.outcome,
                "seconds": round(outcome.seconds, 1),
                "reason": outcome.reason,
                "found": [line for line in said if line],
            }
        )
    return {
        **{key: environment.get(key) for key in HEADER},
        "device": device,
        "tiny": tiny,
        "whole": whole,
        "seconds": round(seconds, 1),
        "environment": environment,
        "jobs": jobs,
        "figures": figures(outcomes),
    }
