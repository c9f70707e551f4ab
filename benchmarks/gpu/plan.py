"""Every job of a trial, by stage and in order: what it does, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.gpu import agreement, commands, trainings
from benchmarks.gpu.checks import precision, probe
from benchmarks.gpu.draws import draws
from benchmarks.gpu.figures import figures, warm
from benchmarks.gpu.gradients import gradients
from ssvi.bench.cuda import PARTS
from ssvi.doctor.registry import METHODS
from ssvi.registry import KINDS


@dataclass(frozen=True)
class Job:
    """One thing that a trial does, in a process of its own.

    Attributes:
        work: takes a `Given`, and by name what is known only while the trial runs.
        stage: `first`, which must pass; `beside` the checks, for later stages; `checks`; `figures`; `trainings`.
        limit: seconds.
    """

    work: Callable[..., None]
    stage: str
    limit: float = 150.0


JOBS: dict[str, Job] = {
    "probe": Job(probe, "first", 60.0),
    "digits": Job(commands.digits, "first", 60.0),
    **{f"warm.{name}": Job(partial(warm, name), "beside", 300.0) for name in ("dense", "ssvi")},
    "images": Job(trainings.images, "beside", 300.0),
    "gradients": Job(gradients, "checks"),
    "precision": Job(precision, "checks"),
    "draws": Job(draws, "checks"),
    "tests": Job(commands.tests, "checks"),
    "resume": Job(commands.resume, "checks"),
    **{f"agreement.{m}": Job(partial(agreement.agreement, m, "fp32"), "checks") for m in METHODS},
    "agreement.ssvi.bf16": Job(partial(agreement.agreement, "ssvi", "bf16"), "checks"),
    **{f"smoke.{m}": Job(partial(commands.smoke, m, ()), "checks") for m in KINDS},
    "smoke.ssvi.compiled": Job(partial(commands.smoke, "ssvi", ("--compile=on",)), "checks"),
    **{f"figures.{part}": Job(partial(figures, part), "figures") for part in PARTS},
    **{f"training.{name}": Job(partial(trainings.training, name), "trainings", 600.0) for name in trainings.RUNS},
}


def stage(name: str) -> list[str]:
    """The jobs of a stage."""
    return [job for job, what in JOBS.items() if what.stage == name]
