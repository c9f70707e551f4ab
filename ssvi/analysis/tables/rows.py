"""Rows of a table: a setting each, its label, its means over seeds, and which of them are best beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.made import SPENT, comparable, machines, one_machine
from ssvi.analysis.settings import METHOD_NAMES, caveats, option_text, setting_columns, settings
from ssvi.analysis.stats import Estimate, difference, interval, mean_sd
from ssvi.analysis.tables.format import Table, format_mean_sd
from ssvi.analysis.tables.options import describe, usual_options, with_evaluation
from ssvi.registry import KINDS, POINT
from ssvi.spec import options_of


@dataclass(frozen=True)
class Column:
    """A measured column: its key in the CSV, its heading, how it is written, and what it is made of.

    Attributes:
        better: 1 where more is better, -1 where less is, 0 where neither.
        counted: whether it is counted, not measured: written without a spread where it is the same in every run.
    """

    key: str
    heading: str
    style: str
    source: str
    factor: float = 1.0
    better: int = 0
    counted: bool = False


def reading_order(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The settings of these runs: plain ones first, then those with options, then presets."""
    groups = settings(with_evaluation(runs))
    usual = usual_options(groups)

    def key(group: pd.DataFrame) -> tuple[Any, ...]:
        row = group.iloc[0]
        words = describe(row, usual)
        return (row["dataset"], row["model"], _rank(row["method"]), -row["density"], words != "", "preset" in words)

    return sorted(groups, key=key)


def _rank(method: str) -> int:
    return KINDS.place(method) if method in KINDS else len(KINDS)


def labels(groups: Sequence[pd.DataFrame], usual: Mapping[str, Any]) -> list[dict[str, str]]:
    """What stands before the numbers of each row; a model or options only where they tell rows apart."""
    rows = [group.iloc[0] for group in groups]
    words = [describe(row, usual) for row in rows]
    found = []
    for group, row, options in zip(groups, rows, words, strict=True):
        label = {"data set": str(row["dataset"])}
        if len({r["model"] for r in rows}) > 1:
            label["model"] = str(row["model"])
        label |= {"method": METHOD_NAMES.get(row["method"], row["method"]), "density": _density(group)}
        found.append(label | ({"options": options} if any(words) else {}))
    return found


def _density(group: pd.DataFrame) -> str:
    """The density asked for; nothing for a method that finds its own."""
    method, density = group.iloc[0]["method"], group.iloc[0]["density"]
    finds = method in KINDS and "density" not in options_of(method) and is_sparse(group)
    return "" if finds else option_text(density)


def complete(group: pd.DataFrame) -> pd.DataFrame:
    """The runs that count."""
    return group[group["status"] == COMPLETE]


def is_sparse(group: pd.DataFrame) -> bool:
    """Whether a setting's weights are sparse: measured, or as asked for while nothing is measured."""
    measured = pd.to_numeric(complete(group)["sparsity"], errors="coerce").dropna()
    return bool(measured.mean() > 0 if len(measured) else group.iloc[0]["density"] < 1)


def is_sparse_bnn(group: pd.DataFrame) -> bool:
    """Whether a setting is a sparse Bayesian network, whatever its method is called."""
    return group.iloc[0]["method"] not in POINT and is_sparse(group)


