"""What is made of kept predictions: rows (part, name, score, level, metric, value), as `uncertainty.csv` has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ssvi.core import conformal, detection, selective
from ssvi.core.calibration import at_temperature, reliability
from ssvi.core.metrics import BINNED, METRICS, evaluate_all
from ssvi.core.prediction import entropy
from ssvi.core.scores import SCORES
from ssvi.runs.evaluated import PLACE
from ssvi.runs.files import place_of
from ssvi.training.kept import Kept

Row = dict[str, Any]

# What is asked of a network that may abstain, and of its sets of classes.
COVERAGES, RISKS, NOMINAL = (0.8, 0.9, 0.95), (0.05,), (0.9, 0.95)
CONFIDENCE = "max_probability"
# Metrics by severity of a corruption, and the sets of classes whose coverage is looked at there.
SHIFTED, NOMINAL_SHIFTED = ("accuracy", "nll", "ece", "brier"), NOMINAL[0]
# Of the predictive entropy, in units of its largest value, log K.
ENTROPY_BINS = 20


def row(part: str, name: str, metric: str, value: float, *, score: str = "", level: float | None = None) -> Row:
    """One figure."""
    return {"part": part, "name": name, "score": score, "level": level, "metric": metric, "value": float(value)}


def calibration(test: Kept, temperature: float | None, bins: int) -> Iterator[Row]:
    """The metrics and the reliability diagram, as they are and, where there is a temperature, scaled."""
    yield from _calibration("raw", test.probabilities, test.labels, bins)
    if temperature is not None:
        yield row("calibration", "scaled", "temperature", temperature)
        yield from _calibration("scaled", at_temperature(test.probabilities, temperature), test.labels, bins)


def _calibration(name: str, probabilities: Tensor, labels: Tensor, bins: int) -> Iterator[Row]:
    yield row("calibration", name, "images", len(labels))
    for metric, value in evaluate_all(probabilities, labels, bins).items():
        if metric != "aurc":  # which `selection` has
            yield row("calibration", name, metric, value)
    for level, found in enumerate(reliability(probabilities, labels, bins)):
        yield row("reliability", name, "images", found.images, level=level)
        if found.confidence is not None and found.accuracy is not None:
            yield row("reliability", name, "confidence", found.confidence, level=level)
            yield row("reliability", name, "accuracy", found.accuracy, level=level)


def selection(test: Kept) -> Iterator[Row]:
    """What is gained where the network may abstain, by its largest probability."""
    # as it was before probabilities were rounded
    confidence, wrong = -test.least_confidence, selective.judged(test.probabilities, test.labels)[1]

    def one(metric: str, value: float, level: float | None = None, part: str = "selective") -> Row:
        return row(part, "test", metric, value, score=CONFIDENCE, level=level)

    yield one("aurc", selective.aurc(confidence, wrong))
    yield one("eaurc", selective.eaurc(confidence, wrong))
    yield one("augrc", selective.augrc(confidence, wrong))
    for coverage in COVERAGES:
        kept = selective.accuracy_at_coverage(confidence, wrong, coverage)
        yield one("accuracy_at_coverage", kept, coverage)
    for risk in RISKS:
        yield one("coverage_at_risk", selective.coverage_at_risk(confidence, wrong, risk), risk)
    for coverage, risk in selective.curve(confidence, wrong):
        yield one("risk", risk, coverage, part="risk")


class Sets:
    """Conformal sets of classes, by what the held-out images say.

    Args:
        held_out: these images.
        nominal: the coverage that is asked for.
    """

    def __init__(self, held_out: Kept, nominal: float) -> None:
        self.thresholds = {
            name: (scores, conformal.threshold(scores(held_out.probabilities), held_out.labels, nominal))
            for name, scores in conformal.RULES.items()
        }

    def of(self, kept: Kept) -> Iterator[tuple[str, float, float]]:
        """Name, coverage and mean size of the sets of these images."""
        for name, (scores, threshold) in self.thresholds.items():
            found = conformal.sets(scores(kept.probabilities), threshold)
            yield name, conformal.coverage(found, kept.labels), conformal.size(found)


def sets_of_classes(test: Kept, held_out: Kept | None) -> Iterator[Row]:
    """Coverage and size of conformal sets on the test images."""
    for nominal in NOMINAL if held_out is not None else ():
        for name, coverage, size in Sets(held_out, nominal).of(test):
            yield row("conformal", name, "coverage", coverage, level=nominal)
            yield row("conformal", name, "size", size, level=nominal)
            yield row("conformal", name, "images", len(test), level=nominal)


def shift(
    found: Mapping[tuple[str, int], Kept], held_out: Kept | None, temperature: float | None, bins: int
) -> Iterator[Row]:
    """Metrics by corruption and severity (0: the same images, clean), and their means over the corruptions."""
    # thresholds of sets are held against predictions that were rounded
    sets = None if held_out is None else Sets(held_out.halved(), NOMINAL_SHIFTED)
    by_severity: dict[int, dict[str, list[float]]] = {}
    for (name, severity), kept in found.items():
        if not severity:
            yield row("shift", "mean", "images", len(kept))
        for metric, value in _shifted(kept, sets, temperature, bins):
            yield row("shift", name, metric, value, level=severity)
            by_severity.setdefault(severity, {}).setdefault(metric, []).append(value)
    for severity, metrics in by_severity.items():
        for metric, values in metrics.items():
            yield row("shift", "mean", metric, sum(values) / len(values), level=severity)
    errors = [1 - value for severity, metrics in by_severity.items() if severity for value in metrics["accuracy"]]
    yield row("shift", "mean", "corruption_error", sum(errors) / len(errors))


def _shifted(kept: Kept, sets: Sets | None, temperature: float | None, bins: int) -> Iterator[tuple[str, float]]:
    """Of corrupted images what they are measured by, with what the held-out images, never corrupted, are good for."""

    def measured(metric: str, probabilities: Tensor) -> float:
        return METRICS[metric](probabilities, kept.labels, *((bins,) if metric in BINNED else ()))

    for metric in SHIFTED:
        yield metric, measured(metric, kept.probabilities)
    if temperature is not None:
        scaled = at_temperature(kept.probabilities, temperature)
        for metric in SHIFTED[1:]:
            yield f"{metric}_scaled", measured(metric, scaled)
    for name, coverage, size in () if sets is None else sets.of(kept):
        yield f"{name}_coverage", coverage
        yield f"{name}_size", size


def outside(test: Kept, temperature: float | None, found: Mapping[str, tuple[bool, Kept]]) -> Iterator[Row]:
    """How well each score tells images from outside (near or not, by name) from the test images."""
    scores = dict(SCORES)
    if bool(test.disagreement.isnan().all()):  # of one sample there is none
        del scores["mutual_information"]
    if temperature is not None:
        scores |= _scaled_scores(temperature)
    known = {score: of(test) for score, of in scores.items()}
    yield from _histogram("test", test)
    for name, (near, kept) in found.items():
        yield row("ood", name, "near", near)
        yield row("ood", name, "images", len(kept))
        for score, of in scores.items():
            foreign = of(kept)
            for metric, measure in detection.DETECTION.items():
                yield row("ood", name, metric, measure(known[score], foreign), score=score)
        yield from _histogram(name, kept)


def places(folders: Mapping[str, str]) -> Iterator[Row]:
    """Of sets from folders of a user's, by name, which folder it was."""
    for name, folder in folders.items():
        yield row("ood", name, PLACE, place_of(folder))


def _scaled_scores(temperature: float) -> dict[str, Callable[[Kept], Tensor]]:
    """Those scores that are of probabilities alone, after temperature scaling, which changes the order of images; of
    all sets alike by the logarithms that are kept of a suite."""

    def scaled(of: Kept) -> Tensor:
        return at_temperature(of.halved().probabilities, temperature)

    return {
        "max_probability_scaled": lambda of: 1 - scaled(of).max(1).values,
        "entropy_scaled": lambda of: entropy(scaled(of)),
    }


def _histogram(name: str, kept: Kept) -> Iterator[Row]:
    most = torch.tensor(kept.probabilities.shape[1], dtype=torch.float64).log()
    bins = (kept.entropy / most * ENTROPY_BINS).long().clamp(0, ENTROPY_BINS - 1)
    for level, images in enumerate(bins.bincount(minlength=ENTROPY_BINS).tolist()):
        yield row("histogram", name, "images", images, score="entropy", level=level)


def posterior(measures: Mapping[str, float | None]) -> Iterator[Row]:
    """What the posterior makes of the uncertainty, as metrics.json has it."""
    for metric, value in measures.items():
        if value is not None:
            yield row("posterior", "test", metric, value)
