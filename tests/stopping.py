"""A training that is killed at a step, and what is the same however often that happens."""

from pathlib import Path

from ssvi.runs import files
from ssvi.runs.records import read_json
from ssvi.training.progress import Lines

MEASURED = (
    *("training_seconds", "training_cpu_seconds", "step_seconds", "images_per_second", "peak_memory_bytes"),
    "sessions",
)


class Stopped(Exception):
    """Stands for a killed process."""


class StopAt(Lines):
    """A reporter that kills the training after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, clock) -> None:
        if clock.step == self.at:
            raise Stopped


def results(folder: Path) -> dict[str, object]:
    """Everything a training publishes but the measured times."""
    # the last two columns are seconds
    history = [line.rsplit(",", 2)[0] for line in (folder / files.HISTORY).read_text().splitlines()]
    summary = read_json(folder / files.TRAINING)
    for measured in MEASURED:
        del summary[measured]
    for name in (files.HISTORY, files.SPEC, files.TRAINING):  # which hold times
        del summary["files"][name]
    return {
        "model": (folder / files.MODEL).read_bytes(),
        "history": history,
        "topology": (folder / files.TOPOLOGY).read_text(),
        "summary": summary,
    }
