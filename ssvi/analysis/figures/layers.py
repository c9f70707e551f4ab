"""What becomes of the subspace layer by layer: density, sigma, signal-to-noise ratios, and which weights stay."""

from __future__ import annotations

import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.figures.recorded import MOMENTS, at_moments, of_runs, recorded, setting_panels
from ssvi.analysis.quantities import DENSITY
from ssvi.analysis.records import QUANTILES
from ssvi.analysis.shown import to_label

LOOKS = dict(zip(MOMENTS, (("#0072B2", "o"), ("#009E73", "D"), ("#D55E00", "s")), strict=True))
PARTS = {DENSITY.key: DENSITY.title, "sigma": r"posterior $\sigma$", "snr": r"$|\mu|\,/\,\sigma$"}


def short_name(layer: str) -> str:
    """A layer's name as it fits under an axis: `blocks.2.conv1` is 3.conv1, of the third block."""
    found = re.fullmatch(r"blocks\.(\d+)\.(conv\d|shortcut)(?:\.0)?", layer)
    return f"{int(found[1]) + 1}.{found[2].replace('shortcut', 'skip')}" if found else to_label(layer)


def _in_order(updates: pd.DataFrame) -> list[str]:
    """The layers as they stand in the network."""
    return list(updates.groupby("layer")["position"].min().sort_values(kind="stable").index)


def layers(frames: Frames) -> Drawing:
    """Density, sigma and |mu|/sigma of each layer at three updates of a training (sections 3.2 and 3.3)."""
    runs, updates = recorded(frames, "updates", "layers")
    parts = setting_panels(runs)
    drawn = [part for part in PARTS if part == DENSITY.key or updates[f"{part}_q50"].notna().any()]

    def draw(axes: Axes, panel: Panel, part: str) -> Rows:
        mine = of_runs(updates, panel.runs)
        summary, names = _of_layers(mine, part), _in_order(mine)
        beside = len(names) * len(parts)
        # symbols as large as there is room for
        _draw_layers(axes, summary, names, part, min(1.0, 30 / beside))
        if axes.get_subplotspec().is_last_row():
            words = [short_name(name) for name in names]
            axes.set_xticks(range(len(names)), words, rotation=90, fontsize=7.5 if beside <= 40 else 6)
        return panels.rows_of(panel.runs, summary, "method", "density")

    def finish(grid: np.ndarray, rows: Rows) -> None:
        for axes, part in zip(grid[:, 0], drawn, strict=True):
            axes.set_ylabel(PARTS[part])
            _limit(axes, [row for row in rows if row["quantity"] == part], 150 if part == DENSITY.key else None)
        grid[0, 0].yaxis.set_major_formatter("{x:g}")
        grid[0, 0].figure.align_ylabels()

    return panels.draw(
        *(frames, parts, panels.each(drawn, draw)),
        "The subspace layer by layer, in the order of the network (“skip”: the convolution beside a block), at the "
        "first, the middle and the last recorded update: density, and of the active weights the medians (symbols), "
        "quartiles (thick) and 5% and 95% quantiles (thin) of the posterior's standard deviation and of the "
        "signal-to-noise ratio; a bar that reaches 0 ends on the edge. Means over seeds ({n}).",
        size=(style.WIDE, 0.9 + 1.35 * len(drawn)),
        axes=len(drawn),
        upright=True,
        finish=finish,
        sharex="col",
        sharey="row",
        height_ratios=[0.6 if part == DENSITY.key else 1.0 for part in drawn],
    )


def _of_layers(updates: pd.DataFrame, part: str) -> pd.DataFrame:
    """A layer's density, or its quantiles of sigma or SNR, at three updates, as means over runs."""
    rows = at_moments(updates)
    rows = rows.assign(**{f"{DENSITY.key}_q50": DENSITY.factor * rows["active"] / rows["size"]})
    columns = [f"{part}_q50"] if part == DENSITY.key else [f"{part}_{q}" for q in QUANTILES]
    groups = rows.groupby(["moment", "layer"])
    means = groups[columns].mean().rename(columns=lambda name: name.rsplit("_", 1)[1])
    return means.assign(n=groups["run"].nunique(), quantity=part).reset_index()


def _draw_layers(axes: Axes, summary: pd.DataFrame, names: list[str], part: str, size: float) -> None:
    axes.set_yscale("log")
    for number, (moment, (colour, marker)) in enumerate(LOOKS.items()):
        rows = summary[summary["moment"] == moment].set_index("layer").reindex(names)
        x = [i + 0.26 * (number - 1) for i in range(len(names))]
        if part != DENSITY.key:
            axes.vlines(x, rows["q05"], rows["q95"], color=colour, linewidth=0.7 * size, zorder=2)
            axes.vlines(x, rows["q25"], rows["q75"], color=colour, linewidth=2.2 * size, alpha=0.45, zorder=2)
        look: dict[str, Any] = {"marker": marker, "markersize": 2.8 * size, "linestyle": "none", "zorder": 3}
        axes.plot(x, rows["q50"], color=colour, label=moment, **look)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(names) - 0.4)


