"""How well a confidence tells right from wrong predictions: risk by coverage, and what is read off it.

The functions take a confidence [n], by which images are kept from the highest down, and whether each is wrong, bool
[n]; any score will do, and `judged` gives the largest probability. Kept are the k images of the highest confidence, for
k = 1..n: coverage is k/n, selective risk the share of the kept that is wrong. Of images with the same confidence those
to be kept are drawn at random, and risks are the expectations over these draws: no figure depends on the order of the
images. But `risk_coverage` gives thresholds, which keep all images of the same confidence together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssvi.core import checks
from ssvi.errors import Misuse

STEPS = 100
# A product of a share and a number of images may lie this much, relatively, above the whole number that it is.
ROUNDING = 1e-12


def judged(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability [n] of each image, and whether its class is not the label, bool [n].

    Args:
        probabilities: [n, K], rows sum to 1.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not probabilities and labels of the same images.
    """
    probabilities, labels = checks.predictions(probabilities, labels)
    confidence, predicted = probabilities.max(1)
    return confidence, predicted != labels


def aurc(confidence: Tensor, wrong: Tensor) -> float:
    """Area under the risk-coverage curve, in [0, 1]: the mean of the selective risks at k = 1..n (Geifman et al. 2019).

    Args:
        confidence: [n], finite.
        wrong: [n], bool.

    Raises:
        ValueError: if they are not of the same images, of none, or not such; so do all functions here.
    """
    return _risks(confidence, wrong).mean().item()


def eaurc(confidence: Tensor, wrong: Tensor) -> float:
    """Excess AURC, >= 0: less that of an oracle with as many errors, which is sure of what is right (Geifman et al.).

    Args:
        confidence: [n], finite.
        wrong: [n], bool.
    """
    # not below 0 by a rounding
    return max(0.0, aurc(confidence, wrong) - aurc((~wrong).double(), wrong))


def augrc(confidence: Tensor, wrong: Tensor) -> float:
    """Area under the generalised risk-coverage curve, in [0, 1/2] (Traub et al. 2024).

    The generalised risk at k is the share of all images that is both kept and wrong; the area is by trapezoids from
    (0, 0). It is (1 - AUROC) r (1 - r) + r²/2 with r the share that is wrong, and AUROC of right against wrong by
    confidence: the risk that an image accepted at a random coverage is a silent failure.

    Args:
        confidence: [n], finite.
        wrong: [n], bool.
    """
    found = _wrong_by_rank(confidence, wrong)
    n = len(found)
    return ((found.sum() - found[-1] / 2) / n**2).item()


def accuracy_at_coverage(confidence: Tensor, wrong: Tensor, coverage: float) -> float:
    """Accuracy on the images kept at a coverage; where that is no whole number of images, on one more.

    Args:
        confidence: [n], finite.
        wrong: [n], bool.
        coverage: in (0, 1].
    """
    risks = _risks(confidence, wrong)
    return 1 - risks[images_for(checks.share("coverage", coverage, zero=False), len(risks)) - 1].item()


def coverage_at_risk(confidence: Tensor, wrong: Tensor, risk: float) -> float:
    """The largest coverage k/n whose selective risk is at most `risk`; 0 if there is none.

    Args:
        confidence: [n], finite.
        wrong: [n], bool.
        risk: in [0, 1].
    """
    risks = _risks(confidence, wrong)
    (low,) = torch.where(risks <= checks.share("risk", risk) + ROUNDING)
    return (low[-1].item() + 1) / len(risks) if len(low) else 0.0


def curve(confidence: Tensor, wrong: Tensor, levels: int = STEPS) -> list[tuple[float, float]]:
    """Coverages 1/levels, 2/levels, ..., 1 and the selective risk at each, with images kept as `accuracy_at_coverage`.

    Args:
        confidence: [n], finite.
        wrong: [n], bool.
        levels: how many, >= 1.
    """
    checks.whole("levels", levels)
    risks = _risks(confidence, wrong)
    return [(i / levels, risks[images_for(i / levels, len(risks)) - 1].item()) for i in range(1, levels + 1)]


def images_for(share: float, n: int) -> int:
    """How many of n images make up a share > 0 at least."""
    return max(1, math.ceil(share * n * (1 - ROUNDING)))


def _risks(confidence: Tensor, wrong: Tensor) -> Tensor:
    """Selective risks [n] at k = 1..n."""
    found = _wrong_by_rank(confidence, wrong)
    return found / torch.arange(1, len(found) + 1)


def _wrong_by_rank(confidence: Tensor, wrong: Tensor) -> Tensor:
    """How many of the k = 1..n most confident images are wrong, [n]: of a tie, a share."""
    confidence = checks.scores("confidence", confidence)
    if wrong.dtype != torch.bool or wrong.shape != confidence.shape:
        raise Misuse(f"wrong must be torch.bool {list(confidence.shape)}, but is {wrong.dtype} {list(wrong.shape)}.")
    _, group, sizes = (-confidence).unique(return_inverse=True, return_counts=True)
    errors = torch.zeros(len(sizes), dtype=torch.float64).scatter_add_(0, group, wrong.cpu().double())
    return (errors / sizes).repeat_interleave(sizes).cumsum(0)


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
    confidence, wrong = judged(probabilities, labels)
    confidence, order = confidence.sort(descending=True)
    wrong = wrong[order].cumsum(0)
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
