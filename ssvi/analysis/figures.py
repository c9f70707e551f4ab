"""Figures as pure functions of the runs and history frames; each returns its picture and the numbers in it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ssvi.analysis.tables import mean_sd, option_text, settings
from ssvi.errors import UserError, unknown
from ssvi.runs import write_bytes, write_text
from ssvi.spec import FIELDS, METHODS

# Okabe and Ito's colours, told apart under the common colour blindnesses; the markers do it in grey.
COLOURS = {"dense": "#000000", "vi": "#0072B2", "rigl": "#009E73", "ssvi": "#D55E00"}
MARKERS = {"dense": "D", "vi": "^", "rigl": "s", "ssvi": "o"}
NAMES = {"dense": "dense network", "vi": "dense BNN (VI)", "rigl": "RigL", "ssvi": "SSVI"}
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
FILLINGS = ("full", "full", "left", "bottom")
SPARSE = ("ssvi", "rigl")
MAX_VARIANTS = 3
CURVE_DENSITY = 0.1


def style() -> dict[str, Any]:
    """The settings that all figures share, for `matplotlib.rc_context`."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "axes.labelsize": 8.5,
        "axes.titlesize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.3,
        "lines.markersize": 4.5,
        "errorbar.capsize": 2,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "savefig.dpi": 200,
        # Fixed, so that the same numbers give the same bytes.
        "svg.hashsalt": "ssvi",
    }


@dataclass(frozen=True)
class Series:
    """The runs drawn as one line, and how."""

    method: str
    label: str
    runs: pd.DataFrame
    variant: int = 0

    @property
    def look(self) -> dict[str, Any]:
        """One colour and marker a method; variants of a method differ in dash and filling."""
        colour = COLOURS[self.method]
        filling = "white" if self.variant % 4 == 1 else colour
        return {
            "color": colour,
            "marker": MARKERS[self.method],
            "markerfacecolor": filling,
            "markerfacecoloralt": "white",
            "fillstyle": FILLINGS[self.variant % 4],
            "linestyle": LINES[self.variant % len(LINES)],
        }


def _panels(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each data set and model, with a title if there are several."""
    groups = [(f"{d}, {m}", group) for (d, m), group in runs.groupby(["dataset", "model"], sort=True)]
    return groups if len(groups) > 1 else [("", group) for _, group in groups]


def _series(panel: pd.DataFrame, *, over_density: bool) -> list[Series]:
    """The panel's settings as lines, a method's variants named by the options in which they differ.

    Args:
        panel: runs of one data set and model.
        over_density: whether the densities of a method are points of one line.
    """
    found = []
    for method in (m for m in METHODS[::-1] if m in set(panel["method"])):
        runs = panel[panel["method"] == method]
        groups = settings(runs.assign(density=1.0) if over_density else runs)
        differing = [n for n in FIELDS if n not in ("seed", "density") and runs[n].dropna().nunique() > 1]
        for variant, group in enumerate(groups):
            words = [f"{name.replace('_', ' ')} {option_text(group.iloc[0][name])}" for name in differing]
            if not over_density and method in SPARSE:
                words.insert(0, f"density {_percent(group.iloc[0]['density'])}%")
            label = ", ".join([NAMES[method], *words])
            found.append(Series(method, label, runs.loc[group.index], variant))
    return found


def _percent(density: float) -> str:
    return f"{100 * density:.6g}"


def figure2_left(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test accuracy against density: sparse methods as lines, dense ones as levels (figure 2, left, of the paper).

    Raises:
        UserError: if no finished run is there.
    """
    complete = _complete(runs, "figure2_left")
    rows: list[dict[str, Any]] = []
    panels = _panels(complete)
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(4.6 * len(panels), 3.3), layout="constrained")
        for axes, (title, panel) in zip(_row(figure, len(panels)), panels, strict=True):
            axes.set_title(title)
            rows += _draw_accuracy(axes, panel)
        _legend(figure)
        _footnote(figure, runs)
    return figure, pd.DataFrame(rows)


def _row(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(1, n, squeeze=False)[0])


