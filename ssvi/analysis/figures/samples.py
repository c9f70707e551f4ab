"""How many weight samples a prediction needs."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.figures.recorded import of_runs, recorded
from ssvi.analysis.made import one_machine
from ssvi.analysis.quantities import ACCURACY, ECE, NLL, TEST_SECONDS
from ssvi.analysis.settings import mixed
from ssvi.registry import VARIATIONAL

QUANTITIES = (ACCURACY, NLL, ECE, TEST_SECONDS)
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def weight_samples(frames: Frames) -> Drawing:
    """Accuracy, NLL, ECE and measured time by the number of weight samples averaged (the published evaluation: 5)."""
    frames = replace(frames, samples=frames.samples[_is_sampled(frames)])
    runs, samples = recorded(frames, "samples", "test_samples")
    # what is drawn was not computed by the evaluation
    runs = runs.assign(evaluation_numerics=runs["run"].map(samples.groupby("run")["numerics"].first()))

    def draw(row: list[Axes], panel: Panel) -> Rows:
        found: Rows = []
        for line in lines.series(panel.runs):
            mine = of_runs(samples, line.runs)
            found += _draw_line(row, line, mine if one_machine(line.runs) else mine.assign(seconds=math.nan))
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            _finish(axes, quantity.title, panel.runs["evaluation_samples"])
        row[-1].set_yscale("log")
        return found

    parts = panels.split(runs, ("density",))
    return panels.draw(
        *(frames, parts, draw),
        "Test accuracy, NLL, ECE and measured time for the whole test set by the number of weight samples whose "
        "probabilities are averaged; counted cost is proportional to that number, and the dotted line is the number "
        f"that tables use. {lines.BANDS} ({{n}}).",
        size=(style.WIDE, 0.7 + 1.75 * len(parts)),
        axes=len(QUANTITIES),
        notes=lambda rows: tuple(mixed(runs, {"sampled": "evaluation_numerics"})),
    )


def _is_sampled(frames: Frames) -> pd.Series:
    """Which rows are of a method that has weights to sample; others have a single row."""
    methods = frames.runs.set_index("run")["method"]
    return frames.samples["run"].map(methods).isin(VARIATIONAL)


def _draw_line(row: list[Axes], line: lines.Series, samples: pd.DataFrame) -> Rows:
    found: Rows = []
    for axes, quantity in zip(row, QUANTITIES, strict=True):
        summary = lines.over_runs(samples, "samples", quantity.column, quantity.factor)
        lines.draw_band(axes, summary["samples"], summary, label=line.label, **line.look | {"marker": None})
        found += panels.rows_of(line.runs, summary, "method", "density", quantity=quantity.key)
    return found


def _finish(axes: Axes, heading: str, evaluated: pd.Series) -> None:
    axes.set_xscale("log")
    axes.set_ylabel(heading)
    low, high = axes.dataLim.intervalx
    scales.mark(axes.xaxis, [tick for tick in TICKS if low <= tick <= high])
    axes.set_xlabel("weight samples" if axes.get_subplotspec().is_last_row() else "")
    if evaluated.dropna().nunique() == 1:
        axes.axvline(float(evaluated.dropna().iloc[0]), **style.DOTTED)
