"""Whether sigma learns: its change by gradient and by exchanging weights, and what a faster recipe gains."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.recorded import (
    BANDS,
    METRICS,
    draw_band,
    over_runs,
    panels_of,
    progress_axis,
    seeds,
    where,
)
from ssvi.analysis.figures.style import (
    COLOURS,
    LINES,
    PALETTE,
    WIDE,
    Drawing,
    Series,
    complete_runs,
    footnote,
    legend,
    series,
    style,
)
from ssvi.analysis.settings import caveats, option_text, settings
from ssvi.analysis.stats import interval
from ssvi.errors import UserError
from ssvi.registry import VARIATIONAL
from ssvi.spec import FIELDS

RECIPE = ["sigma_optimizer", "sigma_lr"]
OFFICIAL = tuple(FIELDS[name].default for name in RECIPE)
DRIFTS = {"gradient": ("by gradient", PALETTE[3]), "topology": ("by exchanged weights", COLOURS["ssvi"])}
PERCENT_OF_START = "change of mean $\\sigma$\n(% of the start)"


def start_of_sigma(mean: float, sd: float) -> tuple[float, float]:
    """Mean and standard deviation of sigma at the start, where sigma = |N(mean, sd^2)|.

    The mean is mean erf(mean / (sd sqrt 2)) + sd sqrt(2/pi) exp(-mean^2 / (2 sd^2)), the mean square mean^2 + sd^2.
    """
    if sd == 0:
        return abs(mean), 0.0
    a = mean / sd
    folded = mean * math.erf(a / math.sqrt(2)) + sd * math.sqrt(2 / math.pi) * math.exp(-a * a / 2)
    return folded, math.sqrt(max(0.0, mean * mean + sd * sd - folded * folded))


def _cells(panel: pd.DataFrame) -> tuple[list[float], list[tuple[str, float]]]:
    """The sigma at the start, and the recipes, the official one first and SGD before Adam."""
    recipes = set(panel[RECIPE].itertuples(index=False, name=None))
    return sorted(panel["sigma_init"].unique()), sorted(recipes, key=lambda r: (r != OFFICIAL, r[0] != "sgd", r[1]))


def _cell(panel: pd.DataFrame, sigma_init: float, recipe: tuple[str, float]) -> pd.DataFrame:
    same = (panel["sigma_init"] == sigma_init) & (panel["sigma_optimizer"] == recipe[0])
    return panel[same & (panel["sigma_lr"] == recipe[1])]


def _recipe_text(recipe: tuple[str, float], between: str = ", ") -> str:
    return between.join([{"sgd": "SGD", "adam": "Adam"}[recipe[0]], f"lr {option_text(recipe[1])}"])


def _variational(frames: Frames, figure: str) -> pd.DataFrame:
    runs = complete_runs(frames.runs, figure)
    runs = runs[runs["method"].isin(VARIATIONAL)]
    if runs.empty:
        raise UserError(f"{figure}: no finished run of its experiments has a sigma (methods {', '.join(VARIATIONAL)}).")
    return runs


def sigma_drift(frames: Frames) -> Drawing:
    """How far the mean sigma has moved since the start, by gradient and by topology (sections 3.1 and 3.2).

    A row of panels a sigma at the start, a column a recipe.

    Raises:
        UserError: if no finished run has recorded its sigma.
    """
    runs = _variational(frames, "sigma_drift")
    changes = _changes(runs, frames)
    if changes.empty:
        raise UserError("sigma_drift: no finished run of its experiments has recorded its sigma.")
    runs = runs[runs["run"].isin(changes["run"])]
    groups = panels_of(runs, ("sigma_init", *RECIPE))
    rows = [(title, panel, sigma) for title, panel in groups for sigma in _cells(panel)[0]]
    recipes = _cells(runs)[1]
    data: list[pd.DataFrame] = []
    with matplotlib.rc_context(style()):
        width = WIDE if len(recipes) > 1 else WIDE / 2
        figure = Figure(figsize=(width, 0.75 + 1.75 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(recipes), squeeze=False)
        for i, (title, panel, sigma) in enumerate(rows):
            for axes, recipe in zip(grid[i], recipes, strict=True):
                data += _draw_drift(axes, _cell(panel, sigma, recipe), changes)
                progress_axis(axes, last_row=i == len(rows) - 1)
                official = " (official)" if recipe == OFFICIAL else ""
                axes.set_title(f"{_recipe_text(recipe)}{official}" if i == 0 else "")
            grid[i, 0].set_ylabel("\n".join(filter(None, [title, f"$\\sigma_0$ = {sigma:g}", PERCENT_OF_START])))
        figure.align_ylabels()
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Change of the mean of sigma over the active weights since the start, in percent of its expectation there, by "
        "the learning rate and optimiser of rho: of SSVI, split into what gradients did and what exchanging weights "
        f"did, as long as its subspace changes; of the dense BNN, all by gradient. Numbers are the last means. {BANDS} "
        f"({seeds(settings(runs))})."
    )
    return Drawing(figure, pd.concat(data, ignore_index=True), caption, caveats(frames.runs))


def _changes(runs: pd.DataFrame, frames: Frames) -> pd.DataFrame:
    """Change of the mean sigma (% of the start) by run, cause and progress (%), 0 at the start.

    Updates tell the causes apart, weighing layers by their active weights; for a run without them, each epoch's
    mean sigma has one cause, the gradient, called `all`.
    """
    start = {r.run: start_of_sigma(r.sigma_init, r.sigma_init_sd)[0] for r in runs.itertuples()}
    columns = [f"sigma_drift_{cause}" for cause in DRIFTS]
    updates = frames.updates[frames.updates["run"].isin(start)].dropna(subset=columns)
    weighted = updates[["run", "progress", "active"]].copy()
    for cause, column in zip(DRIFTS, columns, strict=True):
        weighted[cause] = updates[column].astype(float) * updates["active"]
    sums = weighted.groupby(["run", "progress"], as_index=False).sum()
    split = sums.melt(["run", "progress", "active"], list(DRIFTS), "cause", "change")
    split["change"] /= split.pop("active")
    dense = _of_dense(runs[~runs["run"].isin(split["run"])], frames.history)
    both = pd.concat([part for part in (split, dense) if len(part)] or [dense], ignore_index=True)
    zero = both[["run", "cause"]].drop_duplicates().assign(progress=0.0, change=0.0)
    both = pd.concat([zero, both], ignore_index=True) if len(both) else both
    percent = 100 * both["change"] / both["run"].map(start).astype(float)
    return both.assign(change=percent, progress=100 * both["progress"])


def _of_dense(runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Change of the mean sigma by epoch where no weight is exchanged.

    A history begins at the end of the first epoch. What is there within the sampling error of the random start (four
    standard errors) was there at the start; otherwise the start is its expectation.
    """
    found = [pd.DataFrame({"run": [], "progress": [], "cause": [], "change": []})]
    for run in runs.itertuples():
        rows = history.loc[history["run"] == run.run, ["step", "sigma_mean", "active_weights"]].astype(float)
        rows = rows.dropna(subset=["sigma_mean"]).sort_values("step")
        if rows.empty:
            continue
        mean, sd = start_of_sigma(run.sigma_init, run.sigma_init_sd)
        first = rows.iloc[0]
        by_chance = abs(first["sigma_mean"] - mean) <= 4 * sd / math.sqrt(first["active_weights"])
        change = rows["sigma_mean"] - (first["sigma_mean"] if by_chance else mean)
        progress = rows["step"] / run.steps
        found.append(pd.DataFrame({"run": run.run, "progress": progress, "cause": "all", "change": change}))
    return pd.concat(found[1:] or found, ignore_index=True)


