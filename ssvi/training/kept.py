"""Predictions as they are kept with a run: what each image of a set was predicted to be, and how surely.

    probabilities       [n, classes], averaged over the weight samples; of suites log_probabilities, in float16
    labels              [n]; -1 of an image of no class that the network knows
    least_confidence, entropy, expected_entropy, mutual_information, disagreement, energy, logit_sd
                        [n] each, as `ssvi.core.prediction` has them: the scores of an image are of the probabilities
                        before these were rounded
    source              of a set from outside: which images these are, in words

in float32 but for labels, each behind the name of its set. Every figure of a suite is computed from what is kept, so
whoever has the file can compute it again, and others.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssvi.core.prediction import Prediction
from ssvi.machine.disk import write_bytes

SCALARS = (
    *("least_confidence", "entropy", "expected_entropy", "mutual_information", "disagreement", "energy", "logit_sd"),
)
# In predictions.npz: before the names of what was predicted of the images held out for validation.
VALIDATION = "val_"
# Smallest probability whose logarithm is kept: float16 holds it with three digits.
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Kept:
    """What is kept of the predictions of n images, float64 on the CPU, as it is read again.

    Attributes:
        probabilities: [n, classes].
        labels: int64 [n].
        least_confidence: [n].
        entropy: [n], in nats, as the others.
        expected_entropy: [n].
        mutual_information: [n].
        disagreement: [n], NaN of one weight sample.
        energy: [n].
        logit_sd: [n], NaN of one weight sample.
    """

    probabilities: Tensor
    labels: Tensor
    least_confidence: Tensor
    entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    disagreement: Tensor
    energy: Tensor
    logit_sd: Tensor

    def halved(self) -> Kept:
        """The same with probabilities as suites have them, rounded: for what is to be held against those."""
        return dataclasses.replace(self, probabilities=_from_logarithms(_logarithms(self.probabilities)))

    def __len__(self) -> int:
        return len(self.labels)


def arrays(prediction: Prediction, labels: Tensor, prefix: str = "", *, half: bool = False) -> dict[str, np.ndarray]:
    """What is kept of a prediction, by name.

    Args:
        prediction: of n images.
        labels: [n].
        prefix: of the names.
        half: whether logarithms of the probabilities are kept, in float16.
    """
    scalars = {name: getattr(prediction, name).float() for name in SCALARS}
    probabilities = prediction.probabilities
    first = {"log_probabilities": _logarithms(probabilities)} if half else {"probabilities": probabilities.float()}
    tensors = {**first, "labels": labels, **scalars}
    return {prefix + name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def _logarithms(probabilities: Tensor) -> Tensor:
    """Rounded, but so that the most probable class stays the only one."""
    found = probabilities.clamp_min(TINY).log().half()
    rows, top = torch.arange(len(found)), probabilities.argmax(1).cpu()
    rounded = found.cpu().numpy()
    largest = rounded.max(1, initial=-np.inf)
    alone = (rounded == largest[:, None]).sum(1) == 1
    rounded[rows, top] = np.where(alone, largest, np.nextafter(largest, np.float16(np.inf)))
    return torch.from_numpy(rounded)


def _from_logarithms(logarithms: Tensor) -> Tensor:
    return logarithms.double().softmax(1)


def nothing(classes: int) -> dict[str, np.ndarray]:
    """What is kept where nothing was predicted."""
    none = np.zeros(0, dtype=np.float32)
    return {
        "probabilities": np.zeros((0, classes), dtype=np.float32),
        "labels": np.zeros(0, dtype=np.int64),
        **dict.fromkeys(SCALARS, none),
    }


def kept(found: Mapping[str, np.ndarray], prefix: str = "") -> Kept:
    """What `arrays` made, as it was kept.

    Raises:
        KeyError: if something is not there.
    """

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(found[prefix + name]).double()

    if f"{prefix}log_probabilities" in found:
        probabilities = _from_logarithms(tensor("log_probabilities"))
    else:
        probabilities = tensor("probabilities")
    scalars = {name: tensor(name) for name in SCALARS}
    return Kept(probabilities=probabilities, labels=torch.from_numpy(found[f"{prefix}labels"]), **scalars)


def write_arrays(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Write arrays into one compressed file.

    Raises:
        UserError: if it cannot be written there.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
