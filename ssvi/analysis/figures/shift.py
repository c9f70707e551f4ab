"""Accuracy, NLL and ECE under distribution shift, by severity."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.patches import Patch

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels, scales, style, suite
from ssvi.analysis.figures.lines import Series
from ssvi.analysis.figures.panels import Drawing, Rows
from ssvi.analysis.figures.recorded import of_runs
from ssvi.analysis.figures.suite import Facets
from ssvi.analysis.quantities import ACCURACY, ECE, NLL, Quantity

QUANTITIES = (ACCURACY, NLL, ECE)
# The rows over all corruptions, which a box shows itself.
OVER_ALL = "mean"
# Of the place of one severity, what its boxes take up.
TAKEN = 0.82
# How settings of one method are told apart: how full the box is, and with what.
VARIANTS: tuple[tuple[float, str], ...] = ((0.65, ""), (0.0, ""), (0.35, "/////"), (0.15, "....."))


def shift(frames: Frames) -> Drawing:
    """A box a setting and severity over the kinds of corruption, as they are commonly drawn (Ovadia et al., 2019)."""
    runs, rows = suite.measured(frames, "shift", "shift")
    rows = rows[(rows["name"] != OVER_ALL) & rows["metric"].isin([one.column for one in QUANTITIES])]
    choice = suite.chosen(runs, most=6)

    def draw(line: list[Axes], panel: Facets) -> Rows:
        found: Rows = []
        for axes, quantity in zip(line, QUANTITIES, strict=True):
            for place, one in enumerate(panel.series):
                mine = of_runs(rows[rows["metric"] == quantity.column], one.runs)
                found += _draw_boxes(axes, one, mine, quantity, place, len(panel.series))
            _finish(axes, quantity)
        return found

    corruptions = rows.loc[rows["level"] > 0, "name"].nunique()
    caption = (
        f"Test accuracy, NLL and ECE of corrupted test images, by severity (0: the same images as they are). Boxes are "
        f"quartiles over {corruptions} kinds of corruption, whiskers reach to the best and the worst of them, each a "
        "mean over seeds ({n}); a network that knows what it does not know has an ECE that stays low."
    )
    return panels.draw(
        *(frames, choice.panels, draw, caption),
        size=(style.WIDE, 0.8 + 2.1 * len(choice.panels)),
        axes=len(QUANTITIES),
        notes=lambda drawn: choice.notes,
        pads={"w_pad": 0.08},
    )


def _draw_boxes(axes: Axes, one: Series, rows: pd.DataFrame, quantity: Quantity, place: int, of: int) -> Rows:
    numbers = rows.assign(value=quantity.factor * rows["value"])
    means = numbers.groupby(["level", "name"])["value"].mean()
    runs = numbers.groupby("level")["run"].nunique()
    width = TAKEN / of
    boxes, found = [], []
    for severity, values in means.groupby(level="level"):
        (box,) = boxplot_stats(values, whis=(0, 100))
        boxes.append(box | {"severity": severity})
        about = {"severity": int(severity), "corruptions": len(values), "n": int(runs[severity])}
        ends = {"low": box["whislo"], "q25": box["q1"], "median": box["med"], "q75": box["q3"], "high": box["whishi"]}
        row = {"series": one.label, "quantity": quantity.key, **about, **{key: float(v) for key, v in ends.items()}}
        found.append({**panels.of_one(one.runs, "method", "density"), **row})
    places = [box["severity"] + (place - (of - 1) / 2) * width for box in boxes]
    drawn = axes.bxp(boxes, places, widths=0.8 * width, patch_artist=True, showfliers=False, **_outline(one))
    for box in drawn["boxes"]:
        _fill(box, one)
    # once in the legend, not once a box
    drawn["boxes"][0].set_label(one.label)
    return found


def _outline(one: Series) -> dict[str, Any]:
    line = {"color": style.COLOURS[one.method], "linewidth": 0.8}
    return {"whiskerprops": line, "medianprops": line | {"linewidth": 1.3}, "capprops": line, "manage_ticks": False}


def _fill(box: Patch, one: Series) -> Patch:
    opacity, hatch = VARIANTS[one.variant % len(VARIANTS)]
    colour = style.COLOURS[one.method]
    box.set(edgecolor=colour, facecolor=(colour, opacity), hatch=hatch, linewidth=0.8)
    return box


def _finish(axes: Axes, quantity: Quantity) -> None:
    axes.set_xlim(-0.5, 5.5)
    scales.mark(axes.xaxis, range(6))
    axes.grid(False, axis="x")
    axes.set_ylabel(quantity.title)
    axes.set_xlabel("severity" if axes.get_subplotspec().is_last_row() else "")
    if quantity is not ACCURACY:
        axes.set_ylim(bottom=0)