def _limit(axes: Axes, rows: Rows, most: float | None) -> None:
    """A log axis that holds all that is positive; a bar that reaches 0 ends on its lower edge."""
    drawn = pd.Series([row[quantile] for row in rows for quantile in QUANTILES if quantile in row], dtype=float)
    if (drawn > 0).any():
        axes.set_ylim(drawn[drawn > 0].min() / 1.6, most or drawn.max() * 1.6)


def survival(frames: Frames) -> Drawing:
    """How many of the first active weights are still there, and how many are exchanged an update (section 3.3)."""
    runs, updates = recorded(frames, "updates", "survival")
    updates = updates.assign(progress_percent=100 * updates["progress"])
    parts = setting_panels(runs)
    most = max(len(_in_order(of_runs(updates, part.runs))) for part in parts)
    colours = matplotlib.colormaps["viridis_r"].resampled(most + 1)(range(1, most + 1))

    def draw(axes: Axes, panel: Panel, part: str) -> Rows:
        found = _draw_fates(axes, of_runs(updates, panel.runs), part, colours)
        scales.progress_axis(axes)
        return panels.rows_of(panel.runs, pd.concat(found, ignore_index=True), "method", "density")

    return panels.draw(
        *(frames, parts, panels.each(("survivors", "turnover"), draw)),
        "Which weights stay. Left: share of the active weights that have been active from the start or are so again. "
        "Right: share of the active weights that an update exchanges for others; the dashed share is removed, but what "
        "has the largest gradients comes back at once. Thin lines are layers, coloured by depth. "
        f"{lines.BANDS} ({{n}}).",
        size=(style.WIDE, 0.75 + 2.1 * len(parts)),
        axes=2,
        finish=lambda grid, rows: _depth_bar(grid, colours),
    )


def _draw_fates(axes: Axes, updates: pd.DataFrame, part: str, colours: Any) -> list[pd.DataFrame]:
    """One panel of `survival`: the layers thin, the whole network thick; returns what is drawn."""
    names = _in_order(updates)
    counts = ["active", "survivors", "born"]
    whole = updates.groupby(["run", "progress_percent"], as_index=False).agg(
        {**dict.fromkeys(counts, "sum"), "drop_fraction": "first"}
    )
    found = []
    for layer in [*names, None]:
        rows = whole if layer is None else updates[updates["layer"] == layer]
        summary = _share(rows, "survivors" if part == "survivors" else "born")
        if part == "survivors":
            start = {"progress_percent": 0.0, "mean": 100.0, "min": 100.0, "max": 100.0, "n": summary["n"].max()}
            summary = pd.concat([pd.DataFrame([start]), summary], ignore_index=True)
        found.append(summary.assign(layer=layer or "all", quantity=f"{part}_percent"))
        if layer is None:
            lines.draw_band(
                axes, summary["progress_percent"], summary, label="whole network", color="black", linewidth=2.0
            )
        else:
            colour = colours[names.index(layer)]
            axes.plot(summary["progress_percent"], summary["mean"], color=colour, linewidth=0.8, zorder=2.5)
    if part == "turnover":
        removed = lines.over_runs(whole, "progress_percent", "drop_fraction", 100)
        look = {"color": style.COLOURS["ssvi"], "linewidth": 1.1, "linestyle": (0, (4, 1.5))}
        axes.plot(removed["progress_percent"], removed["mean"], label="removed (drop fraction)", **look)
    axes.set_ylabel("initially active (%)" if part == "survivors" else "exchanged per update (%)")
    axes.set_ylim(0, None)
    return found


def _share(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    active = rows["active"].where(rows["active"] > 0)
    return lines.over_runs(rows.assign(share=100 * rows[column] / active), "progress_percent", "share")


def _depth_bar(grid: np.ndarray, colours: Any) -> None:
    """The key to the layers' colours, numbered from the input on."""
    most = len(colours)
    norm = BoundaryNorm([i + 0.5 for i in range(most + 1)], most)
    scale = ScalarMappable(norm, ListedColormap(colours))
    bar = grid[0, 0].figure.colorbar(scale, ax=list(grid.flat), location="right", aspect=28, pad=0.015)
    bar.set_ticks(sorted({1, *range(5, most + 1, 5), most} - {i for i in (most - 1,) if most > 2}))
    bar.ax.minorticks_off()
    bar.set_label("layer, from the input on")
    bar.outline.set_visible(False)
