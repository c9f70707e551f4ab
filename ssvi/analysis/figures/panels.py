"""What all figures share: their runs, a panel a data set and model, one frame around the panels, how it is written."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis import shown
from ssvi.analysis.collect import COMPLETE, Frames
from ssvi.analysis.figures.style import COLUMN, GREY, WIDE, rc, words
from ssvi.analysis.settings import SETTING, caveats, is_missing, without_effect
from ssvi.errors import UserError
from ssvi.machine.disk import write_bytes, write_text
from ssvi.registry import SPARSE
from ssvi.runs.options import NEEDS

# What is drawn, as rows of the figure's data; `n` is how many runs a mean is of, `quantity` what was measured.
Rows = list[dict[str, Any]]


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


@dataclass(frozen=True)
class Panel:
    """Runs that are drawn together, and what tells them from those of the other panels; nothing if there are none."""

    title: str
    runs: pd.DataFrame


AnyPanel = TypeVar("AnyPanel", bound=Panel)
Thing = TypeVar("Thing")


def finished(frames: Frames, figure: str) -> pd.DataFrame:
    """The runs that can be drawn.

    Raises:
        UserError: if there are none, with what became of those there are.
    """
    complete = (frames.runs["status"] == COMPLETE) & frames.runs["accuracy"].notna()
    if frames.runs.empty or complete.any():
        return needed(frames.runs[complete], figure, "a finished run")
    counts = ", ".join(f"{n} {status}" for status, n in frames.runs["status"].value_counts().items())
    cause = next((f", the first because {c}" for c in frames.runs["cause"] if not is_missing(c)), "").rstrip(".")
    raise UserError(f"{figure}: needs a finished run, but of the experiments' runs are {counts}{cause}.")


def needed(runs: pd.DataFrame, figure: str, what: str) -> pd.DataFrame:
    """These runs.

    Raises:
        UserError: if there are none, with what the figure needs.
    """
    if runs.empty:
        raise UserError(f"{figure}: needs {what}, but the experiments have none.")
    return runs


def using(frames: Frames, figure: str, option: str) -> pd.DataFrame:
    """The finished runs whose method uses the option, but for those on which it has no effect."""
    complete = finished(frames, figure)
    complete = complete[complete[option].notna()]
    if option in NEEDS:
        complete = complete[[option not in without_effect(row) for row in complete.to_dict("records")]]
    return needed(complete, figure, f"a finished run whose method uses {option}")


def split(runs: pd.DataFrame, along: Collection[str] | None = None) -> list[Panel]:
    """A panel for the runs of each data set and model, with a title if there are several.

    Args:
        runs: some runs.
        along: the options that a panel shows; given, runs that differ in any other option but the seed stand in
            panels of their own, and are never averaged. A run whose method does not use such an option is in all.
    """
    found = [Panel(f"{d}, {m}", group) for (d, m), group in runs.groupby(["dataset", "model"], sort=True)]
    if along is not None:
        found = [part for panel in found for part in _split(panel, along)]
    return found if len(found) > 1 else [Panel("", panel.runs) for panel in found]


def _split(panel: Panel, along: Collection[str]) -> list[Panel]:
    """The panels of one data set and model."""
    runs = panel.runs
    kept = {"dataset", "model", "method", *along}
    # That a dense method has density 1 is no difference.
    options = runs.assign(density=runs["density"].where(runs["method"].isin(SPARSE)))
    others = [name for name in SETTING if name not in kept and options[name].dropna().nunique() > 1]
    if not others:
        return [panel]
    named = options[options[others].notna().all(axis=1)]
    first: dict[tuple[Any, ...], int] = {}
    for place, values in enumerate(named[others].itertuples(index=False, name=None)):
        first.setdefault(values, place)
    found = []
    for values, place in first.items():
        inside = pd.Series(True, index=runs.index)
        for name, value in zip(others, values, strict=True):
            inside &= options[name].map(lambda other, value=value: is_missing(other) or other == value)
        idle = without_effect(named.iloc[place])
        said = [words(name, value) for name, value in zip(others, values, strict=True) if name not in idle]
        found.append(Panel(", ".join([panel.title, *said]), runs[inside]))
    return found or [panel]


def draw(
    frames: Frames,
    panels: Sequence[AnyPanel],
    draw_panel: Callable[[list[Axes], AnyPanel], Rows],
    caption: str,
    *,
    size: tuple[float, float],
    axes: int = 1,
    upright: bool = False,
    title: str | None = "left",
    finish: Callable[[np.ndarray, Rows], None] = lambda grid, rows: None,
    notes: Callable[[Rows], Sequence[str]] = lambda rows: (),
    key: Mapping[str, Any] | None = None,
    pads: Mapping[str, float] | None = None,
    **grid_of: Any,
) -> Drawing:
    """A figure of panels below each other, with one legend and what must be said of its runs.

    Args:
        frames: what the figure is made of.
        panels: what is drawn, by row.
        draw_panel: draws a panel on its axes, from left to right, and says which numbers it has drawn.
        caption: what is shown; `{n}` stands for how many runs the means are of.
        size: width and height in inches.
        axes: how many a panel has.
        upright: panels stand beside each other, and their axes from top to bottom.
        title: where a panel's title stands at its first axes; None leaves it to `draw_panel`.
        finish: what is done once all panels are drawn, with all axes (rows, columns) and rows of data.
        notes: what the drawn numbers need said before the caveats of the runs.
        key: arguments of `legend`.
        pads: arguments of the layout engine.
        **grid_of: arguments of `Figure.subplots`.
    """
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(**pads or {})
    shape = (axes, len(panels)) if upright else (len(panels), axes)
    grid = figure.subplots(*shape, squeeze=False, **grid_of)
    rows: Rows = []
    for line, panel in zip(grid.T if upright else grid, panels, strict=True):
        if title is not None:
            line[0].set_title(panel.title, loc=title)
        rows += draw_panel(list(line), panel)
    finish(grid, rows)
    legend(figure, **key or {})
    footnote(figure, frames.runs)
    stretched = any(one.get_yscale() == "function" for one in grid.flat)
    said = caption.replace("{n}", n_text(rows)) + " The accuracy axis is logarithmic in the odds." * stretched
    return Drawing(figure, pd.DataFrame(rows), said, (*notes(rows), *caveats(frames.runs)))


def beside(panels: Sequence[Panel], height: float, alone: float = COLUMN) -> dict[str, Any]:
    """Arguments of `draw` for panels of one axes beside each other, `alone` inches wide where there is one."""
    width = alone if len(panels) == 1 else WIDE / 2 * len(panels)
    return {"size": (width, height), "upright": True, "title": "center"}


def each(
    things: Sequence[Thing], draw_one: Callable[[Axes, AnyPanel, Thing], Rows]
) -> Callable[[list[Axes], AnyPanel], Rows]:
    """Draws a panel of as many axes as there are things, one on each."""

    def draw_panel(line: list[Axes], panel: AnyPanel) -> Rows:
        return [row for axes, thing in zip(line, things, strict=True) for row in draw_one(axes, panel, thing)]

    return draw_panel


def n_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many runs the means of these rows are made of, as a caption says it."""
    means = (int(row["n"]) for row in rows if not str(row.get("quantity")).startswith("noise_floor"))
    counts = sorted({n for n in means if n}) or [0]
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def of_one(runs: pd.DataFrame, *options: str) -> dict[str, Any]:
    """The data set and model of runs of one setting, and these options: what a row of the data begins with."""
    return {name: runs[name].iloc[0] for name in ("dataset", "model", *options)}


