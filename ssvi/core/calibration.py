"""How far probabilities can be believed: calibration errors, their bins, and the temperature that mends most of them.

All are functions of probabilities [n, K] and labels [n], computed on the CPU in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssvi.core import checks

TINY = torch.finfo(torch.float64).tiny
# The range in which a temperature is looked for: a network that errs nowhere would ask for 0.
TEMPERATURES = (0.05, 20.0)


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
    probabilities, labels = checks.predictions(probabilities, labels, bins)
    confidence, predicted = probabilities.max(1)
    return _binned_gap(_width_bins(confidence, bins), (predicted == labels).double() - confidence, bins)


def ece_mass(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The same with bins of equal mass: sorted by confidence, each holds as many images as the others.

    Images of the same confidence are in one bin: where a tie reaches over an edge, all of it belongs to the lower bin,
    and the bins that it leaves empty count for nothing. With fewer images than bins, each image is a bin.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    probabilities, labels = checks.predictions(probabilities, labels, bins)
    confidence, predicted = probabilities.max(1)
    bins = min(bins, len(labels))
    (edges,) = _equal_mass_edges(confidence[None], bins)
    gap = (predicted == labels).double() - confidence
    return _binned_gap(torch.searchsorted(edges, confidence), gap, bins)


def ece_classwise(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Class-wise calibration error, equal-width bins (Nixon et al. 2019, `static`; Kull et al. 2019).

    For every class, sum_b n_b/n |frequency of the class in bin b - its mean probability there|; then the mean over
    classes. Bins are those of `ece`, but the first holds 0 too.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins per class.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    probabilities, labels = checks.predictions(probabilities, labels, bins)
    n_classes = probabilities.shape[1]
    gap = one_hot(labels, n_classes) - probabilities
    # the bins of one class behind those of the other
    index = _width_bins(probabilities, bins) + bins * torch.arange(n_classes)
    return _binned_gap(index.flatten(), gap.flatten(), bins * n_classes)


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in (i/bins, (i+1)/bins].

    Attributes:
        images: how many.
        confidence: their mean confidence; None if there are none.
        accuracy: the fraction of them that is right; None if there are none.
    """

    images: int
    confidence: float | None
    accuracy: float | None


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> list[Bin]:
    """The bins of `ece`, from the lowest to the highest: sum_b n_b/n |accuracy - confidence| is `ece`.

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.
        bins: number of bins.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images, or bins < 1.
    """
    probabilities, labels = checks.predictions(probabilities, labels, bins)
    confidence, predicted = probabilities.max(1)
    index = _width_bins(confidence, bins)
    inside = [index == i for i in range(bins)]
    right = (predicted == labels).double()
    return [
        Bin(int(of.sum()), confidence[of].mean().item(), right[of].mean().item()) if of.any() else Bin(0, None, None)
        for of in inside
    ]


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
    probabilities, labels = checks.predictions(probabilities, labels, bins)
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
    label_mean = sums(one_hot(labels, n_classes).T) / filled
    variance = label_mean * (1 - label_mean) / (count - 1).clamp_min(1)
    squared = (sums(by_class) / filled - label_mean).square() - variance
    per_class = (count / n * squared * (count >= 2)).sum(1).clamp_min(0)
    return per_class.mean().sqrt().item()


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Labels [n] as float64 [n, K]."""
    return torch.nn.functional.one_hot(labels, n_classes).double()


def _width_bins(values: Tensor, bins: int) -> Tensor:
    """In which of the bins (i/bins, (i+1)/bins] each probability lies; 0 lies in the first."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    return (torch.bucketize(values, edges) - 1).clamp_min(0)


def _binned_gap(index: Tensor, gap: Tensor, bins: int) -> float:
    """Sum over bins of |sum of the gaps in it|, per gap."""
    return torch.zeros(bins, dtype=torch.float64).scatter_add_(0, index, gap).abs().sum().item() / len(gap)


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