def build(
    groups: Sequence[pd.DataFrame],
    columns: Sequence[Column],
    caption: str,
    notes: Sequence[str],
    *,
    mark_best: bool = False,
) -> Table:
    """A table with a row a setting: labels, mean ± standard deviation of each column, number of runs.

    Args:
        groups: the runs of each setting, at least one.
        columns: what is averaged.
        caption: the table's.
        notes: come before those that all such tables have.
        mark_best: set the best of each data set bold, where no other row may be as good.
    """
    runs = pd.concat(groups)
    usual = usual_options(groups)
    shown, numbers, several = [], [], False
    for group, label in zip(groups, labels(groups, usual), strict=True):
        done, first = complete(group), group.iloc[0]
        alike = comparable(done)
        text: dict[str, str] = dict(label)
        number = {name: first[name] for name in setting_columns(runs)} | {"options": describe(first, usual)}
        for column in columns:
            several |= column.source in SPENT and alike is not done
            values = pd.to_numeric(alike[column.source], errors="coerce")
            mean, sd = mean_sd(values, column.factor)
            same = column.counted and sd <= 1e-9 * abs(mean)
            text[column.heading] = format_mean_sd(mean, float("nan") if same else sd, column.style)
            ends = interval(values.dropna() * column.factor)
            number |= {f"{column.key}_mean": mean, f"{column.key}_sd": sd}
            number |= {f"{column.key}_low": ends.low, f"{column.key}_high": ends.high}
        shown.append(text | {"n": str(len(done))})
        numbers.append(number | {"n": len(done)})
    strong = best_cells(groups, columns) if mark_best else frozenset()
    missing = ["No time or memory in rows whose runs were computed on different machines."] if several else []
    notes = (*notes, *missing, *common_notes(runs))
    return Table(pd.DataFrame(shown), pd.DataFrame(numbers), caption, notes, strong)


def by_seed(group: pd.DataFrame, source: str, factor: float = 1.0) -> pd.Series:
    """The finished runs' numbers indexed by seed."""
    done = complete(group)
    return pd.Series(
        pd.to_numeric(done[source], errors="coerce").to_numpy() * factor, index=done["seed"].to_numpy()
    ).dropna()


def resolution(group: pd.DataFrame, source: str, factor: float = 1.0) -> float:
    """The smallest step of a metric: one test image for an accuracy, none known for others."""
    images = pd.to_numeric(complete(group)["test_images"], errors="coerce").dropna()
    return abs(factor) / float(images.min()) if source == "accuracy" and len(images) else 0.0


def compare(first: pd.DataFrame, second: pd.DataFrame, source: str, factor: float = 1.0) -> Estimate:
    """A metric of one setting minus that of another, as `difference` judges it."""
    a, b = (by_seed(group, source, factor) for group in (first, second))
    return difference(a, b, max(resolution(group, source, factor) for group in (first, second)))


def best_cells(groups: Sequence[pd.DataFrame], columns: Sequence[Column]) -> frozenset[tuple[int, str]]:
    """In each column the best row of each data set and model, if its difference to every other is beyond the noise.

    A row without a finished run is no rival; one with a single run leaves the noise unknown, and nothing bold.
    """
    blocks: dict[tuple[str, str], list[int]] = {}
    for position, group in enumerate(groups):
        if len(complete(group)):
            blocks.setdefault((group.iloc[0]["dataset"], group.iloc[0]["model"]), []).append(position)
    strong = set()
    for positions in blocks.values():
        for column in columns:
            best = _best([groups[i] for i in positions], column) if column.better and len(positions) > 1 else None
            if best is not None:
                strong.add((positions[best], column.heading))
    return frozenset(strong)


def _best(groups: Sequence[pd.DataFrame], column: Column) -> int | None:
    values = [by_seed(group, column.source, column.factor) * column.better for group in groups]
    if any(v.empty for v in values):
        return None
    best = max(range(len(values)), key=lambda i: values[i].mean())
    signed = column.factor * column.better
    rivals = [group for i, group in enumerate(groups) if i != best]
    beyond = [compare(groups[best], rival, column.source, signed).above(0) is True for rival in rivals]
    return best if all(beyond) else None


def common_notes(runs: pd.DataFrame) -> list[str]:
    """How numbers were made: spread, samples, devices, what is cut at 0, and the runs left out."""
    done = complete(runs)
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
    if len(done) and one_machine(done):
        notes.append(f"Measured on: {machines(done)[0]}.")
    return [*notes, *caveats(runs)]
