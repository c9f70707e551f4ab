"""Accuracy against density (figure 2, left)."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import ACCURACY
from ssvi.analysis.stats import mean_sd
from ssvi.registry import SPARSE

MEAN, SD = f"{ACCURACY.key}_mean", f"{ACCURACY.key}_sd"


def figure2_left(frames: Frames) -> Drawing:
    """Test accuracy against density: sparse methods as lines, dense ones as levels (figure 2, left, of the paper)."""
    parts = panels.split(panels.finished(frames, "figure2_left"))
    caption = (
        "Test accuracy against density, the kept fraction of the weights. Lines are means over seeds with one sample "
        "standard deviation, small points single runs, horizontal lines the dense networks ({n})."
    )
    return panels.draw(frames, parts, _draw_accuracy, caption, **panels.beside(parts, 3.1, alone=style.COLUMN + 0.4))


def _draw_accuracy(line: list[Axes], panel: Panel) -> Rows:
    (axes,) = line
    rows: Rows = []
    found = lines.series(panel.runs, along=("density",))
    sparse = [one for one in found if one.method in SPARSE]
    width = scales.density_axis(axes, sorted({d for one in sparse for d in one.runs["density"]}))
    for position, one in enumerate(sparse):
        # A little apart, so that error bars at one density can be told from each other.
        shift = math.exp(0.008 * width * (position - (len(sparse) - 1) / 2))
        rows += _draw_line(axes, one, shift, shift * math.exp(-0.018 * width))
    for number, one in enumerate(one for one in found if one.method not in SPARSE):
        (point,) = _by_density(one)
        rows.append(point)
        look = {"color": style.COLOURS[one.method], "linestyle": style.LINES[1 + number % 3]}
        axes.axhline(point[MEAN], linewidth=0.9, label=one.label, zorder=2, **look)
    ends = [row[MEAN] + sign * _bar(row) for row in rows for sign in (-1, 1)]
    scales.accuracy_axis(axes, [*ends, *ACCURACY.of(panel.runs)], float(panel.runs["test_images"].max()))
    return rows


def _draw_line(axes: Axes, line: lines.Series, shift: float, beside: float) -> Rows:
    """The means over seeds, and single runs where the markers do not hide them; one alone is its mean."""
    points = _by_density(line)
    x, y = [point["density"] * shift for point in points], [point[MEAN] for point in points]
    axes.errorbar(x, y, yerr=[_bar(point) for point in points], label=line.label, elinewidth=0.9, zorder=3, **line.look)
    seeds = line.runs[line.runs.groupby("density")["run"].transform("size") > 1]
    look = {"color": style.COLOURS[line.method], "alpha": 0.7, "linewidths": 0, "zorder": 4}
    axes.scatter(seeds["density"] * beside, ACCURACY.of(seeds), s=4, **look)
    return points


def _bar(point: dict[str, float]) -> float:
    return 0.0 if math.isnan(point[SD]) else point[SD]


def _by_density(line: lines.Series) -> Rows:
    points = []
    for _, group in sorted(line.runs.groupby("density"), reverse=True):
        mean, sd = mean_sd(ACCURACY.of(group))
        about = {**panels.of_one(group), "series": line.label, **panels.of_one(group, "method", "lr", "density")}
        points.append({**about, MEAN: mean, SD: sd, "n": len(group)})
    return points
