"""What all figures share: one style, one look a method, legends outside, and how a figure is written."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ssvi.analysis import shown
from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.settings import METHOD_NAMES, SETTING, is_missing, option_text, settings
from ssvi.disk import write_bytes, write_text
from ssvi.errors import UserError
from ssvi.registry import CRITERIA, KINDS, SPARSE


class Looks(Mapping[str, str]):
    """A look for every name of a registry: the one chosen for it, or the next spare one that is not taken.

    When all are taken, they come again.
    """

    def __init__(self, chosen: Mapping[str, str], names: Collection[str], spare: Collection[str]) -> None:
        self._chosen, self._names, self._spare = chosen, names, spare

    def _all(self) -> dict[str, str]:
        unused = [look for look in dict.fromkeys(self._spare) if look not in self._chosen.values()]
        following = itertools.cycle(unused or self._spare)
        return {**self._chosen, **{name: next(following) for name in self._names if name not in self._chosen}}

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


# Okabe and Ito's colours, told apart under the common colour blindnesses; the markers do it in grey.
COLOURS = Looks(
    {
        "dense": "#000000",
        "vi": "#0072B2",
        "rigl": "#009E73",
        "ssvi": "#D55E00",
        "vd": "#CC79A7",
        "sbp": "#E69F00",
        "aeb": "#56B4E9",
        "mbnn": "#7A4B1F",
        "static": "#7FCFB5",
        "static_vi": "#F0A878",
        "pruned": "#6BAED6",
        "ensemble": "#555555",
    },
    KINDS,
    ["#999999", "#332288", "#882255", "#44AA99", "#999933"],
)
MARKERS = Looks(
    {
        "dense": "D",
        "vi": "^",
        "rigl": "s",
        "ssvi": "o",
        "vd": "v",
        "sbp": "P",
        "aeb": "X",
        "mbnn": "*",
        "static": "s",
        "static_vi": "o",
        "pruned": "^",
        "ensemble": "D",
    },
    KINDS,
    ["p", "h", "<", ">", "d"],
)
NAMES = ChainMap({"vi": "dense BNN (VI)"}, METHOD_NAMES)
# For lines that are not methods.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("o", "^", "s", "D", "v", "P", "X")
# The removal criteria; the default one looks like SSVI, as which other figures show it.
CRITERION_COLOURS = Looks(
    {
        "abs_mu": "#000000",
        "snr": "#E69F00",
        "e_abs": "#009E73",
        "snr_abs": "#D55E00",
        "e_exp": "#CC79A7",
        "snr_exp": "#56B4E9",
    },
    CRITERIA,
    (*PALETTE, *COLOURS.values()),
)
CRITERION_MARKERS = Looks(
    {"abs_mu": "v", "snr": "D", "e_abs": "s", "snr_abs": "o", "e_exp": "P", "snr_exp": "X"},
    CRITERIA,
    (*SYMBOLS, *MARKERS.values(), "<", ">", "h", "p"),
)
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
FILLINGS = ("full", "full", "left", "bottom")
# Widths in inches of a figure in one column of a paper, and across both.
COLUMN, WIDE = 3.35, 6.75
GREY = "#555555"


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        figure: the picture.
        data: the numbers in it.
        caption: what it shows, one sentence or two.
        notes: what a reader must know to read it right, such as the runs left out.
    """

    figure: Figure
    data: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()


def style() -> dict[str, Any]:
    """The settings that all figures share, for `matplotlib.rc_context`."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8.5,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
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


def panels(runs: pd.DataFrame, shown: Collection[str] | None = None) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each data set and model, with a title if there are several.

    Args:
        runs: some runs.
        shown: the options that a panel shows; given, runs that differ in any other option but the seed stand in
            panels of their own, and are never averaged. A run whose method does not use such an option is in all.
    """
    groups = [(f"{d}, {m}", group) for (d, m), group in runs.groupby(["dataset", "model"], sort=True)]
    if shown is not None:
        groups = [found for title, group in groups for found in _split(title, group, shown)]
    return groups if len(groups) > 1 else [("", group) for _, group in groups]


