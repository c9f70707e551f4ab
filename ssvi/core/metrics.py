"""What is measured on predictions: pure functions of probabilities [n, K] and labels [n], float64 throughout.

Everything is computed on the CPU, so that the same predictions give the same figures wherever they were made.
A metric is added by writing its function and entering it in `METRICS` (and in `BINNED` if it takes `bins`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROW_SUM_TOLERANCE = 1e-4
TINY = torch.finfo(torch.float64).tiny


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Fraction of images whose most probable class is their label; of equal probabilities the first class counts.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = _checked(probabilities, labels)
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
    probabilities, labels = _checked(probabilities, labels)
    of_label = probabilities.gather(1, labels[:, None])
    return -of_label.clamp_min(torch.finfo(torch.float64).tiny).log().mean().item()


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Brier score in [0, 2]: squared distance to the one-hot label, summed over classes, mean over images.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = _checked(probabilities, labels)
    return (probabilities - _one_hot(labels, probabilities.shape[1])).square().sum(1).mean().item()


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the predicted class, equal-width bins (Guo et al. 2017, eq. 3).

    sum_b n_b/n |accuracy of bin b - mean confidence of bin b|. A bin is (i/bins, (i+1)/bins], as there.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    probabilities, labels = _checked(probabilities, labels, bins)
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    # the most probable class has a probability above 0, so none is below the first bin
    index = torch.bucketize(confidence, edges) - 1
    gap = (predicted == labels).double() - confidence
    return torch.zeros(bins, dtype=torch.float64).scatter_add_(0, index, gap).abs().sum().item() / len(labels)


def ece_marginal(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Class-wise L2 calibration error, debiased, equal-mass bins (Kumar et al. 2019, section 4).

    The same number as `calibration.get_calibration_error` of uncertainty-calibration 0.1.4 with its defaults: for
    every class the bins hold equally many images (as far as ties allow), a bin's squared gap is reduced by the
    variance of its mean label, bins of a single image count as 0; negative sums are cut at 0, and classes are
    averaged before the root. Like there, if every class takes fewer than n/4 distinct probabilities, each distinct
    probability is a bin and `bins` is not used.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins per class.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    probabilities, labels = _checked(probabilities, labels, bins)
    n, n_classes = probabilities.shape
    by_class = probabilities.T.contiguous()
    edges = _discrete_edges(by_class)
    if edges is None:
        edges = _equal_mass_edges(by_class, min(bins, n))
    index = torch.searchsorted(edges, by_class)

    def sums(values: Tensor) -> Tensor:
        return torch.zeros_like(edges).scatter_add_(1, index, values)

    count = sums(torch.ones_like(by_class))
    filled = count.clamp_min(1)
    label_mean = sums(_one_hot(labels, n_classes).T) / filled
    variance = label_mean * (1 - label_mean) / (count - 1).clamp_min(1)
    squared = (sums(by_class) / filled - label_mean).square() - variance
    per_class = (count / n * squared * (count >= 2)).sum(1).clamp_min(0)
    return per_class.mean().sqrt().item()


def _equal_mass_edges(by_class: Tensor, bins: int) -> Tensor:
    """Upper bin edges [K, bins] halfway between neighbouring groups of the sorted rows; the first groups are larger.

    Edges repeated by ties leave empty bins, which count for nothing.
    """
    n_classes, n = by_class.shape
    ordered = by_class.sort(1).values
    sizes = torch.full((bins,), n // bins)
    sizes[: n % bins] += 1
    first = sizes.cumsum(0)[:-1]
    middle = (ordered[:, first - 1] + ordered[:, first]) / 2
    return torch.cat([middle, torch.ones(n_classes, 1, dtype=torch.float64)], 1)


def _discrete_edges(by_class: Tensor) -> Tensor | None:
    """Upper edges [K, most distinct values] of one bin per distinct value, or None unless all rows repeat enough."""
    distinct = [row.unique() for row in by_class]
    most = max(len(values) for values in distinct)
    if most >= by_class.shape[1] / 4:
        return None
    edges = torch.ones(len(distinct), most, dtype=torch.float64)
    for row, values in zip(edges, distinct, strict=True):
        row[: len(values) - 1] = (values[:-1] + values[1:]) / 2
    return edges


def _one_hot(labels: Tensor, n_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, n_classes).double()


def _checked(probabilities: Tensor, labels: Tensor, bins: int = 1) -> tuple[Tensor, Tensor]:
    """The inputs on the CPU, probabilities as float64 in [0, 1] (sums of float32 can exceed 1 by a rounding)."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or probabilities.numel() == 0:
        shapes = f"{list(probabilities.shape)} and {list(labels.shape)}"
        raise ValueError(f"probabilities must be [n, K] and labels [n] with n, K >= 1, but have shapes {shapes}")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, but are {labels.dtype}")
    if bins < 1:
        raise ValueError(f"bins must be >= 1, but is {bins}")
    probabilities, labels = probabilities.detach().to("cpu", torch.float64), labels.cpu()
    off = (probabilities.sum(1) - 1).abs()
    # Written so that NaN fails.
    if not ((off <= ROW_SUM_TOLERANCE).all() and (probabilities >= -ROW_SUM_TOLERANCE).all()):
        raise ValueError(
            f"probabilities must be >= 0 with rows that sum to 1 within {ROW_SUM_TOLERANCE}, but the least is "
            f"{probabilities.min().item():g} and a row is off by {off.max().item():g}"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"labels must be in 0..{probabilities.shape[1] - 1}, but are in {labels.min()}..{labels.max()}"
        )
    return probabilities.clamp(0, 1), labels


