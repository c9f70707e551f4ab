"""Tables 1 and 2 and the summary: means over seeds of what the runs measured and counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ssvi.analysis.collect import COMPLETE, Frames
from ssvi.analysis.made import machines, one_machine
from ssvi.analysis.stats import DIFFERENCES
from ssvi.analysis.tables.format import Table
from ssvi.analysis.tables.options import usual_note, usual_options
from ssvi.analysis.tables.published import is_papers, published
from ssvi.analysis.tables.rows import Column, build, complete, is_sparse_bnn, reading_order
from ssvi.errors import UserError
from ssvi.registry import KINDS

# What the cost of a dense BNN depends on: its runs that agree in these are the yardstick of a sparse one.
COST_OPTIONS = (
    "dataset",
    "model",
    "width",
    "image_size",
    "validation",
    "augment",
    "epochs",
    "batch_size",
    "precision",
    "sampling",
)

ACCURACY = Column("accuracy_percent", "accuracy (%)", ".2f", "accuracy", 100.0, better=1)
BEST_TEST = Column("accuracy_best_test_percent", "best test accuracy (%)", ".2f", "accuracy_best_test", 100.0)
NLL = Column("nll", "NLL", ".4f", "nll", better=-1)
ECE = Column("ece", "ECE", ".4f", "ece", better=-1)
ECE_MARGINAL = Column("ece_marginal", "marginal ECE", ".4f", "ece_marginal", better=-1)
BRIER = Column("brier", "Brier", ".4f", "brier", better=-1)
SPARSITY = Column("sparsity_percent", "sparsity (%)", ".2f", "sparsity", 100.0, better=1, counted=True)
COMPLEXITY = Column("complexity", "complexity", "big", "complexity", better=-1, counted=True)
STORED = Column("stored_numbers", "stored numbers", "big", "stored_numbers", counted=True)
TRAINING_FLOPS = Column("training_flops", "training FLOPs", "big", "training_flops", better=-1, counted=True)
INFERENCE_FLOPS = Column("inference_flops", "inference FLOPs per image", "big", "inference_flops", counted=True)
SECONDS = Column("training_seconds", "training time (s)", ".1f", "training_seconds")
STEP = Column("step_ms", "median step (ms)", ".1f", "step_seconds", 1e3)
MEMORY = Column("peak_memory_mb", "peak memory (MB)", ".0f", "peak_memory_bytes", 1e-6)
FLOPS_RATIO = Column(
    "training_flops_ratio", "training FLOPs (× dense BNN)", ".3f", "training_flops_ratio", counted=True
)
STEP_RATIO = Column("step_seconds_ratio", "median step (× dense BNN)", ".2f", "step_seconds_ratio")
SECONDS_RATIO = Column("training_seconds_ratio", "training time (× dense BNN)", ".2f", "training_seconds_ratio")
PARENT_FLOPS = Column("parent_flops", "of these, its parents'", "big", "parent_flops", counted=True)
NLL_SCALED = Column("nll_scaled", "NLL, scaled", ".4f", "nll_scaled", better=-1)
ECE_SCALED = Column("ece_scaled", "ECE, scaled", ".4f", "ece_scaled", better=-1)
TEMPERATURE = Column("temperature", "temperature", ".2f", "temperature")
PAPER_UNITS = Column(
    "training_flops_paper", "training FLOPs, paper's units (density × 1.14e17)", "exact", "paper_units"
)

SUMMARY_COLUMNS = (
    *(ACCURACY, NLL, ECE, ECE_MARGINAL, BRIER, SPARSITY, COMPLEXITY, STORED),
    *(TRAINING_FLOPS, INFERENCE_FLOPS, SECONDS, STEP, MEMORY),
)
TABLE1_COLUMNS = (ACCURACY, ECE, ECE_MARGINAL, SPARSITY, FLOPS_RATIO, STEP_RATIO, SECONDS_RATIO)
TABLE2_COLUMNS = (ACCURACY, NLL, ECE, ECE_MARGINAL, SPARSITY, COMPLEXITY, TRAINING_FLOPS)

COUNTED = "FLOPs are counted as if masked weights cost nothing"
OF_ITSELF = (
    "Where no dense BNN of the same network, data and epochs was run, FLOPs are relative to the count of the method "
    "itself at density 1."
)
COMPLEXITY_NOTE = "Complexity: active weights and dense remainder, a pair (μ, σ) counted once."
BOLD_NOTE = (
    "Bold: the best of a data set where the 95 % interval of its difference to every other row excludes 0 "
    f"(at least two seeds); nothing is bold inside the noise. {DIFFERENCES}"
)


def table1(frames: Frames) -> Table:
    """The dense BNN against SSVI at each density, a block a data set, with the cost relative to the dense BNN.

    Raises:
        UserError: if the runs hold neither method.
    """
    wanted = _some(frames.runs[frames.runs["method"].isin(["vi", "ssvi"])], "table1", "a run of method vi or ssvi")
    groups, said = relative_cost(reading_order(wanted), wanted)
    groups = [with_paper_units(group) for group in groups]
    notes = [f"{COUNTED}; the median step and the training time, which holds all else too, are measured.", *said]
    columns = [*TABLE1_COLUMNS, *paper_units_column(groups)]
    return build(groups, columns, "Dense BNN and SSVI: accuracy, calibration and cost.", notes)


def table2(frames: Frames) -> Table:
    """The sparse Bayesian networks, whatever their method, a row a setting, the best of each data set bold.

    Raises:
        UserError: if no run is of a sparse Bayesian method.
    """
    sparse = [group for group in reading_order(frames.runs) if is_sparse_bnn(group)]
    if not sparse:
        raise UserError("table2: needs a run of a sparse Bayesian method, but the collected experiments have none.")
    groups = [with_paper_units(group) for group in sparse]
    columns = [*TABLE2_COLUMNS, *parent_column(groups), *paper_units_column(groups)]
    notes = [BOLD_NOTE, COMPLEXITY_NOTE, flops_note(groups)]
    methods = {group.iloc[0]["method"] for group in groups}
    if len(methods) == 1:
        notes.append("No other sparse Bayesian method is among these runs.")
    return build(groups, columns, "Sparse Bayesian networks.", notes, mark_best=True)


def baselines(frames: Frames) -> Table:
    """Every setting, sparse or dense, Bayesian or not, after temperature scaling too where that can be.

    Raises:
        UserError: if there are no runs.
    """
    groups = reading_order(_some(frames.runs, "baselines", "a run"))
    columns = [ACCURACY, NLL, NLL_SCALED, ECE, ECE_SCALED, TEMPERATURE, SPARSITY, COMPLEXITY, TRAINING_FLOPS]
    notes = [
        "Scaled: logits divided by a temperature that the held-out training images choose (Guo et al. 2017); for "
        "networks without a posterior, where images were held out.",
        COMPLEXITY_NOTE,
        flops_note(groups),
    ]
    return build(groups, [*columns, *parent_column(groups)], "Honest baselines beside sparse Bayesian networks.", notes)


def flops_note(groups: Sequence[pd.DataFrame]) -> str:
    """The formula of each method's training FLOPs."""
    methods = dict.fromkeys(group.iloc[0]["method"] for group in groups)
    known = [f"{KINDS[m].title} {KINDS[m].flops}" for m in methods if m in KINDS]
    return (
        "Training FLOPs of an image, M the multiply-adds of the plain dense network: "
        f"{'; '.join(known)}. A masked weight costs nothing where a density is named; parents are included."
    )


