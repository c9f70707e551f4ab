"""What single choices of SSVI do: addition, sigma of added weights, lambda, schedule, allocation, sampling."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import compared, panels, scales, style
from ssvi.analysis.figures.compared import Compared
from ssvi.analysis.figures.groups import Group, groups_by, having
from ssvi.analysis.figures.lines import draw_means
from ssvi.analysis.figures.panels import Drawing, Rows
from ssvi.analysis.figures.scales import TEST_NLL
from ssvi.analysis.made import comparable, machines
from ssvi.analysis.quantities import ACCURACY, ECE, FLOPS_RATIO, SECONDS
from ssvi.registry import WITHOUT_LAMBDA
from ssvi.runs.options import FIELDS


def figure3_left(frames: Frames) -> Drawing:
    """The addition criteria of section 3.3.2: accuracy and NLL (figure 3, left, of the paper)."""
    keys = ("addition", "addition_samples")
    found = panels.split(panels.using(frames, "figure3_left", "addition"), keys)
    return compared.draw_dots(
        *(frames, compared.dots(found, keys, _addition_name), (ACCURACY, TEST_NLL)),
        "SSVI by the criterion that chooses the weights to add: gradient of one or K weight samples, or of the mean.",
    )


def _addition_name(addition: str, samples: float) -> str:
    return {"mc1": "one sample (default)", "mean": "posterior mean"}.get(addition, f"{samples:g} samples")


def allocation(frames: Frames) -> Drawing:
    """How the density is shared by the layers: accuracy, NLL, counted training FLOPs (our own ablation)."""
    names = {"uniform": "uniform (default)", "erk": "ERK", "global": "global"}
    runs = panels.using(frames, "allocation", "allocation")
    runs = runs.assign(**{FLOPS_RATIO.column: runs["training_flops"] / runs["training_flops_dense"]})
    found = panels.split(runs, ("allocation",))
    return compared.draw_dots(
        *(frames, compared.dots(found, ("allocation",), names.__getitem__), (ACCURACY, TEST_NLL, FLOPS_RATIO)),
        "SSVI by how the density is shared by the layers; training FLOPs are counted as if masked weights cost "
        "nothing.",
    )


def sampling(frames: Frames) -> Drawing:
    """Local reparameterisation against one weight sample a batch: quality and measured time (equation 4)."""
    keys = ("method", "sampling")
    found = panels.split(panels.using(frames, "sampling", "sampling"), keys)
    found = [replace(panel, runs=comparable(panel.runs)) for panel in found]
    parts = compared.dots(found, keys, _sampling_name, _sampling_look)
    computed_on = ", ".join(machines(pd.concat([part.runs for part in parts])))
    return compared.draw_dots(
        *(frames, parts, (ACCURACY, TEST_NLL, ECE, SECONDS)),
        "The noise of a training step: local reparameterisation, a sample an output, against one weight sample a "
        f"batch. Computed on: {computed_on}; times are compared where panels have one machine.",
        noise=False,
    )


def _sampling_name(method: str, way: str) -> str:
    return f"{style.NAMES[method].removesuffix(' (VI)')}, {way}"


def _sampling_look(method: str, sampling: str) -> dict[str, str]:
    return style.of_method(method) | ({} if sampling == "local" else {"markerfacecolor": "white"})


def figure3_right(frames: Frames) -> Drawing:
    """Sigma of added weights: constants, and the two means of the active ones (figure 3, right, of the paper)."""
    keys = ("grow_sigma", "grow_sigma_value")
    parts = compared.compare(panels.using(frames, "figure3_right", "grow_sigma"), keys)
    return panels.draw(
        *(frames, parts, _draw_grow_sigma),
        "SSVI by the σ of added weights: a constant, the mean of the layer's active σ (the default), or the σ at their "
        "mean ρ. Means over seeds with one sample standard deviation ({n}); lines lead the means across.",
        **panels.beside(parts, 2.75),
        notes=compared.notes(parts),
    )


LEVELS = {
    "mean": ("mean\nσ", style.PALETTE[0], "o", style.LINES[0]),
    "mean_rho": ("mean\nρ", style.PALETTE[2], "s", style.LINES[1]),
}
CONSTANT = {"color": style.PALETTE[1], "marker": "^", "linestyle": "-"}


def _draw_grow_sigma(line: list[Axes], panel: Compared) -> Rows:
    """Constants on a log axis; beyond its right end the levels, each with a line across."""
    (axes,) = line
    groups = groups_by(panel.shared, ("grow_sigma", "grow_sigma_value"))
    constants = [group for group in groups if group.options["grow_sigma"] == "constant"]
    x = [math.log10(group.options["grow_sigma_value"]) for group in constants]
    rows = draw_means(axes, x, constants, ACCURACY, label="constant σ", **CONSTANT) if constants else []
    ticks = dict(zip(x, (f"$10^{{{v:.0f}}}$" if v == round(v) else f"{10**v:.2g}" for v in x), strict=True))
    end = max(x, default=0.0)
    for place, name in enumerate(LEVELS):
        level = [group for group in groups if group.options["grow_sigma"] == name]
        if level:
            label, colour, marker, dashes = LEVELS[name]
            look = {"color": colour, "marker": marker}
            at = end + 0.9 + 0.8 * place
            ticks[at] = label
            found = draw_means(axes, [at], level[:1], ACCURACY, linestyle="none", **look)
            axes.axhline(found[0]["mean"], color=colour, linewidth=0.9, linestyle=dashes, zorder=1.5)
            rows.append(found[0] | {"grow_sigma_value": math.nan})
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("σ of added weights")
    return panel.finish(line, rows)


def exp_lambda(frames: Frames) -> Drawing:
    """Lambda of the criteria that have one against accuracy, beside the default criterion (equation 8)."""
    parts = compared.compare(panels.using(frames, "exp_lambda", "criterion"), ("criterion", "exp_lambda"))
    band_text = ", of those without λ as a band" if any(part.band is None for part in parts) else ""
    return panels.draw(
        *(frames, parts, _draw_lambda),
        "SSVI by λ of the removal criteria that have one, and, across, with criteria that have no λ. Means over "
        f"seeds with one sample standard deviation{band_text} ({{n}}).",
        **panels.beside(parts, 2.6),
        notes=compared.notes(parts),
    )


def _draw_lambda(line: list[Axes], panel: Compared) -> Rows:
    """A line for each criterion that may have a lambda, the others as levels, with their sd where noise is unknown."""
    (axes,) = line
    level = panel.shared["criterion"].isin(WITHOUT_LAMBDA)
    runs = panel.shared[~level]
    rows: Rows = []
    groups = groups_by(runs, ("criterion",))
    for place, group in enumerate(groups):
        name = group.options["criterion"]
        points = groups_by(group.runs, ("criterion", "exp_lambda"))
        x = [point.options["exp_lambda"] * math.exp(0.08 * (place - (len(groups) - 1) / 2)) for point in points]
        look = style.of_criterion(name) | {"linestyle": style.LINES[place % len(style.LINES)]}
        rows += draw_means(axes, x, points, ACCURACY, label=style.criterion_name(name), **look)
    scales.log_ticks(axes, sorted(runs["exp_lambda"].unique()) or [1.0])
    axes.set_xlabel("λ")
    rows += [_draw_level(axes, g, spread=panel.band is None) for g in groups_by(panel.shared[level], ("criterion",))]
    return panel.finish(line, rows)


def _draw_level(axes: Axes, group: Group, *, spread: bool) -> dict[str, float]:
    """A criterion without lambda, with a band of one standard deviation if `spread`."""
    name = group.options["criterion"]
    row = {**group.row(ACCURACY), "exp_lambda": math.nan}
    colour = style.CRITERION_COLOURS[name]
    label = style.criterion_name(name) + " (default)" * (name == FIELDS["criterion"].default)
    axes.axhline(row["mean"], color=colour, linewidth=1.0, linestyle=style.LINES[2], zorder=2, label=label)
    if spread and row["n"] > 1:
        axes.axhspan(row["mean"] - row["sd"], row["mean"] + row["sd"], color=colour, alpha=0.14, lw=0, zorder=0.9)
    return row


def schedule(frames: Frames) -> Drawing:
    """Drop fraction alpha and steps between updates delta_t against accuracy (section 3.3; our own ablation)."""
    parts = compared.compare(panels.using(frames, "schedule", "alpha"), ("alpha", "delta_t"))
    return panels.draw(
        *(frames, parts, _draw_schedule),
        "SSVI by the drop fraction α at the start and the steps Δt between two updates of the subspace, each with the "
        "other as in the rest of the study. Means over seeds with one sample standard deviation ({n}), single seeds "
        "as dots beside them.",
        size=(style.WIDE, 0.6 + 1.75 * len(parts)),
        axes=2,
        notes=compared.notes(parts),
        pads={"w_pad": 0.06},
        sharey="row",
    )


def _draw_schedule(line: list[Axes], panel: Compared) -> Rows:
    left, right = line
    left.set_xlabel("drop fraction α at the start")
    right.set_xlabel("Δt, steps between updates")
    rows = _draw_alone(left, panel.shared, "alpha", "delta_t") + _draw_alone(right, panel.shared, "delta_t", "alpha")
    return panel.finish(line, rows)


def _draw_alone(axes: Axes, panel: pd.DataFrame, option: str, other: str) -> Rows:
    """The runs that differ in the option, with the other one at the value that most of its values were tried with."""
    tried = {value: group[option].nunique() for value, group in panel.groupby(other)}
    runs = having(panel, **{other: max(tried, key=lambda value: tried[value])})
    values = sorted(runs[option].unique())
    groups = groups_by(runs, (option, other))
    if option == "delta_t":
        scales.log_ticks(axes, values)
    else:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    rows = draw_means(axes, values, groups, ACCURACY, **style.of_method("ssvi"))
    beside = offset_copy(axes.transData, axes.get_figure(), x=5, units="points")
    for group in groups:
        accuracy = ACCURACY.of(group.runs)
        if len(accuracy) > 1:
            at = [group.options[option]] * len(accuracy)
            axes.plot(at, accuracy, "o", ms=2.4, mew=0, color=style.GREY, zorder=4, transform=beside)
    return [{**row, "varied": option} for row in rows]
