"""From a trained run to its metrics: posterior samples, averaged probabilities, figures."""

from __future__ import annotations

import functools
import io
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssvi import runs, ties
from ssvi.counting import active_macs, parameter_counts
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.methods import Method
from ssvi.metrics import METRICS, at_temperature, evaluate_all, fit_temperature
from ssvi.network import build, load_model, reference_weights
from ssvi.noise import NormalSource
from ssvi.precision import full_float32
from ssvi.prediction import Prediction, averages
from ssvi.registry import KINDS
from ssvi.spec import RunSpec
from ssvi.versions import EVALUATION

BATCH = 1000
# Metrics that temperature scaling changes; the order of the classes, and so the accuracy, stays.
CALIBRATED = ("nll", "ece", "ece_marginal", "brier")
SCALED = tuple(f"{name}_scaled" for name in CALIBRATED)
UNCERTAINTY = ("predictive_entropy", "mutual_information", "mutual_information_share")
BEST = tuple(f"{name}_best_checkpoint" for name in METRICS)


@torch.inference_mode()
def predictions(
    model: nn.Module, method: Method, data: Data, images: Tensor, samples: int, source: NormalSource
) -> Iterator[Prediction]:
    """Predictions with 1, 2, ... weight samples.

    The averages stream: memory does not grow with the number of samples. A method without a posterior gives one.
    """
    model.eval()

    def each() -> Iterator[Tensor]:
        for _ in method.samples(samples, source):
            parts = images.split(BATCH)
            yield torch.cat([model(data.normalise(part)).double().softmax(1) for part in parts])

    yield from averages(each())


def last(averages: Iterator[Prediction]) -> Prediction:
    """The prediction with all samples."""
    return functools.reduce(lambda _, after: after, averages)


def uncertainty(prediction: Prediction) -> dict[str, float | None]:
    """Predictive entropy and, of at least two samples, mutual information, both averaged over images in nats, and the
    share of the one that is the other: what of the uncertainty the posterior makes."""
    total = float(prediction.entropy.mean())
    alone = prediction.samples < 2
    information = None if alone else float(prediction.mutual_information.mean())
    share = None if information is None or total == 0 else information / total
    return dict(zip(UNCERTAINTY, (total, information, share), strict=True))


def evaluate(
    spec: RunSpec, data: Data, folder: Path, device: torch.device, samples: int = 5, bins: int = 15
) -> dict[str, Any]:
    """Evaluate a trained run on the test set; writes predictions.npz and metrics.json and returns the latter.

    A diverged run has null metrics, and its file says why. What its training needed to go on is deleted then.

    Args:
        spec: the run's.
        data: its data set, on `device`.
        folder: the run folder.
        device: where to compute.
        samples: weight samples, for methods that have a posterior.
        bins: of the calibration errors.

    Raises:
        UserError: if the folder's files are missing, damaged or of another spec.
    """
    training, model, method, noise = _open(spec, data, folder, device)
    counts = _counts(spec, data, model, method, training.pop("positions"))
    method.slim()
    start = time.perf_counter()
    figures: dict[str, Any] = dict.fromkeys([*METRICS, *UNCERTAINTY, "temperature", *SCALED, *BEST])
    probabilities = torch.zeros(0, data.n_classes, dtype=torch.float64)
    used = 0
    if training["status"] == "complete":
        prediction = last(predictions(model, method, data, data.test_images, samples, noise))
        used, probabilities = prediction.samples, prediction.probabilities
        if bool(probabilities.isfinite().all()):
            figures |= evaluate_all(probabilities, data.test_labels, bins) | uncertainty(prediction)
            if not KINDS[spec.method].posterior and len(data.val_labels):
                figures |= _scaled(model, method, data, probabilities, noise, bins)
            if training.get("best_epoch") is not None:
                figures |= _best(spec, data, folder, device, samples, bins)
        else:
            cause = {"cause": "the predictions are not finite", "diverged_epoch": training["epochs_done"]}
            training |= {"status": "diverged", **cause}
    buffer = io.BytesIO()
    labels = data.test_labels[: len(probabilities)]
    np.savez_compressed(buffer, probabilities=probabilities.float().cpu().numpy(), labels=labels.cpu().numpy())
    runs.write_bytes(folder / runs.PREDICTIONS, buffer.getvalue())
    macs = counts.pop("macs")
    metrics = {
        **training,
        "evaluation": {"samples": used, "bins": bins, "asked": samples},
        "evaluation_numerics": EVALUATION,
        "test_images": len(data.test_labels),
        **figures,
        **counts,
        "inference_flops": 2 * macs * (1 if method.samples_are_parts else max(used, 1)),
        "evaluation_seconds": time.perf_counter() - start,
    }
    metrics = ties.write_tied(folder, runs.METRICS, metrics)
    runs.remove_live(folder)
    return metrics


