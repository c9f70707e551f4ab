"""The sparse subspace: its size per layer, its random start, and its updates (sections 3.1, 3.3).

Pure functions of tensors. A *group* of layers is ranked together: one layer for `uniform` and `erk`,
the whole network for `global`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

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
    whole, count = Groups.of([len(values)], values.device), values.new_tensor([n], dtype=torch.int64)
    return largest_of_each(values, whole, [n], count)


@dataclass(frozen=True)
class Groups:
    """Consecutive parts of a flat vector, each ranked by itself.

    Attributes:
        sizes: of the parts; of what is ranked, > 0.
        on_device: the same as int64 [k], where the vector is.
    """

    sizes: tuple[int, ...]
    on_device: Tensor

    @classmethod
    def of(cls, sizes: Iterable[int], device: torch.device) -> Groups:
        """Groups of these sizes; on CUDA the host waits for the device."""
        sizes = tuple(sizes)
        return cls(sizes, torch.tensor(sizes, dtype=torch.int64, device=device))

    def without_empty(self) -> Groups:
        """Those that have something; on CUDA the host waits for the device if some have not."""
        return self if all(self.sizes) else Groups.of(filter(None, self.sizes), self.on_device.device)

    def together(self) -> Groups:
        """One group of them all."""
        return Groups((sum(self.sizes),), self.on_device.sum(0, keepdim=True))

    def spread(self, values: Tensor) -> Tensor:
        """A value of each part [k], for each element of it."""
        return values.repeat_interleave(self.on_device, output_size=sum(self.sizes))

    def sums(self, values: Tensor) -> Tensor:
        """Of each part, in float64: [k]."""
        return torch.stack([part.sum(dtype=torch.float64) for part in values.split(self.sizes)])

    def counts(self, mask: Tensor) -> Tensor:
        """How many of each part a mask holds, int64 [k]."""
        up_to = functional.pad(mask.cumsum(0), (1, 0))[self.on_device.cumsum(0)]
        return up_to.diff(prepend=up_to.new_zeros(1))


def largest_of_each(values: Tensor, groups: Groups, n: Sequence[int], n_on_device: Tensor) -> Tensor:
    """Mask of the n[i] largest of each group; among equals the lower index wins.

    The host waits for nothing: it knows how many are chosen, and what ties for the last places is told apart by its
    rank among its equals.

    Args:
        values: a flat tensor without NaN.
        groups: its parts.
        n: how many of each.
        n_on_device: the same as int64 [k].
    """
    parts = zip(values.split(groups.sizes), n, strict=True)
    nothing = values.new_tensor(math.inf) if 0 in n else None
    last = [part.topk(count, sorted=False).values.min() if count else nothing for part, count in parts]
    threshold = groups.spread(torch.stack(last))
    above, tied = values > threshold, values == threshold
    room = n_on_device - groups.counts(above)
    rank = tied.cumsum(0)
    before = functional.pad(rank[groups.on_device.cumsum(0) - 1][:-1], (1, 0))
    return above | (tied & (rank <= groups.spread(room + before)))


def positions(mask: Tensor, n: int) -> Tensor:
    """Where a flat mask with n true elements is true; on CUDA the host does not wait for a count."""
    return places_without_counting(mask, n) if mask.is_cuda else mask.nonzero().flatten()


def places_without_counting(mask: Tensor, n: int) -> Tensor:
    """The same, by the rank of each true element among them."""
    rank = torch.where(mask, mask.cumsum(0) - 1, n)
    everywhere = torch.arange(len(mask), device=mask.device)
    # what is not true goes where it is cut off
    return everywhere.new_empty(n + 1).scatter_(0, rank, everywhere)[:n]


@dataclass(frozen=True)
class Change:
    """One update of a flat vector of weights: masks of what was removed, what was added, and the new active set.

    A weight removed and added again in one update is in both and is not `born`.

    Attributes:
        kept: of the weights that were active [s], in index order, those that were not removed.
        still: of the same, those that are active, because they were kept or were added again.
    """

    kept: Tensor
    still: Tensor
    removed: Tensor
    added: Tensor
    active: Tensor
    born: Tensor


def update(
    active: Tensor, score: Tensor, gradient: Tensor, groups: tuple[Groups, Groups], n_drop: Sequence[int]
) -> Change:
    """Remove the n_drop lowest scores of each group, add the n_drop largest gradients among all that is not kept.

    Args:
        active: bool [n], the present subspace.
        score: [s], importance of the active weights in index order, without NaN.
        gradient: [n], how promising each weight is, finite: |gradient| with respect to the mean.
        groups: parts of the active weights, and the same parts of all weights.
        n_drop: number to remove and to add in each group, at most as many as are active there.

    Ties: the lower index stays, the lower index is added. The number of active weights of a group does not change.
    """
    of_active, of_all = groups
    n_kept = [size - n for size, n in zip(of_active.sizes, n_drop, strict=True)]
    # one copy to the device
    counts = torch.tensor([n_kept, list(n_drop)], device=active.device)
    places = positions(active, len(score))
    kept = largest_of_each(score, of_active, n_kept, counts[0])
    stays = torch.zeros_like(active).index_copy_(0, places, kept)
    added = largest_of_each(torch.where(stays, -math.inf, gradient), of_all, n_drop, counts[1])
    new = stays | added
    return Change(kept, new[places], active & ~stays, added, new, added & ~active)