def parent_column(groups: Sequence[pd.DataFrame]) -> list[Column]:
    """The column of the parents' share if any setting has parents."""
    return [PARENT_FLOPS] if any((group["parent_flops"].fillna(0) > 0).any() for group in groups) else []


def summary(frames: Frames) -> Table:
    """Every setting with every metric, one row each.

    Raises:
        UserError: if there are no runs.
    """
    wanted = _some(frames.runs, "summary", "a run")
    groups = reading_order(wanted)
    best = [BEST_TEST] if wanted["accuracy_best_test"].notna().any() else []
    notes = [
        usual_note(usual_options(groups)),
        f"{COMPLEXITY_NOTE} {COUNTED}; inference is for one image with all its samples; time and memory are measured.",
    ]
    if best:
        notes.append("Best test accuracy is the largest over the epochs: chosen on the test set, so biased upwards.")
    columns = [ACCURACY, *best, *SUMMARY_COLUMNS[1:], *parent_column(groups)]
    return build(groups, columns, "Accuracy, calibration, size and cost.", notes)


RATIOS = ("step_seconds", "training_seconds")


def relative_cost(groups: Sequence[pd.DataFrame], runs: pd.DataFrame) -> tuple[list[pd.DataFrame], list[str]]:
    """The settings with their FLOPs, median step and training time relative to a dense BNN among `runs`, and notes.

    What is measured has a ratio only where all runs of both were computed on one machine. The notes say where that is
    not so, and whether FLOPs are relative to the count of the method itself, for want of a dense BNN.
    """
    found, notes = [], {}
    for group in groups:
        done, reference = complete(group), _dense_reference(runs, group)
        measured = dict.fromkeys(RATIOS, math.nan)
        counted = math.nan
        if reference is not None:
            counted = reference["training_flops"].mean()
            if one_machine(pd.concat([done, reference])):
                measured = {name: pd.to_numeric(reference[name]).mean() for name in RATIOS}
            else:
                here, there = (" and ".join(machines(part)) for part in (done, reference))
                where = f"{here}, the dense BNN on {there}" if here != there else f"{here}, and so was the dense BNN"
                notes[f"No ratio of measured times for what was computed on other machines: on {where}."] = None
        elif group["training_flops_dense"].notna().any():
            counted = group["training_flops_dense"].mean()
            notes[OF_ITSELF] = None
        ratios = {f"{name}_ratio": pd.to_numeric(group[name]) / by for name, by in measured.items()}
        found.append(group.assign(training_flops_ratio=pd.to_numeric(group["training_flops"]) / counted, **ratios))
    return found, list(notes)


def _dense_reference(runs: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame | None:
    """The finished vi runs whose cost a setting's cost can be compared with."""
    first = group.iloc[0]
    same = (runs["method"] == "vi") & (runs["status"] == COMPLETE)
    for name in COST_OPTIONS:
        same &= runs[name] == first[name]
    return runs[same] if same.any() else None


def with_paper_units(group: pd.DataFrame) -> pd.DataFrame:
    """The setting with `paper_units`: training FLOPs as the paper counts them, where it did."""
    row = group.iloc[0]
    counts = is_papers(row) and row["method"] in ("vi", "ssvi") and len(complete(group)) > 0
    return group.assign(paper_units=float(row["density"]) * published()["flops_unit"] if counts else math.nan)


def paper_units_column(groups: Sequence[pd.DataFrame]) -> list[Column]:
    """The column of the paper's units if any setting has them."""
    return [PAPER_UNITS] if any(group["paper_units"].notna().any() for group in groups) else []


def _some(runs: pd.DataFrame, table: str, need: str) -> pd.DataFrame:
    if runs.empty:
        raise UserError(f"{table}: needs {need}, but the collected experiments have none.")
    return runs
