"""One update of the subspace: what goes, what comes, what it starts with (sections 3.2, 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.core.active import ActiveWeights
from ssvi.core.gaussian import TO_RHO, TO_SIGMA
from ssvi.core.ranking import Groups, indices_of, largest_of_each
from ssvi.errors import Diverged


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


def choose(
    active: Tensor, score: Tensor, promise: Tensor, groups: tuple[Groups, Groups], n_drop: Sequence[int]
) -> Change:
    """Remove the n_drop lowest scores of each group, add the n_drop most promising among all that is not kept.

    Args:
        active: bool [n], the present subspace.
        score: [s], importance of the active weights in index order, without NaN.
        promise: [n], how promising each weight is, finite.
        groups: parts of the active weights, and the same parts of all weights.
        n_drop: number to remove and to add in each group, at most as many as are active there.

    Ties: the lower index stays, the lower index is added. The number of active weights of a group does not change.
    """
    of_active, of_all = groups
    n_kept = [size - n for size, n in zip(of_active.sizes, n_drop, strict=True)]
    # one copy to the device
    counts = torch.tensor([n_kept, list(n_drop)], device=active.device)
    places = indices_of(active, len(score))
    kept = largest_of_each(score, of_active, n_kept, counts[0])
    stays = torch.zeros_like(active).index_copy_(0, places, kept)
    added = largest_of_each(torch.where(stays, -math.inf, promise), of_all, n_drop, counts[1])
    new = stays | added
    return Change(kept, new[places], active & ~stays, added, new, added & ~active)


# What weights start with that are born, one tensor [layers] for each vector, given the weights as they were, what
# changes, and how the active ones lie in layers.
Births = Callable[[ActiveWeights, Change, Groups], list[Tensor]]

GROW_SIGMA = ("mean", "mean_rho", "constant")


def magnitude(weights: ActiveWeights) -> Tensor:
    """Importance [s] of plain weights: |w|."""
    return weights.mean.detach().abs()


def decide(
    weights: ActiveWeights, active: Groups, score: Tensor, promise: Tensor, fraction: float, step: int
) -> Change:
    """What an update does that exchanges a fraction of each layer, or of the network where that is ranked together.

    Args:
        weights: of the network.
        active: how the active ones lie in layers.
        score: importance [s] of the active weights.
        promise: how promising each weight is [d], >= 0.
        fraction: of the active weights of a layer, or of the network, rounded down.
        step: which is named where it cannot be done.

    Raises:
        Diverged: if a gradient, a parameter or a score is not finite.
    """
    if cause := _not_finite(weights, score, promise):
        raise Diverged(f"{cause} at the subspace update of step {step}")
    groups = active, weights.sizes
    if weights.together:
        groups = active.together(), weights.sizes.together()
    return choose(weights.active, score, promise, groups, [int(n * fraction) for n in groups[0].sizes])


def _not_finite(weights: ActiveWeights, score: Tensor, promise: Tensor) -> str | None:
    """What cannot be ranked, in words, or None; one look at the device for all of it."""
    biases = [layer.bias for layer in weights.layers if layer.bias is not None]
    parts = [x.isfinite().all() for x in (promise, *weights.parameters(), *biases)]
    finite, ranks = torch.stack([torch.stack(parts).all(), ~score.isnan().any()]).tolist()
    if not finite:
        return "a gradient or a parameter is not finite"
    return None if ranks else "a weight or score that is to be ranked is not a number"


def plain_births(weights: ActiveWeights, change: Change, active: Groups) -> list[Tensor]:
    """A born weight is 0."""
    return [weights.mean.new_zeros(len(active.sizes))]


def gaussian_births(parameterisation: str, grow_sigma: str, value: float) -> Births:
    """mu = 0, and sigma as section 3.2 has it.

    `mean` is over the weights of the layer that were kept; `mean_rho`, as the published code does it once the new mask
    is in place, of rho and over those removed and added again as well; `constant` is the value. A layer that lost all
    its weights takes the network's mean.
    """

    def births(weights: ActiveWeights, change: Change, active: Groups) -> list[Tensor]:
        rho = weights.rho.detach().double()
        if grow_sigma == "mean_rho":
            start = _means(rho, change.still, active)
        else:
            sigma = _means(TO_SIGMA[parameterisation](rho), change.kept, active)
            start = TO_RHO[parameterisation](sigma if grow_sigma == "mean" else torch.full_like(sigma, value))
        start = start.to(weights.rho.dtype)
        return [torch.zeros_like(start), start]

    return births


def exchange(
    weights: ActiveWeights, change: Change, births: Births, active: Groups, optimizers: Sequence[Optimizer]
) -> None:
    """Do what was chosen; weights that stay keep values and momenta."""
    move(weights, change.active, births(weights, change, active), optimizers)


@torch.no_grad()
def move(
    weights: ActiveWeights, active: Tensor, starts: Iterable[Tensor], optimizers: Sequence[Optimizer] = ()
) -> None:
    """Take another subspace of as many weights, vectors, momenta and all; no tensor moves in memory.

    Args:
        weights: of the network.
        active: bool [d].
        starts: for each of the vectors, what a weight that was not active starts with, by layer: [layers].
        optimizers: of the vectors; weights that were active keep their momenta, new ones have 0.
    """
    old = weights.index
    if old is None:
        return
    index = indices_of(active, len(old))
    for vector, start in zip(weights.parameters(), starts, strict=True):
        _carry(vector, weights.sizes.spread(start), old, index)
        for optimizer in optimizers:
            for value in optimizer.state.get(vector, {}).values():
                if isinstance(value, Tensor) and value.shape == vector.shape:
                    _carry(value, value.new_zeros(len(active)), old, index)
    old.copy_(index)
    # at once, because a captured graph does not ask
    weights.places.follow(old)


def _carry(vector: Tensor, elsewhere: Tensor, old: Tensor, new: Tensor) -> None:
    """Bring a vector [s] to other places; what was at none of the old ones starts with what is `elsewhere` [d]."""
    vector.copy_(elsewhere.index_copy_(0, old, vector)[new])


def _means(values: Tensor, among: Tensor, groups: Groups) -> Tensor:
    """The mean of each group over what a mask holds, or over what it holds of all groups where that is nothing."""
    sums, numbers = groups.sums(torch.where(among, values, 0.0)), groups.counts(among)
    return torch.where(numbers > 0, sums / numbers, sums.sum() / numbers.sum())
