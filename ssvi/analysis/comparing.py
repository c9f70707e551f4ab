"""Settings compared: their numbers seed by seed, how finely these are measured, and what their differences say.

`ssvi.analysis.stats` is the mathematics of it; here are the runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ssvi.analysis import made, stats
from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.stats import Estimate
from ssvi.registry import POINT

# What the cost of a dense BNN depends on: its runs that agree in these are the yardstick of a sparse one.
COST_OPTIONS = (
    *("dataset", "model", "width", "image_size", "shrink", "training_images", "held_out_classes"),
    *("validation", "augment"),
    *("epochs", "batch_size", "precision", "sampling", "posterior_optimizer"),
)
OF_ITSELF = (
    "Where no dense BNN of the same network, data and epochs was run, FLOPs are relative to the count of the method "
    "itself at density 1."
)


@dataclass(frozen=True)
class Sample:
    """A number a seed, and what is known of it.

    Attributes:
        values: the numbers, indexed by seed.
        step: the smallest by which a measured number changes.
        problem: what is wrong with the runs behind them.
        roundings: of how many measured numbers each value is made.
    """

    values: pd.Series
    step: float = 0.0
    problem: str = ""
    roundings: int = 1

    def minus(self, other: Sample) -> Sample:
        """The differences of the seeds that both have."""
        common = self.values.index.intersection(other.values.index)
        values = self.values[common] - other.values[common]
        problem = join(self.problem, other.problem)
        return Sample(values, max(self.step, other.step), problem, self.roundings + other.roundings)

    def against(self, other: Sample) -> Estimate:
        """The difference of the means."""
        roundings = self.roundings + other.roundings
        return stats.difference(self.values, other.values, max(self.step, other.step), roundings)


def join(*parts: str) -> str:
    """What is not empty, each once."""
    return "; ".join(dict.fromkeys(part for whole in parts for part in whole.split("; ") if part))


def complete(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that count."""
    return runs[runs["status"] == COMPLETE]


def by_seed(runs: pd.DataFrame, quantity: Quantity) -> pd.Series:
    """The finished runs' numbers indexed by seed."""
    return quantity.of(complete(runs).set_index("seed"))


def sample(runs: pd.DataFrame, quantity: Quantity) -> Sample:
    """The finished runs' numbers, and the step of a share of things, such as one test image of an accuracy."""
    things = pd.Series(dtype=float)
    if quantity.share_of:
        things = pd.to_numeric(complete(runs)[quantity.share_of], errors="coerce").dropna()
    return Sample(by_seed(runs, quantity), abs(quantity.factor) / float(things.min()) if len(things) else 0.0)


def compare(first: pd.DataFrame, second: pd.DataFrame, quantity: Quantity) -> Estimate:
    """A quantity of one setting minus that of another, as `stats.difference` judges it."""
    return sample(first, quantity).against(sample(second, quantity))


def best(groups: Sequence[pd.DataFrame], quantity: Quantity) -> int | None:
    """Which setting is better than every other beyond the noise; None if none is, or one has no number.

    A single run leaves the noise unknown, and nothing best.
    """
    upward = replace(quantity, factor=quantity.factor * quantity.better)
    samples = [sample(group, upward) for group in groups]
    if any(one.values.empty for one in samples):
        return None
    first = max(range(len(samples)), key=lambda i: samples[i].values.mean())
    rivals = [one for i, one in enumerate(samples) if i != first]
    return first if all(samples[first].against(rival).above(0) is True for rival in rivals) else None


def is_sparse(group: pd.DataFrame) -> bool:
    """Whether a setting's weights are sparse: measured, or as asked for while nothing is measured."""
    measured = pd.to_numeric(complete(group)["sparsity"], errors="coerce").dropna()
    return bool(measured.mean() > 0 if len(measured) else group.iloc[0]["density"] < 1)


def is_sparse_bnn(group: pd.DataFrame) -> bool:
    """Whether a setting is a sparse Bayesian network, whatever its method is called."""
    return group.iloc[0]["method"] not in POINT and is_sparse(group)


def relative_cost(groups: Sequence[pd.DataFrame], runs: pd.DataFrame) -> tuple[list[pd.DataFrame], list[str]]:
    """The settings with their FLOPs, median step and training time relative to a dense BNN among `runs`, and notes.

    What is measured has a ratio only where all runs of both were computed on one machine. The notes say where that is
    not so, and whether FLOPs are relative to the count of the method itself, for want of a dense BNN.
    """
    found, notes = [], {}
    for group in groups:
        done, dense = complete(group), _dense_reference(runs, group)
        by = dict.fromkeys(("training_flops", "step_seconds", "training_seconds"), math.nan)
        if dense is not None and made.one_machine(pd.concat([done, dense])):
            by = {name: pd.to_numeric(dense[name]).mean() for name in by}
        elif dense is not None:
            by["training_flops"] = dense["training_flops"].mean()
            here, there = (" and ".join(made.machines(part)) for part in (done, dense))
            where = f"{here}, the dense BNN on {there}" if here != there else f"{here}, and so was the dense BNN"
            notes[f"No ratio of measured times for what was computed on other machines: on {where}."] = None
        elif group["training_flops_dense"].notna().any():
            by["training_flops"] = group["training_flops_dense"].mean()
            notes[OF_ITSELF] = None
        found.append(group.assign(**{f"{name}_ratio": pd.to_numeric(group[name]) / by[name] for name in by}))
    return found, list(notes)


def _dense_reference(runs: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame | None:
    """The finished vi runs whose cost a setting's cost can be compared with."""
    same = complete(runs[runs["method"] == "vi"])
    for name in COST_OPTIONS:
        same = same[same[name] == group.iloc[0][name]]
    return same if len(same) else None
