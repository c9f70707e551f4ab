"""The removal criteria: at several densities and starts of sigma, and beside what the seeds alone make."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis import comparing
from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import compared, panels, scales, style
from ssvi.analysis.figures.compared import Compared
from ssvi.analysis.figures.groups import Group, alike, groups_by, having, replicates, usual_n
from ssvi.analysis.figures.lines import draw_means
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import ACCURACY
from ssvi.analysis.stats import DIFFERENCES, MAX_SPLITS, mean_sd, noise_floor, seed_differences, split_differences
from ssvi.errors import UserError
from ssvi.registry import CRITERIA, Among
from ssvi.runs.options import FIELDS

DEFAULT = FIELDS["criterion"].default
OTHERS = Among(CRITERIA, lambda name: name != DEFAULT)
DIFFERENCE = "difference_percent_points"
NO_DIFFERENCE = "No difference is shown: no other criterion was run beside the default one with all else alike."
# Inches of height for a row of a criterion's difference.
ROW = 0.42
# What tells the points of figure 2 (right) apart.
POINT = ("method", "criterion", "sigma_init", "kl_warmup")


def _place(criterion: str) -> float:
    """Where a criterion stands among all, from -1/2 to 1/2: so far lines at the same place are drawn apart."""
    return CRITERIA.place(criterion) / (len(CRITERIA) - 1) - 0.5


def figure2_right(frames: Frames) -> Drawing:
    """Test accuracy against the mean of sigma's start: methods, KL warm-up, criteria (figure 2, right)."""
    parts = compared.compare(panels.using(frames, "figure2_right", "sigma_init"), POINT)
    return panels.draw(
        *(frames, parts, _draw_starts),
        "Test accuracy against the mean of σ at the start: left, the dense BNN and SSVI with and without KL warm-up; "
        "right, SSVI with each removal criterion. Means over seeds with one sample standard deviation ({n}).",
        size=(style.WIDE, 0.75 + 2.15 * len(parts)),
        axes=2,
        title=None,
        finish=lambda grid, rows: [_legend_above(axes, columns) for axes, columns in zip(grid[0], (2, 3), strict=True)],
        notes=compared.notes(parts),
        key={"only": [part.band.label for part in parts if part.band]},
        pads={"w_pad": 0.06},
        sharex="row",
        sharey="row",
    )


def _draw_starts(line: list[Axes], panel: Compared) -> Rows:
    left, right = line
    rows = _draw_methods(left, panel.shared) + _draw_criteria(right, panel.shared)
    for axes in line:
        scales.log_ticks(axes, sorted(panel.shared["sigma_init"].unique()))
        axes.set_xlabel("mean of σ at the start")
    rows = panel.finish(line, rows)
    left.set_ylabel("\n".join(filter(None, [panel.title, left.get_ylabel()])))
    return rows


ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "handlelength": 2.2, "columnspacing": 1.2}


def _legend_above(axes: Axes, columns: int) -> None:
    """A legend of the panel's lines, where panels mean different things by alike markers."""
    handles, labels = axes.get_legend_handles_labels()
    lines = {label: handle for label, handle in zip(labels, handles, strict=True) if "noise floor" not in label}
    axes.legend(lines.values(), lines.keys(), ncols=columns, **ABOVE)


# How far apart two methods at the same place of a log axis stand, and how far the first and the last criterion, as a
# power of e.
APART, SPAN = 0.035, 0.175


def _draw_methods(axes: Axes, runs: pd.DataFrame) -> Rows:
    """The dense BNN, and SSVI with the default criterion; without KL warm-up dashed and hollow."""
    runs = runs[(runs["method"] == "vi") | (runs["criterion"] == DEFAULT)]
    rows: Rows = []
    for place, group in enumerate(groups_by(runs, ("method", "kl_warmup"))[::-1]):
        method, warm = group.options["method"], group.options["kl_warmup"]
        points = groups_by(group.runs, POINT)
        x = [point.options["sigma_init"] * math.exp(APART * (place - 1.5)) for point in points]
        look = style.of_method(method) | {"linestyle": style.LINES[0 if warm else 1]}
        look |= {} if warm else {"markerfacecolor": "white"}
        label = style.NAMES[method].removesuffix(" (VI)") + ("" if warm else ", no warm-up")
        rows += draw_means(axes, x, points, ACCURACY, label=label, **look)
    return rows


