"""How many weight samples a prediction needs."""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.recorded import BANDS, METRICS, draw_band, over_runs, panels_of, recorded, seeds, where
from ssvi.analysis.figures.style import GREY, WIDE, Drawing, footnote, legend, series, style
from ssvi.analysis.made import one_machine
from ssvi.analysis.settings import caveats, mixed
from ssvi.registry import VARIATIONAL

QUANTITIES = {name: (heading, factor) for name, (heading, factor, _) in METRICS.items()}
QUANTITIES["seconds"] = ("time for the test set (s)", 1.0)
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def weight_samples(frames: Frames) -> Drawing:
    """Accuracy, NLL, ECE and measured time by the number of weight samples averaged (the published evaluation: 5).

    Raises:
        UserError: if no finished run has metrics by the number of samples.
    """
    frames = replace(frames, samples=frames.samples[_is_sampled(frames)])
    runs, samples = recorded(frames, "samples", "test_samples")
    # what is drawn was not computed by the evaluation
    runs = runs.assign(evaluation_numerics=runs["run"].map(samples.groupby("run")["numerics"].first()))
    groups = panels_of(runs, ("density",))
    data: list[pd.DataFrame] = []
    lines: list[pd.DataFrame] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.7 + 1.75 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), len(QUANTITIES), squeeze=False)
        for i, (title, panel) in enumerate(groups):
            for line in series(panel, along=()):
                mine = samples[samples["run"].isin(line.runs["run"])]
                mine = mine if one_machine(line.runs) else mine.assign(seconds=math.nan)
                lines.append(line.runs)
                for axes, (column, (_, factor)) in zip(grid[i], QUANTITIES.items(), strict=True):
                    summary = over_runs(mine.assign(value=factor * mine[column].astype(float)), "samples", "value")
                    draw_band(axes, summary["samples"], summary, label=line.label, **line.look | {"marker": None})
                    unit = f"{column}_percent" if factor == 100 else column
                    data.append(pd.DataFrame({**where(line.runs), "quantity": unit, **summary}))
            for axes, (heading, _) in zip(grid[i], QUANTITIES.values(), strict=True):
                _finish(axes, heading, panel["evaluation_samples"], last_row=i == len(groups) - 1)
            grid[i, -1].set_yscale("log")
            grid[i, 0].set_title(title, loc="left")
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy, NLL, ECE and measured time for the whole test set by the number of weight samples whose "
        "probabilities are averaged; counted cost is proportional to that number, and the dotted line is the number "
        f"that tables use. {BANDS} ({seeds(lines)})."
    )
    notes = (*mixed(runs, {"sampled": "evaluation_numerics"}), *caveats(frames.runs))
    return Drawing(figure, pd.concat(data, ignore_index=True), caption, notes)


def _is_sampled(frames: Frames) -> pd.Series:
    """Which rows are of a method that has weights to sample; others have a single row."""
    methods = frames.runs.set_index("run")["method"]
    return frames.samples["run"].map(methods).isin(VARIATIONAL)


def _finish(axes: Axes, heading: str, evaluated: pd.Series, *, last_row: bool) -> None:
    axes.set_xscale("log")
    axes.set_ylabel(heading)
    low, high = axes.dataLim.intervalx
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weight samples" if last_row else "")
    if evaluated.dropna().nunique() == 1:
        axes.axvline(float(evaluated.dropna().iloc[0]), color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
