"""A figure described by config alone: any column of the runs against any other, coloured and split by two more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels, scales, style
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.made import MADE, SPENT, comparable, one_machine
from ssvi.analysis.quantities import QUANTITIES, Quantity
from ssvi.analysis.settings import METHOD_NAMES, SETTING, is_missing, option_text, settings, without_effect
from ssvi.analysis.shown import to_label
from ssvi.analysis.stats import mean_sd
from ssvi.errors import UserError
from ssvi.runs.options import FIELDS

# A numeric axis whose values span more than this factor is logarithmic.
LOG_SPAN = 20.0


def generic(frames: Frames, name: str, *, x: str, y: str, hue: str | None = None, facets: str | None = None) -> Drawing:
    """A point a setting: the means of `x` and `y` over its seeds; a line a value of `hue`, a panel a facet.

    Args:
        frames: only the runs are used.
        name: the figure's, for messages.
        x: a column of the runs, numbers or words.
        y: a column of numbers.
        hue: a column whose values become lines.
        facets: a column whose values become panels.

    Raises:
        UserError: if no finished run has both x and y, y is not a number, or settings that differ in something
            that is not shown would stand at the same place.
    """
    wanted = _having_both(frames, name, x, y)
    made = [name for name in MADE if name not in (x, y, hue, facets) and wanted[name].nunique(dropna=False) > 1]
    colours = {label: i for i, (label, _) in enumerate(_lines(wanted, hue, made))}
    parts = [Panel(facet, runs) for facet, runs in _split(wanted, facets)]

    def draw(line: list[Axes], panel: Panel) -> Rows:
        (axes,) = line
        if facets is not None:
            axes.set_title(to_label(f"{_label(facets)} {panel.title}"))
        place = _x_axis(axes, wanted[x], x)
        rows: Rows = []
        for label, runs in _lines(panel.runs, hue, made):
            value = {hue: _text(hue, runs.iloc[0][hue])} if hue else {}
            about = ({facets: panel.title} if facets else {}) | value | {n: runs.iloc[0][n] for n in made}
            points = _points(runs, name, x, y, place, (x, hue, facets))
            _draw(axes, points, y, colours[label], to_label(label) or None, words=bool(place))
            rows += [about | {key: v for key, v in point.items() if key != "at"} for point in points]
        axes.set_ylabel(_title(y))
        return rows

    unlike = {x, y} & set(SPENT) and not all(map(one_machine, settings(wanted)))
    machines = ("Left out: points whose runs were computed on different machines.",) if unlike else ()
    by = f", by {_label(hue)}" if hue else ""
    caption = f"{_label(y)} against {_label(x)}{by}: means over seeds with one sample standard deviation."
    return panels.draw(
        *(frames, parts, draw, caption[0].upper() + caption[1:]),
        size=(max(3.6, 3.2 * len(parts)), 3.2),
        upright=True,
        title=None,
        notes=lambda rows: machines,
        key={"title": _label(hue) if hue else None},
    )


def _having_both(frames: Frames, name: str, x: str, y: str) -> pd.DataFrame:
    complete = panels.finished(frames, name)
    wanted = complete[complete[x].notna() & complete[y].notna()]
    if wanted.empty:
        raise UserError(f"figure {name}: no finished run of its experiments has both {x} and {y}.")
    if not _is_number(wanted[y]):
        raise UserError(f"figure {name}: y is {y!r}, which is not a number in the runs.")
    return wanted


def _split(runs: pd.DataFrame, column: str | None) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each value of a column, by what the value is called; all of them where no column is asked for."""
    if column is None:
        return [("", runs)]
    return [(_text(column, value), part) for value, part in runs.groupby(column, sort=True, dropna=False)]