def _draw_criteria(axes: Axes, runs: pd.DataFrame) -> Rows:
    """SSVI with each criterion; the default one is in the other panel's data already."""
    rows: Rows = []
    for group in groups_by(having(runs[runs["criterion"].notna()], kl_warmup=True), ("criterion",)):
        drawn = _draw_criterion(axes, group, POINT, "sigma_init", SPAN)
        rows += [] if group.options["criterion"] == DEFAULT else drawn
    return rows


def _draw_criterion(axes: Axes, group: Group, keys: tuple[str, ...], along: str, span: float) -> Rows:
    """A criterion's line along an option on a log axis, shifted by its place among all of them."""
    name = group.options["criterion"]
    points = groups_by(group.runs, keys)
    x = [point.options[along] * math.exp(span * _place(name)) for point in points]
    look = style.of_criterion(name) | {"linewidth": 0.9, "markersize": 4, "capsize": 1.5}
    return draw_means(axes, x, points, ACCURACY, label=style.criterion_name(name), **look)


def criteria(frames: Frames) -> Drawing:
    """The removal criteria at each density: accuracy, and its difference to the default one's (section 3.3.1)."""
    parts = compared.compare(panels.using(frames, "criteria", "criterion"), ("density", "criterion"))
    most = max(part.runs["density"].nunique() for part in parts)
    floors = compared.notes(parts)
    return panels.draw(
        *(frames, parts, _draw_densities),
        "The removal criteria by density. Left: test accuracy, means over seeds with one sample standard deviation. "
        "Right: difference to the default criterion, positive where the other is better; small dots are single seeds, "
        "markers the mean, bars its 95 % interval ({n}).",
        size=(style.WIDE, 0.6 + ROW * len(OTHERS) * len(parts)),
        axes=1 + most,
        notes=lambda rows: (*floors(rows), _of_differences(rows)),
        pads={"w_pad": 0.03},
        width_ratios=[1.9, *[1.0] * most],
    )


def _of_differences(rows: Rows) -> str:
    """How the differences among these rows were judged, or that there are none."""
    return DIFFERENCES if any(row["quantity"] == DIFFERENCE for row in rows) else NO_DIFFERENCE


def _draw_densities(line: list[Axes], panel: Compared) -> Rows:
    """Accuracy over density, and for each density the differences, with the noise where the replicates tell it."""
    at = replicates(panel.runs)["density"].iloc[0]
    noise = {at: (panel.band.bound, panel.band.n)} if panel.band else {}
    rows = _draw_over_density(line[0], panel.shared) + panel.floor_rows(density=at)
    densities = sorted(panel.shared["density"].unique(), reverse=True)
    for axes, density in zip(line[1:], densities, strict=False):
        rows += _draw_differences(axes, having(panel.shared, density=density), *noise.get(density, (math.nan, 0)))
        axes.set_title(f"density {style.percent(density)} %")
        axes.set_xlabel("difference (points)")
        axes.tick_params(axis="y", labelleft=axes is line[1])
    for axes in line[1 + len(densities) :]:
        axes.set_visible(False)
    return rows


def _draw_over_density(axes: Axes, runs: pd.DataFrame) -> Rows:
    width = scales.density_axis(axes, sorted(runs["density"].unique()))
    rows: Rows = []
    for group in groups_by(runs, ("criterion",)):
        rows += _draw_criterion(axes, group, ("density", "criterion"), "density", -0.07 * width)
    low, high = axes.get_xlim()
    axes.set_xlim(low * math.exp(0.05 * width), high * math.exp(-0.05 * width))
    scales.fit_accuracy(axes, rows, runs)
    return rows


def _draw_differences(axes: Axes, runs: pd.DataFrame, bound: float, n: int, *, labelled: bool = True) -> Rows:
    """Each criterion minus the default one; nothing where one of them was not run."""
    rows: Rows = []
    about = panels.of_one(runs, "density")
    for place, name in enumerate(OTHERS):
        pair = [having(runs, criterion=criterion) for criterion in (name, DEFAULT)]
        found = comparing.compare(*pair, ACCURACY)
        if found.n:
            seeds = seed_differences(*(comparing.by_seed(side, ACCURACY) for side in pair))
            row = {"mean": found.mean, "sd": mean_sd(seeds)[1], "low": found.low, "high": found.high, "n": found.n}
            compared.draw_estimate(axes, place, row, seeds, (2.4, 4.5), **style.of_criterion(name))
            rows.append({**about, "criterion": name, "quantity": DIFFERENCE, **row})
    if not math.isnan(bound):
        compared.draw_range(axes, -bound, bound, label=f"noise floor (n = {n})" * labelled)
    axes.axvline(0, color=style.GREY, linewidth=0.7, zorder=1)
    scales.rows_from_the_top(axes, [style.criterion_name(name) for name in OTHERS])
    return rows


