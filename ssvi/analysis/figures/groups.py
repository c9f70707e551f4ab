"""The runs of each combination of options, and which of them can be compared with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssvi.analysis.figures.panels import of_one
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.settings import SETTING, is_missing, settings
from ssvi.analysis.stats import interval, mean_sd
from ssvi.registry import ADDITIONS, CRITERIA, KINDS


@dataclass(frozen=True)
class Group:
    """The runs of one setting, the options that tell it from the others, and its name in the figure."""

    runs: pd.DataFrame
    options: Mapping[str, Any]
    label: str = ""

    def row(self, quantity: Quantity) -> dict[str, Any]:
        """Mean, sample standard deviation, t interval and n: a row of the figure's data."""
        values = quantity.of(self.runs)
        estimate = interval(values)
        mean, sd = mean_sd(values)
        found = {"mean": mean, "sd": sd, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        return {**of_one(self.runs), **self.options, "quantity": quantity.key, **found}


def having(runs: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """The runs with these values of these columns."""
    for name, value in options.items():
        # a list, because the map of an empty column is none of truths
        runs = runs[[not is_missing(found) and found == value for found in runs[name]]] if len(runs) else runs
    return runs


def groups_by(runs: pd.DataFrame, columns: Sequence[str], label: Callable[..., str] | None = None) -> list[Group]:
    """A group for each combination of values of the columns, in reading order.

    Args:
        runs: some runs.
        columns: options; one that a run's method does not use is None.
        label: makes the group's name of the values.
    """
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(runs[list(columns)].itertuples(index=False, name=None)):
        places.setdefault(tuple(None if is_missing(value) else value for value in row), []).append(place)
    return [
        Group(runs.iloc[places[key]], dict(zip(columns, key, strict=True)), label(*key) if label else "")
        for key in sorted(places, key=lambda key: [_rank(value) for value in key])
    ]


def _rank(value: Any) -> tuple[float, str]:
    """The order of values in figures: none, numbers; words that are known, others by the alphabet."""
    if isinstance(value, str):
        order = [*KINDS, *CRITERIA, *ADDITIONS, "mean", "mean_rho", "constant", "uniform", "erk", "global"]
        return (order.index(value), "") if value in order else (len(order), value)
    return (-1.0, "") if value is None else (float(value), "")


def shared_seeds(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The runs whose seeds at least two combinations of values of the columns have.

    Further replicates of one setting tell how large noise is; in its mean they would make it a mean of other seeds
    than those it is compared with.
    """
    seeds = Counter(seed for group in groups_by(runs, columns) for seed in set(group.runs["seed"]))
    shared = {seed for seed, groups in seeds.items() if groups > 1}
    return runs[runs["seed"].isin(shared)] if shared else runs


def replicates(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the setting that has most seeds."""
    return max(settings(runs), key=len)


def alike(runs: pd.DataFrame, reference: pd.DataFrame, but: Sequence[str]) -> pd.DataFrame:
    """The runs whose options are those of the reference, but for the seed and those named."""
    first = reference.iloc[0]
    same = (name for name in SETTING if name not in but and not is_missing(first[name]))
    return having(runs, **{name: first[name] for name in same})


def usual_n(groups: Sequence[Group]) -> int:
    """How many runs most groups have; the larger number in a tie."""
    counts = Counter(len(group.runs) for group in groups)
    return max(counts, key=lambda n: (counts[n], n))
