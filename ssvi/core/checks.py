"""Checks of what is handed to the library's functions; each names the option, what was given and what is allowed.

What metrics are made of comes back from its check on the CPU and in float64, so that the same predictions give the same
figures wherever they were made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

from ssvi.errors import Misuse, quoted

ROW_SUM_TOLERANCE = 1e-4


def number(name: str, value: object, zero: bool = False) -> float:
    """A number above 0, or from 0 on, as a plain float, whatever kind of number it was given as.

    Raises:
        Misuse: if it is none; so do all checks.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise Misuse(f"{name} is {quoted(value)}, but must be {'>=' if zero else '>'} 0 and finite.")
    return float(value)


def share(name: str, value: object, zero: bool = True) -> float:
    """A number from 0, or from above 0, to 1."""
    if not (isinstance(value, Real) and 0 <= value <= 1) or (value == 0 and not zero):
        raise Misuse(f"{name} is {quoted(value)}, but must be {'>=' if zero else '>'} 0 and <= 1.")
    return float(value)


def whole(name: str, value: object) -> int:
    """A whole number from 1 on."""
    if not (isinstance(value, Integral) and value >= 1):
        raise Misuse(f"{name} is {quoted(value)}, but must be a whole number >= 1.")
    return int(value)


def choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """One of some names."""
    if value not in (allowed := list(allowed)):
        raise Misuse(f"{name} is {quoted(value)}, but must be one of {', '.join(allowed)}.")


def function(name: str, value: object) -> None:
    """What can stand in place of a name."""
    if not callable(value):
        raise Misuse(f"{name} is {quoted(value)}, but must be a name or a function.")


def distributions(probabilities: Tensor) -> Tensor:
    """Probabilities [n, K] with n, K >= 1, in [0, 1] (sums of float32 can exceed 1 by a rounding)."""
    if probabilities.ndim != 2 or probabilities.numel() == 0:
        raise Misuse(f"probabilities must be [n, K] with n, K >= 1, but have the shape {list(probabilities.shape)}.")
    probabilities = probabilities.detach().to("cpu", torch.float64)
    off = (probabilities.sum(1) - 1).abs()
    # Written so that NaN fails.
    if not ((off <= ROW_SUM_TOLERANCE).all() and (probabilities >= -ROW_SUM_TOLERANCE).all()):
        raise Misuse(
            f"probabilities must be >= 0 with rows that sum to 1 within {ROW_SUM_TOLERANCE}, but the least is "
            f"{probabilities.min().item():g} and a row is off by {off.max().item():g}."
        )
    return probabilities.clamp(0, 1)


def predictions(probabilities: Tensor, labels: Tensor, bins: int = 1) -> tuple[Tensor, Tensor]:
    """Probabilities [n, K], the labels [n] of the same images, and a number of bins from 1 on."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or probabilities.numel() == 0:
        shapes = f"{list(probabilities.shape)} and {list(labels.shape)}"
        raise Misuse(f"probabilities must be [n, K] and labels [n] with n, K >= 1, but have shapes {shapes}.")
    whole("bins", bins)
    return distributions(probabilities), classes(labels, probabilities.shape[1])


def classes(labels: Tensor, n_classes: int) -> Tensor:
    """Labels [n], int64 in 0..n_classes-1, n >= 1."""
    if labels.dtype != torch.int64:
        raise Misuse(f"labels must be int64, but are {labels.dtype}.")
    if labels.ndim != 1 or len(labels) == 0:
        raise Misuse(f"labels must be [n] with n >= 1, but have the shape {list(labels.shape)}.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise Misuse(f"labels must be in 0..{n_classes - 1}, but are in {labels.min()}..{labels.max()}.")
    return labels.cpu()


def scores(name: str, values: Tensor) -> Tensor:
    """A finite number an image, [n] with n >= 1."""
    if values.ndim != 1 or len(values) == 0:
        raise Misuse(f"{name} must be [n] with n >= 1, but has the shape {list(values.shape)}.")
    values = values.detach().to("cpu", torch.float64)
    if not (finite := values.isfinite()).all():
        raise Misuse(f"{name} must be finite, but {int((~finite).sum())} of its {len(values)} numbers are not.")
    return values
