"""The removal criteria: at several densities and starts of sigma, and beside what the seeds alone make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.overlap import SYMBOL
from ssvi.analysis.figures.points import (
    ACCURACY,
    FLOOR_COLOUR,
    Floor,
    alike,
    draw_floor,
    draw_line,
    fit_accuracy,
    floor,
    floor_notes,
    groups_by,
    log_ticks,
    n_text,
    replicates,
    shared_seeds,
    usual_n,
    where,
)
from ssvi.analysis.figures.style import (
    COLOURS,
    COLUMN,
    CRITERION_COLOURS,
    CRITERION_MARKERS,
    GREY,
    LINES,
    MARKERS,
    NAMES,
    WIDE,
    Drawing,
    complete_runs,
    density_axis,
    footnote,
    legend,
    panels,
    percent,
    scale_text,
    style,
)
from ssvi.analysis.settings import caveats
from ssvi.analysis.stats import (
    DIFFERENCES,
    MAX_SPLITS,
    Estimate,
    mean_sd,
    noise_floor,
    seed_differences,
    split_differences,
)
from ssvi.analysis.tables.rows import by_seed, compare
from ssvi.errors import UserError
from ssvi.registry import CRITERIA, Among
from ssvi.spec import FIELDS

DEFAULT = FIELDS["criterion"].default
OTHERS = Among(CRITERIA, lambda name: name != DEFAULT)
DIFFERENCE = "difference_percent_points"
NO_DIFFERENCE = "No difference is shown: no other criterion was run beside the default one with all else alike."
# Inches of height for a row of a criterion's difference.
ROW = 0.42


def _look(criterion: str) -> dict[str, Any]:
    return {"color": CRITERION_COLOURS[criterion], "marker": CRITERION_MARKERS[criterion]}


def _place(criterion: str) -> float:
    """Where a criterion stands among all, from -1/2 to 1/2: so far lines at the same place are drawn apart."""
    return CRITERIA.place(criterion) / (len(CRITERIA) - 1) - 0.5


def figure2_right(frames: Frames) -> Drawing:
    """Test accuracy against the mean of sigma's start: methods, KL warm-up, criteria (figure 2, right, of the paper).

    Raises:
        UserError: if no finished run of a variational method is there.
    """
    complete = complete_runs(frames.runs, "figure2_right")
    complete = complete[complete["sigma_init"].notna()]
    if complete.empty:
        raise UserError("figure2_right: needs a finished run that has sigmas, but the experiments have none.")
    keys = ("method", "criterion", "sigma_init", "kl_warmup")
    parts = panels(complete, keys)
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.75 + 2.15 * len(parts)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06)
        grid = figure.subplots(len(parts), 2, squeeze=False, sharex="row", sharey="row")
        for line, (title, panel) in zip(grid, parts, strict=True):
            runs = shared_seeds(panel, keys)
            found = _draw_methods(line[0], runs) + _draw_criteria(line[1], runs)
            floors.append(band := floor(panel, groups_by(runs, keys), ACCURACY))
            for axes in line:
                draw_floor(axes, band)
                log_ticks(axes, sorted(runs["sigma_init"].unique()))
                axes.set_xlabel("mean of σ at the start")
            fit_accuracy(line[0], found, panel)
            line[0].set_ylabel(f"{title}\n{line[0].get_ylabel()}" if title else line[0].get_ylabel())
            rows += found + ([band.row(panel)] if band else [])
        for axes, columns in zip(grid[0], (2, 3), strict=True):
            _legend_above(axes, columns)
        legend(figure, only=[band.label for band in floors if band])
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy against the mean of σ at the start: left, the dense BNN and SSVI with and without KL warm-up; "
        "right, SSVI with each removal criterion. Means over seeds with one sample standard deviation "
        f"({n_text(rows)}).{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, (*floor_notes(floors), *caveats(frames.runs)))


def _legend_above(axes: Axes, columns: int) -> None:
    """A legend of the panel's lines, where panels mean different things by alike markers."""
    handles, labels = axes.get_legend_handles_labels()
    lines = {label: handle for label, handle in zip(labels, handles, strict=True) if "noise floor" not in label}
    axes.legend(
        lines.values(),
        lines.keys(),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        handlelength=2.2,
        columnspacing=1.2,
    )


# How far apart two methods at the same place of a log axis stand, and how far the first and the last criterion, as a
# power of e.
APART, SPAN = 0.035, 0.175


