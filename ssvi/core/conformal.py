"""Split conformal classification: sets of classes that hold the label with a probability chosen beforehand.

A rule gives every class of an image a nonconformity score, from the image's probabilities alone. Of n held-out images
the scores of the labels give a threshold, and the set of a new image has all classes of at most that. If the new images
are exchangeable with the held-out ones, it holds the label with at least the probability asked for, on average over
held-out and new images alike; not within each class, and not after a shift.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssvi.core import checks
from ssvi.core.selective import images_for
from ssvi.errors import Misuse


def lac(probabilities: Tensor) -> Tensor:
    """1 - probability of each class, [n, K] (least ambiguous sets, Sadinle et al. 2019).

    The smallest sets on average if the probabilities are right; a set can be empty.

    Args:
        probabilities: [n, K], rows sum to 1.

    Raises:
        ValueError: if they are none.
    """
    return 1 - checks.distributions(probabilities)


def aps(probabilities: Tensor) -> Tensor:
    """The probability of all classes that are more probable together, [n, K] (adaptive sets, Romano et al. 2020).

    Theirs without randomisation: a set ends behind the class with which its probabilities reach the threshold, and is
    never cut before it by chance. So the most probable class is in every set, the same image always has the same set,
    and classes of the same probability are in it together or not at all. The price is more coverage than asked for and
    larger sets, above all where the most probable class is right more often than the level.

    Args:
        probabilities: [n, K], rows sum to 1.

    Raises:
        ValueError: if they are none.
    """
    probabilities = checks.distributions(probabilities)
    ordered, order = probabilities.sort(1, descending=True)
    before = torch.cat([torch.zeros(len(ordered), 1, dtype=torch.float64), ordered.cumsum(1)[:, :-1]], 1)
    # of a tie, what is before its first
    first = torch.searchsorted(-ordered, -ordered)
    return torch.empty_like(before).scatter_(1, order, before.gather(1, first))


# By name, as functions from probabilities to the nonconformity scores of all classes.
RULES = {"lac": lac, "aps": aps}


def threshold(nonconformity: Tensor, labels: Tensor, level: float) -> float:
    """The ceil((n + 1) level)-th smallest score of the labels; infinite, for sets of all classes, if there are fewer.

    Args:
        nonconformity: [n, K], by one of `RULES`, of held-out images that the network was not trained on.
        labels: [n], int64 in 0..K-1.
        level: the coverage asked for, in (0, 1].

    Raises:
        ValueError: if the inputs are not such.
    """
    of_label = checks.scores("nonconformity", _of_label(nonconformity, labels)).sort().values
    rank = images_for(checks.share("level", level, zero=False), len(of_label) + 1)
    return of_label[rank - 1].item() if rank <= len(of_label) else math.inf


def sets(nonconformity: Tensor, limit: float) -> Tensor:
    """Which classes each image's set holds, bool [n, K].

    Args:
        nonconformity: [n, K], by the rule that the threshold is of.
        limit: the threshold.
    """
    return nonconformity <= limit


def coverage(held: Tensor, labels: Tensor) -> float:
    """Fraction of images whose set holds the label.

    Args:
        held: bool [n, K], by `sets`.
        labels: [n], int64 in 0..K-1.

    Raises:
        ValueError: if the inputs are not such.
    """
    return _of_label(held, labels).double().mean().item()


def size(held: Tensor) -> float:
    """Mean number of classes in a set.

    Args:
        held: bool [n, K] with n >= 1, by `sets`.
    """
    return held.sum(1).double().mean().item()


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    """Of [n, K] what stands at each image's label, [n]."""
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise Misuse(f"of {list(values.shape)} classes there cannot be labels {list(labels.shape)}: one an image.")
    return values.cpu().gather(1, checks.classes(labels, values.shape[1])[:, None])[:, 0]
