"""Whether the posterior is used: what share of the uncertainty is of the weights, and how often samples disagree."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style, suite
from ssvi.analysis.figures.groups import Group
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import Quantity
from ssvi.registry import SPARSE
from ssvi.runs.evaluated import POINT_SHARE

SHARE = Quantity(
    "mutual_information_share",
    "mutual information",
    "%",
    100.0,
    titled="mutual information\n(% of the predictive entropy)",
)
DISAGREEMENT = Quantity("disagreement", "disagreement", "%", 100.0, titled="disagreement of two samples (%)")
QUANTITIES = (SHARE, DISAGREEMENT)
# Shares below it (%) stand at the foot of the axis.
LEAST_SHARE = 1e-3


def posterior_use(frames: Frames) -> Drawing:
    """Mutual information, as a share of the predictive entropy, and disagreement of weight samples, by density."""
    complete, rows = suite.measured(frames, "posterior_use", "posterior")
    for quantity in QUANTITIES:
        values = rows[rows["metric"] == quantity.column].set_index("run")["value"]
        complete = complete.assign(**{quantity.column: complete["run"].map(values)})
    runs = complete[complete[SHARE.column].notna()]
    parts = panels.split(panels.needed(runs, "posterior_use", "a run of several weight samples"))
    caption = (
        "How much the posterior is used. Left, the mutual information of label and weights as a share of the "
        f"predictive entropy; below {POINT_SHARE:.0%} (dotted) the posterior is practically a point, and its samples "
        "say what one network says. Right, the share of images on which two weight samples predict different classes. "
        "Means over seeds with their 95 % t intervals ({n}); horizontal lines are dense networks."
    )
    return panels.draw(
        *(frames, parts, panels.each(QUANTITIES, _draw), caption),
        size=(style.WIDE, 0.7 + 2.5 * len(parts)),
        axes=len(QUANTITIES),
        notes=_at_the_foot,
        pads={"w_pad": 0.08},
    )


def _draw(axes: Axes, panel: Panel, quantity: Quantity) -> Rows:
    rows: Rows = []
    found = lines.series(panel.runs, along=("density",))
    sparse = [one for one in found if one.method in SPARSE]
    for one in sparse:
        groups = [
            Group(runs, {"series": one.label, "method": one.method, "density": density})
            for density, runs in one.runs.groupby("density")
        ]
        densities = [group.options["density"] for group in groups]
        rows += lines.draw_means(axes, densities, groups, quantity, intervals=True, label=one.label, **one.look)
    for number, one in enumerate(one for one in found if one.method not in SPARSE):
        row = Group(one.runs, {"series": one.label, "method": one.method, "density": 1.0}).row(quantity)
        look = {"color": style.COLOURS[one.method], "linestyle": style.LINES[1 + number % 3]}
        axes.axhline(row["mean"], label=one.label, linewidth=0.9, zorder=2, **look)
        rows.append(row)
    scales.density_axis(axes, sorted({d for one in sparse for d in one.runs["density"]}))
    axes.set_ylabel(quantity.title)
    if quantity is SHARE:
        _share_axis(axes, rows)
    else:
        axes.set_ylim(bottom=0)
    return rows


def _share_axis(axes: Axes, rows: Rows) -> None:
    """A log axis with the bound below which a posterior is practically a point."""
    bound = 100 * POINT_SHARE
    means = [row["mean"] for row in rows]
    bottom = max(LEAST_SHARE, min([bound, *(mean for mean in means if mean > 0)]) / 2)
    axes.set_yscale("log")
    scales.mark(axes.yaxis, [10.0**power for power in range(-3, 3)])
    axes.set_ylim(bottom, 2 * max([bound, *means, *pd.Series([row["high"] for row in rows]).dropna()]))
    axes.axhline(bound, label=f"{POINT_SHARE:.0%}, below practically a point", **style.DOTTED)
    for row in rows:
        if row["mean"] < LEAST_SHARE:
            across = {} if row["method"] in SPARSE else {"transform": axes.get_yaxis_transform()}
            look = {"color": style.COLOURS[row["method"]], "marker": "v", "clip_on": False, "zorder": 4}
            axes.plot(row["density"], bottom, **look, **across)


def _at_the_foot(rows: Rows) -> tuple[str, ...]:
    """What a triangle means, where there is one."""
    least = [row["mean"] for row in rows if row["quantity"] == SHARE.key and row["mean"] < LEAST_SHARE]
    return (f"Triangles at the foot are shares below {LEAST_SHARE:g} %.",) if least else ()