def noise_floor_figure(frames: Frames) -> Drawing:
    """How far means of seeds of one setting are apart by chance, beside how far the criteria are (our own check)."""
    complete = panels.finished(frames, "noise_floor")
    parts = [part for part in panels.split(complete, ("density", "criterion")) if len(replicates(part.runs)) > 1]
    if not parts:
        raise UserError("noise_floor: needs two finished runs that differ in the seed alone, but no setting has them.")
    return panels.draw(
        *(frames, parts, _draw_noise),
        "What the seeds alone make: differences between the mean test accuracies of two disjoint groups of seeds of "
        "the default setting, over all such pairs of groups, both signs; grey, the range that holds 95 % of them; "
        "dashed, one particular split. Below, the observed differences of the other removal criteria to the "
        "default one at the same density: small dots are single seeds, markers the mean, bars its 95 % interval.",
        size=(style.COLUMN if len(parts) == 1 else style.WIDE / 2 * len(parts), 2.55 + 0.33 * len(OTHERS)),
        axes=3,
        upright=True,
        title=None,
        notes=lambda rows: (_of_differences(rows),),
        pads={"h_pad": 0.03},
        sharex="col",
        height_ratios=[1, 1, 0.26 * len(OTHERS)],
    )


# Seeds in the means that others are compared by, where no other criterion tells.
USUAL_N = 3


def _draw_noise(column: list[Axes], panel: Panel) -> Rows:
    """Two histograms of differences from nothing, of half the seeds and of as many as the criteria have."""
    many = replicates(panel.runs)
    values = comparing.by_seed(many, ACCURACY).sort_index()
    others = alike(panel.runs, many, but=("criterion", "exp_lambda"))
    others = others[others["criterion"].notna() & (others["criterion"] != many["criterion"].iloc[0])]
    n = usual_n(groups_by(others, ("criterion",))) if len(others) else USUAL_N
    rows: Rows = []
    for axes, size in zip(column, (len(values) // 2, n), strict=False):
        rows += [{**panels.of_one(many, "density"), **row} for row in _draw_splits(axes, values, size)]
        axes.tick_params(axis="x", labelbottom=False)
    if panel.title:
        column[0].set_title(f"{panel.title}\n{column[0].get_title(loc='left')}", loc="left", fontsize=7.5)
    rows += _draw_differences(column[2], pd.concat([others, many]), noise_floor(values, n), n, labelled=False)
    column[2].set_xlabel("difference in test accuracy (points)")
    return rows


# A histogram has a bar a value up to so many of them, as few test images leave few; beyond it, bins.
MAX_BARS = 60


def _histogram(axes: Axes, differences: np.ndarray) -> None:
    values, counts = np.unique(differences.round(9), return_counts=True)
    if len(values) > MAX_BARS:
        axes.hist(differences, bins=41, color="#7A7A7A", zorder=2, rwidth=0.9)
    else:
        width = 0.85 * np.diff(values).min() if len(values) > 1 else 0.1
        axes.bar(values, counts, width=width, color="#7A7A7A", zorder=2)


def _draw_splits(axes: Axes, values: pd.Series, n: int) -> Rows:
    """The differences between two means of n of the values."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    found = split_differences(values, n)
    if not found:
        axes.set_title(f"two means of {n} seeds: too few replicates", loc="left", fontsize=7.5)
        return []
    bound = noise_floor(values, n)
    _histogram(axes, np.array([*found, *(-d for d in found)]))
    compared.draw_range(axes, -bound, bound, label="95 % of the differences")
    name = f"{len(found):,}{' random' * (len(found) == MAX_SPLITS)} splits {n} | {n} seeds"
    axes.set_title(f"{name}: 95 % within ±{bound:.2g} points", loc="left", fontsize=7.5)
    rows = [{"quantity": f"noise_floor_{ACCURACY.key}", "mean": bound, "n": n, "pairs": len(found)}]
    if len(values) // 2 == n:
        split = float(values.iloc[n : 2 * n].mean() - values.iloc[:n].mean())
        seeds = values.index
        label = f"seeds {seeds[n]}–{seeds[2 * n - 1]} minus {seeds[0]}–{seeds[n - 1]}"
        axes.axvline(split, color="#0072B2", linewidth=1.2, linestyle=style.LINES[1], zorder=3, label=label)
        rows.append({"quantity": "split_percent_points", "mean": split, "n": n, "pairs": 1})
    return rows
