"""How alike the removal criteria are: overlap of what they would remove, and rank correlation (appendix D.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssvi.core.ranking import Groups, largest_of_each

# The overlap is of the sets each criterion would remove at this fraction, whatever the schedule's is,
# because near the end the real drop fraction is almost 0.
REMOVED_FRACTION = 0.3


def overlap_matrices(scores: Mapping[str, Tensor], layers: Groups) -> dict[str, Any]:
    """How alike every two criteria are, as matrices [k, k], and the k names of their rows and columns.

    Args:
        scores: of the active weights [s] by criterion.
        layers: how they lie in layers, none of which is empty.

    Returns:
        `criteria`: the names, because what is read later may know other criteria, or list them otherwise;
        `iou`: intersection over union of the removed weights of all layers (removed layer by layer);
        `spearman`: rank correlation within a layer, averaged with the layers' sizes as weights.
        A union without a weight, or a constant rank, counts as agreement. The matrices are on the scores' device.
    """
    kept = [size - int(REMOVED_FRACTION * size) for size in layers.sizes]
    on_device = layers.on_device - (REMOVED_FRACTION * layers.on_device.double()).long()
    removed = torch.stack([~largest_of_each(own, layers, kept, on_device) for own in scores.values()]).double()
    both, each = removed @ removed.T, removed.sum(1)
    union = each[:, None] + each[None, :] - both
    parts = zip(*(own.split(layers.sizes) for own in scores.values()), strict=True)
    correlations = torch.stack([_spearman(torch.stack(part)) for part in parts])
    weights = layers.on_device.double() / sum(layers.sizes)
    return {
        "criteria": list(scores),
        "iou": torch.where(union > 0, both / union, 1.0),
        "spearman": torch.tensordot(weights, correlations, 1),
    }


def _spearman(scores: Tensor) -> Tensor:
    """Spearman correlation of the rows of [k, n] with average ranks for ties: [k, k]."""
    ranks = _average_ranks(scores)
    centred = ranks - ranks.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    unit = torch.where(norm > 0, centred / norm, 0.0)
    constant = norm.flatten() == 0
    return torch.where(constant[:, None] & constant[None, :], 1.0, unit @ unit.T)


def _average_ranks(values: Tensor) -> Tensor:
    """Of each row of [k, n], from 1."""
    ordered = values.sort(1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + up_to + 1).double() / 2
