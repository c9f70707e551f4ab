"""The largest of each part of a flat vector: ties broken by index, and the host waiting for the device for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssvi.errors import Diverged


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


def indices_of(mask: Tensor, n: int) -> Tensor:
    """Where a flat mask with n true elements is true; on CUDA the host does not wait for a count."""
    return places_without_counting(mask, n) if mask.is_cuda else mask.nonzero().flatten()


def places_without_counting(mask: Tensor, n: int) -> Tensor:
    """The same, by the rank of each true element among them."""
    rank = torch.where(mask, mask.cumsum(0) - 1, n)
    everywhere = torch.arange(len(mask), device=mask.device)
    # what is not true goes where it is cut off
    return everywhere.new_empty(n + 1).scatter_(0, rank, everywhere)[:n]