def rows_of(runs: pd.DataFrame, numbers: pd.DataFrame, *options: str, **more: Any) -> Rows:
    """Numbers of one setting's runs as rows of the data, which begin with these options and what more is said."""
    return [{**of_one(runs, *options), **more, **row} for row in numbers.to_dict("records")]


def legend(
    figure: Figure, title: str | None = None, only: Collection[str] | None = None, columns: int | None = None
) -> None:
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
            ncols=columns or columns_within(figure.get_figwidth(), inches),
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
        by_status = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        figure.supxlabel(f"runs left out: {by_status}", fontsize=7, color=GREY)


def write_figure(drawing: Drawing, stem: Path) -> None:
    """Write STEM.png (200 dpi), STEM.svg, STEM.pdf, the numbers in STEM.csv and the caption in STEM.md."""
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(rc()):
        for suffix, metadata in undated.items():
            buffer = io.BytesIO()
            drawing.figure.savefig(buffer, format=suffix, metadata=metadata)
            write_bytes(stem.with_name(f"{stem.name}.{suffix}"), buffer.getvalue())
    write_text(stem.with_name(f"{stem.name}.csv"), shown.to_csv(drawing.data))
    notes = "".join(f"- {shown.to_markdown(note)}\n" for note in drawing.notes)
    caption = shown.to_markdown(drawing.caption)
    write_text(stem.with_name(f"{stem.name}.md"), f"{caption}\n" + (f"\n{notes}" if notes else ""))
