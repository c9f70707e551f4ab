"""Whether sigma learns: its change by gradient and by exchanging weights, and what a faster recipe gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.figures.recorded import of_runs
from ssvi.analysis.quantities import ACCURACY, ECE, NLL, Quantity
from ssvi.analysis.settings import RECIPE, option_text, without_effect
from ssvi.analysis.stats import interval
from ssvi.registry import using
from ssvi.runs.completion import idle
from ssvi.runs.options import FIELDS

# Values of `RECIPE`.
Recipe = tuple[Any, ...]
OFFICIAL: Recipe = tuple(FIELDS[name].default for name in RECIPE)
# From what sigma starts, the second in place of the first: a sigma, or a curvature that gives one.
STARTS = {"sigma_init": r"$\sigma_0$", "curvature_init": "$h_0$"}
DRIFTS = {"gradient": ("by gradient", style.PALETTE[3]), "topology": ("by exchanged weights", style.COLOURS["ssvi"])}
PERCENT_OF_START = "change of mean $\\sigma$\n(% of the start)"
QUANTITIES = (ACCURACY, NLL, ECE)


def start_of_sigma(mean: float, sd: float) -> tuple[float, float]:
    """Mean and standard deviation of sigma at the start, where sigma = |N(mean, sd^2)|.

    The mean is mean erf(mean / (sd sqrt 2)) + sd sqrt(2/pi) exp(-mean^2 / (2 sd^2)), the mean square mean^2 + sd^2.
    """
    if sd == 0:
        return abs(mean), 0.0
    a = mean / sd
    folded = mean * math.erf(a / math.sqrt(2)) + sd * math.sqrt(2 / math.pi) * math.exp(-a * a / 2)
    return folded, math.sqrt(max(0.0, mean * mean + sd * sd - folded * folded))


@dataclass(frozen=True)
class Start(Panel):
    """The runs of a panel, of which those are drawn whose sigma starts from one value of one of `STARTS`."""

    option: str
    value: float

    def said(self, *more: str) -> str:
        """The panel's title in lines, with its start of sigma."""
        return "\n".join(filter(None, [self.title, f"{STARTS[self.option]} = {self.value:g}", *more]))

    @property
    def alike(self) -> pd.DataFrame:
        """The panel's runs whose sigma starts from the same option."""
        return self.runs[[option == self.option for option, _ in _starts_of(self.runs)]]

    def of(self, recipe: Recipe) -> pd.DataFrame:
        """The runs that are drawn for a recipe."""
        rows = zip(_starts_of(self.runs), _recipes_of(self.runs), strict=True)
        return self.runs[[row == ((self.option, self.value), recipe) for row in rows]]


def _starts_of(runs: pd.DataFrame) -> list[tuple[str, float]]:
    """The option that sigma starts from, and its value, of each run."""
    options = ["curvature_init" if "sigma_init" in without_effect(row) else "sigma_init" for row in _rows(runs)]
    return [(option, row[option]) for option, row in zip(options, _rows(runs), strict=True)]


def _recipes_of(runs: pd.DataFrame) -> list[Recipe]:
    return [tuple(row[name] for name in RECIPE) for row in _rows(runs)]


def _rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    return runs.to_dict("records")


def _starts(runs: pd.DataFrame) -> list[Start]:
    return [
        Start(panel.title, panel.runs, option, value)
        for panel in panels.split(runs, (*STARTS, *RECIPE))
        for option, value in sorted(set(_starts_of(panel.runs)), key=lambda start: (start[0] != "sigma_init", start))
    ]


def _recipes(runs: pd.DataFrame) -> list[Recipe]:
    """The recipes, the official one first, SGD before Adam, the natural gradient last."""
    return sorted(set(_recipes_of(runs)), key=lambda r: (r != OFFICIAL, r[0] != "sgd", r[1] != "sgd", r[2:]))


def _recipe_words(recipe: Recipe) -> list[str]:
    """A recipe in words; of the natural gradient, options that are not at their defaults."""
    named = dict(zip(RECIPE, recipe, strict=True))
    if named["posterior_optimizer"] == "sgd":
        return [{"sgd": "SGD", "adam": "Adam"}[named["sigma_optimizer"]], f"lr {option_text(named['sigma_lr'])}"]
    without = idle(named)
    return [style.words(n, v) for n, v in named.items() if n not in without and v != FIELDS[n].default]


