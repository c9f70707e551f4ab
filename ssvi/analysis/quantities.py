"""What is measured and counted, each once: what it is called, its unit, how it is written, what it can be at all.

Tables, figures and the report take what they need of a quantity; what one of them alone says otherwise, such as a unit
that suits a column, is a `dataclasses.replace` there.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ssvi.analysis import ranges

# A name says these itself.
UNDERSTOOD = ("", "nats", "FLOPs")


@dataclass(frozen=True)
class Quantity:
    """A column of numbers, of the runs or of what a run recorded.

    Attributes:
        column: where its numbers are, in `unit` divided by `factor`.
        name: in a sentence.
        unit: what it is shown in.
        factor: makes the unit of the numbers.
        keyed, titled: its `key` and `title`, if not what these are made of otherwise.
        style: how a mean is written (`format_mean_sd`).
        better: 1 where more is better, -1 where less is, 0 where neither.
        counted: whether it is counted, not measured: written without a spread where it is the same in every run.
        share_of: the column of the whole number of things that it is a share of, and so changes by steps of.
        cut_at: the value that an estimate of it is cut at, None where it is not.
    """

    column: str
    name: str
    unit: str = ""
    factor: float = 1.0
    keyed: str = ""
    titled: str = ""
    style: str = ".4f"
    better: int = 0
    counted: bool = False
    share_of: str = ""
    cut_at: float | None = None

    @property
    def key(self) -> str:
        """Its name in files of shown numbers: the column, with the unit where that is percent."""
        return self.keyed or (f"{self.column}_percent" if self.unit == "%" else self.column)

    @property
    def title(self) -> str:
        """On an axis."""
        return self.titled or _with_unit(self.name, self.unit)

    @property
    def heading(self) -> str:
        """Over a table's column: the unit where the name leaves it open."""
        return self.name if self.unit in UNDERSTOOD else _with_unit(self.name, self.unit)

    @property
    def difference(self) -> str:
        """Over a column of its differences: those of percentages are points."""
        return _with_unit(self.name, "points") if self.unit == "%" else self.heading

    @property
    def exact_style(self) -> str:
        """How a difference, a ratio or an end of an interval is written."""
        return ".3g" if self.style == "big" else self.style

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value in its unit; infinite where there is none."""
        low, high = (self.factor * bound for bound in ranges.bounds(self.column))
        return low, high

    def of(self, rows: pd.DataFrame) -> pd.Series:
        """The rows' numbers in its unit; missing ones left out."""
        return pd.to_numeric(rows[self.column], errors="coerce").dropna().astype(float) * self.factor


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


DENSE = "× dense BNN"  # the unit of ratios

ACCURACY = Quantity(
    "accuracy", "accuracy", "%", 100.0, titled="test accuracy (%)", style=".2f", better=1, share_of="test_images"
)
BEST_TEST = Quantity("accuracy_best_test", "best test accuracy", "%", 100.0, style=".2f", share_of="test_images")
NLL = Quantity("nll", "NLL", "nats", better=-1)
ECE = Quantity("ece", "ECE", better=-1)
ECE_MASS = Quantity("ece_mass", "ECE, equal mass", better=-1)
ECE_CLASSWISE = Quantity("ece_classwise", "class-wise ECE", better=-1)
ECE_MARGINAL = Quantity("ece_marginal", "marginal ECE", better=-1, cut_at=0.0)
AURC = Quantity("aurc", "AURC", better=-1)
AURC_SCALED = Quantity("aurc_scaled", "AURC, scaled", better=-1)
BRIER = Quantity("brier", "Brier", better=-1)
NLL_SCALED = Quantity("nll_scaled", "NLL, scaled", "nats", better=-1)
# Of networks without a posterior after temperature scaling, of others as they are.
NLL_FAIR = Quantity("nll_fair", "NLL, points scaled", "nats", better=-1)
ECE_SCALED = Quantity("ece_scaled", "ECE, scaled", better=-1)
TEMPERATURE = Quantity("temperature", "temperature", style=".2f")

