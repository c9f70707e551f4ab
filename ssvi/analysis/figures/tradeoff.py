"""Accuracy against the cost of training (figure 1)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import lines, panels, scales, style
from ssvi.analysis.figures.groups import Group
from ssvi.analysis.figures.panels import Drawing, Panel, Rows
from ssvi.analysis.quantities import ACCURACY, TRAINING_FLOPS
from ssvi.registry import SPARSE


def figure1(frames: Frames) -> Drawing:
    """Test accuracy against counted training FLOPs, a point a setting (figure 1 of the paper)."""
    complete = panels.finished(frames, "figure1")
    runs = complete[complete["training_flops"].notna()]
    parts = panels.split(panels.needed(runs, "figure1", "a run whose training FLOPs were counted"))
    many = max(len(lines.series(part.runs, along=("density",))) for part in parts) > 5
    sizes = panels.beside(parts, 3.4 if many else 2.6, alone=0.75 * style.WIDE if many else style.COLUMN)
    caption = (
        "Test accuracy against training FLOPs, counted as if masked weights cost nothing. Points are means over seeds "
        "with their 95 % t intervals ({n}); numbers at them are densities in %."
    )
    return panels.draw(frames, parts, _draw_tradeoff, caption, **sizes)


def _draw_tradeoff(line: list[Axes], panel: Panel) -> Rows:
    (axes,) = line
    rows: Rows = []
    axes.set_xscale("log")
    named: set[str] = set()
    for one in lines.series(panel.runs, along=("density",)):
        options = {"series": one.label, "method": one.method}
        groups = [Group(runs, {**options, "density": density}) for density, runs in one.runs.groupby("density")]
        flops = [float(TRAINING_FLOPS.of(group.runs).mean()) for group in groups]
        found = lines.draw_means(axes, flops, groups, ACCURACY, intervals=True, label=one.label, **one.look)
        rows += [{**row, "training_flops_mean": x} for row, x in zip(found, flops, strict=True)]
        if one.method in SPARSE and one.method not in named and len(found) > 1:
            named.add(one.method)
            _name_points(axes, flops, found, style.COLOURS[one.method], below=len(named) == 1)
    _flops_axis(axes, [row["training_flops_mean"] for row in rows])
    scales.fit_accuracy(axes, rows, panel.runs, room=0.14, intervals=True)
    return rows


def _name_points(axes: Axes, x: list[float], rows: Rows, colour: str, *, below: bool) -> None:
    place = ((4, -4), "left", "top") if below else ((-4, 4), "right", "bottom")
    look = {"fontsize": 6.5, "color": colour, **dict(zip(("xytext", "ha", "va"), place, strict=True))}
    for flops, row in zip(x, rows, strict=True):
        axes.annotate(style.percent(row["density"]), (flops, row["mean"]), textcoords="offset points", **look)


def _flops_axis(axes: Axes, flops: list[float]) -> None:
    """A log axis with room at both ends, and more marks a decade the fewer decades it spans."""
    axes.set_xlabel(TRAINING_FLOPS.title)
    span = max(flops) / min(flops)
    margin = max(span**0.1, 1.25)
    axes.set_xlim(min(flops) / margin, max(flops) * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if span > 300 else (1, 3) if span > 30 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _scientific(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}{{\cdot}}{power}$"
