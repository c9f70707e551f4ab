"""How long a training takes: in all, in this epoch, and each step."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch


class StepWatch:
    """Marks the ends of steps: by the clock on a CPU, on CUDA by events, which are read once the device has caught up.

    A step lasts from the mark before it to its own, so a pause, a checkpoint or a validation between two steps changes
    nothing. Nothing waits for the device, and the events of an epoch are used again in the next one.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._marks: list[float | torch.cuda.Event] = []
        self._steps: list[bool] = []

    def begin(self) -> None:
        """What follows is a step, and what was before it is none."""
        self._mark(False)

    def step(self) -> None:
        """A step has ended, and the next one begins."""
        self._mark(True)

    def _mark(self, step: bool) -> None:
        if self._cuda:
            place = len(self._marks)
            if place == len(self._events):
                self._events.append(torch.cuda.Event(enable_timing=True))
            mark = self._events[place]
            mark.record()
            self._marks.append(mark)
        else:
            self._marks.append(time.perf_counter())
        self._steps.append(step)

    def median(self) -> float | None:
        """Median seconds of the steps since the last call, None without any; the device must be done with them."""
        pairs = zip(self._marks, self._marks[1:], self._steps[1:], strict=False)
        found = [self._between(start, end) for start, end, step in pairs if step]
        self._marks.clear()
        self._steps.clear()
        return statistics.median(found) if found else None

    def _between(self, start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
        return start.elapsed_time(end) / 1000 if self._cuda else end - start


@dataclass
class Spent:
    """Seconds that a training took so far.

    Attributes:
        seconds: in which a process worked on it.
        cpu_seconds: of all CPUs of these processes.
        epoch_seconds: as `seconds`, of the present epoch.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    epoch_seconds: float = 0.0


class Stopwatch:
    """The time of a training on a device, with that of its steps.

    Attributes:
        spent: up to the last look.
        steps: of the present epoch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.spent = Spent()
        self.steps = StepWatch(device)
        self.start()

    def start(self) -> None:
        """What follows counts, and what was since the last look does not."""
        self._tick, self._cpu_tick = time.perf_counter(), time.process_time()

    def look(self) -> Spent:
        """Add the time since the last look to this epoch's and this training's, once the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        wall, cpu = self._tick, self._cpu_tick
        self.start()
        self.spent.epoch_seconds += self._tick - wall
        self.spent.seconds += self._tick - wall
        self.spent.cpu_seconds += self._cpu_tick - cpu
        return self.spent

    def end_epoch(self) -> float:
        """The seconds of an epoch that ends now, and the next begins."""
        seconds = self.look().epoch_seconds
        self.spent.epoch_seconds = 0.0
        return seconds