def _with_sigma(frames: Frames, figure: str) -> pd.DataFrame:
    """The finished runs whose sigma has a start of its own."""
    runs, methods = panels.finished(frames, figure), using("sigma_init")
    what = f"a finished run that starts from a sigma (methods {', '.join(methods)})"
    return panels.needed(runs[runs["method"].isin(methods)], figure, what)


def sigma_drift(frames: Frames) -> Drawing:
    """How far the mean sigma has moved since the start, by gradient and by topology (sections 3.1 and 3.2).

    A row of panels a sigma at the start, a column a recipe."""
    everything = _with_sigma(frames, "sigma_drift")
    runs = everything[[option == "sigma_init" for option, _ in _starts_of(everything)]]
    runs = panels.needed(runs, "sigma_drift", "a finished run that starts from sigma_init")
    changes = _changes(runs, frames)
    runs = panels.needed(of_runs(runs, changes), "sigma_drift", "a finished run that has recorded its sigma")
    parts, recipes = _starts(runs), _recipes(runs)
    said = _notes_on_drift(everything)

    def draw(axes: Axes, start: Start, recipe: Recipe) -> Rows:
        place = axes.get_subplotspec()
        title = ", ".join(_recipe_words(recipe)) + " (official)" * (recipe == OFFICIAL)
        if _has_natural([recipe]):  # too long for a line
            title = title.replace(" (", "\n(").replace(", ", "\n")
        axes.set_title(title if place.is_first_row() else "")
        axes.set_ylabel(start.said(PERCENT_OF_START) if place.is_first_col() else "")
        scales.progress_axis(axes)
        return _draw_drift(axes, start.of(recipe), changes)

    return panels.draw(
        *(frames, parts, panels.each(recipes, draw)),
        "Change of the mean of sigma over the active weights since the start, in percent of its expectation there, by "
        f"{_ways(recipes)}: of SSVI, split into what gradients did and what exchanging weights "
        "did, as long as its subspace changes; of the dense BNN, all by gradient. Numbers are the last means. "
        f"{lines.BANDS} ({{n}}).",
        size=(
            style.WIDE * max(1.0, len(recipes) / 4) if len(recipes) > 1 else style.WIDE / 2,
            0.75 + 1.75 * len(parts),
        ),
        axes=len(recipes),
        title=None,
        finish=lambda grid, rows: grid[0, 0].figure.align_ylabels(),
        notes=lambda rows: said,
    )


def _ways(recipes: Sequence[Recipe]) -> str:
    """What the recipes differ in, as captions call it."""
    return "the learning rate and optimiser of rho" + " or the natural gradient (IVON)" * _has_natural(recipes)


def _has_natural(recipes: Sequence[Recipe]) -> bool:
    return any(recipe[0] != "sgd" for recipe in recipes)


def _notes_on_drift(runs: pd.DataFrame) -> list[str]:
    """What must be known of the drift of runs that learned sigma by natural gradient."""
    natural = runs[runs["posterior_optimizer"] == "ivon"]
    elsewhere = sum(option != "sigma_init" for option, _ in _starts_of(natural))
    runs_are = "1 run" if elsewhere == 1 else f"{elsewhere} runs"
    said = {
        f"Left out: {runs_are} whose sigma starts from a curvature (curvature_init), which is not recorded.": elsewhere,
        "With the natural gradient (IVON) sigma follows the temperature: what the KL warm-up does to it counts as done "
        "by gradient.": natural["kl_warmup"].eq(True).any(),
    }
    return [words for words, true in said.items() if true]