def _split(title: str, runs: pd.DataFrame, shown: Collection[str]) -> list[tuple[str, pd.DataFrame]]:
    """The panels of one data set and model."""
    kept = {"dataset", "model", "method", *shown}
    # That a dense method has density 1 is no difference.
    options = runs.assign(density=runs["density"].where(runs["method"].isin(SPARSE)))
    others = [name for name in SETTING if name not in kept and options[name].dropna().nunique() > 1]
    if not others:
        return [(title, runs)]
    named = options[options[others].notna().all(axis=1)]
    found = []
    for values in dict.fromkeys(named[others].itertuples(index=False, name=None)):
        inside = pd.Series(True, index=runs.index)
        for name, value in zip(others, values, strict=True):
            inside &= options[name].map(lambda other, value=value: is_missing(other) or other == value)
        words = (f"{name.replace('_', ' ')} {option_text(value)}" for name, value in zip(others, values, strict=True))
        found.append((", ".join([title, *words]), runs[inside]))
    return found or [(title, runs)]


def series(panel: pd.DataFrame, *, along: Collection[str]) -> list[Series]:
    """The panel's settings as lines, a method's variants named by the options in which they differ.

    Args:
        panel: runs of one data set and model.
        along: options whose values are points of one line.
    """
    found = []
    for method in (m for m in reversed(list(KINDS)) if m in set(panel["method"])):
        runs = panel[panel["method"] == method]
        groups = settings(runs.assign(**dict.fromkeys(along, 1.0)))
        differing = _telling(groups, [n for n in SETTING if n not in ("density", *along)])
        for variant, group in enumerate(groups):
            words = [_word(name, group.iloc[0][name]) for name in differing]
            if "density" not in along and method in SPARSE:
                words.insert(0, f"density {percent(group.iloc[0]['density'])}%")
            label = ", ".join([NAMES[method], *words])
            found.append(Series(method, label, runs.loc[group.index], variant))
    return found


def _telling(groups: Sequence[pd.DataFrame], options: Sequence[str]) -> list[str]:
    """The options that tell the settings apart; one whose value those before it decide says nothing new."""
    kept: list[str] = []
    rows = [group.iloc[0] for group in groups]

    def told_apart(names: Sequence[str]) -> int:
        return len({tuple(option_text(row[name]) for name in names) for row in rows})

    for name in options:
        if told_apart([*kept, name]) > told_apart(kept):
            kept.append(name)
    return kept


def _word(name: str, value: Any) -> str:
    """An option in a legend."""
    if name == "parent":
        return "from a trained network" if value else "from scratch"
    if name == "epochs" and value == 0:
        return "not trained on"
    return f"{name.replace('_', ' ')} {option_text(value)}"


def percent(density: float) -> str:
    return f"{100 * density:.6g}"


def row_of_axes(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(1, n, squeeze=False)[0])


def density_axis(axes: Axes, densities: list[float]) -> float:
    """A log axis from dense on the left to sparse on the right; returns its width in powers of e."""
    axes.set_xlabel("density (kept weights, %)")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = densities or [0.01, 0.1, 1.0]
    margin = max(1.15, (ticks[-1] / ticks[0]) ** 0.06)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axes.set_xlim(ticks[-1] * margin, ticks[0] / margin)
    return math.log(ticks[-1] / ticks[0] * margin**2)


# What a stretched accuracy axis is marked at, in percent, as far as it reaches.
ACCURACY_TICKS = (1, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)
FINER_TICKS = (3, 15, 27, 42, 58, 73, 85, 93, 96, 97, 98.5, 99.3)
# An accuracy axis whose errors span more than this factor is logarithmic in the odds.
ERROR_SPAN = 8.0


