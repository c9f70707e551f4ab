"""From a trained run's folder to its metrics, and back into the folder."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.core.noise import NormalSource
from ssvi.core.prediction import Prediction
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.machine.disk import write_text
from ssvi.methods import Method
from ssvi.registry import KINDS
from ssvi.runs import files, ties
from ssvi.runs.card import check_licence, read_card
from ssvi.runs.evaluated import is_practically_a_point
from ssvi.runs.identity import EVALUATED_ON, other_images
from ssvi.runs.modelcard import to_text
from ssvi.runs.records import is_number, read_record, to_csv, told_by_version
from ssvi.runs.runfolder import check_spec, read_data, read_training
from ssvi.runs.spec import RunSpec
from ssvi.runs.versions import EVALUATION
from ssvi.training.kept import VALIDATION, arrays, nothing, write_arrays
from ssvi.training.measure import (
    BATCH,
    FIGURES,
    calibrated,
    is_finite,
    last,
    measured,
    of_best,
    predictions,
    scaled,
    sizes,
    validated,
)
from ssvi.training.network import build
from ssvi.training.precision import full_float32
from ssvi.training.stored import load_model, predicting_bytes, read_model

# Of the random numbers with which a network is evaluated and predicts.
STREAM = "evaluation"


@dataclass(frozen=True)
class Trained:
    """A trained network, on the device of its images.

    Attributes:
        spec: the run's.
        data: its data set.
        noise: of its weight samples.
    """

    spec: RunSpec
    data: Data
    model: nn.Module
    method: Method
    noise: NormalSource

    @classmethod
    def load(cls, spec: RunSpec, data: Data, folder: Path, device: torch.device, file: str = files.MODEL) -> Trained:
        """What a file of the run folder holds.

        Raises:
            UserError: as `ssvi.training.network.load_model`.
        """
        noise = NormalSource(spec.seed, STREAM, device)
        model, method = build(spec, data.channels, data.image_size, data.n_classes, noise)
        load_model(folder, method, file)
        return cls(spec, data, model.to(device), method, noise)

    def predictions(self, images: Tensor, samples: int) -> Iterator[Prediction]:
        """As `ssvi.training.measure.predictions`."""
        return predictions(self.model, self.method, self.data, images, samples, self.noise)

    def prediction(self, images: Tensor, samples: int, batch: int = BATCH) -> Prediction:
        """What is predicted of images by the very weight samples with which the network is evaluated."""
        source = NormalSource(self.spec.seed, STREAM, self.noise.device)
        return last(predictions(self.model, self.method, self.data, images, samples, source, batch))

    def held_out(self, samples: int) -> Prediction | None:
        """The same of the images held out of the training; None where there are none."""
        return self.prediction(self.data.val_images, samples) if len(self.data.val_labels) else None


def evaluate(
    spec: RunSpec,
    data: Data,
    folder: Path,
    device: torch.device,
    samples: int = 5,
    bins: int = 15,
    licence: str | None = None,
) -> dict[str, Any]:
    """Evaluate a trained run on the test set; writes predictions.npz, a model card, and metrics.json, which it returns.

    A diverged run has null metrics, and its file says why. What its training needed to go on is deleted then.

    Args:
        spec: the run's.
        data: its data set, on `device`.
        folder: the run folder.
        device: where to compute.
        samples: weight samples, for methods that have a posterior.
        bins: of the calibration errors.
        licence: what others may do with the network (default: what was said of it before).

    Raises:
        UserError: if the folder's files are missing, damaged or of another spec.
    """
    check_licence(licence)
    training, trained = open_trained(spec, data, folder, device)
    training.setdefault("inputs", dataclasses.asdict(data.inputs))
    counts = sizes(spec, data, trained.model, trained.method, training.pop("positions"))
    start = time.perf_counter()
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"calibration": None}
    prediction = last(trained.predictions(data.test_images, samples)) if training["status"] == "complete" else None
    held_out = None
    if prediction is not None and is_finite(prediction):
        held_out = trained.held_out(samples)
        figures |= _figures(trained, prediction, held_out, bins)
        if training.get("best_epoch") is not None:
            best = Trained.load(spec, data, folder, device, files.BEST_MODEL)
            figures |= of_best(last(best.predictions(data.test_images, samples)), data.test_labels, bins)
    elif prediction is not None:
        cause = {"cause": "the predictions are not finite", "diverged_epoch": training["epochs_done"]}
        training |= {"status": "diverged", **cause}
    _write_predictions(folder, data, prediction, held_out)
    macs, used = counts.pop("macs"), prediction.samples if prediction is not None else 0
    metrics = {
        **training,
        "evaluation": {"samples": used, "bins": bins, "asked": samples},
        "evaluation_numerics": EVALUATION,
        **data.identity.of(EVALUATED_ON),
        "test_images": len(data.test_labels),
        "licence": _licence(folder) if licence is None else licence,
        **figures,
        **counts,
        "point_posterior": _is_point(trained, figures["mutual_information_share"]),
        "file_bytes": predicting_bytes(read_model(folder)),
        "inference_flops": 2 * macs * (1 if trained.method.predictive.samples_are_parts else max(used, 1)),
        "evaluation_seconds": time.perf_counter() - start,
    }
    metrics = ties.write_tied(folder, files.METRICS, metrics)
    if metrics["status"] == "complete":
        write_text(folder / files.MODEL_CARD, to_text(read_card(folder)))
    files.remove_live(folder)
    return metrics


def _is_point(trained: Trained, share: float | None) -> bool | None:
    """Whether its posterior is practically one; None of a network that has none."""
    return is_practically_a_point(share) if KINDS[trained.spec.method].posterior else None


def _licence(folder: Path) -> str | None:
    """What an evaluation before was told, if its record can be read."""
    try:
        found = read_record(folder / files.METRICS).get("licence")
    except UserError:
        return None
    return found if isinstance(found, str) else None


def _figures(trained: Trained, prediction: Prediction, held_out: Prediction | None, bins: int) -> dict[str, Any]:
    """The figures of the run's network, also after temperature scaling where there are images held out for it."""
    labels, known = trained.data.test_labels, trained.data.val_labels
    figures: dict[str, Any] = measured(prediction, labels, bins)
    if held_out is not None and is_finite(held_out):
        calibration = calibrated(held_out, known)
        figures |= {"calibration": calibration, **validated(held_out, known)}
        figures |= scaled(prediction.probabilities, labels, calibration["temperature"], bins)
    return figures


