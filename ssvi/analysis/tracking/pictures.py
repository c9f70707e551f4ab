"""One picture a run for MLflow: how it learned, whether its probabilities are right, what became of its subspace."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis.figures.style import DOTTED, GREY, PALETTE, rc
from ssvi.analysis.records import READERS, RunFiles
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.arrays import read_arrays
from ssvi.runs.records import ANEW
from ssvi.runs.spec import RunSpec

NAME = "figures.png"
WIDTH, HEIGHT = 3.0, 2.4  # inches of a panel
COLUMNS = 3
EDGES = {False: (0.06, 0.17, 0.99, 0.9), True: (0.06, 0.08, 0.99, 0.95)}  # left, bottom, right, top
DPI = 90  # a picture is as wide as MLflow shows it
TICKS = 4  # most of the time goes into them
ACCURACIES = {"train_accuracy": "training", "validation_accuracy": "validation", "test_accuracy": "test"}

Row = Mapping[str, Any]
Draw = Callable[[Axes], None]


def picture(results: Path, run: str, spec: RunSpec, history: Sequence[Row], bins: int | None) -> bytes | None:
    """The run's picture as a PNG file: a panel for all of what it has something of; None if there is none.

    Args:
        results: the results folder.
        run: the run path.
        spec: the run's.
        history: the rows of its history.
        bins: of the reliability diagram, as many as its calibration error was measured with; None if it was not.

    Raises:
        UserError: if a file that a panel is made of is damaged.
    """
    panels = _learning(history)
    panels += [] if bins is None else _reliability(results / "runs" / run / files.PREDICTIONS, bins)
    panels += _topology(READERS["updates"][0](RunFiles(results), {run: spec}))
    if not panels:
        return None
    lines = math.ceil(len(panels) / COLUMNS)
    columns = min(COLUMNS, len(panels))
    with matplotlib.rc_context(rc()):
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * lines))
        # places that suit all, since finding the best ones takes longer than all the rest
        figure.subplots_adjust(*EDGES[lines > 1], wspace=0.3, hspace=0.5)
        for place, draw in enumerate(panels, 1):
            draw(axes := figure.add_subplot(lines, columns, place))
            axes.locator_params(nbins=TICKS)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> pd.DataFrame:
    """How often the predicted class is right, by how probable it was said to be: a row a bin that is not empty.

    A bin is (i/bins, (i+1)/bins], as for the expected calibration error.

    Args:
        probabilities: [n, K].
        labels: [n], in 0..K-1.
        bins: number of bins.

    Returns:
        `confidence` and `accuracy`, means over the images of a bin, and `share`, of all images.
    """
    confidence = probabilities.max(1).astype(float)
    right = probabilities.argmax(1) == labels
    place = np.searchsorted(np.linspace(0, 1, bins + 1), confidence) - 1
    of_bin = pd.DataFrame({"confidence": confidence, "accuracy": right, "share": 1 / len(labels)}).groupby(place)
    return of_bin.agg({"confidence": "mean", "accuracy": "mean", "share": "sum"}).reset_index(drop=True)


def _learning(history: Sequence[Row]) -> list[Draw]:
    loss = {"training": _series(history, "loss")}
    accuracy = {name: _series(history, column) for column, name in ACCURACIES.items()}
    drawn = {"loss": loss, "accuracy": accuracy}
    return [_curves(title, lines) for title, lines in drawn.items() if any(len(line) for line in lines.values())]


def _series(history: Sequence[Row], column: str) -> pd.Series:
    """A column of the history by epoch, where it has one."""
    cells = {row["epoch"]: row.get(column) for row in history}
    found = {float(epoch): float(value) for epoch, value in cells.items() if value not in ("", None)}
    return pd.Series(found, dtype=float)


def _curves(title: str, lines: Mapping[str, pd.Series]) -> Draw:
    def draw(axes: Axes) -> None:
        shown = {name: line for name, line in lines.items() if len(line)}
        for (name, line), colour in zip(shown.items(), PALETTE, strict=False):
            axes.plot(line.index, line.to_numpy(), label=name, color=colour, marker="." if len(line) < 30 else None)
        axes.set(title=title, xlabel="epoch")
        axes.legend()

    return draw


def _reliability(path: Path, bins: int) -> list[Draw]:
    if not path.is_file():
        return []
    probabilities, labels = read_arrays(path, ANEW, ("probabilities", "labels")).values()
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        problem = f"probabilities {probabilities.shape} and labels {labels.shape}"
        raise UserError(f"{path}: not a file of predictions ({problem}); {ANEW}")
    if not len(labels):
        return []  # of a run that diverged
    found = reliability(probabilities, labels, bins)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], **DOTTED)
        axes.bar(found["confidence"], found["share"], width=0.03, color=GREY, alpha=0.35, label="share of images")
        axes.plot(found["confidence"], found["accuracy"], color=PALETTE[0], marker="o", label="accuracy")
        axes.set(title="reliability", xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend()

    return [draw]


def _topology(updates: pd.DataFrame) -> list[Draw]:
    if updates.empty:
        return []
    totals = updates.groupby("step", sort=True)[["active", "removed", "survivors"]].sum()
    # Of a run without weights there is no share.
    shares = totals.div(totals["active"].where(totals["active"] > 0), axis=0)
    last = updates[updates["step"] == updates["step"].max()].sort_values("position")

    def draw_updates(axes: Axes) -> None:
        axes.plot(shares.index, shares["removed"], color=PALETTE[0], marker=".", label="replaced at the update")
        axes.plot(shares.index, shares["survivors"], color=PALETTE[1], marker=".", label="there from the start")
        axes.set(title="share of the active weights", xlabel="step", ylim=(0, 1.02))
        axes.legend()

    def draw_layers(axes: Axes) -> None:
        axes.bar(range(1, len(last) + 1), last["active"] / last["size"], color=PALETTE[1])
        axes.set(title="density by layer", xlabel="layer, from the input")

    return [draw_updates, draw_layers]