def accuracy_axis(axes: Axes, shown: Sequence[float], test_images: float, room: float = 0.08) -> None:
    """A y axis of accuracies (%): linear, or logarithmic in the odds (a logit) where the errors span a wide range.

    Accuracies of 99 and 98 % then lie as far apart as 67 and 50 %, and both are seen.

    Args:
        axes: whose y axis it is.
        shown: all the accuracies in percent that it must hold, ends of error bars too.
        test_images: how many images they were measured on; none wrong is drawn as half of one.
        room: left free at both ends, as a fraction.
    """
    axes.set_ylabel("test accuracy (%)")
    least = 50.0 / test_images if test_images > 0 else 0.5
    inside = [min(max(value, least), 100.0 - least) for value in shown if not math.isnan(value)]
    if not inside or (100 - min(inside)) / (100 - max(inside)) < ERROR_SPAN:
        axes.margins(y=room)
        return

    def logit(accuracy: Any) -> Any:
        kept = np.clip(accuracy, least / 10, 100 - least / 10)
        return np.log(kept / (100 - kept))

    def back(odds: Any) -> Any:
        return 100 / (1 + np.exp(-np.asarray(odds, dtype=float)))

    axes.set_yscale("function", functions=(logit, back))
    low, high = logit(min(inside)), logit(max(inside))
    axes.set_ylim(back(low - room * (high - low)), back(high + room * (high - low)))
    bottom, top = axes.get_ylim()
    few = sum(bottom <= tick <= top for tick in ACCURACY_TICKS) < 5
    axes.yaxis.set_major_locator(FixedLocator(ACCURACY_TICKS + FINER_TICKS if few else ACCURACY_TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def scale_text(figure: Figure) -> str:
    """A sentence for the caption if an accuracy axis is stretched, else nothing."""
    stretched = any(axes.get_yscale() == "function" for axes in figure.axes)
    return " The accuracy axis is logarithmic in the odds." if stretched else ""


def legend(figure: Figure, title: str | None = None, only: Collection[str] | None = None) -> None:
    """One legend above the panels, where it covers nothing, in as many columns as fit; of the labels in `only`."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if only is None or label in only:
                entries.setdefault(label, handle)
    if entries:
        inches = [0.62 + 0.06 * _letters(label) for label in entries]
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper center",
            ncols=columns_within(figure.get_figwidth(), inches),
            handlelength=2.6,
            title=title,
            title_fontsize=7.5,
        )


def _letters(label: str) -> int:
    """About how many letters wide a label is drawn; TeX's commands are one letter or none."""
    return len(re.sub(r"\\math\w+|[${}^_]|\\,", "", re.sub(r"\\(?!math)[a-z]+", "x", label)))


def columns_within(width: float, inches: Sequence[float]) -> int:
    """The most columns of a legend whose entries, filled in column by column, fit into the width."""
    for columns in range(len(inches), 1, -1):
        short, long = divmod(len(inches), columns)
        sizes = [short + 1] * long + [short] * (columns - long)
        ends = [sum(sizes[: i + 1]) for i in range(columns)]
        if sum(max(inches[end - size : end]) for end, size in zip(ends, sizes, strict=True)) <= width:
            return columns
    return 1


def footnote(figure: Figure, runs: pd.DataFrame) -> None:
    """Say at the figure's foot how many runs it leaves out, and why."""
    counts = runs.loc[runs["status"] != COMPLETE, "status"].value_counts(sort=False)
    if len(counts):
        words = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        figure.supxlabel(f"runs left out: {words}", fontsize=7, color=GREY)


def complete_runs(runs: pd.DataFrame, figure: str) -> pd.DataFrame:
    complete = runs[(runs["status"] == COMPLETE) & runs["accuracy"].notna()]
    if complete.empty:
        raise UserError(f"{figure}: needs a run that did not diverge, but the collected experiments have none.")
    return complete


def write_figure(drawing: Drawing, stem: Path) -> None:
    """Write STEM.png (200 dpi), STEM.svg, STEM.pdf, the numbers in STEM.csv and the caption in STEM.md."""
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(style()):
        for suffix, metadata in undated.items():
            buffer = io.BytesIO()
            drawing.figure.savefig(buffer, format=suffix, metadata=metadata)
            write_bytes(stem.with_name(f"{stem.name}.{suffix}"), buffer.getvalue())
    write_text(stem.with_name(f"{stem.name}.csv"), shown.to_csv(drawing.data))
    notes = "".join(f"- {shown.to_markdown(note)}\n" for note in drawing.notes)
    caption = shown.to_markdown(drawing.caption)
    write_text(stem.with_name(f"{stem.name}.md"), f"{caption}\n" + (f"\n{notes}" if notes else ""))
