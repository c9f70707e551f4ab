"""How well a score tells images from outside the training distribution from those of inside it.

Every function takes the scores of the images inside, `known` [n], and of those outside, `foreign` [m]; a higher score
means more foreign. Scores may tie, and no figure depends on the order of the images. How many images there are of each
kind enters `aupr_in` and `aupr_out`, not the other two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssvi.core import checks
from ssvi.core.selective import images_for

# The share of the known images that are accepted for `fpr95`.
ACCEPTED = 0.95


def auroc(known: Tensor, foreign: Tensor) -> float:
    """Probability that a foreign image has a higher score than a known one, a tie counting half.

    The area under the ROC curve, whichever of the two is called positive; in [0, 1], 0.5 for a score that says nothing.

    Args:
        known: [n], finite.
        foreign: [m], finite.

    Raises:
        ValueError: if there is none of one kind, or a score is not finite; so do all functions here.
    """
    from sklearn.metrics import roc_auc_score

    known, foreign = _checked(known, foreign)
    return float(roc_auc_score(*_labelled(foreign, known)))


def aupr_out(known: Tensor, foreign: Tensor) -> float:
    """Average precision with foreign images as positive, found by a high score; of chance m / (n + m).

    The sum over thresholds of precision times the recall gained there, without interpolation (`average_precision_score`
    of scikit-learn); images of the same score are found together.

    Args:
        known: [n], finite.
        foreign: [m], finite.
    """
    known, foreign = _checked(known, foreign)
    return _average_precision(foreign, known)


def aupr_in(known: Tensor, foreign: Tensor) -> float:
    """Average precision with known images as positive, found by a low score; of chance n / (n + m).

    Args:
        known: [n], finite.
        foreign: [m], finite.
    """
    known, foreign = _checked(known, foreign)
    return _average_precision(-known, -foreign)


def fpr95(known: Tensor, foreign: Tensor) -> float:
    """Fraction of the foreign images that are accepted at the threshold that accepts 95 % of the known ones.

    Known images are the positive ones: accepted is what has a score of at most the threshold, which is the lowest known
    score that accepts at least 95 % of them. No other threshold that does accepts fewer foreign images.

    Args:
        known: [n], finite.
        foreign: [m], finite.
    """
    known, foreign = _checked(known, foreign)
    threshold = known.sort().values[images_for(ACCEPTED, len(known)) - 1]
    return (foreign <= threshold).double().mean().item()


# By name, as functions of the scores of known and of foreign images.
DETECTION = {"auroc": auroc, "aupr_in": aupr_in, "aupr_out": aupr_out, "fpr95": fpr95}


def _checked(known: Tensor, foreign: Tensor) -> tuple[Tensor, Tensor]:
    return checks.scores("known", known), checks.scores("foreign", foreign)


def _average_precision(positive: Tensor, negative: Tensor) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(positive, negative)))


def _labelled(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each image is positive, 1 or 0 [n + m], and its score."""
    return torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]), torch.cat([positive, negative])