def _lines(runs: pd.DataFrame, hue: str | None, made: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each value of the hue; of each arithmetic apart, where there are several."""
    lines = _split(runs, hue)
    for name in made:
        words = f"{_label(name)} "
        lines = [
            (", ".join(filter(None, [label, words + value])), part)
            for label, line in lines
            for value, part in _split(line, name)
        ]
    return lines


def _is_number(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().all()) and not values.map(type).eq(bool).any()


def _label(column: str) -> str:
    return column.replace("_", " ")


def _title(column: str) -> str:
    unit = _quantity(column).unit
    return f"{_label(column)} ({unit})" if unit else _label(column)


def _quantity(column: str) -> Quantity:
    """What is known of a column; of one that is no quantity, its name."""
    return QUANTITIES.get(column) or Quantity(column, _label(column))


def _text(column: str, value: Any) -> str:
    if is_missing(value):
        return "none"
    if column == "method":
        return METHOD_NAMES.get(value, value)
    return option_text(value)


def _x_axis(axes: Axes, values: pd.Series, column: str) -> dict[str, float]:
    """Prepare the axis for all values; where words stand on it, empty for numbers."""
    axes.set_xlabel(_title(column))
    if not _is_number(values):
        names = sorted({_text(column, value) for value in values})
        axes.set_xticks(range(len(names)), map(to_label, names))
        axes.set_xlim(-0.5, len(names) - 0.5)
        return {name: float(i) for i, name in enumerate(names)}
    ticks = sorted(float(v) * _quantity(column).factor for v in values.unique())
    if ticks[0] > 0 and ticks[-1] / ticks[0] > LOG_SPAN:
        axes.set_xscale("log")
    if len(ticks) <= 8 and column in FIELDS:
        scales.mark(axes.xaxis, ticks, "{:.6g}".format)
    return {}


def _points(
    runs: pd.DataFrame, name: str, x: str, y: str, place: dict[str, float], shown: tuple[str | None, ...]
) -> list[dict[str, Any]]:
    """One point a setting, from left to right; two settings may not share a place."""
    points: list[dict[str, Any]] = []
    taken: dict[Any, pd.Series] = {}
    for group in map(comparable, settings(runs)):
        first = group.iloc[0]
        if x in FIELDS:
            key = None if is_missing(first[x]) else first[x]
            if (other := taken.setdefault(key, first)) is not first:
                raise UserError(f"figure {name}: {_clash(other, first, shown)}")
        if place:
            value: Any = _text(x, first[x])
            at = place[value]
        else:
            value = mean_sd(group[x])[0]
            at = value * _quantity(x).factor
        mean, sd = mean_sd(group[y], _quantity(y).factor)
        if not is_missing(at) and not is_missing(mean):
            points.append({x: value, f"{y}_mean": mean, f"{y}_sd": sd, "n": len(group), "at": at})
    return sorted(points, key=lambda point: point["at"])


def _clash(one: pd.Series, other: pd.Series, shown: tuple[str | None, ...]) -> str:
    # An option that only one of the two has, or has an effect on, is no choice that anybody made.
    idle = without_effect(one) | without_effect(other)
    shown = (*shown, *idle)
    both = [o for o in SETTING if o not in shown and not is_missing(one[o]) and not is_missing(other[o])]
    differing = [o for o in both if one[o] != other[o]]
    values = "; ".join(f"{o}: {_text(o, one[o])} and {_text(o, other[o])}" for o in differing)
    return (
        f"its runs also differ in what it does not show ({values}): make that its hue or its facets, "
        "or give it experiments without."
    )


def _draw(axes: Axes, points: list[dict[str, Any]], y: str, number: int, label: str | None, *, words: bool) -> None:
    x, means, sds = ([point[key] for point in points] for key in ("at", f"{y}_mean", f"{y}_sd"))
    dashes = "none" if words else style.LINES[number // len(style.PALETTE) % len(style.LINES)]
    look = style.numbered(number) | {"linestyle": dashes, "elinewidth": 0.9}
    axes.errorbar(x, means, yerr=[0.0 if is_missing(sd) else sd for sd in sds], label=label, **look)
