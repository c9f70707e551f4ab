"""Step times: by a clock that the tests wind, and with what lies between two steps left out."""

import csv
import itertools

import pytest
import torch
from test_trainer import CPU, MACHINE, spec_of

from ssvi import runs, watch
from ssvi.progress import Lines
from ssvi.trainer import Settings, Trainer
from ssvi.watch import StepWatch


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


def test_the_median_of_steps_knows_no_pause(clock) -> None:
    steps = StepWatch(CPU)
    assert steps.median() is None
    steps.begin()
    for seconds in (1.0, 2.0, 900.0, 2.0, 1.5):  # in the third the process was stopped
        clock.now += seconds
        steps.step()
    clock.now += 500.0  # a checkpoint
    steps.begin()
    clock.now += 3.0
    steps.step()
    assert steps.median() == 2.0
    steps.begin()
    assert steps.median() is None


def test_events_are_used_again(monkeypatch) -> None:
    """On CUDA as many are made as an epoch has marks, and only read at its end."""
    made, clock = [], itertools.count()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            made.append(self)

        def record(self) -> None:
            self.at = next(clock)

        def elapsed_time(self, end: "Event") -> float:
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    steps = StepWatch(torch.device("cuda"))
    for _ in range(3):
        steps.begin()
        for _ in range(4):
            steps.step()
        assert steps.median() == 1.0
    assert len(made) == 5


def test_a_training_tells_its_step_times(tmp_path, digits, clock) -> None:
    """Six steps an epoch: a pause of an hour in one of each is in no median."""

    class Paused(Lines):
        def step(self, now) -> None:
            clock.now += 3600.0 if now.step % 6 == 2 else 0.25 * now.epoch

    summary = Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE), Paused()).run()
    with (tmp_path / runs.HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["step_seconds"]) for row in rows] == [0.25, 0.5]
    assert summary["step_seconds"] == 0.375
