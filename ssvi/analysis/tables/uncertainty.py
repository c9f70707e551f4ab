"""What the uncertainty suite measured, a row a setting: calibration and posterior, shift, OOD detection, selection."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ssvi.analysis import quantities as q
from ssvi.analysis.collect import Frames
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.tables.format import Table
from ssvi.analysis.tables.results import BOLD_NOTE, SCALED_NOTE, some
from ssvi.analysis.tables.rows import build, reading_order
from ssvi.analysis.uncertain import by_set, of_sets, sets_averaged, with_figures
from ssvi.errors import UserError

UNCERTAINTY_COLUMNS = (
    *(q.ACCURACY, q.NLL, q.ECE, q.ECE_MASS, q.ECE_CLASSWISE, q.BRIER, q.TEMPERATURE, q.NLL_SCALED, q.ECE_SCALED),
    *(q.PREDICTIVE_ENTROPY, q.EXPECTED_ENTROPY, q.INFORMATION_SHARE, q.DISAGREEMENT, q.LOGIT_SD),
)
SHIFT_COLUMNS = (
    *(q.CLEAN_ACCURACY, q.ACCURACY_1, q.ACCURACY_2, q.ACCURACY_3, q.ACCURACY_4, q.ACCURACY_5, q.CORRUPTION_ERROR),
    *(q.SHIFT_NLL, q.SHIFT_NLL_SCALED, q.SHIFT_ECE, q.SHIFT_ECE_SCALED, q.SHIFT_BRIER),
    *(q.CLEAN_COVERAGE, q.COVERAGE_3, q.COVERAGE_5),
)
OOD_COLUMNS = (
    *(q.AUROC_PROBABILITY, q.AUROC_ENTROPY, q.AUROC_INFORMATION, q.AUROC_EXPECTED, q.AUROC_ENERGY),
    q.AUROC_ENTROPY_SCALED,
    *(q.AUPR_IN, q.AUPR_OUT, q.FPR95),
)
SELECTIVE_COLUMNS = (
    *(q.AURC, q.AURC_SCALED, q.EAURC, q.AUGRC),
    *(q.ACCURACY_AT_80, q.ACCURACY_AT_90, q.ACCURACY_AT_95, q.COVERAGE_AT_RISK),
    *(q.LAC_COVERAGE, q.LAC_SIZE, q.APS_COVERAGE, q.APS_SIZE),
)

# Between these a temperature is looked for (`ssvi.core.calibration`, which a test holds it to).
COLDEST, HOTTEST = 0.05, 20.0

CONFORMAL_NOTE = (
    "LAC and APS: prediction sets that are calibrated on the held-out training images to hold the label of 90 % of "
    "images like them; size is their mean number of classes."
)


def uncertainty(frames: Frames) -> Table:
    """Calibration before and after temperature scaling, and what use is made of the posterior.

    Raises:
        UserError: if there are no runs.
    """
    notes = [
        SCALED_NOTE,
        "Expected entropy and mutual information, whose share of the predictive entropy is shown, add up to it; "
        "disagreement: how often two weight samples name different classes; sd of logits: over weight samples, each "
        "sample's centred.",
    ]
    return _table(frames, "uncertainty", UNCERTAINTY_COLUMNS, "Calibration, and the posterior in use.", notes)


def shift(frames: Frames) -> Table:
    """Accuracy, calibration and coverage when the test images are corrupted.

    Raises:
        UserError: if there are no runs.
    """
    notes = [
        "Means over the corruptions; NLL, ECE, Brier and the error over severities 1 to 5 as well. No network was "
        "trained on them.",
        CONFORMAL_NOTE,
    ]
    return _table(frames, "shift", SHIFT_COLUMNS, "Under corruptions of the test images.", notes)


def selective(frames: Frames) -> Table:
    """What is gained by withholding the least certain predictions, and how large sets are that hold the label.

    Raises:
        UserError: if there are no runs.
    """
    notes = [
        "Predictions are withheld by their largest probability, the smallest first. Coverage: the share that is kept; "
        "risk: the error of what is kept. AURC: its mean over coverages; E-AURC: that less what the best order would "
        "have; AUGRC: the same area of the errors kept as a share of all images.",
        CONFORMAL_NOTE,
    ]
    return _table(frames, "selective", SELECTIVE_COLUMNS, "Selective prediction and prediction sets.", notes)


def ood(frames: Frames) -> Table:
    """How well the test images are told from images of other sets, a row a setting and set.

    Raises:
        UserError: if there are no runs, or none was tried on another set.
    """
    some(frames.runs, "ood", "a run")
    groups = by_set(reading_order(with_figures(frames)), of_sets(frames), [column.column for column in OOD_COLUMNS])
    if not groups:
        raise UserError("ood: needs a run that was tried on another set, but the collected experiments have none.")
    notes = [
        "A test image counts as in, one of the other set as out. AUROC by each score; AUPR with in or out as the class "
        "that is looked for, and the share of out that passes where 95 % of in do (FPR95), by entropy. Chance is an "
        "AUROC of 50 %. A single prediction has no mutual information.",
        "Near: of classes or images like the training's; far: of another kind.",
        f"Means over sets, elsewhere, are over those that all these runs were tried on ({sets_averaged(frames)}).",
        BOLD_NOTE,
    ]
    also = ("ood_set", "ood_distance")
    return build(groups, OOD_COLUMNS, "Detection of images of other sets.", notes, mark_best=True, also=also)


def _table(frames: Frames, name: str, columns: Sequence[Quantity], caption: str, notes: Sequence[str]) -> Table:
    some(frames.runs, name, "a run")
    runs = with_figures(frames)
    return build(reading_order(runs), columns, caption, [*notes, *_at_bound(runs), BOLD_NOTE], mark_best=True)


def _at_bound(runs: pd.DataFrame) -> list[str]:
    """A warning where a temperature is as low or high as they are looked for, which held-out images without an error
    ask for: what is scaled says little then."""
    temperatures = pd.to_numeric(runs["temperature"])
    if there := int(((temperatures <= 1.001 * COLDEST) | (temperatures >= 0.999 * HOTTEST)).sum()):
        return [f"WARNING: temperatures at the bound of their range ({there} runs): do not rely on what is scaled."]
    return []