def _draw_methods(axes: Axes, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The dense BNN, and SSVI with the default criterion; without KL warm-up dashed and hollow."""
    runs = runs[(runs["method"] == "vi") | (runs["criterion"] == DEFAULT)]
    rows = []
    for place, group in enumerate(groups_by(runs, ("method", "kl_warmup"))[::-1]):
        method, warm = group.options["method"], group.options["kl_warmup"]
        points = groups_by(group.runs, ("method", "criterion", "sigma_init", "kl_warmup"))
        rows += draw_line(
            axes,
            [point.options["sigma_init"] * math.exp(APART * (place - 1.5)) for point in points],
            points,
            ACCURACY,
            label=NAMES[method].removesuffix(" (VI)") + ("" if warm else ", no warm-up"),
            color=COLOURS[method],
            marker=MARKERS[method],
            markerfacecolor=COLOURS[method] if warm else "white",
            linestyle=LINES[0 if warm else 1],
        )
    return rows


def _draw_criteria(axes: Axes, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """SSVI with each criterion; the default one is in the other panel's data already."""
    rows = []
    runs = where(runs[runs["criterion"].notna()], kl_warmup=True)
    for group in groups_by(runs, ("criterion",)):
        name = group.options["criterion"]
        points = groups_by(group.runs, ("method", "criterion", "sigma_init", "kl_warmup"))
        shift = math.exp(SPAN * _place(name))
        x = [point.options["sigma_init"] * shift for point in points]
        found = draw_line(
            axes, x, points, ACCURACY, label=SYMBOL[name], linewidth=0.9, markersize=4, capsize=1.5, **_look(name)
        )
        rows += [] if name == DEFAULT else found
    return rows


def criteria(frames: Frames) -> Drawing:
    """The removal criteria at each density: accuracy, and its difference to the default one's (section 3.3.1).

    Raises:
        UserError: if no finished run with a removal criterion is there.
    """
    complete = complete_runs(frames.runs, "criteria")
    complete = complete[complete["criterion"].notna()]
    if complete.empty:
        raise UserError("criteria: needs a finished run with a removal criterion, but the experiments have none.")
    keys = ("density", "criterion")
    parts = panels(complete, keys)
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    most = max(panel["density"].nunique() for _, panel in parts)
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.6 + ROW * len(OTHERS) * len(parts)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03)
        grid = figure.subplots(len(parts), 1 + most, squeeze=False, width_ratios=[1.9, *[1.0] * most])
        for line, (title, panel) in zip(grid, parts, strict=True):
            runs = shared_seeds(panel, keys)
            floors.append(band := floor(panel, groups_by(runs, keys), ACCURACY))
            at = replicates(panel)["density"].iloc[0]
            rows += _draw_over_density(line[0], runs) + ([band.row(panel) | {"density": at}] if band else [])
            line[0].set_title(title, loc="left")
            noise = {at: (band.bound, band.n)} if band else {}
            densities = sorted(runs["density"].unique(), reverse=True)
            for place, (axes, density) in enumerate(zip(line[1:], densities, strict=False)):
                rows += _draw_differences(axes, where(runs, density=density), *noise.get(density, (math.nan, 0)))
                axes.set_title(f"density {percent(density)} %")
                axes.set_xlabel("difference (points)")
                axes.tick_params(axis="y", labelleft=place == 0)
            for axes in line[1 + len(densities) :]:
                axes.set_visible(False)
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "The removal criteria by density. Left: test accuracy, means over seeds with one sample standard deviation. "
        "Right: difference to the default criterion, positive where the other is better; small dots are single seeds, "
        f"markers the mean, bars its 95 % interval ({n_text(rows)}).{scale_text(figure)}"
    )
    notes = (*floor_notes(floors), _of_differences(rows), *caveats(frames.runs))
    return Drawing(figure, pd.DataFrame(rows), caption, notes)


def _of_differences(rows: Sequence[Mapping[str, Any]]) -> str:
    """How the differences among these rows were judged, or that there are none."""
    return DIFFERENCES if any(row["quantity"] == DIFFERENCE for row in rows) else NO_DIFFERENCE


