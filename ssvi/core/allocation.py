"""How large the subspace is in each layer, and its first masks: random, or of the highest scores (section 3.1).

Pure functions of tensors. A *group* of layers is chosen together: one layer for `uniform` and `erk`, the whole network
for `global`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ssvi.core.ranking import largest


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