def _draw_drift(axes: Axes, cell: pd.DataFrame, changes: pd.DataFrame) -> list[pd.DataFrame]:
    data = []
    for line in series(cell, along=()):
        mine = changes[changes["run"].isin(line.runs["run"])]
        for cause, rows in mine.groupby("cause", sort=False):
            words, colour = DRIFTS.get(str(cause), ("", COLOURS[line.method]))
            summary = over_runs(rows, "progress", "change")
            label = f"{line.label}: {words}" if words else line.label
            look = {"color": colour, "linestyle": LINES[line.variant % len(LINES)]}
            draw_band(axes, summary["progress"], summary, label=label, **look)
            _say_last(axes, summary, str(cause), colour)
            about = where(line.runs, "sigma_init", *RECIPE) | {"cause": cause}
            data.append(pd.DataFrame({**about, **summary}).rename(columns={"progress": "progress_percent"}))
    axes.axhline(0, color="black", linewidth=0.5, zorder=1)
    axes.margins(y=0.12)
    return data


def _say_last(axes: Axes, summary: pd.DataFrame, cause: str, colour: str) -> None:
    """The last mean in numbers, because one line can be a hundred thousand times as high as another."""
    last = summary.iloc[-1]
    above = cause not in DRIFTS
    axes.annotate(
        _signed(last["mean"]), (100, last["mean"]), textcoords="offset points", xytext=(0, 2 if above else -1),
        ha="right", va="bottom" if above else "top", fontsize=6.5, color=colour,
    )  # fmt: skip


