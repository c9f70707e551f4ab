"""What a way of learning is worth: optimiser, start of the means, posterior or none, temperature."""

from __future__ import annotations

import pandas as pd

from ssvi.analysis import quantities
from ssvi.analysis.collect import Frames
from ssvi.analysis.settings import METHOD_NAMES
from ssvi.analysis.tables.format import Table
from ssvi.analysis.tables.results import some
from ssvi.analysis.tables.rows import build, reading_order
from ssvi.analysis.ways import WAY, with_ways

COLUMNS = (
    *(quantities.ACCURACY, quantities.NLL, quantities.NLL_SCALED, quantities.ECE),
    *(quantities.INFORMATION_SHARE, quantities.TRAINING_FLOPS),
)
NOTE = (
    "Learned by: SGD or AdamW on means or plain weights (and SGD on rho), or the natural gradient of means and sigma "
    "together (IVON). Start: of means or plain weights. T: weight of the KL, 1 being the ELBO; without a posterior "
    "there is none. Differences with intervals: claims N1 to N4."
)


def learning(frames: Frames) -> Table:
    """Every way of learning of the runs, a row a setting, the densities apart.

    Raises:
        UserError: if no run was learned by a common optimiser.
    """
    runs = frames.runs
    wanted = with_ways(some(runs[runs["optimizer"].notna()], "learning", "a run with option optimizer"))
    groups = sorted(reading_order(wanted), key=_place)
    return build(groups, list(COLUMNS), "What a way of learning is worth.", [NOTE], also=WAY)


def _place(group: pd.DataFrame) -> tuple[object, ...]:
    """By density, the reading order within one."""
    row = group.iloc[0]
    return row["dataset"], row["model"], -float(row["density"]), list(METHOD_NAMES).index(row["method"])
