"""Accuracy against confidence, raw and after temperature scaling."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import panels, scales, style, suite
from ssvi.analysis.figures.lines import Series
from ssvi.analysis.figures.panels import Drawing, Rows
from ssvi.analysis.figures.recorded import of_runs
from ssvi.analysis.figures.suite import Facets

# As they are, and at the temperature of the validation images: what they are called, and how they look.
KINDS = {
    "raw": ("raw", {"color": style.PALETTE[0], "marker": "o", "linestyle": "-"}),
    "scaled": ("temperature-scaled", {"color": style.PALETTE[1], "marker": "^", "linestyle": (0, (4, 1.5))}),
}
DIAGRAM, COUNTS = "diagram", "counts"
# Of a bin with fewer images, all seeds together, the accuracy is no more than chance.
FEWEST_IMAGES = 10


def reliability(frames: Frames) -> Drawing:
    """A reliability diagram a setting, with the number of images in each bin below it."""
    runs, rows = suite.measured(frames, "reliability", "reliability")
    _, calibration = suite.measured(frames, "reliability", "calibration")
    choice = suite.chosen(runs)
    parts, across = suite.in_rows(choice, (DIAGRAM, COUNTS))

    def draw(line: list[Axes], panel: Facets) -> Rows:
        found: Rows = []
        for axes, one in zip(line, panel.series, strict=False):
            points = _points(of_runs(rows, one.runs))
            if panel.kind == DIAGRAM:
                suite.entitle(axes, panel, one)
                found += _draw_diagram(axes, one, points)
                _say_errors(axes, of_runs(calibration, one.runs))
            else:
                _draw_counts(axes, points, of_runs(rows, one.runs))
        for axes in line[len(panel.series) :]:
            axes.set_visible(False)
        _finish(line, panel.kind)
        return found

    caption = (
        "Reliability: accuracy against mean confidence of the test images in bins of equal width, over all seeds "
        "together, with bars from the smallest to the largest of a seed ({n}); on the diagonal confidence is what it "
        f"claims, below it the network is overconfident. Bins of fewer than {FEWEST_IMAGES} images in all are not "
        "drawn. Beneath, the images in each bin (mean over seeds, log scale). Numbers are expected calibration errors "
        "(ECE), means over seeds."
    )
    return panels.draw(
        *(frames, parts, draw, caption),
        size=suite.size(len(parts) // 2, across, 2.15),
        axes=across,
        title=None,
        sharey="row",
        notes=lambda drawn: choice.notes,
        gridspec_kw={"height_ratios": [3.0, 1.0] * (len(parts) // 2)},
    )


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each bin with images, over all runs together: confidence, accuracy (%), and the ends of that over the runs."""
    bins = suite.wide(rows, "run", "name", "level")
    bins = bins[bins["images"] > 0]
    for metric in ("confidence", "accuracy"):
        bins[metric] *= 100
        bins[f"{metric}_sum"] = bins[metric] * bins["images"]
    found = bins.groupby(["name", "level"], sort=True).agg(
        total=("images", "sum"),
        confidence=("confidence_sum", "sum"),
        accuracy=("accuracy_sum", "sum"),
        accuracy_min=("accuracy", "min"),
        accuracy_max=("accuracy", "max"),
    )
    for metric in ("confidence", "accuracy"):
        found[metric] /= found["total"]
    found["n"] = found.index.get_level_values("name").map(bins.groupby("name")["run"].nunique())
    found["images"] = found["total"] / found["n"]
    return found.drop(columns="total").reset_index()


def _draw_diagram(axes: Axes, one: Series, points: pd.DataFrame) -> Rows:
    axes.plot([0, 100], [0, 100], **style.DOTTED)
    found: Rows = []
    for name, (label, look) in KINDS.items():
        mine = points[points["name"] == name]
        if mine.empty:
            continue
        drawn = mine[mine["images"] * mine["n"] >= FEWEST_IMAGES]
        bars = [drawn["accuracy"] - drawn["accuracy_min"], drawn["accuracy_max"] - drawn["accuracy"]]
        # rounding may leave less than nothing of a bar
        bars = [bar.clip(lower=0) for bar in bars]
        shape = {"markersize": 3.2, "linewidth": 1.0, "elinewidth": 0.7, "capsize": 1.5}
        axes.errorbar(drawn["confidence"], drawn["accuracy"], yerr=bars, label=label, **shape, **look)
        shown = mine.rename(columns={"level": "bin"}).rename(
            columns={key: f"{key}_percent" for key in ("confidence", "accuracy", "accuracy_min", "accuracy_max")}
        )
        found += panels.rows_of(one.runs, shown, "method", "density", series=one.label)
    return found


def _say_errors(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the calibration errors where the diagram of a network that is of use has nothing."""
    errors = rows[rows["metric"] == "ece"].groupby("name")["value"].mean()
    words = [f"{name} {errors[name]:.3f}" for name in KINDS if name in errors]
    look = {"ha": "right", "va": "bottom", "fontsize": 6.5, "color": style.GREY, "zorder": 5}
    look |= {"bbox": {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0}}
    axes.text(0.98, 0.03, "\n".join(["ECE", *words]), transform=axes.transAxes, **look)


def _draw_counts(axes: Axes, points: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The images in each bin: as they are as bars, scaled as a line of steps."""
    bins = int(rows["level"].max()) + 1
    edges = [100 * edge / bins for edge in range(bins + 1)]
    for name, (_, look) in KINDS.items():
        images = points[points["name"] == name].set_index("level")["images"].reindex(range(bins), fill_value=0.0)
        if images.sum():
            shape = {"alpha": 0.35, "fill": True} if name == "raw" else {"fill": False, "linestyle": look["linestyle"]}
            axes.stairs(images, edges, color=look["color"], baseline=0.5, **shape)


def _finish(line: list[Axes], kind: str) -> None:
    for place, axes in enumerate(line):
        axes.set_xlim(-2, 102)
        if kind == DIAGRAM:
            axes.set_ylim(-2, 102)
            scales.mark(axes.yaxis, range(0, 101, 25))
            axes.set_ylabel("accuracy (%)" if place == 0 else "")
        else:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.5)
            axes.yaxis.set_major_locator(LogLocator(numticks=4))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylabel("images" if place == 0 else "")
            axes.set_xlabel("confidence (%)")
        scales.mark(axes.xaxis, range(0, 101, 25))
        axes.tick_params(labelbottom=kind == COUNTS)
