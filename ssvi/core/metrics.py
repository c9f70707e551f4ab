"""What is measured on predictions: pure functions of probabilities [n, K] and labels [n], float64 throughout.

Everything is computed on the CPU, so that the same predictions give the same figures wherever they were made.
A metric is added by writing its function and entering it in `METRICS` (and in `BINNED` if it takes `bins`), by its name
in `MEASURED` (`ssvi.runs.files`), for all that reads the files it is written to, and in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ssvi.core import checks, selective
from ssvi.core.calibration import TINY, ece, ece_classwise, ece_marginal, ece_mass, one_hot


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Fraction of images whose most probable class is their label; of equal probabilities the first class counts.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = checks.predictions(probabilities, labels)
    return (probabilities.argmax(1) == labels).double().mean().item()


def nll(probabilities: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats.

    Probabilities are clamped at the smallest normal float64 (2.2e-308): a label that was given probability 0
    costs 708.4 nats instead of infinity, so one such image stays visible without hiding all the others.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = checks.predictions(probabilities, labels)
    of_label = probabilities.gather(1, labels[:, None])
    return -of_label.clamp_min(TINY).log().mean().item()


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Brier score in [0, 2]: squared distance to the one-hot label, summed over classes, mean over images.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = checks.predictions(probabilities, labels)
    return (probabilities - one_hot(labels, probabilities.shape[1])).square().sum(1).mean().item()


def aurc(probabilities: Tensor, labels: Tensor) -> float:
    """`ssvi.core.selective.aurc` of the largest probability as confidence.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    return selective.aurc(*selective.judged(probabilities, labels))


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "ece_mass": ece_mass,
    "ece_classwise": ece_classwise,
    "ece_marginal": ece_marginal,
    "aurc": aurc,
}
BINNED = frozenset({"ece", "ece_mass", "ece_classwise", "ece_marginal"})


def evaluate_all(probabilities: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """Every metric of `METRICS` by name.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins of the calibration errors.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    return {
        name: metric(probabilities, labels, bins) if name in BINNED else metric(probabilities, labels)
        for name, metric in METRICS.items()
    }