# What use is made of a posterior.
PREDICTIVE_ENTROPY = Quantity("predictive_entropy", "predictive entropy", "nats", style=".3f")
EXPECTED_ENTROPY = Quantity("expected_entropy", "expected entropy", "nats", style=".3f")
INFORMATION_SHARE = Quantity("mutual_information_share", "mutual information, share of it", "%", 100.0, style=".3f")
DISAGREEMENT = Quantity("disagreement", "disagreement of samples", "%", 100.0, style=".1f")
LOGIT_SD = Quantity("logit_sd", "sd of logits", style=".3f")

# Under corruptions, by severity (0 is none) or the mean over severities 1 to 5; of prediction sets of nominally 90 %.
_CORRUPTED = {"unit": "%", "factor": 100.0, "style": ".2f", "better": 1, "share_of": "shift_images"}
_COVERED = {"unit": "%", "factor": 100.0, "style": ".1f"}
CLEAN_ACCURACY = Quantity("shift_accuracy_0", "accuracy, clean", **_CORRUPTED)
ACCURACY_1 = Quantity("shift_accuracy_1", "accuracy, severity 1", **_CORRUPTED)
ACCURACY_2 = Quantity("shift_accuracy_2", "accuracy, severity 2", **_CORRUPTED)
ACCURACY_3 = Quantity("shift_accuracy_3", "accuracy, severity 3", **_CORRUPTED)
ACCURACY_4 = Quantity("shift_accuracy_4", "accuracy, severity 4", **_CORRUPTED)
ACCURACY_5 = Quantity("shift_accuracy_5", "accuracy, severity 5", **_CORRUPTED)
SHIFT_IMAGES = Quantity("shift_images", "images under corruptions", style=".0f", counted=True)
SHIFT_ACCURACY = Quantity("shift_accuracy", "accuracy under corruptions", **_CORRUPTED)
CORRUPTION_ERROR = Quantity("corruption_error", "corruption error", "%", 100.0, style=".2f", better=-1)
SHIFT_NLL = Quantity("shift_nll", "NLL under corruptions", "nats", style=".3f", better=-1)
SHIFT_ECE = Quantity("shift_ece", "ECE under corruptions", better=-1)
SHIFT_NLL_SCALED = Quantity("shift_nll_scaled", "NLL under corruptions, scaled", "nats", style=".3f", better=-1)
SHIFT_ECE_SCALED = Quantity("shift_ece_scaled", "ECE under corruptions, scaled", better=-1)
SHIFT_BRIER = Quantity("shift_brier", "Brier under corruptions", better=-1)
CLEAN_COVERAGE = Quantity("shift_lac_coverage_0", "LAC coverage, clean", **_COVERED)
COVERAGE_3 = Quantity("shift_lac_coverage_3", "LAC coverage, severity 3", **_COVERED)
COVERAGE_5 = Quantity("shift_lac_coverage_5", "LAC coverage, severity 5", **_COVERED)

# Of telling the test images from those of another set.
_TOLD = {"unit": "%", "factor": 100.0, "style": ".1f", "better": 1}
AUROC_PROBABILITY = Quantity("auroc_max_probability", "AUROC by max. probability", **_TOLD)
AUROC_ENTROPY = Quantity("auroc_entropy", "AUROC by entropy", **_TOLD)
AUROC_INFORMATION = Quantity("auroc_mutual_information", "AUROC by mutual information", **_TOLD)
AUROC_EXPECTED = Quantity("auroc_expected_entropy", "AUROC by expected entropy", **_TOLD)
AUROC_ENERGY = Quantity("auroc_energy", "AUROC by energy", **_TOLD)
AUPR_IN = Quantity("aupr_in_entropy", "AUPR in", **_TOLD)
AUPR_OUT = Quantity("aupr_out_entropy", "AUPR out", **_TOLD)
FPR95 = Quantity("fpr95_entropy", "FPR95", "%", 100.0, style=".1f", better=-1)
AUROC_ENTROPY_SCALED = Quantity("auroc_entropy_scaled", "AUROC by entropy, scaled", **_TOLD)
OOD_AUROC = Quantity("ood_auroc", "AUROC by entropy, mean over OOD sets", **_TOLD)
OOD_AUROC_SCALED = Quantity("ood_auroc_scaled", "AUROC by entropy, scaled, mean over OOD sets", **_TOLD)
# Of networks without a posterior after temperature scaling, of others as they are.
OOD_AUROC_FAIR = Quantity("ood_auroc_fair", "AUROC by entropy, mean over OOD sets, points scaled", **_TOLD)