def sample_curve(
    spec: RunSpec, data: Data, folder: Path, device: torch.device, samples: int = 50, bins: int = 15
) -> list[dict[str, float]]:
    """Metrics of the average over 1, 2, ... `samples` weight samples, at counts spread geometrically.

    Writes samples.csv and returns its rows; `seconds` is the time of the predictions alone, from the first
    sample on. The samples are those of `evaluate`, so equal counts give equal metrics. A diverged run has no rows,
    a method without a posterior one.

    Raises:
        UserError: as `evaluate`.
    """
    training, model, method, noise = _open(spec, data, folder, device)
    rows: list[dict[str, float]] = []
    if training["status"] == "complete":
        wanted = _spread(samples)
        seconds, tick = 0.0, time.perf_counter()
        for prediction in predictions(model, method, data, data.test_images, samples, noise):
            if not bool(prediction.probabilities.isfinite().all()):
                break
            seconds += time.perf_counter() - tick
            if prediction.samples in wanted:
                figures = evaluate_all(prediction.probabilities, data.test_labels, bins) | uncertainty(prediction)
                row = {"samples": prediction.samples, **figures, "seconds": seconds, "numerics": EVALUATION}
                rows.append({**row, "bins": bins})
            tick = time.perf_counter()
    text = runs.to_csv(rows, runs.SAMPLES_COLUMNS)
    runs.write_text(folder / runs.SAMPLES, ties.sealed(ties.identity(folder / runs.MODEL), text))
    return rows


def _scaled(
    model: nn.Module, method: Method, data: Data, probabilities: Tensor, noise: NormalSource, bins: int
) -> dict[str, float]:
    """The metrics after temperature scaling, with the temperature that the held-out images choose."""
    known = last(predictions(model, method, data, data.val_images, 1, noise)).probabilities
    temperature = fit_temperature(known, data.val_labels)
    found = evaluate_all(at_temperature(probabilities, temperature), data.test_labels, bins)
    return {"temperature": temperature} | {f"{name}_scaled": found[name] for name in CALIBRATED}


def _best(spec: RunSpec, data: Data, folder: Path, device: torch.device, samples: int, bins: int) -> dict[str, float]:
    """The metrics of the network of the epoch with the best test accuracy: the published code's protocol.

    It is chosen on test data, so it stands in columns of its own.
    """
    noise = NormalSource(spec.seed, "evaluation", device)
    model, method = build(spec, data.channels, data.image_size, data.n_classes, noise)
    load_model(folder, model, method, runs.BEST_MODEL)
    model.to(device)
    prediction = last(predictions(model, method, data, data.test_images, samples, noise))
    if not bool(prediction.probabilities.isfinite().all()):
        return {}
    found = evaluate_all(prediction.probabilities, data.test_labels, bins)
    return {f"{name}_best_checkpoint": value for name, value in found.items()}


def _counts(
    spec: RunSpec, data: Data, model: nn.Module, method: Method, places: dict[str, int]
) -> dict[str, float | int]:
    """Sizes, and multiply-adds of one pass, averaged over the states that the network has.

    What is stored is that of all states together: without them there is no prediction.
    """
    reference = sum(reference_weights(spec, data.channels, data.image_size, data.n_classes).values())
    found = []
    for _ in method.states():
        active = {name: int(layer.mask.sum()) for name, layer in method.layers.items()}
        dead, paired = method.dead_numbers(), method.paired_numbers()
        sizes = parameter_counts(model, method.values_per_weight, reference, dead, paired)
        found.append({**sizes, "macs": active_macs(places, active)})
    whole = {key: sum(x[key] for x in found) for key in ("stored_numbers", "stored_bytes")}
    return {key: statistics.mean(x[key] for x in found) for key in found[0]} | whole


def _spread(largest: int) -> set[int]:
    """Counts from 1 to `largest`, each about 1.4 times the one before."""
    steps = math.ceil(2 * math.log2(largest))
    return {min(largest, round(2 ** (i / 2))) for i in range(steps + 1)} | {5} & set(range(largest + 1))


def _open(
    spec: RunSpec, data: Data, folder: Path, device: torch.device
) -> tuple[dict[str, Any], nn.Module, Method, NormalSource]:
    """A trained run: training.json, network, method and the source of its evaluation noise.

    Raises:
        UserError: if the folder's files are missing, damaged, of another spec or of other images.
    """
    full_float32()
    runs.check_spec(folder, spec)
    ties.check_ties(folder, runs.TRAINING)
    training = runs.read_training(folder)
    trained_on = runs.read_data(folder)
    if trained_on != data.fingerprint:
        raise UserError(
            f"{folder}: was trained on other images of {spec.dataset!r} (fingerprint {trained_on[:12]}, "
            f"now {data.fingerprint[:12]}); evaluate it on those, or move the folder away to train on the present ones."
        )
    noise = NormalSource(spec.seed, "evaluation", device)
    model, method = build(spec, data.channels, data.image_size, data.n_classes, noise)
    load_model(folder, model, method)
    places = training["positions"]
    if not all(runs.is_number(places.get(layer)) for layer in method.layers):
        problem = f"{folder / runs.TRAINING}: positions are not those of the network in spec.json"
        raise UserError(f"{problem}; {runs.told_by_version(folder)}")
    model.to(device)
    return training, model, method, noise
