"""From a trained run to its metrics: posterior samples, averaged probabilities, figures."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssvi import runs
from ssvi.counting import active_macs, parameter_counts
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.methods import Method
from ssvi.metrics import METRICS, evaluate_all
from ssvi.network import build, load_model
from ssvi.noise import generator
from ssvi.spec import RunSpec

BATCH = 1000


@torch.inference_mode()
def predict(
    model: nn.Module, method: Method, data: Data, images: Tensor, samples: int, source: torch.Generator
) -> tuple[Tensor, int]:
    """Class probabilities [n, classes] in float64, averaged over weight samples, and how many there were.

    The average streams: memory does not grow with the number of samples.
    """
    model.eval()
    total, count = torch.zeros(len(images), data.n_classes, dtype=torch.float64, device=images.device), 0
    for _ in method.samples(samples, source):
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            total[part] += model(data.normalise(images[part])).double().softmax(1)
        count += 1
    return total / count, count


def evaluate(
    spec: RunSpec, data: Data, folder: Path, device: torch.device, samples: int = 5, bins: int = 15
) -> dict[str, Any]:
    """Evaluate a trained run on the test set; writes predictions.npz and metrics.json and returns the latter.

    A diverged run has null metrics, and its file says why.

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
    runs.check_spec(folder, spec)
    training = runs.read_record(folder / runs.TRAINING, "status", "positions")
    trained_on = runs.read_record(folder / runs.SPEC, "provenance")["provenance"]["data"]
    if trained_on != data.fingerprint:
        raise UserError(
            f"{folder}: was trained on other images of {spec.dataset!r} (fingerprint {trained_on[:12]}, "
            f"now {data.fingerprint[:12]}); delete the folder to train it anew."
        )
    start = time.perf_counter()
    noise = generator(spec.seed, "evaluation", device)
    model, method = build(spec, data.channels, data.image_size, data.n_classes, noise)
    load_model(folder, model)
    model.to(device)
    figures: dict[str, Any] = dict.fromkeys(METRICS)
    probabilities = torch.zeros(0, data.n_classes, dtype=torch.float64)
    used = 0
    if training["status"] == "complete":
        probabilities, used = predict(model, method, data, data.test_images, samples, noise)
        if bool(probabilities.isfinite().all()):
            figures = evaluate_all(probabilities, data.test_labels, bins)
        else:
            last = {"cause": "the predictions are not finite", "diverged_epoch": training["epochs_done"]}
            training |= {"status": "diverged", **last}
    buffer = io.BytesIO()
    labels = data.test_labels[: len(probabilities)]
    np.savez_compressed(buffer, probabilities=probabilities.float().cpu().numpy(), labels=labels.cpu().numpy())
    runs.write_bytes(folder / runs.PREDICTIONS, buffer.getvalue())
    places = training.pop("positions")
    active = {name: int(layer.mask.sum()) for name, layer in method.layers.items()}
    metrics = {
        **training,
        "evaluation": {"samples": used, "bins": bins},
        "test_images": len(data.test_labels),
        **figures,
        **parameter_counts(model, method.values_per_weight),
        "inference_flops": 2 * active_macs(places, active) * max(used, 1),
        "evaluation_seconds": time.perf_counter() - start,
    }
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics
