"""The sparse subspace: its size per layer, its random start, and its updates (sections 3.1, 3.3).

Pure functions of tensors. A *group* of layers is ranked together: one layer for `uniform` and `erk`,
the whole network for `global`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ssvi.errors import Diverged


@dataclass(frozen=True)
class LayerShape:
    """What an allocation needs to know of a layer: the shape of its weight and whether it is the stem."""

    shape: tuple[int, ...]
    dense_stem: bool

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def _zeros(density: float, size: int) -> int:
    """floor((1 - density) size), of the decimal number that was typed rather than its binary neighbour."""
    return math.floor((1 - Fraction(repr(density))) * size)


def uniform(layers: list[LayerShape], density: float) -> list[int]:
    """Active weights per layer: a convolutional stem dense, every other layer n - floor((1 - d) n)."""
    return [x.size if x.dense_stem else x.size - _zeros(density, x.size) for x in layers]


def erk(layers: list[LayerShape], density: float) -> list[int]:
    """Erdos-Renyi-Kernel (Evci et al. 2020): density of a layer proportional to sum(shape)/prod(shape).

    Layers whose share would exceed 1 are dense and the rest is scaled, so that the total is that of the
    density up to one weight a layer.
    """
    total = sum(x.size for x in layers)
    wanted = total - _zeros(density, total)
    share = [sum(x.shape) / x.size for x in layers]
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(layers)) if i not in dense]
        if not rest:
            return [x.size for x in layers]
        left = wanted - sum(layers[i].size for i in dense)
        scale = left / sum(share[i] * layers[i].size for i in rest)
        full = {i for i in rest if scale * share[i] >= 1}
        if not full:
            break
        dense |= full
    return [x.size if i in dense else max(1, round(scale * share[i] * x.size)) for i, x in enumerate(layers)]


ALLOCATIONS = {"uniform": uniform, "erk": erk}


def random_masks(layers: list[LayerShape], density: float, allocation: str, source: torch.Generator) -> list[Tensor]:
    """Uniformly random start masks (bool, on the CPU), one a layer, with the allocation's counts.

    `global` spreads exactly d - floor((1 - density) d) active weights over the whole network, the stem
    included: the constraint ||gamma||_1 = s of eq. 3 read literally.
    """
    return _choose(layers, density, allocation, lambda n, first, size: _random_mask(size, n, source))


def best_masks(layers: list[LayerShape], density: float, allocation: str, scores: list[Tensor]) -> list[Tensor]:
    """Masks of the weights with the highest scores (of the layers' shapes), with the allocation's counts."""
    flat = torch.cat([x.flatten() for x in scores])
    return _choose(layers, density, allocation, lambda n, first, size: largest(flat[first : first + size], n))


def _choose(
    layers: list[LayerShape], density: float, allocation: str, mask: Callable[[int, int, int], Tensor]
) -> list[Tensor]:
    """Masks of the layers from `mask(n_active, first, size)` of each group that is chosen together."""
    sizes = [x.size for x in layers]
    total = sum(sizes)
    if allocation == "global":
        parts = mask(total - _zeros(density, total), 0, total).split(sizes)
    else:
        counts = ALLOCATIONS[allocation](layers, density)
        starts = itertools.accumulate([0, *sizes[:-1]])
        parts = tuple(mask(n, first, size) for n, first, size in zip(counts, starts, sizes, strict=True))
    return [part.view(x.shape) for part, x in zip(parts, layers, strict=True)]


def _random_mask(size: int, n_active: int, source: torch.Generator) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=source)[:n_active]] = True
    return mask


@dataclass(frozen=True)
class UpdateSchedule:
    """When the subspace is updated and how much of it (steps count from 1)."""

    delta_t: int
    alpha: float
    t_end: int

    def is_due(self, step: int) -> bool:
        """Every delta_t steps while step < t_end."""
        return step % self.delta_t == 0 and step < self.t_end

    def drop_fraction(self, step: int) -> float:
        """r_t = alpha/2 (1 + cos(pi t / t_end))."""
        return 0.5 * self.alpha * (1 + math.cos(math.pi * step / self.t_end))

    @property
    def n_updates(self) -> int:
        """Number of updates in the whole training."""
        return max(0, (self.t_end - 1) // self.delta_t)


def largest(values: Tensor, n: int) -> Tensor:
    """Mask of the n largest of a flat tensor; among equals the lower index wins.

    Raises:
        Diverged: if a value is NaN, which cannot be ranked.
    """
    if torch.isnan(values).any():
        raise Diverged("a weight or score that is to be ranked is not a number")
    if n <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = torch.topk(values, n, sorted=False).values.min()
    chosen = values > threshold
    ties = torch.nonzero(values == threshold).flatten()
    chosen[ties[: n - int(chosen.sum())]] = True
    return chosen


@dataclass(frozen=True)
class Change:
    """One update of a flat group: masks of what was removed, what was added, and the new active set.

    A weight removed and added again in one update is in both and is not `born`.
    """

    removed: Tensor
    added: Tensor
    active: Tensor
    born: Tensor


def update(active: Tensor, score: Tensor, gradient: Tensor, n_drop: int) -> Change:
    """Remove the n_drop lowest scores, add the n_drop largest gradients among all that is not kept.

    Args:
        active: bool [n], the present subspace.
        score: [active.sum()], importance of the active weights in index order.
        gradient: [n], |gradient| with respect to the mean.
        n_drop: number to remove and to add, at most active.sum().

    Ties: the lower index stays, the lower index is added. The number of active weights does not change.
    """
    positions = torch.nonzero(active).flatten()
    stays = largest(score, positions.numel() - n_drop)
    kept = torch.zeros_like(active)
    kept[positions[stays]] = True
    added = largest(torch.where(kept, -1.0, gradient), n_drop)
    new = kept | added
    return Change(removed=active & ~kept, added=added, active=new, born=added & ~active)