def _draw_over_density(axes: Axes, runs: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    width = density_axis(axes, sorted(runs["density"].unique()))
    for group in groups_by(runs, ("criterion",)):
        name = group.options["criterion"]
        points = groups_by(group.runs, ("density", "criterion"))
        shift = math.exp(-0.07 * width * _place(name))
        x = [point.options["density"] * shift for point in points]
        rows += draw_line(
            axes, x, points, ACCURACY, label=SYMBOL[name], linewidth=0.9, markersize=4, capsize=1.5, **_look(name)
        )
    low, high = axes.get_xlim()
    axes.set_xlim(low * math.exp(0.05 * width), high * math.exp(-0.05 * width))
    fit_accuracy(axes, rows, runs)
    return rows


def _draw_differences(
    axes: Axes, runs: pd.DataFrame, bound: float, n: int, *, labelled: bool = True
) -> list[dict[str, Any]]:
    """Each criterion minus the default one; nothing where one of them was not run."""
    rows = []
    for place, name in enumerate(OTHERS):
        pair = [where(runs, criterion=criterion) for criterion in (name, DEFAULT)]
        found = compare(*pair, ACCURACY.column, ACCURACY.factor)
        if found.n:
            dots = seed_differences(*map(_by_seed, pair))
            rows.append({"criterion": name, **_draw_difference(axes, place, _look(name), found, dots)})
    if not math.isnan(bound):
        axes.axvspan(
            -bound, bound, color=FLOOR_COLOUR, linewidth=0, zorder=0.8, label=f"noise floor (n = {n})" * labelled
        )
    axes.axvline(0, color=GREY, linewidth=0.7, zorder=1)
    axes.set_ylim(len(OTHERS) - 0.45, -0.55)
    axes.set_yticks(range(len(OTHERS)), [SYMBOL[name] for name in OTHERS])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    first = runs.iloc[0]
    return [{"dataset": first["dataset"], "model": first["model"], "density": first["density"], **r} for r in rows]


def _by_seed(runs: pd.DataFrame) -> pd.Series:
    return by_seed(runs, ACCURACY.column, ACCURACY.factor)


def _draw_difference(
    axes: Axes, place: int, look: Mapping[str, Any], found: Estimate, dots: pd.Series
) -> dict[str, Any]:
    """A mean difference with its interval, and the differences of single seeds, if it is made of those."""
    if found.n > 1:
        colour = look["color"]
        axes.plot(dots, [place + 0.24] * len(dots), "o", ms=2.4, mew=0, color=colour, alpha=0.65, zorder=3)
        axes.plot([found.low, found.high], [place - 0.06] * 2, "-", color=colour, linewidth=1.0, zorder=3)
    axes.plot([found.mean], [place - 0.06], linestyle="none", markersize=4.5, zorder=4, **look)
    values = {"mean": found.mean, "sd": mean_sd(dots)[1], "low": found.low, "high": found.high, "n": found.n}
    return {"quantity": DIFFERENCE, **values}


def noise_floor_figure(frames: Frames) -> Drawing:
    """How far means of seeds of one setting are apart by chance, beside how far the criteria are (our own check).

    Raises:
        UserError: if no setting has two finished seeds.
    """
    complete = complete_runs(frames.runs, "noise_floor")
    parts = [part for part in panels(complete, ("density", "criterion")) if len(replicates(part[1])) > 1]
    if not parts:
        raise UserError("noise_floor: needs two finished runs that differ in the seed alone, but no setting has them.")
    rows: list[dict[str, Any]] = []
    with matplotlib.rc_context(style()):
        width = COLUMN if len(parts) == 1 else WIDE / 2 * len(parts)
        figure = Figure(figsize=(width, 2.55 + 0.33 * len(OTHERS)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.03)
        grid = figure.subplots(3, len(parts), squeeze=False, sharex="col", height_ratios=[1, 1, 0.26 * len(OTHERS)])
        for column, (title, panel) in zip(grid.T, parts, strict=True):
            rows += _draw_noise(column, panel, title)
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "What the seeds alone make: differences between the mean test accuracies of two disjoint groups of seeds of "
        "the default setting, over all such pairs of groups, both signs; grey, the range that holds 95 % of them; "
        "dashed, one particular split. Below, the observed differences of the other removal criteria to the "
        "default one at the same density: small dots are single seeds, markers the mean, bars its 95 % interval."
    )
    return Drawing(figure, pd.DataFrame(rows), caption, (_of_differences(rows), *caveats(frames.runs)))


# Seeds in the means that others are compared by, where no other criterion tells.
USUAL_N = 3


def _draw_noise(column: Sequence[Axes], panel: pd.DataFrame, title: str) -> list[dict[str, Any]]:
    """Two histograms of differences from nothing, of half the seeds and of as many as the criteria have."""
    many = replicates(panel)
    values = _by_seed(many).sort_index()
    others = alike(panel, many, but=("criterion", "exp_lambda"))
    others = others[others["criterion"].notna() & (others["criterion"] != many["criterion"].iloc[0])]
    n = usual_n(groups_by(others, ("criterion",))) if len(others) else USUAL_N
    first = many.iloc[0]
    at = {"dataset": first["dataset"], "model": first["model"], "density": first["density"]}
    rows = []
    for axes, size in zip(column, (len(values) // 2, n), strict=False):
        rows += [{**at, **row} for row in _draw_splits(axes, values, size)]
        axes.tick_params(axis="x", labelbottom=False)
    if title:
        column[0].set_title(f"{title}\n{column[0].get_title(loc='left')}", loc="left", fontsize=7.5)
    compared = pd.concat([others, many])
    rows += _draw_differences(column[2], compared, noise_floor(values, n), n, labelled=False)
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


def _draw_splits(axes: Axes, values: pd.Series, n: int) -> list[dict[str, Any]]:
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
    axes.axvspan(-bound, bound, color=FLOOR_COLOUR, linewidth=0, zorder=0.8, label="95 % of the differences")
    name = f"{len(found):,}{' random' * (len(found) == MAX_SPLITS)} splits {n} | {n} seeds"
    axes.set_title(f"{name}: 95 % within ±{bound:.2g} points", loc="left", fontsize=7.5)
    rows = [{"quantity": "noise_floor_accuracy_percent", "mean": bound, "n": n, "pairs": len(found)}]
    if len(values) // 2 == n:
        split = float(values.iloc[n : 2 * n].mean() - values.iloc[:n].mean())
        seeds = values.index
        label = f"seeds {seeds[n]}–{seeds[2 * n - 1]} minus {seeds[0]}–{seeds[n - 1]}"
        axes.axvline(split, color="#0072B2", linewidth=1.2, linestyle=LINES[1], zorder=3, label=label)
        rows.append({"quantity": "split_percent_points", "mean": split, "n": n, "pairs": 1})
    return rows
