"""What single choices of SSVI do: addition, sigma of added weights, lambda, schedule, allocation, sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.overlap import SYMBOL
from ssvi.analysis.figures.points import (
    ACCURACY,
    ECE,
    FLOPS_RATIO,
    NLL,
    SECONDS,
    Dots,
    Floor,
    Group,
    dots_figure,
    draw_floor,
    draw_line,
    fit_accuracy,
    floor,
    floor_notes,
    groups_by,
    log_ticks,
    n_text,
    shared_seeds,
    where,
    with_flops_ratio,
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
    PALETTE,
    SYMBOLS,
    WIDE,
    Drawing,
    complete_runs,
    footnote,
    legend,
    panels,
    row_of_axes,
    scale_text,
    style,
)
from ssvi.analysis.made import comparable, machines
from ssvi.analysis.settings import caveats
from ssvi.errors import UserError
from ssvi.registry import WITHOUT_LAMBDA
from ssvi.spec import FIELDS


def _having(frames: Frames, figure: str, option: str) -> pd.DataFrame:
    """The finished runs that use the option."""
    complete = complete_runs(frames.runs, figure)
    runs = complete[complete[option].notna()]
    if runs.empty:
        raise UserError(f"{figure}: needs a finished run whose method uses {option}, but the experiments have none.")
    return runs


def _looks(n: int) -> list[Mapping[str, Any]]:
    return [{"color": PALETTE[i % len(PALETTE)], "marker": SYMBOLS[i % len(SYMBOLS)]} for i in range(n)]


def figure3_left(frames: Frames) -> Drawing:
    """The addition criteria of section 3.3.2: accuracy and NLL (figure 3, left, of the paper).

    Raises:
        UserError: if no finished run adds weights.
    """
    keys = ("addition", "addition_samples")
    parts = []
    for title, panel in panels(_having(frames, "figure3_left", "addition"), keys):
        groups = groups_by(shared_seeds(panel, keys), keys, _addition_name)
        parts.append(Dots(title, panel, groups, _looks(len(groups))))
    caption = (
        "SSVI by the criterion that chooses the weights to add: gradient of one or K weight samples, or of the mean."
    )
    return dots_figure(frames, parts, (ACCURACY, NLL), caption)


def _addition_name(addition: str, samples: float) -> str:
    return {"mc1": "one sample (default)", "mean": "posterior mean"}.get(addition, f"{samples:g} samples")


def allocation(frames: Frames) -> Drawing:
    """How the density is shared by the layers: accuracy, NLL, counted training FLOPs (our own ablation).

    Raises:
        UserError: if no finished run has a sparse method.
    """
    names = {"uniform": "uniform (default)", "erk": "ERK", "global": "global"}
    parts = []
    for title, panel in panels(_having(frames, "allocation", "allocation"), ("allocation",)):
        panel = with_flops_ratio(panel)
        groups = groups_by(shared_seeds(panel, ("allocation",)), ("allocation",), names.__getitem__)
        parts.append(Dots(title, panel, groups, _looks(len(groups))))
    caption = (
        "SSVI by how the density is shared by the layers; training FLOPs are counted as if masked weights cost nothing."
    )
    return dots_figure(frames, parts, (ACCURACY, NLL, FLOPS_RATIO), caption)


def sampling(frames: Frames) -> Drawing:
    """Local reparameterisation against one weight sample a batch: quality and measured time (equation 4).

    Raises:
        UserError: if no finished run is of a variational method.
    """
    keys = ("method", "sampling")
    parts = []
    for title, panel in panels(_having(frames, "sampling", "sampling"), keys):
        panel = comparable(panel)
        groups = groups_by(shared_seeds(panel, keys), keys, _sampling_name)
        looks = [_sampling_look(**group.options) for group in groups]
        parts.append(Dots(title, panel, groups, looks))
    where = ", ".join(machines(pd.concat([part.runs for part in parts])))
    caption = (
        "The noise of a training step: local reparameterisation, a sample an output, against one weight sample a "
        f"batch. Computed on: {where}; times are compared where panels have one machine."
    )
    return dots_figure(frames, parts, (ACCURACY, NLL, ECE, SECONDS), caption, noise=False)


def _sampling_name(method: str, way: str) -> str:
    return f"{NAMES[method].removesuffix(' (VI)')}, {way}"


def _sampling_look(method: str, sampling: str) -> Mapping[str, Any]:
    colour = COLOURS[method]
    hollow = {} if sampling == "local" else {"markerfacecolor": "white"}
    return {"color": colour, "marker": MARKERS[method], **hollow}


def figure3_right(frames: Frames) -> Drawing:
    """Sigma of added weights: constants, and the two means of the active ones (figure 3, right, of the paper).

    Raises:
        UserError: if no finished run adds weights.
    """
    keys = ("grow_sigma", "grow_sigma_value")
    parts = panels(_having(frames, "figure3_right", "grow_sigma"), keys)
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(_width(parts), 2.75), layout="constrained")
        for axes, (title, panel) in zip(row_of_axes(figure, len(parts)), parts, strict=True):
            axes.set_title(title)
            runs = shared_seeds(panel, keys)
            floors.append(band := floor(panel, groups_by(runs, keys), ACCURACY))
            found = _draw_grow_sigma(axes, groups_by(runs, keys))
            draw_floor(axes, band)
            fit_accuracy(axes, found, panel)
            rows += found + ([band.row(panel)] if band else [])
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "SSVI by the σ of added weights: a constant, the mean of the layer's active σ (the default), or the σ at their "
        f"mean ρ. Means over seeds with one sample standard deviation ({n_text(rows)}); lines lead the means across."
        f"{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, (*floor_notes(floors), *caveats(frames.runs)))


LEVELS = {"mean": ("mean\nσ", PALETTE[0], "o", LINES[0]), "mean_rho": ("mean\nρ", PALETTE[2], "s", LINES[1])}
CONSTANT = {"color": PALETTE[1], "marker": "^", "linestyle": "-"}


def _draw_grow_sigma(axes: Axes, groups: list[Group]) -> list[dict[str, Any]]:
    """Constants on a log axis; beyond its right end the levels, each with a line across."""
    constants = [group for group in groups if group.options["grow_sigma"] == "constant"]
    x = [math.log10(group.options["grow_sigma_value"]) for group in constants]
    rows = draw_line(axes, x, constants, ACCURACY, label="constant σ", **CONSTANT) if constants else []
    ticks = dict(zip(x, (f"$10^{{{v:.0f}}}$" if v == round(v) else f"{10**v:.2g}" for v in x), strict=True))
    end = max(x, default=0.0)
    for place, name in enumerate(LEVELS):
        level = [group for group in groups if group.options["grow_sigma"] == name]
        if level:
            label, colour, marker, dashes = LEVELS[name]
            look = {"color": colour, "marker": marker}
            at = end + 0.9 + 0.8 * place
            ticks[at] = label
            found = draw_line(axes, [at], level[:1], ACCURACY, linestyle="none", **look)
            axes.axhline(found[0]["mean"], color=colour, linewidth=0.9, linestyle=dashes, zorder=1.5)
            rows.append(found[0] | {"grow_sigma_value": math.nan})
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("σ of added weights")
    return rows


def _width(parts: list[Any]) -> float:
    return COLUMN if len(parts) == 1 else WIDE / 2 * len(parts)


def exp_lambda(frames: Frames) -> Drawing:
    """Lambda of the criteria that have one against accuracy, beside the default criterion (equation 8).

    Raises:
        UserError: if no finished run has a removal criterion.
    """
    keys = ("criterion", "exp_lambda")
    parts = panels(_having(frames, "exp_lambda", "criterion"), keys)
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(_width(parts), 2.6), layout="constrained")
        for axes, (title, panel) in zip(row_of_axes(figure, len(parts)), parts, strict=True):
            axes.set_title(title)
            runs = shared_seeds(panel, keys)
            floors.append(band := floor(panel, groups_by(runs, keys), ACCURACY))
            found = _draw_lambda(axes, runs, spread=band is None)
            draw_floor(axes, band)
            fit_accuracy(axes, found, panel)
            rows += found + ([band.row(panel)] if band else [])
        legend(figure)
        footnote(figure, frames.runs)
    band_text = ", of those without λ as a band" if None in floors else ""
    caption = (
        "SSVI by λ of the removal criteria that have one, and, across, with criteria that have no λ. Means over "
        f"seeds with one sample standard deviation{band_text} ({n_text(rows)}).{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, (*floor_notes(floors), *caveats(frames.runs)))


def _draw_lambda(axes: Axes, panel: pd.DataFrame, *, spread: bool) -> list[dict[str, Any]]:
    """A line for each criterion that may have a lambda, and the others as levels, with a band of one sd if `spread`."""
    level = panel["criterion"].isin(WITHOUT_LAMBDA)
    runs = panel[~level]
    rows = []
    lines = groups_by(runs, ("criterion",))
    for place, line in enumerate(lines):
        name = line.options["criterion"]
        points = groups_by(line.runs, ("criterion", "exp_lambda"))
        x = [point.options["exp_lambda"] * math.exp(0.08 * (place - (len(lines) - 1) / 2)) for point in points]
        look = {
            "color": CRITERION_COLOURS[name],
            "marker": CRITERION_MARKERS[name],
            "linestyle": LINES[place % len(LINES)],
        }
        rows += draw_line(axes, x, points, ACCURACY, label=SYMBOL[name], **look)
    log_ticks(axes, sorted(runs["exp_lambda"].unique()) or [1.0])
    axes.set_xlabel("λ")
    for line in groups_by(panel[level], ("criterion",)):
        name = line.options["criterion"]
        row = {**line.row(ACCURACY), "exp_lambda": math.nan}
        colour = CRITERION_COLOURS[name]
        label = f"{SYMBOL[name]} (default)" if name == FIELDS["criterion"].default else SYMBOL[name]
        axes.axhline(row["mean"], color=colour, linewidth=1.0, linestyle=LINES[2], zorder=2, label=label)
        if spread and row["n"] > 1:
            axes.axhspan(row["mean"] - row["sd"], row["mean"] + row["sd"], color=colour, alpha=0.14, lw=0, zorder=0.9)
        rows.append(row)
    return rows


def schedule(frames: Frames) -> Drawing:
    """Drop fraction alpha and steps between updates delta_t against accuracy (section 3.3; our own ablation).

    Raises:
        UserError: if no finished run updates its subspace.
    """
    keys = ("alpha", "delta_t")
    parts = panels(_having(frames, "schedule", "alpha"), keys)
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.6 + 1.75 * len(parts)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06)
        grid = figure.subplots(len(parts), 2, squeeze=False, sharey="row")
        for line, (title, panel) in zip(grid, parts, strict=True):
            runs = shared_seeds(panel, keys)
            floors.append(band := floor(panel, groups_by(runs, keys), ACCURACY))
            found = _draw_alone(line[0], runs, "alpha", "delta_t") + _draw_alone(line[1], runs, "delta_t", "alpha")
            for axes in line:
                draw_floor(axes, band)
            fit_accuracy(line[0], found, panel)
            line[0].set_title(title, loc="left")
            line[0].set_xlabel("drop fraction α at the start")
            line[1].set_xlabel("Δt, steps between updates")
            rows += found + ([band.row(panel)] if band else [])
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "SSVI by the drop fraction α at the start and the steps Δt between two updates of the subspace, each with the "
        f"other as in the rest of the study. Means over seeds with one sample standard deviation ({n_text(rows)}), "
        f"single seeds as dots beside them.{scale_text(figure)}"
    )
    return Drawing(figure, pd.DataFrame(rows), caption, (*floor_notes(floors), *caveats(frames.runs)))


def _draw_alone(axes: Axes, panel: pd.DataFrame, option: str, other: str) -> list[dict[str, Any]]:
    """The runs that differ in the option, with the other one at the value that most of its values were tried with."""
    tried = {value: group[option].nunique() for value, group in panel.groupby(other)}
    runs = where(panel, **{other: max(tried, key=lambda value: tried[value])})
    values = sorted(runs[option].unique())
    groups = groups_by(runs, (option, other))
    look = {"color": COLOURS["ssvi"], "marker": MARKERS["ssvi"]}
    if option == "delta_t":
        log_ticks(axes, values)
    else:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    rows = draw_line(axes, values, groups, ACCURACY, **look)
    beside = offset_copy(axes.transData, axes.get_figure(), x=5, units="points")
    for group in groups:
        accuracy = ACCURACY.of(group.runs)
        if len(accuracy) > 1:
            at = [group.options[option]] * len(accuracy)
            axes.plot(at, accuracy, "o", ms=2.4, mew=0, color=GREY, zorder=4, transform=beside)
    return [{**row, "varied": option} for row in rows]
