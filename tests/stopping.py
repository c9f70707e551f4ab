"""A training that is killed at a step."""

from ssvi.progress import Lines


class Stopped(Exception):
    """Stands for a killed process."""


class StopAt(Lines):
    """A reporter that kills the training after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, clock) -> None:
        if clock.step == self.at:
            raise Stopped
