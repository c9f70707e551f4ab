"""What the figures of single choices share: means of a quantity at its settings, the noise floor, dots of seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.style import WIDE, Drawing, Series, accuracy_axis, footnote, legend, style
from ssvi.analysis.settings import SETTING, caveats, is_missing, settings
from ssvi.analysis.stats import interval, mean_sd, noise_floor
from ssvi.registry import ADDITIONS, CRITERIA, KINDS


@dataclass(frozen=True)
class Quantity:
    """A column of the runs as it is drawn: its name in the figure's data, its axis title, a factor for its unit."""

    column: str
    name: str
    title: str
    factor: float = 1.0

    def of(self, runs: pd.DataFrame) -> pd.Series:
        """The runs' values in the unit of the axis; missing ones left out."""
        return pd.to_numeric(runs[self.column], errors="coerce").dropna().astype(float) * self.factor


ACCURACY = Quantity("accuracy", "accuracy_percent", "test accuracy (%)", 100.0)
NLL = Quantity("nll", "nll", "test NLL (nats)")
ECE = Quantity("ece", "ece", "ECE")
SECONDS = Quantity("training_seconds", "training_seconds", "training time\n(s, measured)")
FLOPS = Quantity("training_flops", "training_flops", "training FLOPs (counted)")
# A column of `with_flops_ratio`.
FLOPS_RATIO = Quantity("training_flops_ratio", "training_flops_ratio", "training FLOPs / dense\n(counted)")


