"""What becomes of the subspace layer by layer: density, sigma, signal-to-noise ratios, and which weights stay."""

from __future__ import annotations

import re
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
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
from ssvi.analysis.figures.style import COLOURS, WIDE, Drawing, footnote, legend, style
from ssvi.analysis.records import QUANTILES
from ssvi.analysis.settings import caveats
from ssvi.analysis.shown import to_label

LOOKS = dict(zip(MOMENTS, (("#0072B2", "o"), ("#009E73", "D"), ("#D55E00", "s")), strict=True))
PARTS = {
    "density": "density (%)",
    "sigma": r"posterior $\sigma$",
    "snr": r"$|\mu|\,/\,\sigma$",
}


def short_name(layer: str) -> str:
    """A layer's name as it fits under an axis: `blocks.2.conv1` is 3.conv1, of the third block."""
    found = re.fullmatch(r"blocks\.(\d+)\.(conv\d|shortcut)(?:\.0)?", layer)
    return f"{int(found[1]) + 1}.{found[2].replace('shortcut', 'skip')}" if found else to_label(layer)


def _in_order(updates: pd.DataFrame) -> list[str]:
    """The layers as they stand in the network."""
    return list(updates.groupby("layer")["position"].min().sort_values(kind="stable").index)


def layers(frames: Frames) -> Drawing:
    """Density, sigma and |mu|/sigma of each layer at three updates of a training (sections 3.2 and 3.3).

    Raises:
        UserError: if no finished run has recorded updates of a subspace.
    """
    runs, updates = recorded(frames, "updates", "layers")
    groups = setting_rows(runs)
    parts = {k: v for k, v in PARTS.items() if k == "density" or updates[f"{k}_q50"].notna().any()}
    data = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.9 + 1.35 * len(parts)), layout="constrained")
        shape = {"height_ratios": [0.6 if part == "density" else 1.0 for part in parts]}
        grid = figure.subplots(len(parts), len(groups), squeeze=False, sharex="col", sharey="row", gridspec_kw=shape)
        for column, (title, group) in enumerate(groups):
            mine = updates[updates["run"].isin(group["run"])]
            names = _in_order(mine)
            for axes, part in zip(grid[:, column], parts, strict=True):
                summary = _of_layers(mine, part)
                _draw_layers(axes, summary, names, part, _size(len(names) * len(groups)))
                data.append(pd.DataFrame({**where(group), **summary}))
            grid[0, column].set_title(title, loc="left")
            small = 7.5 if len(names) * len(groups) <= 40 else 6
            grid[-1, column].set_xticks(
                range(len(names)), [short_name(name) for name in names], rotation=90, fontsize=small
            )
        for i, (axes, (part, heading)) in enumerate(zip(grid[:, 0], parts.items(), strict=True)):
            axes.set_ylabel(heading)
            _limit(axes, part, data[i :: len(parts)])
        grid[0, 0].yaxis.set_major_formatter("{x:g}")
        figure.align_ylabels()
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "The subspace layer by layer, in the order of the network (“skip”: the convolution beside a block), at the "
        "first, the middle and the last recorded update: density, and of the active weights the medians (symbols), "
        "quartiles (thick) and 5% and 95% quantiles (thin) of the posterior's standard deviation and of the "
        "signal-to-noise ratio; a bar that reaches 0 ends on the edge. Means over seeds "
        f"({seeds([g for _, g in groups])})."
    )
    return Drawing(figure, pd.concat(data, ignore_index=True), caption, caveats(frames.runs))


def _of_layers(updates: pd.DataFrame, part: str) -> pd.DataFrame:
    """A layer's density, or its quantiles of sigma or SNR, at three updates, as means over runs."""
    rows = at_moments(updates)
    rows = rows.assign(density_q50=100 * rows["active"] / rows["size"])
    columns = ["density_q50"] if part == "density" else [f"{part}_{q}" for q in QUANTILES]
    groups = rows.groupby(["moment", "layer"])
    means = groups[columns].mean().rename(columns=lambda name: name.rsplit("_", 1)[1])
    quantity = "density_percent" if part == "density" else part
    return means.assign(n=groups["run"].nunique(), quantity=quantity).reset_index()


def _draw_layers(axes: Axes, summary: pd.DataFrame, names: list[str], part: str, size: float) -> None:
    axes.set_yscale("log")
    for number, (moment, (colour, marker)) in enumerate(LOOKS.items()):
        rows = summary[summary["moment"] == moment].set_index("layer").reindex(names)
        x = [i + 0.26 * (number - 1) for i in range(len(names))]
        if part != "density":
            axes.vlines(x, rows["q05"], rows["q95"], color=colour, linewidth=0.7 * size, zorder=2)
            axes.vlines(x, rows["q25"], rows["q75"], color=colour, linewidth=2.2 * size, alpha=0.45, zorder=2)
        look: dict[str, Any] = {"marker": marker, "markersize": 2.8 * size, "linestyle": "none", "zorder": 3}
        axes.plot(x, rows["q50"], color=colour, label=moment, **look)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(names) - 0.4)