def _signed(percent: float) -> str:
    return f"{percent:+.2g}%".replace("-", "\u2212") if abs(percent) < 10 else f"{percent:+.0f}%".replace("-", "\u2212")


def sigma_learning(frames: Frames) -> Drawing:
    """Accuracy, NLL and ECE by how sigma is learned and where it starts (figure 2, right: VI at a large sigma).

    A row of panels a metric, a column a sigma at the start of a data set.

    Raises:
        UserError: if no finished run has a sigma.
    """
    runs = _variational(frames, "sigma_learning")
    groups = panels_of(runs, ("sigma_init", *RECIPE))
    columns = [(title, panel, sigma) for title, panel in groups for sigma in _cells(panel)[0]]
    data: list[dict[str, Any]] = []
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(max(WIDE / 2, min(WIDE, 2.6 * len(columns))), 5.6), layout="constrained")
        grid = figure.subplots(len(METRICS), len(columns), squeeze=False, sharex="col")
        for j, (title, panel, sigma) in enumerate(columns):
            recipes = _cells(panel)[1]
            for axes, metric in zip(grid[:, j], METRICS, strict=True):
                data += _draw_recipes(axes, panel, sigma, recipes, metric)
            grid[0, j].set_title("\n".join(filter(None, [title, f"$\\sigma_0$ = {sigma:g}"])))
            grid[-1, j].set_xticks(range(len(recipes)), [_recipe_text(recipe, "\n") for recipe in recipes])
            grid[-1, j].set_xlabel(r"learning of $\sigma$")
        for row, (heading, _, _) in zip(grid, METRICS.values(), strict=True):
            row[0].set_ylabel(heading)
            _level(list(row), [title for title, _, _ in columns])
        figure.align_ylabels()
        legend(figure)
        footnote(figure, frames.runs)
    caption = (
        "Test accuracy, NLL and ECE by the optimiser and learning rate of rho (the official recipe first) and by the "
        "mean of sigma at the start. Small dots are seeds, large ones their means, bars Student's t intervals (95%), "
        "cut off where the metric ends "
        f"({seeds(settings(runs))})."
    )
    return Drawing(figure, pd.DataFrame(data), caption, caveats(frames.runs))


def _draw_recipes(
    axes: Axes, panel: pd.DataFrame, sigma: float, recipes: list[tuple[str, float]], metric: str
) -> list[dict[str, Any]]:
    """Seeds, mean and interval of each line of the panel at each recipe; returns what is drawn."""
    _, factor, (lowest, highest) = METRICS[metric]
    # What the panel's axes show is made alike, so that lines are what is left to tell apart.
    lines: list[Series] = series(panel.assign(sigma_init=sigma, sigma_optimizer="", sigma_lr=0.0), along=())
    data = []
    for number, line in enumerate(lines):
        shift = 0.3 * (number - (len(lines) - 1) / 2) / max(1, len(lines) - 1)
        mine = panel.loc[line.runs.index]
        look = {key: value for key, value in line.look.items() if key != "linestyle"}
        for place, recipe in enumerate(recipes):
            group = _cell(mine, sigma, recipe)
            if group.empty:
                continue
            values = group[metric].astype(float) * factor
            found = interval(values)
            low, high = max(found.low, lowest), min(found.high, highest)
            error = [[found.mean - low], [high - found.mean]] if found.n > 1 else None
            x = place + shift
            axes.errorbar(
                x, found.mean, yerr=error, linestyle="none", label=line.label, elinewidth=0.9, zorder=3, **look
            )
            axes.scatter([x + 0.09] * len(values), values, s=5, color=look["color"], alpha=0.7, linewidths=0, zorder=4)
            numbers = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
            data.append({**where(group, "sigma_init", *RECIPE), "metric": metric, **numbers})
    axes.set_xlim(-0.5, len(recipes) - 0.5)
    axes.grid(False, axis="x")
    return data


def _level(row: list[Axes], titles: list[str]) -> None:
    """One y range for the panels of a data set, numbered at the first of them."""
    for title in dict.fromkeys(titles):
        same = [axes for axes, its in zip(row, titles, strict=True) if its == title]
        for axes in same[1:]:
            axes.sharey(same[0])
            axes.tick_params(labelleft=False)
        same[0].autoscale(axis="y")
