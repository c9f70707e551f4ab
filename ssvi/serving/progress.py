"""How far predictions are: a bar on standard error, where a person looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, live: bool) -> Iterator[Callable[[int], None]]:
    """A bar of so many images, and what moves it on by some; nothing is shown unless it is `live`."""
    if not live:
        yield lambda images: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.0f} images/s ETA")

    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as progress:
        task = progress.add_task("predicting", total=total)
        yield lambda images: progress.advance(task, images)
