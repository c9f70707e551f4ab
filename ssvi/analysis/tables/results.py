"""Tables 1 and 2 and the summary: means over seeds of what the runs measured and counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ssvi.analysis import comparing, quantities
from ssvi.analysis.collect import Frames
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.stats import DIFFERENCES
from ssvi.analysis.tables.format import Table
from ssvi.analysis.tables.options import unsaid_options, usual_note
from ssvi.analysis.tables.published import is_papers, published
from ssvi.analysis.tables.rows import build, reading_order
from ssvi.errors import UserError
from ssvi.registry import KINDS

# A median step of a small network is some milliseconds, what it needs some megabytes.
STEP = replace(quantities.STEP, keyed="step_ms", unit="ms", factor=1e3, style=".1f")
MEMORY = replace(quantities.MEMORY, keyed="peak_memory_mb", unit="MB", factor=1e-6)
METRICS = (quantities.ACCURACY, quantities.NLL, quantities.ECE, quantities.ECE_MARGINAL)
SIZE = (quantities.SPARSITY, quantities.COMPLEXITY)
BYTES = (quantities.SIZE, quantities.FILE)
RATIOS = (quantities.FLOPS_RATIO, quantities.STEP_RATIO, quantities.SECONDS_RATIO)
TABLE1_COLUMNS = (quantities.ACCURACY, quantities.ECE, quantities.ECE_MARGINAL, quantities.SPARSITY, *BYTES, *RATIOS)
TABLE2_COLUMNS = (*METRICS, *SIZE, *BYTES, quantities.TRAINING_FLOPS)
BASELINE_COLUMNS = (
    *(quantities.ACCURACY, quantities.NLL, quantities.NLL_SCALED, quantities.ECE, quantities.ECE_SCALED),
    *(quantities.TEMPERATURE, *SIZE, quantities.TRAINING_FLOPS),
)
SUMMARY_COLUMNS = (
    *(*METRICS[1:], quantities.BRIER, *SIZE, quantities.STORED),
    *(quantities.TRAINING_FLOPS, quantities.INFERENCE_FLOPS, quantities.SECONDS, STEP, MEMORY),
)

COUNTED = "FLOPs are counted as if masked weights cost nothing"
COMPLEXITY_NOTE = "Complexity: active weights and dense remainder, a pair (μ, σ) counted once."
BYTES_NOTE = (
    "Size: 4 bytes a stored number, and a bit a masked weight or channel, as counted; the file is what ssvi export "
    "writes of it, but for its card."
)
SCALED_NOTE = (
    "Scaled: probabilities to the power of 1/temperature, normalised again (Guo et al. 2017); the temperature is that "
    "of the least NLL on the held-out training images, of every method for which images were held out."
)
BOLD_NOTE = (
    "Bold: the best of a data set where the 95 % interval of its difference to every other row excludes 0 "
    f"(at least two seeds); nothing is bold inside the noise. {DIFFERENCES}"
)


def table1(frames: Frames) -> Table:
    """The dense BNN against SSVI at each density, a block a data set, with the cost relative to the dense BNN.

    Raises:
        UserError: if the runs hold neither method.
    """
    wanted = some(frames.runs[frames.runs["method"].isin(["vi", "ssvi"])], "table1", "a run of method vi or ssvi")
    groups, said = comparing.relative_cost(reading_order(wanted), wanted)
    groups, papers = _in_papers_units(groups)
    notes = [
        f"{COUNTED}; the median step and the training time, which holds all else too, are measured.",
        BYTES_NOTE,
        *said,
    ]
    return build(groups, [*TABLE1_COLUMNS, *papers], "Dense BNN and SSVI: accuracy, calibration and cost.", notes)


def table2(frames: Frames) -> Table:
    """The sparse Bayesian networks, whatever their method, a row a setting, the best of each data set bold.

    Raises:
        UserError: if no run is of a sparse Bayesian method.
    """
    sparse = [group for group in reading_order(frames.runs) if comparing.is_sparse_bnn(group)]
    if not sparse:
        raise UserError("table2: needs a run of a sparse Bayesian method, but the collected experiments have none.")
    groups, papers = _in_papers_units(sparse)
    columns = [*TABLE2_COLUMNS, *parent_column(groups), *papers]
    notes = [BOLD_NOTE, COMPLEXITY_NOTE, BYTES_NOTE, flops_note(groups)]
    if len({group.iloc[0]["method"] for group in groups}) == 1:
        notes.append("No other sparse Bayesian method is among these runs.")
    return build(groups, columns, "Sparse Bayesian networks.", notes, mark_best=True)


def baselines(frames: Frames) -> Table:
    """Every setting, sparse or dense, Bayesian or not, after temperature scaling too where that can be.

    Raises:
        UserError: if there are no runs.
    """
    groups = reading_order(some(frames.runs, "baselines", "a run"))
    notes = [
        SCALED_NOTE,
        COMPLEXITY_NOTE,
        flops_note(groups),
    ]
    columns = [*BASELINE_COLUMNS, *parent_column(groups)]
    return build(groups, columns, "Honest baselines beside sparse Bayesian networks.", notes)


def flops_note(groups: Sequence[pd.DataFrame]) -> str:
    """The formula of each method's training FLOPs."""
    methods = dict.fromkeys(group.iloc[0]["method"] for group in groups)
    known = [f"{KINDS[method].title} {KINDS[method].flops}" for method in methods]
    return (
        "Training FLOPs of an image, M the multiply-adds of the plain dense network: "
        f"{'; '.join(known)}. A masked weight costs nothing where a density is named; parents are included."
    )


def parent_column(groups: Sequence[pd.DataFrame]) -> list[Quantity]:
    """The column of the parents' share if any setting has parents."""
    return [quantities.PARENT_FLOPS] if any((group["parent_flops"].fillna(0) > 0).any() for group in groups) else []


def summary(frames: Frames) -> Table:
    """Every setting with every metric, one row each.

    Raises:
        UserError: if there are no runs.
    """
    wanted = some(frames.runs, "summary", "a run")
    groups = reading_order(wanted)
    best = [quantities.BEST_TEST] if wanted["accuracy_best_test"].notna().any() else []
    held_out = [quantities.VALIDATION_NLL] if wanted["validation_nll"].notna().any() else []
    notes = [
        usual_note(unsaid_options(groups)),
        f"{COMPLEXITY_NOTE} {COUNTED}; inference is for one image with all its samples; time and memory are measured.",
    ]
    if best:
        notes.append("Best test accuracy is the largest over the epochs: chosen on the test set, so biased upwards.")
    columns = [quantities.ACCURACY, *best, *held_out, *SUMMARY_COLUMNS, *parent_column(groups)]
    return build(groups, columns, "Accuracy, calibration, size and cost.", notes)


def _in_papers_units(groups: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], list[Quantity]]:
    """The settings with their training FLOPs as the paper counts them, where it did, and a column if any has them."""
    found = []
    for group in groups:
        row = group.iloc[0]
        counts = is_papers(row) and row["method"] in ("vi", "ssvi") and len(comparing.complete(group)) > 0
        units = float(row["density"]) * published()["flops_unit"] if counts else math.nan
        found.append(group.assign(training_flops_paper=units))
    any_has = any(group["training_flops_paper"].notna().any() for group in found)
    return found, [quantities.FLOPS_PAPER] if any_has else []


def some(runs: pd.DataFrame, table: str, need: str) -> pd.DataFrame:
    """The runs, if there are any."""
    if runs.empty:
        raise UserError(f"{table}: needs {need}, but the collected experiments have none.")
    return runs
