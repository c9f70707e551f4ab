"""How alike the removal criteria are: what they would remove, and how they rank (appendix D.2)."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.recorded import (
    BANDS,
    MOMENTS,
    at_moments,
    draw_band,
    over_runs,
    progress_axis,
    recorded,
    seeds,
    setting_rows,
    where,
)
from ssvi.analysis.figures.style import GREY, PALETTE, SYMBOLS, WIDE, Drawing, footnote, style
from ssvi.analysis.settings import caveats
from ssvi.registry import CRITERIA


class _Symbols(dict[str, str]):
    """As the paper writes them; one that is not in it has its name."""

    def __missing__(self, name: str) -> str:
        return name


SYMBOL = _Symbols(
    {
        "abs_mu": r"$|\mu|$",
        "snr": r"SNR$(\theta)$",
        "e_abs": r"$\mathbb{E}\,|\theta|$",
        "snr_abs": r"SNR$(|\theta|)$",
        "e_exp": r"$\mathbb{E}\,e^{\lambda|\theta|}$",
        "snr_exp": r"SNR$(e^{\lambda|\theta|})$",
    }
)
PAIR = ["first", "second"]
# The fraction that `ssvi.overlap` has each criterion remove, and the overlap of two random choices of it.
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
    """Overlap and rank correlation of the removal criteria at three moments of a training (appendix D.2).

    Raises:
        UserError: if no finished run has recorded them.
    """
    runs, overlap = recorded(frames, "overlap", "iou")
    groups = setting_rows(runs)
    data = []
    said: dict[str, str] = {}
    with matplotlib.rc_context(style() | {"axes.grid": False}):
        figure = Figure(figsize=(WIDE, 0.5 + 2.0 * len(groups)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.07)
        grid = figure.subplots(len(groups), len(MOMENTS), squeeze=False)
        for i, (title, group) in enumerate(groups):
            summary = _at_moments(overlap[overlap["run"].isin(group["run"])])
            data.append(pd.DataFrame({**where(group), **summary}))
            for axes, moment in zip(grid[i], MOMENTS, strict=True):
                images = _draw_matrix(axes, summary[summary["moment"] == moment])
                words = f"{moment}\n{_percent_of(summary, moment)} of training"
                axes.set_title("" if words == said.get(moment) else words, fontsize=7.5)
                said[moment] = words
            _name_criteria(list(grid[i]), last_row=i == len(groups) - 1)
            if title:
                grid[i, 0].set_ylabel(title)
        _keys(figure, grid, images)
        footnote(figure, frames.runs)
    caption = (
        f"How alike the removal criteria are during training. Above the diagonal, intersection over union of the "
        f"{REMOVED:.0%} of the active weights that each would remove (by chance {CHANCE:.2f}); below it, Spearman's "
        f"correlation of the scores. Means over seeds ({seeds([g for _, g in groups])})."
    )
    return Drawing(figure, pd.concat(data, ignore_index=True), caption, caveats(frames.runs))


def _keys(figure: Figure, grid: np.ndarray, images: list[Any]) -> None:
    """The two colour scales, beside the matrices."""
    for image, words in zip(images, ("IoU, above the diagonal", "Spearman, below the diagonal"), strict=True):
        bar = figure.colorbar(image, ax=grid, location="right", fraction=0.02, aspect=24, pad=0.01)
        bar.set_ticks([image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax])
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.tick_params(labelsize=7, length=2, pad=2)
        bar.set_label(words, fontsize=7)
        bar.outline.set_visible(False)


def _at_moments(overlap: pd.DataFrame) -> pd.DataFrame:
    """Every pair at the first, the middle and the last recorded update of each run, over the runs."""
    rows = at_moments(overlap)
    by = ["moment", *PAIR]
    iou, spearman = (over_runs(rows, by, measure).set_index(by) for measure in MEASURES)
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
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            text = _two_digits(values[i, j])
            axes.text(
                j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=size, color="white" if dark else "black"
            )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=1)
    return images


def _two_digits(value: float) -> str:
    """Two digits without the zero before the point, so that it fits a cell."""
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else "1" if text == "1.00" else text.replace("0.", ".", 1).replace("-", "\u2212")


def _name_criteria(row: list[Axes], *, last_row: bool) -> None:
    places, names = np.arange(len(CRITERIA)) + 0.5, [SYMBOL[name] for name in CRITERIA]
    size = min(7.0, 84 / len(CRITERIA))
    for axes in row:
        axes.set_xticks(places, names if last_row else [], rotation=90, fontsize=size)
        axes.set_yticks(places, names if axes is row[0] else [], fontsize=size)


def iou_course(frames: Frames) -> Drawing:
    """Overlap and rank correlation of pairs of removal criteria over the training (appendix D.2).

    Raises:
        UserError: if no finished run has recorded them.
    """
    runs, overlap = recorded(frames, "overlap", "iou_course")
    groups = setting_rows(runs)
    data = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.75 + 2.1 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), len(MEASURES), squeeze=False)
        for i, (title, group) in enumerate(groups):
            mine = overlap[overlap["run"].isin(group["run"])]
            for axes, (measure, heading) in zip(grid[i], MEASURES.items(), strict=True):
                summary = over_runs(mine.assign(progress=100 * mine["progress"]), [*PAIR, "progress"], measure)
                _draw_course(axes, summary, measure)
                axes.set_ylabel(heading)
                progress_axis(axes, last_row=i == len(groups) - 1)
                data.append(pd.DataFrame({**where(group), "measure": measure, **summary}))
            grid[i, 0].set_title(title, loc="left")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, handlelength=2.6)
        footnote(figure, frames.runs)
    caption = (
        f"How alike the removal criteria are over the training: intersection over union of the {REMOVED:.0%} of the "
        f"active weights that each would remove, and rank correlation; the other pairs, in grey, coincide "
        f"with these where they cannot be seen; chance is dotted. {BANDS} "
        f"({seeds([g for _, g in groups])}). The subspace, and with it the record, ends before the training does."
    )
    data_frame = pd.concat(data, ignore_index=True).rename(columns={"progress": "progress_percent"})
    return Drawing(figure, data_frame, caption, caveats(frames.runs))


def _draw_course(axes: Axes, summary: pd.DataFrame, measure: str) -> None:
    chance = CHANCE if measure == "iou" else 0.0
    axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
    for pair, line in summary.groupby(PAIR):
        if pair not in TELLING:
            axes.plot(line["progress"], line["mean"], color="#BBBBBB", linewidth=0.7, zorder=1.5)
    for number, pair in enumerate(TELLING):
        line = summary[(summary["first"] == pair[0]) & (summary["second"] == pair[1])]
        # Markers of different lines at different updates: lines that coincide can be told apart.
        look = {"color": PALETTE[number], "marker": SYMBOLS[number], "markevery": (number % 5, 5)}
        draw_band(axes, line["progress"], line, label=f"{SYMBOL[pair[0]]}, {SYMBOL[pair[1]]}", **look)
    axes.set_ylim(min(0.0, summary["min"].min() - 0.05), 1.03)
