"""Accuracy, NLL and ECE against the sparsity that each method reached."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.groups import Group
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.figures.scales import TEST_NLL
from ssvi.analysis.quantities import ACCURACY, ECE, SPARSITY, Quantity

# The options that a method's sparsity is chosen by: along them its settings are points of one line.
KNOBS = ("density", "kl_weight", "mask_lambda")
QUANTITIES = (ACCURACY, TEST_NLL, ECE)
TICKS = (0, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)


def sparsity(frames: Frames) -> Drawing:
    """Every sparse method at the sparsities it was run at, with the interval of each mean."""
    complete = panels.finished(frames, "sparsity")
    runs = complete[pd.to_numeric(complete["sparsity"], errors="coerce") > 0]
    parts = panels.split(panels.needed(runs, "sparsity", "a run whose weights are sparse"))
    caption = (
        "Test accuracy, NLL and ECE against measured sparsity, the share of the plain network's weights that are "
        "gone. Markers are means over seeds, bars their 95 % t intervals ({n}); lines join the settings of one method "
        "that differ in what its sparsity is chosen by."
    )
    size = (style.WIDE, 1.5 + 2.4 * len(parts))
    return panels.draw(frames, parts, panels.each(QUANTITIES, _draw), caption, size=size, axes=len(QUANTITIES))


def _draw(axes: Axes, panel: Panel, quantity: Quantity) -> Rows:
    rows: Rows = []
    for line in lines.series(panel.runs, along=KNOBS):
        found = sorted(((float(SPARSITY.of(group.runs).mean()), group) for group in _groups(line)), key=lambda f: f[0])
        x, groups = [_odds(percent) for percent, _ in found], [group for _, group in found]
        drawn = lines.draw_means(axes, x, groups, quantity, intervals=True, label=line.label, **line.look)
        rows += [{**row, "sparsity_percent": percent} for row, (percent, _) in zip(drawn, found, strict=True)]
    _sparsity_axis(axes, [row["sparsity_percent"] for row in rows])
    if quantity is ACCURACY:
        scales.fit_accuracy(axes, rows, panel.runs, intervals=True)
    else:
        axes.set_ylabel(quantity.title)
        axes.set_ylim(bottom=0)
    return rows


def _groups(line: lines.Series) -> list[Group]:
    """The settings on a line."""
    keys = [name for name in KNOBS if line.runs[name].notna().any()]
    about = {"series": line.label, "method": line.method}
    parts = line.runs.groupby(keys, sort=True)
    return [Group(runs, {**about, **{k: runs.iloc[0][k] for k in keys}}) for _, runs in parts]


def _odds(sparsity: float) -> float:
    """The factor by which weights became fewer: 90 % is 10, 99 % is 100."""
    return 1 / max(1 - sparsity / 100, 1e-6)


def _sparsity_axis(axes: Axes, drawn: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(SPARSITY.title)
    scales.mark(axes.xaxis, map(_odds, TICKS), lambda value: f"{100 - 100 / value:.4g}")
    axes.set_xlim(_odds(min(drawn)) / 1.2, _odds(max(drawn)) * 1.2)
