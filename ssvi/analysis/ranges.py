"""What a recorded number can be at all: the ranges of the runs' columns, of their histories, updates and samples."""

from __future__ import annotations

import math
import re
from typing import Any

# Sums of rounded numbers may leave a range by their rounding.
ROUNDING = 1e-6
# A label that was given probability 0 costs this many nats (`ssvi.core.metrics.nll`).
MOST_NATS = 708.4
SHARE = (0.0, 1.0)
POSITIVE = (0.0, math.inf)

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "train_accuracy", "validation_accuracy", "test_accuracy"), SHARE),
    **dict.fromkeys(("accuracy_best_test", "mutual_information_share", "beta", "progress", "drop_fraction"), SHARE),
    **dict.fromkeys(("ece", "ece_mass", "ece_classwise", "ece_marginal", "aurc", "iou"), SHARE),
    **dict.fromkeys(("confidence", "risk", "eaurc", "augrc", "disagreement", "corruption_error"), SHARE),
    **dict.fromkeys(("accuracy_at_coverage", "coverage_at_risk", "lac_coverage", "aps_coverage"), SHARE),
    **dict.fromkeys(("ood_auroc", "ood_auroc_fair", "near"), SHARE),
    **dict.fromkeys(("nll", "validation_nll"), (0.0, MOST_NATS)),
    "brier": (0.0, 2.0),
    "spearman": (-1.0, 1.0),
    # networks that are wider than their name says may hold more weights than the plain one
    "sparsity": (-math.inf, 1.0),
    **dict.fromkeys(("predictive_entropy", "expected_entropy", "mutual_information", "temperature"), POSITIVE),
    **dict.fromkeys(("logit_sd", "level", "images", "lac_size", "aps_size"), POSITIVE),
    **dict.fromkeys(("loss", "lr", "density_actual"), POSITIVE),
    **dict.fromkeys(("active_weights", "maskable_weights", "complexity", "stored_numbers"), POSITIVE),
    **dict.fromkeys(("stored_bytes", "file_bytes"), POSITIVE),
    **dict.fromkeys(("training_flops", "training_flops_dense", "inference_flops", "parent_flops"), POSITIVE),
    **dict.fromkeys(("training_flops_ratio", "step_seconds_ratio", "training_seconds_ratio"), POSITIVE),
    **dict.fromkeys(("training_seconds", "parent_seconds", "evaluation_seconds", "seconds"), (0.0, 1e10)),
    **dict.fromkeys(
        ("peak_memory_bytes", "images_per_second", "epochs_done", "steps", "step", "step_seconds"), POSITIVE
    ),
    **dict.fromkeys(("size", "active", "removed", "added", "born", "survivors", "position", "sigma_mean"), POSITIVE),
    **dict.fromkeys(("epoch", "best_epoch", "diverged_epoch", "samples", "test_images"), (1.0, 2.0**53)),
    **dict.fromkeys(
        ("bins", "evaluation_bins", "evaluation_numerics", "numerics", "threads", "host_cpus", "machines"),
        (1.0, math.inf),
    ),
    "evaluation_samples": POSITIVE,  # none of a run that diverged
}
WHOLE = (
    *("epoch", "step", "samples", "position", "size", "epochs_done", "steps"),
    *("best_epoch", "diverged_epoch", "test_images"),
)
# The same measure after something was done to it.
DERIVED = ("_scaled", "_best_checkpoint")
# The same measure under corruptions, and at a level: a severity, or percent of coverage or risk.
LEVELLED = re.compile(r"^shift_|_\d+$")
QUANTILES = ("sigma_q", "snr_q")
# By whatever score.
DETECTION = ("auroc", "aupr_in", "aupr_out", "fpr95")


def inside(column: str, values: Any) -> Any:
    """Whether a column's number, or each of several, is one that can be."""
    low, high = bounds(column)
    whole = values % 1 == 0 if column in WHOLE else True
    return (values >= low - ROUNDING) & (values <= high + ROUNDING) & whole


def bounds(column: str) -> tuple[float, float]:
    """Least and largest value that a column's number can have; infinite where there is none."""
    for ending in DERIVED:
        column = column.removesuffix(ending)
    if column.startswith(QUANTILES):
        return POSITIVE
    return SHARE if column.startswith(DETECTION) else RANGES.get(LEVELLED.sub("", column), (-math.inf, math.inf))


def allowed(column: str) -> str:
    """The same in words."""
    low, high = bounds(column)
    whole = ["whole"] if column in WHOLE else []
    return " and ".join(
        [*whole, *([f">= {low:g}"] if low > -math.inf else []), *([f"<= {high:g}"] if high < math.inf else [])]
    )
