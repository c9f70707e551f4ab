"""Risk against coverage: how often a network is wrong on the images of which it is most confident."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels, style, suite
from ssvi.analysis.figures.lines import Series
from ssvi.analysis.figures.panels import Drawing, Rows
from ssvi.analysis.figures.recorded import of_runs
from ssvi.analysis.figures.suite import Facets
from ssvi.analysis.stats import interval

# More lines than these cannot be told from each other.
MOST_LINES = 8


def risk_coverage(frames: Frames) -> Drawing:
    """A line a setting, a panel a data set and model."""
    runs, rows = suite.measured(frames, "risk_coverage", "risk")
    choice = suite.chosen(runs, MOST_LINES)

    def draw(line: list[Axes], panel: Facets) -> Rows:
        (axes,) = line
        found = [row for one in panel.series for row in _draw_line(axes, one, of_runs(rows, one.runs))]
        axes.set_xlabel("coverage (images not abstained from, %)")
        axes.set_ylabel("risk (wrong among these, %)")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        return found

    caption = (
        "Risk against coverage: the share of wrong answers among the test images of largest maximum probability, by "
        "the share of images that is answered. Lines are means over seeds, bands their 95 % t intervals ({n}), of "
        "three seeds or more. At full coverage the risk is the error; the further a line stays below that, the better "
        "the network knows when it is wrong."
    )
    sizes = panels.beside(choice.panels, 3.3, alone=0.75 * style.WIDE)
    return panels.draw(frames, choice.panels, draw, caption, notes=lambda drawn: choice.notes, **sizes)


def _draw_line(axes: Axes, one: Series, rows: pd.DataFrame) -> Rows:
    numbers = []
    for coverage, values in rows.groupby("level", sort=True)["value"]:
        risk = interval(100 * values)
        ends = {"risk_percent_low": risk.low, "risk_percent_high": risk.high}
        numbers.append({"coverage_percent": 100 * coverage, "risk_percent_mean": risk.mean, **ends, "n": risk.n})
    summary = pd.DataFrame(numbers)
    x, look = summary["coverage_percent"], one.look
    axes.plot(x, summary["risk_percent_mean"], label=one.label, **look, linewidth=1.1, markersize=3.5, markevery=0.12)
    low, high = summary["risk_percent_low"].clip(lower=0), summary["risk_percent_high"].clip(upper=100)
    if summary["n"].min() > 2:  # of two seeds it would cover all lines
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return panels.rows_of(one.runs, summary, "method", "density", series=one.label)
