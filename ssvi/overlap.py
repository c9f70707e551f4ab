"""How alike the removal criteria are: overlap of what they would remove, and rank correlation (appendix D.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssvi.criteria import CRITERIA
from ssvi.subspace import largest

# The overlap is of the sets each criterion would remove at this fraction, whatever the schedule's is,
# because near the end the real drop fraction is almost 0.
REMOVED_FRACTION = 0.3


def overlap_matrices(layers: list[dict[str, Tensor]]) -> dict[str, list[Any]]:
    """How alike every two criteria are, as matrices [k, k], and the k names of their rows and columns.

    Args:
        layers: for each layer, the scores [n_active] of its active weights by criterion.

    Returns:
        `criteria`: the names, because what is read later may know other criteria, or list them otherwise;
        `iou`: intersection over union of the removed weights of all layers (removed layer by layer);
        `spearman`: rank correlation within a layer, averaged with the layers' sizes as weights.
        A union without a weight, or a constant rank, counts as agreement.
    """
    names = list(CRITERIA)
    removed = {
        n: torch.cat([~largest(t[n], t[n].numel() - int(REMOVED_FRACTION * t[n].numel())) for t in layers])
        for n in names
    }
    iou = [[_iou(removed[a], removed[b]) for b in names] for a in names]
    sizes = torch.tensor([float(t[names[0]].numel()) for t in layers], dtype=torch.float64)
    correlations = torch.stack([_spearman(torch.stack([t[n] for n in names])) for t in layers]).cpu()
    spearman = torch.tensordot(sizes, correlations, 1) / sizes.sum()
    return {"criteria": names, "iou": iou, "spearman": spearman.tolist()}


def _iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _spearman(scores: Tensor) -> Tensor:
    """Spearman correlation of the rows of [k, n] with average ranks for ties: [k, k]."""
    ranks = torch.stack([_average_ranks(row) for row in scores])
    centred = ranks - ranks.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    unit = torch.where(norm > 0, centred / norm, 0.0)
    matrix = unit @ unit.T
    constant = norm.flatten() == 0
    matrix[constant[:, None] & constant[None, :]] = 1.0
    return matrix


def _average_ranks(values: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
