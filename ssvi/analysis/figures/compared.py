"""What the figures of single choices share: settings beside the noise that seeds alone make, dots of seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.groups import Group, groups_by, replicates, shared_seeds, usual_n
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import ACCURACY, Quantity
from ssvi.analysis.stats import noise_floor

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
        key = f"noise_floor_{self.quantity.key}"
        return {**panels.of_one(runs), "quantity": key, "mean": self.bound, "n": self.n}

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


def draw_floor(axes: Axes, band: Floor | None, *, upright: bool = False) -> None:
    """The noise floor as a grey band around the default; `upright` where the quantity runs to the right."""
    if band is not None:
        ends = lines.within(band.quantity, band.centre - band.bound, band.centre + band.bound)
        draw_range(axes, *ends, upright=upright, label=band.label)


def draw_range(axes: Axes, low: float, high: float, *, label: str, upright: bool = True) -> None:
    """What chance makes, as a grey band."""
    span = axes.axvspan if upright else axes.axhspan
    span(low, high, color=FLOOR_COLOUR, linewidth=0, zorder=0.8, label=label)


def floor_notes(floors: Iterable[Floor | None]) -> tuple[str, ...]:
    """Of what the noise floor is made, or why there is none."""
    found = list(floors)
    known = [band for band in found if band is not None]
    notes = {
        f"Noise floor: 95 % of the differences between the means of two disjoint groups of {band.n} of {band.seeds} "
        "seeds of the default setting are smaller."
        for band in known
    }
    if len(known) < len(found):
        notes.add("No noise floor where no setting has twice as many seeds as the compared ones.")
    return tuple(sorted(notes, reverse=True))


@dataclass(frozen=True)
class Compared(Panel):
    """Settings that differ in a few options, and the noise floor of their accuracies.

    Attributes:
        shared: the runs to compare, of the seeds that settings share.
        band: the noise floor; None where too few replicates tell it.
    """

    shared: pd.DataFrame
    band: Floor | None

    def finish(self, line: Sequence[Axes], rows: Rows) -> Rows:
        """Draw the noise floor, and an accuracy axis that holds these rows; the rows, and that of the floor."""
        for axes in line:
            draw_floor(axes, self.band)
        scales.fit_accuracy(line[0], rows, self.runs)
        return [*rows, *self.floor_rows()]

    def floor_rows(self, **options: Any) -> Rows:
        """The row of the noise floor, if there is one."""
        return [self.band.row(self.runs) | options] if self.band else []


def compare(runs: pd.DataFrame, keys: Sequence[str]) -> list[Compared]:
    """The panels of settings that differ in these options."""
    found = []
    for panel in panels.split(runs, keys):
        shared = shared_seeds(panel.runs, keys)
        found.append(Compared(panel.title, panel.runs, shared, floor(panel.runs, groups_by(shared, keys), ACCURACY)))
    return found


def notes(parts: Sequence[Compared]) -> Callable[[Rows], tuple[str, ...]]:
    """What a figure of these panels says of their noise floors."""
    return lambda rows: floor_notes(part.band for part in parts)


def draw_estimate(
    axes: Axes, place: int, row: Mapping[str, Any], seeds: pd.Series, sizes: tuple[float, float], **look: Any
) -> None:
    """One of `scales.rows_from_the_top`: mean and interval, and above them the seeds as dots, if there are several.

    Args:
        axes: what is drawn on.
        place: which row.
        row: `mean`, `low`, `high` and `n`.
        seeds: what the mean is of.
        sizes: of a dot and of the mean's marker, in points.
        **look: colour and marker.
    """
    colour = look["color"]
    if row["n"] > 1:
        axes.plot(seeds, [place + 0.24] * len(seeds), "o", ms=sizes[0], mew=0, color=colour, alpha=0.65, zorder=3)
        axes.plot([row["low"], row["high"]], [place - 0.06] * 2, "-", color=colour, linewidth=1.0, zorder=3)
    axes.plot([row["mean"]], [place - 0.06], linestyle="none", markersize=sizes[1], zorder=4, **look)


@dataclass(frozen=True)
class Dots(Panel):
    """A row of panels of `draw_dots`: the settings from top to bottom, and how each looks."""

    groups: Sequence[Group]
    looks: Sequence[Mapping[str, Any]]


def dots(
    found: Iterable[Panel], keys: Sequence[str], label: Callable[..., str], look: Callable[..., dict] | None = None
) -> list[Dots]:
    """The settings of each panel that differ in these options, whose values make their names, and their looks."""
    parts = []
    for panel in found:
        groups = groups_by(shared_seeds(panel.runs, keys), keys, label)
        looks = [look(**group.options) if look else style.numbered(i) for i, group in enumerate(groups)]
        parts.append(Dots(panel.title, panel.runs, groups, looks))
    return parts


def draw_dots(
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
    drawn = [q for q in quantities if any(len(q.of(group.runs)) for part in parts for group in part.groups)]
    floors: list[Floor | None] = []

    def draw_one(axes: Axes, part: Dots, quantity: Quantity) -> Rows:
        rows = _draw_settings(axes, part, quantity)
        if noise:
            floors.append(band := floor(part.runs, part.groups, quantity))
            draw_floor(axes, band, upright=True)
            rows += [band.row(part.runs)] if band else []
        return rows

    heights = [max(1.4, 0.65 + 0.27 * len(part.groups)) for part in parts]
    return panels.draw(
        *(frames, parts, panels.each(drawn, draw_one)),
        f"{caption} Small dots are single seeds, markers their mean, bars the 95 % t interval of the mean ({{n}}).",
        size=(style.WIDE, 0.3 * noise + sum(heights)),
        axes=len(drawn),
        notes=lambda rows: floor_notes(floors),
        pads={"w_pad": 0.06},
        sharey="row",
        height_ratios=heights,
    )


def _draw_settings(axes: Axes, part: Dots, quantity: Quantity) -> Rows:
    rows = [group.row(quantity) for group in part.groups]
    for place, (group, row, look) in enumerate(zip(part.groups, rows, part.looks, strict=True)):
        low, high = lines.within(quantity, row["low"], row["high"])
        draw_estimate(axes, place, row | {"low": low, "high": high}, quantity.of(group.runs), (2.6, 5), **look)
    scales.rows_from_the_top(axes, [group.label for group in part.groups])
    axes.margins(x=0.06)
    axes.set_xlabel(quantity.title)
    return rows
