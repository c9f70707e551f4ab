"""Times of a training and its steps, by a clock that the tests wind."""

import csv
import itertools

import pytest
import torch
from test_trainer import CPU, MACHINE, spec_of

from ssvi.runs import files
from ssvi.training import watch
from ssvi.training.progress import Lines
from ssvi.training.trainer import Settings, Trainer
from ssvi.training.watch import Spent, StepWatch, Stopwatch


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2


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


def test_a_training_counts_what_lies_between_its_start_and_a_look(clock) -> None:
    """The time before the start is nobody's; an epoch begins anew, a training does not; a restart goes on."""
    watch = Stopwatch(CPU)
    clock.now += 1000.0
    watch.start()
    clock.now += 4.0
    assert watch.look() == Spent(4.0, 2.0, 4.0)
    clock.now += 2.0
    assert watch.end_epoch() == 6.0
    clock.now += 1.0
    assert watch.look() == Spent(7.0, 3.5, 1.0)
    watch.spent = Spent(70.0, 30.0, 5.0)
    clock.now += 2.0
    assert watch.end_epoch() == 7.0
    assert watch.spent == Spent(72.0, 31.0, 0.0)


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
    with (tmp_path / files.HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["step_seconds"]) for row in rows] == [0.25, 0.5]
    assert summary["step_seconds"] == 0.375
