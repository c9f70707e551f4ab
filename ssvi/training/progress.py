"""What a person sees of a training: a live bar on a terminal, one line an epoch in a file."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from ssvi.errors import say
from ssvi.methods.context import Clock


class Reporter(Protocol):
    """What the trainer tells while it runs."""

    def note(self, text: str) -> None: ...

    def start(self, clock: Clock, images: int) -> None: ...

    def step(self, clock: Clock) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def stop(self) -> None: ...


def reporter(live: bool | None = None) -> Reporter:
    """The bar where a person looks on, else lines."""
    return Bar() if (sys.stderr.isatty() if live is None else live) else Lines()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _short(count: int) -> str:
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1e4 else str(count)


class _Notes:
    """A note is a line on stderr, before anything else."""

    def note(self, text: str) -> None:
        say(f"note: {text}")


class Lines(_Notes):
    """One line an epoch on stderr."""

    def start(self, clock: Clock, images: int) -> None:
        self._images, self._epochs = images, clock.epochs

    def step(self, clock: Clock) -> None:
        pass

    def epoch(self, row: dict[str, Any]) -> None:
        done, total = row["epoch"], self._epochs
        print(
            f"epoch {done}/{total}  loss {row['loss']:.4f}  train {_percent(row['train_accuracy'])}"
            f"  validation {_percent(row['validation_accuracy'])}  active {row['active_weights']}"
            f"  {self._images / max(row['seconds'], 1e-9):.0f} images/s"
            f"  ETA {_duration((total - done) * row['seconds'])}",
            file=sys.stderr,
            flush=True,
        )

    def stop(self) -> None:
        pass


class Bar(_Notes):
    """A live bar with the figures of the last epoch; it never asks the device for a number."""

    def start(self, clock: Clock, images: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=8),  # with the rest it fits a terminal of 80 columns
            TextColumn("{task.fields[figures]}{task.fields[speed]} ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._images_per_step = images / clock.steps_per_epoch
        self._first, self._since, self._epochs = clock.step, time.monotonic(), clock.epochs
        self._progress.start()
        self._task = self._progress.add_task(
            "training", total=clock.total_steps, completed=clock.step, epoch=f"{clock.epoch}/{clock.epochs}",
            figures="", speed="",
        )  # fmt: skip

    def step(self, clock: Clock) -> None:
        speed = (clock.step - self._first) * self._images_per_step / max(time.monotonic() - self._since, 1e-9)
        self._progress.update(
            self._task,
            completed=clock.step,
            epoch=f"{clock.epoch}/{clock.epochs}",
            speed=f"{speed:.0f} images/s",
        )

    def epoch(self, row: dict[str, Any]) -> None:
        which = "val" if row["validation_accuracy"] is not None else "train"
        shown = row["validation_accuracy"] if which == "val" else row["train_accuracy"]
        figures = f"loss {row['loss']:.3f} {which} {100 * shown:.1f}% {_short(row['active_weights'])} active "
        self._progress.update(self._task, figures=figures)

    def stop(self) -> None:
        self._progress.stop()
