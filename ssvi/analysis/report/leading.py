"""The sparse BNN that does best among those the uncertainty suite evaluated, and what stands beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ssvi.analysis import comparing, quantities
from ssvi.analysis.collect import Frames
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.settings import METHOD_NAMES, split, task
from ssvi.analysis.stats import Estimate, interval, with_interval
from ssvi.analysis.tables.options import describe, unsaid_options
from ssvi.analysis.tables.rows import reading_order
from ssvi.analysis.uncertain import with_figures

# By which the best is chosen.
CHOSEN_BY = quantities.NLL
SHOWN = (quantities.ACCURACY, quantities.NLL, quantities.ECE, quantities.OOD_AUROC, quantities.AURC)
# What temperature scaling changes of these.
SCALED = {
    quantities.NLL: quantities.NLL_SCALED,
    quantities.ECE: quantities.ECE_SCALED,
    quantities.OOD_AUROC: quantities.OOD_AUROC_SCALED,
    quantities.AURC: quantities.AURC_SCALED,
}


def leading(frames: Frames) -> list[dict[str, Any]]:
    """For each task and network the sparse BNN of the least mean NLL, and beside it, of temperature-scaled
    RigL at the density nearest to its own, the one that has the least; by their names in the template, none where no
    sparse BNN was evaluated so."""
    runs = with_figures(frames)
    runs = comparing.complete(runs[runs["run"].isin(frames.uncertainty["run"])])
    groups = reading_order(runs)
    usual = unsaid_options(groups)
    found = []
    for (dataset, model, *_), block in split(groups, task).items():
        sparse = [group for group in block if comparing.is_sparse_bnn(group)]
        if not sparse:
            continue
        best = _least(sparse, CHOSEN_BY)
        scaled = [g for g in block if g.iloc[0]["method"] == "rigl" and len(quantities.NLL_SCALED.of(g))]
        nearest = min((_distance(group, best) for group in scaled), default=math.inf)
        scaled = [group for group in scaled if _distance(group, best) == nearest]
        rows = [_row(best, usual, len(sparse))]
        if len(quantities.NLL_SCALED.of(best)):
            rows.append(_row(best, usual, 0, SCALED))
        if scaled:
            rows.append(_row(_least(scaled, quantities.NLL_SCALED), usual, len(scaled), SCALED))
        found += [{"dataset": str(dataset), "model": str(model), **row} for row in rows]
    return found


def _distance(group: pd.DataFrame, other: pd.DataFrame) -> float:
    """How far two settings' densities are apart, as ratios are."""
    mine, theirs = (quantities.DENSITY_ACTUAL.of(one).mean() for one in (group, other))
    return round(abs(math.log(mine / theirs)), 2)


def _least(groups: list[pd.DataFrame], quantity: Quantity) -> pd.DataFrame:
    return min(groups, key=lambda group: quantity.of(group).mean())


def _row(
    setting: pd.DataFrame, usual: Mapping[str, Any], of: int, instead: dict[Quantity, Quantity] | None = None
) -> dict[str, Any]:
    """A setting's figures, each with its interval, at their temperature where others stand `instead`; `of` says of how
    many settings it is the best."""
    first = setting.iloc[0]
    estimates = [interval(comparing.by_seed(setting, (instead or {}).get(one, one))) for one in SHOWN]
    name = f"{METHOD_NAMES[first['method']]} at {quantities.SPARSITY.of(setting).mean():.3g} % sparsity"
    words = (name, describe(first, usual), "temperature-scaled" if instead else "")
    return {
        "name": ", ".join(filter(None, words)),
        "chosen": "the same" if not of else f"the best of {of}" if of > 1 else "the only one",
        "n": str(max(one.n for one in estimates)),
        "figures": [_shown(one, quantity) for one, quantity in zip(estimates, SHOWN, strict=True)],
    }


def _shown(estimate: Estimate, quantity: Quantity) -> str:
    low, high = quantity.bounds
    inside = Estimate(estimate.mean, max(low, estimate.low), min(high, estimate.high), estimate.n)
    return with_interval(inside if estimate.low == estimate.low else estimate, quantity.style)