def _write_predictions(folder: Path, data: Data, prediction: Prediction | None, held_out: Prediction | None) -> None:
    """Write what is predicted of the test images and of those held out; of a diverged training there is nothing."""
    found = nothing(data.n_classes) if prediction is None else arrays(prediction, data.test_labels)
    if held_out is not None:
        found |= arrays(held_out, data.val_labels, VALIDATION)
    write_arrays(folder / files.PREDICTIONS, found)


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
    training, trained = open_trained(spec, data, folder, device)
    rows: list[dict[str, float]] = []
    if training["status"] == "complete":
        wanted = _spread(samples)
        seconds, tick = 0.0, time.perf_counter()
        for prediction in trained.predictions(data.test_images, samples):
            if not is_finite(prediction):
                break
            seconds += time.perf_counter() - tick
            if prediction.samples in wanted:
                figures = measured(prediction, data.test_labels, bins)
                row = {"samples": prediction.samples, **figures, "seconds": seconds, "numerics": EVALUATION}
                rows.append({**row, "bins": bins})
            tick = time.perf_counter()
    tested_on = {files.TESTED_ON: data.identity.test_data}
    text = to_csv([row | tested_on for row in rows], (*files.SAMPLES_COLUMNS, files.TESTED_ON))
    write_text(folder / files.SAMPLES, ties.seal(folder, files.SAMPLES, text))
    return rows


def _spread(largest: int) -> set[int]:
    """Counts from 1 to `largest`, each about 1.4 times the one before."""
    steps = math.ceil(2 * math.log2(largest))
    return {min(largest, round(2 ** (i / 2))) for i in range(steps + 1)} | {5} & set(range(largest + 1))


def open_trained(spec: RunSpec, data: Data, folder: Path, device: torch.device) -> tuple[dict[str, Any], Trained]:
    """A trained run: training.json, and the network.

    Raises:
        UserError: if the folder's files are missing, damaged, of another spec or of other images.
    """
    full_float32()
    check_spec(folder, spec)
    ties.check_ties(folder, files.TRAINING)
    training = read_training(folder)
    if others := other_images(read_data(folder), spec, data.identity):
        raise UserError(
            f"{folder}: was trained on {others}; evaluate it on those, or move the folder away to train on the present "
            "ones."
        )
    trained = Trained.load(spec, data, folder, device)
    places = training["positions"]
    if not all(is_number(places.get(layer)) for layer in trained.method.layers):
        problem = f"{folder / files.TRAINING}: positions are not those of the network in spec.json"
        raise UserError(f"{problem}; {told_by_version(folder)}")
    return training, trained