# The range in which a temperature is looked for: a network that errs nowhere would ask for 0.
TEMPERATURES = (0.05, 20.0)


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T): what scaled logits would give (Guo et al. 2017)."""
    return (probabilities.double().clamp_min(TINY).log() / temperature).softmax(1)


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature of smallest NLL, within `TEMPERATURES`.

    The NLL is convex in 1/T, so its slope there, E_p[log p] - log p_label on average, changes its sign once.
    """
    from scipy.optimize import brentq

    logs = probabilities.double().clamp_min(TINY).log()
    right = logs.gather(1, labels[:, None]).mean()

    def slope(inverse: float) -> float:
        return float(((logs * inverse).softmax(1) * logs).sum(1).mean() - right)

    coldest, hottest = 1 / TEMPERATURES[0], 1 / TEMPERATURES[1]
    if slope(hottest) >= 0:
        return TEMPERATURES[1]
    if slope(coldest) <= 0:
        return TEMPERATURES[0]
    return 1 / brentq(slope, hottest, coldest, xtol=1e-12)


STEPS = 100


def risk_coverage(probabilities: Tensor, labels: Tensor) -> list[tuple[float, float, float]]:
    """Confidence thresholds, from the highest to the lowest: threshold, share kept, share of the kept that is wrong.

    An image is kept if its largest probability is at least the threshold. There is one for each of `STEPS` equal steps
    of the share kept, or fewer where images are few or alike; each lies halfway to the first confidence that is not
    kept, so that a rounding keeps none more or less, and the last one, 0, keeps all.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = _checked(probabilities, labels)
    confidence, predicted = probabilities.max(1)
    confidence, order = confidence.sort(descending=True)
    wrong = (predicted != labels)[order].cumsum(0)
    n = len(labels)
    found = {}
    for step in range(1, STEPS + 1):
        last = confidence[-(-n * step // STEPS) - 1]
        # those of the same confidence are kept together
        kept = int(torch.searchsorted(-confidence, -last, right=True))
        threshold = 0.0
        if kept < n:
            halfway = (last + confidence[kept]) / 2
            threshold = (halfway if halfway > confidence[kept] else last).item()
        found[threshold] = (kept / n, int(wrong[kept - 1]) / kept)
    return [(threshold, *shares) for threshold, shares in found.items()]


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "ece_marginal": ece_marginal,
}
BINNED = frozenset({"ece", "ece_marginal"})


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
