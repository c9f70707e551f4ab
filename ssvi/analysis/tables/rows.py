"""Rows of a table: a setting each, its label, its means over seeds, and which of them are best beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ssvi.analysis import comparing, made, stats
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.settings import (
    HEADINGS,
    METHOD_NAMES,
    caveats,
    option_text,
    setting_columns,
    settings,
    split,
    task,
    without_effect,
)
from ssvi.analysis.tables.format import Table, format_mean_sd
from ssvi.analysis.tables.options import describe, unsaid_options, with_evaluation
from ssvi.analysis.uncertain import has_point
from ssvi.registry import KINDS, POINT
from ssvi.runs.evaluated import POINT_SHARE
from ssvi.runs.options import options_of

# Behind the method of a setting with such a run.
POINT_MARK = "†"
POINT_NOTE = (
    f"{POINT_MARK} The posterior of at least one of these runs is practically a point: mutual information is under "
    f"{100 * POINT_SHARE:g} % of the predictive entropy. Asked of methods that have a posterior, not of ensembles."
)


def reading_order(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The settings of these runs: plain ones first, then those with options, then presets."""
    groups = settings(with_evaluation(runs))
    usual = unsaid_options(groups)

    def key(group: pd.DataFrame) -> tuple[Any, ...]:
        row, words = group.iloc[0], describe(group.iloc[0], usual)
        block = (row["dataset"], row["model"], KINDS.place(row["method"]), -row["density"])
        return (*block, words != "", "preset" in words)

    return sorted(groups, key=key)


def labels(groups: Sequence[pd.DataFrame], usual: Mapping[str, Any]) -> list[dict[str, str]]:
    """What stands before the numbers of each row; a model or options only where they tell rows apart."""
    rows = [group.iloc[0] for group in groups]
    words = [describe(row, usual) for row in rows]
    found = []
    for group, row, options in zip(groups, rows, words, strict=True):
        label = {"data set": str(row["dataset"])}
        if len({r["model"] for r in rows}) > 1:
            label["model"] = str(row["model"])
        mark = f" {POINT_MARK}" if has_point(group) else ""
        label |= {"method": f"{METHOD_NAMES[row['method']]}{mark}", "density": _density(group)}
        found.append(label | ({"options": options} if any(words) else {}))
    return found


def _density(group: pd.DataFrame) -> str:
    """The density asked for; nothing for a method that finds its own."""
    finds = "density" not in options_of(group.iloc[0]["method"]) and comparing.is_sparse(group)
    return "" if finds else option_text(group.iloc[0]["density"])


def build(
    groups: Sequence[pd.DataFrame],
    columns: Sequence[Quantity],
    caption: str,
    notes: Sequence[str],
    *,
    mark_best: bool = False,
    also: Sequence[str] = (),
) -> Table:
    """A table with a row a setting: labels, mean ± standard deviation of each column, number of runs.

    Args:
        groups: the runs of each setting, at least one.
        columns: what is averaged.
        caption: the table's.
        notes: come before those that all such tables have.
        mark_best: set the best of each data set bold, where no other row may be as good.
        also: columns that tell rows apart beside the setting, such as what it was tried on; a run may be in several.
    """
    runs = pd.concat(groups).drop_duplicates("run")
    usual = unsaid_options(groups)
    shown, numbers, several, points = [], [], False, any(map(has_point, groups))
    for group, label in zip(groups, labels(groups, usual), strict=True):
        done, first = comparing.complete(group), group.iloc[0]
        alike = made.comparable(done)
        several |= alike is not done and any(column.column in made.SPENT for column in columns)
        text = {HEADINGS.get(name, name): option_text(first[name]) for name in also}
        idle = without_effect(first)
        number = {name: None if name in idle else first[name] for name in setting_columns(runs)}
        number |= {"options": describe(first, usual)}
        number |= {"point_posterior": has_point(group)} if points else {}
        number |= {name: first[name] for name in also}
        for column in columns:
            values = column.of(alike)
            mean, sd = stats.mean_sd(values)
            text[column.heading] = _cell(column, mean, sd)
            ends = stats.interval(values)
            number |= {f"{column.key}_mean": mean, f"{column.key}_sd": sd}
            number |= {f"{column.key}_low": ends.low, f"{column.key}_high": ends.high}
        shown.append(label | text | {"n": str(len(done))})
        numbers.append(number | {"n": len(done)})
    strong = best_cells(groups, columns, also) if mark_best else frozenset()
    missing = ["No time or memory in rows whose runs were computed on different machines."] if several else []
    notes = (*notes, *([POINT_NOTE] if points else []), *missing, *common_notes(runs))
    return Table(pd.DataFrame(shown), pd.DataFrame(numbers), caption, notes, strong)


def _cell(quantity: Quantity, mean: float, sd: float) -> str:
    """Mean ± standard deviation; the mean alone of what is counted and the same in all."""
    same = quantity.counted and sd <= 1e-9 * abs(mean)
    return format_mean_sd(mean, float("nan") if same else sd, quantity.style)


def best_cells(
    groups: Sequence[pd.DataFrame], columns: Sequence[Quantity], also: Sequence[str] = ()
) -> frozenset[tuple[int, str]]:
    """In each column the best row of each task and model, if its difference to every other is beyond the noise.

    A row without a finished run is no rival, nor one that differs in a column of `also`; one with a single run leaves
    the noise unknown, and nothing bold.
    """
    strong = set()
    rows = [(i, group) for i, group in enumerate(groups) if len(comparing.complete(group))]
    for block in split(rows, lambda row: (*task(row[1]), *row[1].iloc[0][[*also]])).values():
        for column in columns:
            best = comparing.best([group for _, group in block], column) if column.better and len(block) > 1 else None
            strong |= set() if best is None else {(block[best][0], column.heading)}
    return frozenset(strong)


def common_notes(runs: pd.DataFrame) -> list[str]:
    """How numbers were made: spread, samples, devices, what is cut at 0, and the runs left out."""
    done = comparing.complete(runs)
    notes = [
        "Mean ± sample standard deviation over n seeds; of a single seed the number alone. The 95 % t intervals of the "
        "means stand in the CSV file."
    ]
    sampled = done[~done["method"].isin(POINT)]
    evaluations = sampled[["evaluation_samples", "evaluation_bins"]].dropna().drop_duplicates()
    if len(evaluations) == 1:
        samples, bins = evaluations.iloc[0]
        notes.append(
            f"Posterior samples per test image: {samples:.0f} (Bayesian methods); bins of the ECE: {bins:.0f}."
        )
    if (pd.to_numeric(done["ece_marginal"], errors="coerce") == 0).any():
        notes.append(
            "A marginal ECE of exactly 0 means that the debiased estimate was negative and is cut at 0; "
            "on a small test set that says little."
        )
    if len(done) and made.one_machine(done):
        notes.append(f"Measured on: {made.machines(done)[0]}.")
    return [*notes, *caveats(runs)]
