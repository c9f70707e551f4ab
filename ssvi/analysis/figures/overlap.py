"""How alike the removal criteria are: what they would remove, and how they rank (appendix D.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.figures.recorded import MOMENTS, at_moments, of_runs, recorded, setting_panels
from ssvi.registry import CRITERIA

PAIR = ["first", "second"]
# The fraction that `ssvi.core.overlap` has each criterion remove, and the overlap of two random choices of it.
REMOVED = 0.3
CHANCE = REMOVED / (2 - REMOVED)
# The pairs that tell the criteria apart; the others coincide with one of these.
TELLING = (
    ("snr", "snr_abs"),
    ("abs_mu", "e_abs"),
    ("abs_mu", "snr_abs"),
    ("snr_abs", "snr_exp"),
    ("abs_mu", "snr_exp"),
)
MEASURES = {"iou": "IoU of removed weights", "spearman": "Spearman correlation"}


def iou(frames: Frames) -> Drawing:
    """Overlap and rank correlation of the removal criteria at three moments of a training (appendix D.2)."""
    runs, overlap = recorded(frames, "overlap", "iou")
    parts = setting_panels(runs)
    images: list[Any] = []
    said: dict[str, str] = {}

    def draw(line: list[Axes], panel: Panel) -> Rows:
        summary = _at_moments(of_runs(overlap, panel.runs))
        for axes, moment in zip(line, MOMENTS, strict=True):
            images[:] = _draw_matrix(axes, summary[summary["moment"] == moment])
            words = f"{moment}\n{_percent_of(summary, moment)} of training"
            axes.set_title("" if words == said.get(moment) else words, fontsize=7.5)
            said[moment] = words
        _name_criteria(line)
        line[0].set_ylabel(panel.title)
        return panels.rows_of(panel.runs, summary, "method", "density")

    return panels.draw(
        *(frames, parts, draw),
        f"How alike the removal criteria are during training. Above the diagonal, intersection over union of the "
        f"{REMOVED:.0%} of the active weights that each would remove (by chance {CHANCE:.2f}); below it, Spearman's "
        "correlation of the scores. Means over seeds ({n}).",
        size=(style.WIDE, 0.5 + 2.0 * len(parts)),
        axes=len(MOMENTS),
        title=None,
        finish=lambda grid, rows: _keys(grid, images),
        pads={"h_pad": 0.07},
    )


def _keys(grid: np.ndarray, images: list[Any]) -> None:
    """The two colour scales, beside the matrices."""
    for image, words in zip(images, ("IoU, above the diagonal", "Spearman, below the diagonal"), strict=True):
        bar = grid[0, 0].figure.colorbar(image, ax=grid, location="right", fraction=0.02, aspect=24, pad=0.01)
        bar.set_ticks([image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax])
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.tick_params(labelsize=7, length=2, pad=2)
        bar.set_label(words, fontsize=7)
        bar.outline.set_visible(False)


def _at_moments(overlap: pd.DataFrame) -> pd.DataFrame:
    """Every pair at the first, the middle and the last recorded update of each run, over the runs."""
    rows = at_moments(overlap)
    by = ["moment", *PAIR]
    iou, spearman = (lines.over_runs(rows, by, measure).set_index(by) for measure in MEASURES)
    joined = iou.drop(columns="n").add_prefix("iou_").join(spearman.drop(columns="n").add_prefix("spearman_"))
    joined = joined.join(iou["n"]).reset_index()
    progress = 100 * rows.groupby("moment")["progress"].mean()
    return joined.assign(progress_percent=joined["moment"].map(progress))


def _percent_of(summary: pd.DataFrame, moment: str) -> str:
    return f"{summary.loc[summary['moment'] == moment, 'progress_percent'].iloc[0]:.0f}%"


def _draw_matrix(axes: Axes, pairs: pd.DataFrame) -> list[Any]:
    """Overlap above the diagonal, correlation below it, each on a scale of its own; returns the two images."""
    k = len(CRITERIA)
    size = min(6.0, 60 / k)  # two digits fit a cell
    upper, lower = np.full((k, k), np.nan), np.full((k, k), np.nan)
    for pair in pairs.itertuples():
        i, j = CRITERIA.place(pair.first), CRITERIA.place(pair.second)
        upper[i, j], lower[j, i] = pair.iou_mean, pair.spearman_mean
    images = []
    for values, colours, low in ((upper, "Blues", 0.0), (lower, "PuOr", -1.0)):
        image = axes.pcolormesh(values, cmap=colours, vmin=low, vmax=1.0, edgecolors="white", linewidth=0.8)
        images.append(image)
        for i, j in np.argwhere(~np.isnan(values)):
            red, green, blue, _ = image.to_rgba(values[i, j])
            colour = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "black"
            look = {"ha": "center", "va": "center", "fontsize": size, "color": colour}
            axes.text(j + 0.5, i + 0.5, _two_digits(values[i, j]), **look)
    axes.grid(False)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=1)
    return images


def _two_digits(value: float) -> str:
    """Two digits without the zero before the point, so that it fits a cell."""
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else "1" if text == "1.00" else text.replace("0.", ".", 1).replace("-", "\u2212")


def _name_criteria(line: list[Axes]) -> None:
    places, names = np.arange(len(CRITERIA)) + 0.5, [style.criterion_name(name) for name in CRITERIA]
    size = min(7.0, 84 / len(CRITERIA))
    for axes in line:
        place = axes.get_subplotspec()
        axes.set_xticks(places, names if place.is_last_row() else [], rotation=90, fontsize=size)
        axes.set_yticks(places, names if place.is_first_col() else [], fontsize=size)


def iou_course(frames: Frames) -> Drawing:
    """Overlap and rank correlation of pairs of removal criteria over the training (appendix D.2)."""
    runs, overlap = recorded(frames, "overlap", "iou_course")
    overlap = overlap.assign(progress_percent=100 * overlap["progress"])
    parts = setting_panels(runs)

    def draw(axes: Axes, panel: Panel, measure: str) -> Rows:
        summary = lines.over_runs(of_runs(overlap, panel.runs), [*PAIR, "progress_percent"], measure)
        _draw_course(axes, summary, measure)
        axes.set_ylabel(MEASURES[measure])
        scales.progress_axis(axes)
        return panels.rows_of(panel.runs, summary, "method", "density", measure=measure)

    return panels.draw(
        *(frames, parts, panels.each(list(MEASURES), draw)),
        f"How alike the removal criteria are over the training: intersection over union of the {REMOVED:.0%} of the "
        "active weights that each would remove, and rank correlation; the other pairs, in grey, coincide "
        f"with these where they cannot be seen; chance is dotted. {lines.BANDS} "
        "({n}). The subspace, and with it the record, ends before the training does.",
        size=(style.WIDE, 0.75 + 2.1 * len(parts)),
        axes=len(MEASURES),
        key={"columns": 3},
    )


def _draw_course(axes: Axes, summary: pd.DataFrame, measure: str) -> None:
    chance = CHANCE if measure == "iou" else 0.0
    axes.axhline(chance, **style.DOTTED)
    for pair, line in summary.groupby(PAIR):
        if pair not in TELLING:
            axes.plot(line["progress_percent"], line["mean"], color="#BBBBBB", linewidth=0.7, zorder=1.5)
    for number, pair in enumerate(TELLING):
        line = summary[(summary["first"] == pair[0]) & (summary["second"] == pair[1])]
        # Markers of different lines at different updates: lines that coincide can be told apart.
        look = style.numbered(number) | {"markevery": (number % 5, 5)}
        label = ", ".join(style.criterion_name(name) for name in pair)
        lines.draw_band(axes, line["progress_percent"], line, label=label, **look)
    axes.set_ylim(min(0.0, summary["min"].min() - 0.05), 1.03)