# Of predictions that are withheld, or are sets of nominally 90 %.
EAURC = Quantity("eaurc", "E-AURC", better=-1)
AUGRC = Quantity("augrc", "AUGRC", better=-1)
ACCURACY_AT_80 = Quantity("accuracy_at_coverage_80", "accuracy at 80 % coverage", "%", 100.0, style=".2f", better=1)
ACCURACY_AT_90 = Quantity("accuracy_at_coverage_90", "accuracy at 90 % coverage", "%", 100.0, style=".2f", better=1)
ACCURACY_AT_95 = Quantity("accuracy_at_coverage_95", "accuracy at 95 % coverage", "%", 100.0, style=".2f", better=1)
COVERAGE_AT_RISK = Quantity("coverage_at_risk_5", "coverage at 5 % risk", "%", 100.0, style=".1f", better=1)
LAC_COVERAGE = Quantity("lac_coverage_90", "LAC coverage", **_COVERED)
LAC_SIZE = Quantity("lac_size_90", "LAC set size", style=".2f", better=-1)
APS_COVERAGE = Quantity("aps_coverage_90", "APS coverage", **_COVERED)
APS_SIZE = Quantity("aps_size_90", "APS set size", style=".2f", better=-1)

DENSITY = Quantity("density", "density", "%", 100.0)
DENSITY_ACTUAL = Quantity("density_actual", "density, measured", "%", 100.0)
SPARSITY = Quantity("sparsity", "sparsity", "%", 100.0, style=".2f", better=1, counted=True)
COMPLEXITY = Quantity("complexity", "complexity", style="big", better=-1, counted=True)
STORED = Quantity("stored_numbers", "stored numbers", style="big", counted=True)
SIZE = Quantity("stored_bytes", "size, counted", "kB", 1e-3, style=",.1f", counted=True)
FILE = Quantity("file_bytes", "file, measured", "kB", 1e-3, style=",.1f", counted=True)

TRAINING_FLOPS = Quantity(
    *("training_flops", "training FLOPs", "FLOPs"),
    titled="training FLOPs (counted)",
    style="big",
    better=-1,
    counted=True,
)
PARENT_FLOPS = Quantity("parent_flops", "of these, its parents'", "FLOPs", style="big", counted=True)
INFERENCE_FLOPS = Quantity("inference_flops", "inference FLOPs per image", "FLOPs", style="big", counted=True)
SECONDS = Quantity("training_seconds", "training time", "s", titled="training time\n(s, measured)", style=".1f")
STEP = Quantity("step_seconds", "median step", "s")
EVALUATION_SECONDS = Quantity("evaluation_seconds", "evaluation time", "s", style=".1f")
MEMORY = Quantity("peak_memory_bytes", "peak memory", "bytes", style=".0f")

# Columns that are made by dividing by what a dense network takes.
FLOPS_RATIO = Quantity(
    *("training_flops_ratio", "training FLOPs", DENSE),
    titled="training FLOPs / dense\n(counted)",
    style=".3f",
    counted=True,
)
STEP_RATIO = Quantity("step_seconds_ratio", "median step", DENSE, style=".2f")
SECONDS_RATIO = Quantity("training_seconds_ratio", "training time", DENSE, style=".2f")
FLOPS_PAPER = Quantity("training_flops_paper", "training FLOPs, paper's units", "density × 1.14e17", style="exact")

# Of a history, by epoch, and of the metrics by the number of weight samples.
LOSS = Quantity("loss", "likelihood loss", "nats")
KL = Quantity("kl", "KL to the prior", "nats")
TRAIN_ACCURACY = Quantity("train_accuracy", "training accuracy", "%", 100.0)
VALIDATION_NLL = Quantity("validation_nll", "validation NLL", "nats", better=-1)
VALIDATION_ACCURACY = Quantity("validation_accuracy", "validation accuracy", "%", 100.0)
TEST_SECONDS = Quantity("seconds", "time for the test set", "s")

# By column.
QUANTITIES = {one.column: one for one in list(globals().values()) if isinstance(one, Quantity)}