def _draw_accuracy(axes: Axes, panel: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    lines = _series(panel, over_density=True)
    sparse = [line for line in lines if line.method in SPARSE]
    width = _density_axis(axes, sorted({d for line in sparse for d in line.runs["density"]}))
    for position, line in enumerate(sparse):
        points = _by_density(line)
        rows += points
        # A little apart, so that error bars at one density can be told from each other.
        shift = math.exp(0.008 * width * (position - (len(sparse) - 1) / 2))
        x = [point["density"] * shift for point in points]
        y = [point["accuracy_percent_mean"] for point in points]
        spread = [0.0 if math.isnan(sd := point["accuracy_percent_sd"]) else sd for point in points]
        axes.errorbar(x, y, yerr=spread, label=line.label, elinewidth=0.9, zorder=3, **line.look)
        # Single runs stand beside their mean, where the marker does not hide them; one alone is its mean.
        seeds = line.runs[line.runs.groupby("density")["run"].transform("size") > 1]
        beside = seeds["density"] * shift * math.exp(-0.018 * width)
        axes.scatter(
            beside, seeds["accuracy"] * 100, s=4, color=COLOURS[line.method], alpha=0.7, linewidths=0, zorder=4
        )
    for line in (line for line in lines if line.method not in SPARSE):
        (point,) = _by_density(line)
        rows.append(point)
        axes.axhline(
            point["accuracy_percent_mean"],
            color=COLOURS[line.method],
            linewidth=0.9,
            linestyle=LINES[1 + line.variant % 3],
            label=line.label,
            zorder=2,
        )
    axes.set_ylabel("test accuracy (%)")
    axes.margins(y=0.08)
    return rows


def _by_density(line: Series) -> list[dict[str, Any]]:
    points = []
    for density, group in sorted(line.runs.groupby("density"), reverse=True):
        first = group.iloc[0]
        mean, sd = mean_sd(group["accuracy"], 100)
        where = {"dataset": first["dataset"], "model": first["model"], "series": line.label, "method": line.method}
        measured = {"accuracy_percent_mean": mean, "accuracy_percent_sd": sd, "n": len(group)}
        points.append({**where, "lr": first["lr"], "density": density, **measured})
    return points


def _density_axis(axes: Axes, densities: list[float]) -> float:
    """A log axis from dense on the left to sparse on the right; returns its width in powers of e."""
    axes.set_xlabel("density (kept weights, %)")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = densities or [0.01, 0.1, 1.0]
    margin = max(1.15, (ticks[-1] / ticks[0]) ** 0.06)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.set_xlim(ticks[-1] * margin, ticks[0] / margin)
    return math.log(ticks[-1] / ticks[0] * margin**2)


def _legend(figure: Figure) -> None:
    """One legend above the panels, where it covers nothing, in as many columns as fit."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        entry_inches = 0.6 + 0.064 * max(map(len, entries))
        columns = max(1, min(len(entries), int(figure.get_figwidth() / entry_inches)))
        figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns, handlelength=2.6)


def _footnote(figure: Figure, runs: pd.DataFrame) -> None:
    if diverged := int((runs["status"] != "complete").sum()):
        figure.supxlabel(f"left out: {diverged} diverged run{'s' * (diverged > 1)}", fontsize=7, color="#555555")


def _complete(runs: pd.DataFrame, figure: str) -> pd.DataFrame:
    complete = runs[(runs["status"] == "complete") & runs["accuracy"].notna()]
    if complete.empty:
        raise UserError(f"{figure}: needs a run that did not diverge, but the collected experiments have none.")
    return complete


def curves(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Likelihood loss, accuracy and KL by epoch: the dense methods, and the sparse ones near density 0.1.

    Lines are means over seeds, bands reach from the smallest to the largest.

    Raises:
        UserError: if no finished run is there.
    """
    complete = _complete(runs, "curves")
    panels = _panels(complete)
    rows: list[pd.DataFrame] = []
    quantities = _quantities(history[history["run"].isin(complete["run"])])
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(2.65 * len(quantities), 0.7 + 2.2 * len(panels)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08)
        grid = figure.subplots(len(panels), len(quantities), squeeze=False)
        for line_of_axes, (title, panel) in zip(grid, panels, strict=True):
            for position, line in enumerate(_chosen(panel)):
                mine = history[history["run"].isin(line.runs["run"])]
                for axes, (column, _) in zip(line_of_axes, quantities.items(), strict=True):
                    rows += _draw_curve(axes, line, mine, column, position)
            for axes, (column, heading) in zip(line_of_axes, quantities.items(), strict=True):
                _finish_curve(axes, column, heading)
            line_of_axes[0].set_title(title, loc="left")
        _legend(figure)
        _footnote(figure, runs)
    return figure, pd.concat(rows, ignore_index=True)


def _quantities(history: pd.DataFrame) -> dict[str, str]:
    """The columns to draw, with their axis titles."""
    held_out = history["validation_accuracy"].notna().any()
    accuracy = (
        ("validation_accuracy", "validation accuracy (%)") if held_out else ("train_accuracy", "training accuracy (%)")
    )
    wanted = [("loss", "likelihood loss (nats)"), accuracy, ("kl", "KL to the prior (nats)")]
    return {column: heading for column, heading in wanted if history[column].notna().any()}


def _chosen(panel: pd.DataFrame) -> list[Series]:
    """The settings that are drawn: few enough to read, those nearest to the defaults first."""
    parts = []
    for method in METHODS:
        runs = panel[panel["method"] == method]
        if runs.empty:
            continue
        nearest = min(runs["density"].unique(), key=lambda density: abs(math.log(density / CURVE_DENSITY)))
        groups = settings(runs[runs["density"] == nearest])
        parts += sorted(groups, key=_departures)[:MAX_VARIANTS]
    return _series(pd.concat(parts), over_density=False)


def _departures(group: pd.DataFrame) -> int:
    first = group.iloc[0]
    return sum(first[name] != field.default for name, field in FIELDS.items() if not pd.isna(first[name]))


def _draw_curve(axes: Axes, line: Series, history: pd.DataFrame, column: str, position: int) -> list[pd.DataFrame]:
    values = history.dropna(subset=[column])
    if values.empty:
        return []
    scale = 100 if column.endswith("accuracy") else 1
    summary = (
        (values.set_index("epoch")[column].astype(float) * scale).groupby(level=0).agg(["mean", "min", "max", "count"])
    )
    epochs = summary.index.to_numpy(dtype=float)
    look = line.look
    # Markers of different lines at different epochs, so that lines close together can be told apart.
    every = max(1, len(summary) // 4)
    marks = (position * every // 5 % every, every)
    axes.plot(
        epochs, summary["mean"], label=line.label, markevery=marks, markersize=3.8, linewidth=1.1, zorder=3, **look
    )
    axes.fill_between(epochs, summary["min"], summary["max"], color=look["color"], alpha=0.18, linewidth=0, zorder=2)
    first = line.runs.iloc[0]
    unit = f"{column}_percent" if scale == 100 else column
    where = {"dataset": first["dataset"], "model": first["model"], "series": line.label, "quantity": unit}
    return [pd.DataFrame({**where, **summary.rename(columns={"count": "n"}).reset_index()})]


def _finish_curve(axes: Axes, column: str, heading: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(heading)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not column.endswith("accuracy") and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
        axes.grid(True, which="minor", axis="y", linewidth=0.25)


def write_figure(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write STEM.png (200 dpi), STEM.svg and the numbers in STEM.csv, each atomically and without a date."""
    with matplotlib.rc_context(style()):
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            write_bytes(stem.with_name(f"{stem.name}.{suffix}"), buffer.getvalue())
    write_text(stem.with_name(f"{stem.name}.csv"), data.to_csv(index=False, lineterminator="\n"))


def make_figure(name: str, runs: pd.DataFrame, history: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The registered figure of that name.

    Raises:
        UserError: for an unknown name, or runs that lack what the figure shows.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "reports")
    return FIGURES[name](runs, history)


FIGURES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "figure2_left": figure2_left,
    "curves": curves,
}