def _size(layers_beside: int) -> float:
    """How large symbols can be where so many layers stand beside each other, 1 where there is room."""
    return min(1.0, 30 / layers_beside)


def _limit(axes: Axes, part: str, summaries: list[pd.DataFrame]) -> None:
    """A log axis that holds all that is positive; a bar that reaches 0 ends on its lower edge."""
    shown = pd.concat([summary[column] for summary in summaries for column in summary if column in QUANTILES])
    if (shown > 0).any():
        axes.set_ylim(shown[shown > 0].min() / 1.6, 150 if part == "density" else shown.max() * 1.6)


def survival(frames: Frames) -> Drawing:
    """How many of the first active weights are still there, and how many are exchanged an update (section 3.3).

    Raises:
        UserError: if no finished run has recorded updates of a subspace.
    """
    runs, updates = recorded(frames, "updates", "survival")
    groups = setting_rows(runs)
    data = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.75 + 2.1 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), 2, squeeze=False)
        most = max(len(_in_order(updates[updates["run"].isin(g["run"])])) for _, g in groups)
        colours = matplotlib.colormaps["viridis_r"].resampled(most + 1)(range(1, most + 1))
        for i, (title, group) in enumerate(groups):
            mine = updates[updates["run"].isin(group["run"])]
            for axes, part in zip(grid[i], ("survivors", "turnover"), strict=True):
                data += [pd.DataFrame({**where(group), **rows}) for rows in _draw_fates(axes, mine, part, colours)]
                progress_axis(axes, last_row=i == len(groups) - 1)
            grid[i, 0].set_title(title, loc="left")
        _depth_bar(figure, list(grid.flat), colours)
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Which weights stay. Left: share of the active weights that have been active from the start or are so again. "
        "Right: share of the active weights that an update exchanges for others; the dashed share is removed, but what "
        f"has the largest gradients comes back at once. Thin lines are layers, coloured by depth. {BANDS} "
        f"({seeds([g for _, g in groups])})."
    )
    return Drawing(figure, pd.concat(data, ignore_index=True), caption, caveats(frames.runs))


def _draw_fates(axes: Axes, updates: pd.DataFrame, part: str, colours: Any) -> list[pd.DataFrame]:
    """One panel of `survival`: the layers thin, the whole network thick; returns what is drawn."""
    names = _in_order(updates)
    counts = ["active", "survivors", "born"]
    whole = updates.groupby(["run", "progress"], as_index=False).agg(
        {**dict.fromkeys(counts, "sum"), "drop_fraction": "first"}
    )
    found = []
    for layer in [*names, None]:
        rows = whole if layer is None else updates[updates["layer"] == layer]
        summary = _share(rows, "survivors" if part == "survivors" else "born")
        if part == "survivors":
            start = {"progress": 0.0, "mean": 100.0, "min": 100.0, "max": 100.0, "n": summary["n"].max()}
            summary = pd.concat([pd.DataFrame([start]), summary], ignore_index=True)
        found.append(summary.assign(layer=layer or "all", quantity=f"{part}_percent"))
        if layer is None:
            draw_band(axes, summary["progress"], summary, label="whole network", color="black", linewidth=2.0)
        else:
            colour = colours[names.index(layer)]
            axes.plot(summary["progress"], summary["mean"], color=colour, linewidth=0.8, zorder=2.5)
    if part == "turnover":
        removed = over_runs(whole.assign(progress=100 * whole["progress"]), "progress", "drop_fraction")
        look = {"color": COLOURS["ssvi"], "linewidth": 1.1, "linestyle": (0, (4, 1.5))}
        axes.plot(removed["progress"], 100 * removed["mean"], label="removed (drop fraction)", **look)
    axes.set_ylabel("initially active (%)" if part == "survivors" else "exchanged per update (%)")
    axes.set_ylim(0, None)
    return [summary.rename(columns={"progress": "progress_percent"}) for summary in found]


def _share(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    active = rows["active"].where(rows["active"] > 0)
    percent = rows.assign(progress=100 * rows["progress"], share=100 * rows[column] / active)
    return over_runs(percent, "progress", "share")


def _depth_bar(figure: Figure, grid: list[Axes], colours: Any) -> None:
    """The key to the layers' colours, numbered from the input on."""
    most = len(colours)
    norm = BoundaryNorm([i + 0.5 for i in range(most + 1)], most)
    bar = figure.colorbar(
        ScalarMappable(norm, ListedColormap(colours)), ax=grid, location="right", aspect=28, pad=0.015
    )
    bar.set_ticks(sorted({1, *range(5, most + 1, 5), most} - {i for i in (most - 1,) if most > 2}))
    bar.ax.minorticks_off()
    bar.set_label("layer, from the input on")
    bar.outline.set_visible(False)
