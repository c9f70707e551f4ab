"""What is measured of a trained network: predictions, metrics, uncertainty, size. No file is read or written here."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.core.calibration import at_temperature, fit_temperature
from ssvi.core.counting import active_macs, parameter_counts
from ssvi.core.metrics import METRICS, evaluate_all
from ssvi.core.noise import NormalSource
from ssvi.core.prediction import Prediction, averages
from ssvi.core.selective import risk_coverage
from ssvi.data import Data
from ssvi.methods import Method
from ssvi.runs import files
from ssvi.runs.spec import RunSpec
from ssvi.training.network import reference_weights

BATCH = 1000
UNCERTAINTY = (
    *("predictive_entropy", "expected_entropy", "mutual_information", "mutual_information_share"),
    *("disagreement", "logit_sd"),
)
# On the images held out of the training, by which settings are chosen.
VALIDATION = ("validation_accuracy", "validation_nll")
SCALED = ("temperature", *(f"{name}_scaled" for name in files.CALIBRATED))
BEST = tuple(f"{name}_best_checkpoint" for name in METRICS)
# All figures that metrics.json has, null where there is nothing to measure.
FIGURES = (*METRICS, *UNCERTAINTY, *VALIDATION, *SCALED, *BEST)


@torch.inference_mode()
def predictions(
    model: nn.Module,
    method: Method,
    data: Data,
    images: Tensor,
    samples: int,
    source: NormalSource,
    batch: int = BATCH,
) -> Iterator[Prediction]:
    """Predictions with 1, 2, ... weight samples.

    The averages stream: memory does not grow with the number of samples. A method without a posterior gives one.
    """
    model.eval()

    def each() -> Iterator[Tensor]:
        for _ in method.predictive.samples(samples, source):
            parts = images.split(batch)
            yield torch.cat([model(data.normalise(part)) for part in parts])

    yield from averages(each())


def last(averages: Iterator[Prediction]) -> Prediction:
    """The prediction with all samples."""
    return functools.reduce(lambda _, after: after, averages)


def is_finite(prediction: Prediction) -> bool:
    """Whether all probabilities are numbers."""
    return bool(prediction.probabilities.isfinite().all())


def uncertainty(prediction: Prediction) -> dict[str, float | None]:
    """What the images are uncertain of on average (entropies in nats), and, of at least two samples, what of it the
    posterior makes: mutual information, its share of the predictive entropy, how often samples disagree on the class,
    and the spread of their logits."""
    total, expected = float(prediction.entropy.mean()), float(prediction.expected_entropy.mean())
    found: dict[str, float | None] = dict.fromkeys(UNCERTAINTY)
    found |= {"predictive_entropy": total, "expected_entropy": expected}
    if prediction.samples > 1:
        information = float(prediction.mutual_information.mean())
        found |= {
            "mutual_information": information,
            "mutual_information_share": information / total if total else None,
            "disagreement": float(prediction.disagreement.mean()),
            "logit_sd": float(prediction.logit_sd.square().mean().sqrt()),
        }
    return found


def measured(prediction: Prediction, labels: Tensor, bins: int) -> dict[str, float | None]:
    """The metrics of a prediction and its uncertainty."""
    return evaluate_all(prediction.probabilities, labels, bins) | uncertainty(prediction)


def calibrated(held_out: Prediction, known: Tensor) -> dict[str, Any]:
    """What the `held_out` images say of the network's confidence, by their labels."""
    return {
        "images": len(known),
        "samples": held_out.samples,
        "temperature": fit_temperature(held_out.probabilities, known),
        "curve": risk_coverage(held_out.probabilities, known),
    }


def validated(held_out: Prediction, known: Tensor) -> dict[str, float]:
    """Accuracy and NLL on the images held out of the training, of these labels."""
    metrics = (METRICS["accuracy"], METRICS["nll"])
    return {name: metric(held_out.probabilities, known) for name, metric in zip(VALIDATION, metrics, strict=True)}


def scaled(probabilities: Tensor, labels: Tensor, temperature: float, bins: int) -> dict[str, float]:
    """The metrics after temperature scaling."""
    found = evaluate_all(at_temperature(probabilities, temperature), labels, bins)
    return dict(zip(SCALED, (temperature, *(found[name] for name in files.CALIBRATED)), strict=True))


def of_best(prediction: Prediction, labels: Tensor, bins: int) -> dict[str, float]:
    """The metrics of what the network of the best epoch predicts; none where that is not finite."""
    if not is_finite(prediction):
        return {}
    found = evaluate_all(prediction.probabilities, labels, bins)
    return {f"{name}_best_checkpoint": value for name, value in found.items()}


def sizes(
    spec: RunSpec, data: Data, model: nn.Module, method: Method, places: dict[str, int]
) -> dict[str, float | int]:
    """Sizes, and multiply-adds of one pass, averaged over the states that the network has.

    What is stored is that of all states together: without them there is no prediction.
    """
    reference = sum(reference_weights(spec, data.channels, data.image_size, data.n_classes).values())
    found = []
    for _ in method.predictive.states():
        active = {name: int(layer.mask.sum()) for name, layer in method.layers.items()}
        counts = parameter_counts(model, reference, *method.predictive.uncounted())
        found.append({**counts, "macs": active_macs(places, active)})
    whole = {key: sum(x[key] for x in found) for key in ("stored_numbers", "stored_bytes")}
    return {key: statistics.mean(x[key] for x in found) for key in found[0]} | whole
