"""Predictive entropy of test images and of images from outside the training's distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels, scales, style, suite
from ssvi.analysis.figures.lines import Series
from ssvi.analysis.figures.panels import Drawing, Rows
from ssvi.analysis.figures.recorded import of_runs
from ssvi.analysis.figures.suite import Facets
from ssvi.analysis.shown import to_label
from ssvi.analysis.stats import interval

INSIDE, SCORE = "test", "entropy"


def ood(frames: Frames) -> Drawing:
    """Histograms of the entropy, a panel a setting, with how well it tells each set from the test images."""
    runs, rows = suite.measured(frames, "ood", "histogram")
    _, detection = suite.measured(frames, "ood", "ood")
    choice = suite.chosen(runs)
    parts, across = suite.in_rows(choice)
    near = detection[detection["metric"] == "near"].groupby("name", sort=False)["value"].max()
    looks = _looks(near)

    def draw(line: list[Axes], panel: Facets) -> Rows:
        found: Rows = []
        for axes, one in zip(line, panel.series, strict=False):
            suite.entitle(axes, panel, one)
            told = _told(of_runs(detection, one.runs))
            found += _draw_histograms(axes, one, of_runs(rows, one.runs), told, looks)
            _finish(axes, told, looks)
        for axes in line[len(panel.series) :]:
            axes.set_visible(False)
        line[0].set_ylabel("share of images (%)")
        line[0].set_ylim(bottom=0)  # of all, whose axis it is, when all are drawn
        return found

    caption = (
        "Predictive entropy, in units of its largest value, of test images (grey) and of images of no class that the "
        "network knows: shares of each set by bin, means over seeds ({n}). Numbers are the AUROC with which entropy "
        "tells a set from the test images: 0.5 is chance, 1 is perfect. Solid lines are near sets, others far ones."
    )
    return panels.draw(
        *(frames, parts, draw, caption),
        size=suite.size(len(parts), across, 1.75),
        axes=across,
        title=None,
        notes=lambda drawn: choice.notes,
        sharey="row",
    )


def _looks(near: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """How each set is drawn: a colour and a dash of its own, solid and bold where it is near."""
    found = {}
    far = 0
    for number, (name, is_near) in enumerate(near.items()):
        colour = style.PALETTE[number % len(style.PALETTE)]
        look = {"color": colour, "label": f"{to_label(name)} ({'near' if is_near else 'far'})"}
        if is_near:
            look |= {"linestyle": "-", "linewidth": 1.5}
        else:
            far += 1
            look |= {"linestyle": style.LINES[1 + (far - 1) % (len(style.LINES) - 1)], "linewidth": 1.1}
        found[name] = look
    return found


def _told(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each set how well the entropy tells it from the test images."""
    mine = rows[(rows["metric"] == "auroc") & (rows["score"] == SCORE)]
    found = {}
    for name, values in mine.groupby("name", sort=False)["value"]:
        estimate = interval(values)
        found[name] = {"auroc": estimate.mean, "auroc_low": estimate.low, "auroc_high": estimate.high}
    return found


def _draw_histograms(
    axes: Axes, one: Series, rows: pd.DataFrame, told: Mapping[str, Any], looks: Mapping[str, dict[str, Any]]
) -> Rows:
    found: Rows = []
    shares = rows.assign(share=100 * rows["value"] / rows.groupby(["run", "name"])["value"].transform("sum"))
    for name, mine in shares.groupby("name", sort=False):
        bins = mine.groupby("level", sort=True)["share"].agg(["mean", "count"])
        edges = [place / len(bins) for place in range(len(bins) + 1)]
        look = looks.get(name) or {"color": style.GREY, "fill": True, "alpha": 0.35, "label": "test images"}
        axes.stairs(bins["mean"], edges, **look)
        about = {"series": one.label, "set": name, **told.get(name, {})}
        numbers = pd.DataFrame(
            {"from": edges[:-1], "to": edges[1:], "images_percent": bins["mean"].tolist(), "n": bins["count"].tolist()}
        )
        found += panels.rows_of(one.runs, numbers, "method", "density", **about)
    return found


def _finish(axes: Axes, told: Mapping[str, Mapping[str, float]], looks: Mapping[str, dict[str, Any]]) -> None:
    axes.set_xlim(0, 1)
    scales.mark(axes.xaxis, (0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("entropy / log K")
    # in the middle, because what is known stands on the left and what is not on the right
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.6}
    look = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 6.5, "bbox": paper}
    axes.text(0.62, 0.98, "AUROC", color=style.GREY, **look)
    for number, (name, measured) in enumerate(told.items()):
        place = 0.98 - 0.095 * (number + 1)
        axes.text(0.62, place, f"{measured['auroc']:.3f}", color=looks[name]["color"], **look)
        sample = {key: looks[name][key] for key in ("color", "linestyle", "linewidth")}
        axes.plot([0.22, 0.38], [place - 0.035] * 2, transform=axes.transAxes, zorder=5, **sample)