@dataclass(frozen=True)
class Group:
    """The runs of one setting, the options that tell it from the others, and its name in the figure."""

    runs: pd.DataFrame
    options: Mapping[str, Any]
    label: str = ""

    def row(self, quantity: Quantity) -> dict[str, Any]:
        """Mean, sample standard deviation, t interval and n: a row of the figure's data."""
        values = quantity.of(self.runs)
        estimate = interval(values)
        mean, sd = mean_sd(values)
        where = {"dataset": self.runs["dataset"].iloc[0], "model": self.runs["model"].iloc[0]}
        found = {"mean": mean, "sd": sd, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        return {**where, **self.options, "quantity": quantity.name, **found}


def with_flops_ratio(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their counted training FLOPs over those of the dense network, `training_flops_ratio`."""
    return runs.assign(training_flops_ratio=runs["training_flops"] / runs["training_flops_dense"])


def where(runs: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """The runs with these values of these columns."""
    for name, value in options.items():
        # a list, because the map of an empty column is none of truths
        runs = runs[[not is_missing(found) and found == value for found in runs[name]]] if len(runs) else runs
    return runs


def groups_by(runs: pd.DataFrame, columns: Sequence[str], label: Callable[..., str] | None = None) -> list[Group]:
    """A group for each combination of values of the columns, in reading order.

    Args:
        runs: some runs.
        columns: options; one that a run's method does not use is None.
        label: makes the group's name of the values.
    """
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(runs[list(columns)].itertuples(index=False, name=None)):
        places.setdefault(tuple(None if is_missing(value) else value for value in row), []).append(place)
    return [
        Group(runs.iloc[places[key]], dict(zip(columns, key, strict=True)), label(*key) if label else "")
        for key in sorted(places, key=lambda key: [_rank(value) for value in key])
    ]


def _rank(value: Any) -> tuple[float, str]:
    """The order of values in figures: none, numbers; words that are known, others by the alphabet."""
    if isinstance(value, str):
        order = [*KINDS, *CRITERIA, *ADDITIONS, "mean", "mean_rho", "constant", "uniform", "erk", "global"]
        return (order.index(value), "") if value in order else (len(order), value)
    return (-1.0, "") if value is None else (float(value), "")


def shared_seeds(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The runs whose seeds at least two combinations of values of the columns have.

    Further replicates of one setting tell how large noise is; in its mean they would make it a mean of other seeds
    than those it is compared with.
    """
    seeds = Counter(seed for group in groups_by(runs, columns) for seed in set(group.runs["seed"]))
    shared = {seed for seed, groups in seeds.items() if groups > 1}
    return runs[runs["seed"].isin(shared)] if shared else runs


def replicates(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the setting that has most seeds."""
    return max(settings(runs), key=len)


def alike(runs: pd.DataFrame, reference: pd.DataFrame, but: Sequence[str]) -> pd.DataFrame:
    """The runs whose options are those of the reference, but for the seed and those named."""
    first = reference.iloc[0]
    same = (name for name in SETTING if name not in but and not is_missing(first[name]))
    return where(runs, **{name: first[name] for name in same})


def usual_n(groups: Sequence[Group]) -> int:
    """How many runs most groups have; the larger number in a tie."""
    counts = Counter(len(group.runs) for group in groups)
    return max(counts, key=lambda n: (counts[n], n))


FLOOR_COLOUR = "#E4E4E4"


@dataclass(frozen=True)
class Floor:
    """The default setting's mean, and how far from it another mean of `n` seeds lands by chance."""

    quantity: Quantity
    centre: float
    bound: float
    n: int
    seeds: int

    def row(self, runs: pd.DataFrame) -> dict[str, Any]:
        """A row of the figure's data."""
        first = runs.iloc[0]
        at = {"dataset": first["dataset"], "model": first["model"]}
        return {**at, "quantity": f"noise_floor_{self.quantity.name}", "mean": self.bound, "n": self.n}

    @property
    def label(self) -> str:
        """What a legend calls it."""
        return f"default ± noise floor (n = {self.n})"


def floor(panel: pd.DataFrame, compared: Sequence[Group], quantity: Quantity) -> Floor | None:
    """The noise floor of the panel from its replicates; None if these are fewer than two means take.

    Args:
        panel: all runs, replicates too.
        compared: the groups that are drawn; the one with the replicates' setting is the band's centre.
        quantity: what is drawn.
    """
    many, n = replicates(panel), usual_n(compared)
    bound = noise_floor(quantity.of(many), n)
    drawn = [group.runs for group in compared if len(set(group.runs.index) & set(many.index))]
    if math.isnan(bound):
        return None
    return Floor(quantity, float(quantity.of(drawn[0] if drawn else many).mean()), bound, n, len(many))


def draw_floor(axes: Axes, band: Floor | None, *, upright: bool = False, label: str | None = None) -> None:
    """The noise floor as a grey band around the default; `upright` where the quantity runs to the right."""
    if band is not None:
        low, high = _bounded(band.quantity, band.centre - band.bound, band.centre + band.bound)
        span = axes.axvspan if upright else axes.axhspan
        span(low, high, color=FLOOR_COLOUR, linewidth=0, zorder=0.8, label=band.label if label is None else label)


def _bounded(quantity: Quantity, low: float, high: float) -> tuple[float, float]:
    """An interval cut at what the quantity can be: an accuracy at most 100 %, all else at least 0."""
    return (max(low, 0.0), min(high, 100.0)) if quantity is ACCURACY else (max(low, 0.0), high)


def floor_notes(floors: Sequence[Floor | None]) -> tuple[str, ...]:
    """Of what the noise floor is made, or why there is none."""
    known = [band for band in floors if band is not None]
    notes = {
        f"Noise floor: 95 % of the differences between the means of two disjoint groups of {band.n} of {band.seeds} "
        "seeds of the default setting are smaller."
        for band in known
    }
    if len(known) < len(floors):
        notes.add("No noise floor where no setting has twice as many seeds as the compared ones.")
    return tuple(sorted(notes, reverse=True))


def draw_line(
    axes: Axes, x: Sequence[float], groups: Sequence[Group], quantity: Quantity, **look: Any
) -> list[dict[str, Any]]:
    """Means over x joined by a line, one sample standard deviation as bars; returns the rows of the figure's data."""
    rows = [group.row(quantity) for group in groups]
    means = [row["mean"] for row in rows]
    ends = [_bounded(quantity, m - row["sd"], m + row["sd"]) for m, row in zip(means, rows, strict=True)]
    bars = [[m - low for m, (low, _) in zip(means, ends, strict=True)]]
    bars += [[high - m for m, (_, high) in zip(means, ends, strict=True)]]
    bars = [[0.0 if math.isnan(bar) else bar for bar in side] for side in bars]
    axes.errorbar(x, means, yerr=bars, **{"elinewidth": 0.8, "zorder": 3, **look})
    return rows


def draw_intervals(
    axes: Axes, x: Sequence[float], groups: Sequence[Group], quantity: Quantity, line: Series
) -> list[dict[str, Any]]:
    """Means over x with their t intervals as bars, none where there is one run; returns the rows of the data."""
    rows = [group.row(quantity) for group in groups]
    means = [row["mean"] for row in rows]
    ends = [_bounded(quantity, row["low"], row["high"]) for row in rows]
    bars = [[m - low for m, (low, _) in zip(means, ends, strict=True)]]
    bars += [[high - m for m, (_, high) in zip(means, ends, strict=True)]]
    bars = [[0.0 if math.isnan(bar) else max(bar, 0.0) for bar in side] for side in bars]
    axes.errorbar(x, means, yerr=bars, label=line.label, elinewidth=0.8, zorder=3, **line.look)
    return rows


def log_ticks(axes: Axes, values: Sequence[float], *, room: float = 0.06) -> None:
    """A log x axis that is marked at these values alone, with room at both ends."""
    axes.set_xscale("log")
    margin = max(1.25, (max(values) / min(values)) ** room)
    axes.set_xlim(min(values) / margin, max(values) * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def fit_accuracy(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    room: float = 0.08,
    *,
    intervals: bool = False,
) -> None:
    """Give the axes an accuracy axis that holds these rows with one standard deviation, or with their intervals."""
    rows = [row for row in rows if row["quantity"] == ACCURACY.name]
    ends = [(r["low"], r["high"]) if intervals else (r["mean"] - r["sd"], r["mean"] + r["sd"]) for r in rows]
    shown = [row["mean"] if math.isnan(end) else end for row, both in zip(rows, ends, strict=True) for end in both]
    images = pd.to_numeric(runs["test_images"], errors="coerce").max()
    accuracy_axis(axes, shown, 0.0 if math.isnan(images) else float(images), room)


def draw_dots(
    axes: Axes, groups: Sequence[Group], quantity: Quantity, looks: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row a group from top to bottom: single seeds as dots, above them mean and t interval."""
    rows = []
    for place, (group, look) in enumerate(zip(groups, looks, strict=True)):
        row = group.row(quantity)
        rows.append(row)
        colour = look["color"]
        if row["n"] > 1:
            values = quantity.of(group.runs)
            axes.plot(values, [place + 0.24] * len(values), "o", ms=2.6, mew=0, color=colour, alpha=0.65, zorder=3)
            low, high = _bounded(quantity, row["low"], row["high"])
            axes.plot([low, high], [place - 0.06] * 2, "-", color=colour, linewidth=1.0, zorder=3)
        axes.plot([row["mean"]], [place - 0.06], linestyle="none", markersize=5, zorder=4, **look)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.set_yticks(range(len(groups)), [group.label for group in groups])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_xlabel(quantity.title)
    return rows


@dataclass(frozen=True)
class Dots:
    """A panel of `dots_figure`: groups by row, and whether the runs hold a noise floor."""

    title: str
    runs: pd.DataFrame
    groups: Sequence[Group]
    looks: Sequence[Mapping[str, Any]]


DOTS_CAPTION = "Small dots are single seeds, markers their mean, bars the 95 % t interval of the mean"


def dots_figure(
    frames: Frames, parts: Sequence[Dots], quantities: Sequence[Quantity], caption: str, *, noise: bool = True
) -> Drawing:
    """A row of panels a data set, a panel a quantity: the settings from top to bottom.

    Args:
        frames: for the notes on runs left out.
        parts: the rows of panels.
        quantities: the columns of panels; one without any value is left out.
        caption: what is shown.
        noise: whether to draw the noise floor around the default, where the runs hold it.
    """
    shown = [q for q in quantities if any(len(q.of(group.runs)) for part in parts for group in part.groups)]
    rows: list[dict[str, Any]] = []
    floors: list[Floor | None] = []
    heights = [max(1.4, 0.65 + 0.27 * len(part.groups)) for part in parts]
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(WIDE, 0.3 * noise + sum(heights)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06)
        grid = figure.subplots(len(parts), len(shown), squeeze=False, sharey="row", height_ratios=heights)
        for line, part in zip(grid, parts, strict=True):
            line[0].set_title(part.title, loc="left")
            for axes, quantity in zip(line, shown, strict=True):
                rows += draw_dots(axes, part.groups, quantity, part.looks)
                if noise:
                    floors.append(band := floor(part.runs, part.groups, quantity))
                    draw_floor(axes, band, upright=True)
                    rows += [band.row(part.runs)] if band else []
        legend(figure)
        footnote(figure, frames.runs)
    caption = f"{caption} {DOTS_CAPTION} ({n_text(rows)})."
    return Drawing(figure, pd.DataFrame(rows), caption, (*floor_notes(floors), *caveats(frames.runs)))


def n_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many runs the means of these rows are made of, as a caption says it."""
    means = (int(row["n"]) for row in rows if not str(row.get("quantity")).startswith("noise_floor"))
    counts = sorted({n for n in means if n}) or [0]
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