def _changes(runs: pd.DataFrame, frames: Frames) -> pd.DataFrame:
    """Change of the mean sigma (% of the start) by run, cause and `progress_percent`, 0 at the start.

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
    return both.assign(change=percent, progress_percent=100 * both["progress"])


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


def _draw_drift(axes: Axes, runs: pd.DataFrame, changes: pd.DataFrame) -> Rows:
    found: Rows = []
    for line in lines.series(runs):
        for cause, rows in of_runs(changes, line.runs).groupby("cause", sort=False):
            words, colour = DRIFTS.get(str(cause), ("", style.COLOURS[line.method]))
            summary = lines.over_runs(rows, "progress_percent", "change")
            label = f"{line.label}: {words}" if words else line.label
            look = {"color": colour, "linestyle": line.look["linestyle"]}
            lines.draw_band(axes, summary["progress_percent"], summary, label=label, **look)
            _say_last(axes, summary, str(cause), colour)
            found += [{**_about(line.runs), "cause": cause, **row} for row in summary.to_dict("records")]
    axes.axhline(0, color="black", linewidth=0.5, zorder=1)
    axes.margins(y=0.12)
    return found


def _about(runs: pd.DataFrame) -> dict[str, Any]:
    """What a row of the data says of runs of one setting; nothing of options without effect."""
    without = without_effect(runs.iloc[0])
    about = panels.of_one(runs, "method", "density", *STARTS, *RECIPE)
    return {name: None if name in without else value for name, value in about.items()}


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

    A row of panels a metric, a column a sigma at the start of a data set."""
    runs = _with_sigma(frames, "sigma_learning")
    parts = _starts(runs)

    def finish(grid: np.ndarray, rows: Rows) -> None:
        for row, quantity in zip(grid, QUANTITIES, strict=True):
            row[0].set_ylabel(quantity.title)
            _level(list(row), [part.title for part in parts])
        grid[0, 0].figure.align_ylabels()

    return panels.draw(
        *(frames, parts, panels.each(QUANTITIES, _draw_recipes)),
        f"Test accuracy, NLL and ECE by {_ways(_recipes(runs))} (the official recipe first) and by "
        f"{_from(parts)} at the start. Small dots are seeds, large ones their means, bars Student's t intervals (95%), "
        "cut off where the metric ends ({n}).",
        size=(max(style.WIDE / 2, min(style.WIDE, 2.6 * len(parts))), 5.6 + 0.9 * _has_natural(_recipes(runs))),
        axes=len(QUANTITIES),
        upright=True,
        title=None,
        finish=finish,
        sharex="col",
    )


def _from(parts: Sequence[Start]) -> str:
    """What sigma starts from, as captions call it."""
    words = {"sigma_init": "the mean of sigma", "curvature_init": "the curvature that gives sigma"}
    return " or ".join(words[option] for option in dict.fromkeys(part.option for part in parts))


def _draw_recipes(axes: Axes, start: Start, quantity: Quantity) -> Rows:
    """Seeds, mean and interval of each line of the panel at each recipe; returns what is drawn."""
    recipes = _recipes(start.alike)
    # What the panel's axes show is made alike, so that lines are what is left to tell apart.
    found = lines.series(start.runs.assign(**dict.fromkeys((*STARTS, *RECIPE), 0.0)))
    rows = []
    for number, line in enumerate(found):
        shift = 0.3 * (number - (len(found) - 1) / 2) / max(1, len(found) - 1)
        look = line.look | {"linestyle": "none", "label": line.label}
        for place, recipe in enumerate(recipes):
            group = of_runs(start.of(recipe), line.runs)
            if len(group):
                numbers = _draw_seeds(axes, place + shift, quantity.of(group), quantity, look)
                rows.append({**_about(group), "metric": quantity.column, **numbers})
    place = axes.get_subplotspec()
    axes.set_title(start.said() if place.is_first_row() else "")
    if place.is_last_row():
        turned = {"rotation": 90} if _has_natural(_recipes(start.runs)) else {}  # its words are long
        axes.set_xticks(range(len(recipes)), ["\n".join(_recipe_words(recipe)) for recipe in recipes], **turned)
        axes.set_xlabel(r"learning of $\sigma$")
    axes.set_xlim(-0.5, len(recipes) - 0.5)
    axes.grid(False, axis="x")
    return rows


def _draw_seeds(axes: Axes, x: float, values: pd.Series, quantity: Quantity, look: dict[str, Any]) -> dict[str, Any]:
    found = interval(values)
    low, high = lines.within(quantity, found.low, found.high)
    error = [[found.mean - low], [high - found.mean]] if found.n > 1 else None
    axes.errorbar(x, found.mean, yerr=error, elinewidth=0.9, zorder=3, **look)
    axes.scatter([x + 0.09] * len(values), values, s=5, color=look["color"], alpha=0.7, linewidths=0, zorder=4)
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _level(row: list[Axes], titles: list[str]) -> None:
    """One y range for the panels of a data set, numbered at the first of them."""
    for title in dict.fromkeys(titles):
        same = [axes for axes, its in zip(row, titles, strict=True) if its == title]
        for axes in same[1:]:
            axes.sharey(same[0])
            axes.tick_params(labelleft=False)
        same[0].autoscale(axis="y")
