"""One update of the subspace: what goes, what comes, what it starts with (sections 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.errors import Diverged
from ssvi.flat import ActiveWeights
from ssvi.layers import TO_RHO, TO_SIGMA
from ssvi.subspace import Change, Groups, update

# What weights start with that are born, one tensor [layers] for each vector, given the weights as they were, what
# changes, and how the active ones lie in layers.
Births = Callable[[ActiveWeights, Change, Groups], list[Tensor]]

GROW_SIGMA = ("mean", "mean_rho", "constant")


def ranked(weights: ActiveWeights, active: Groups, together: bool) -> tuple[Groups, Groups]:
    """What is ranked together, of the active weights and of all: layers, or the network."""
    return (active.together(), weights.sizes.together()) if together else (active, weights.sizes)


def magnitude(weights: ActiveWeights) -> Tensor:
    """Importance [s] of plain weights: |w|."""
    return weights.mean.detach().abs()


def decide(
    weights: ActiveWeights, active: Groups, score: Tensor, gradient: Tensor, fraction: float, together: bool, step: int
) -> Change:
    """`choose`, where everything can be ranked.

    Raises:
        Diverged: if a gradient, a parameter or a score is not finite.
    """
    if cause := not_finite(weights, score, gradient):
        raise Diverged(f"{cause} at the subspace update of step {step}")
    return choose(weights, active, score, gradient, fraction, together)


def choose(
    weights: ActiveWeights, active: Groups, score: Tensor, gradient: Tensor, fraction: float, together: bool
) -> Change:
    """What an update that exchanges a fraction of each group does.

    Args:
        weights: of the network.
        active: how the active ones lie in layers.
        score: importance [s] of the active weights.
        gradient: how promising each weight is [d], >= 0.
        fraction: of the active weights of a group, rounded down.
        together: whether the network is ranked as one; else each layer by itself.
    """
    groups = ranked(weights, active, together)
    return update(weights.active, score, gradient, groups, [int(n * fraction) for n in groups[0].sizes])


def not_finite(weights: ActiveWeights, score: Tensor, gradient: Tensor) -> str | None:
    """What cannot be ranked, in words, or None; one look at the device for all of it."""
    biases = [layer.bias for layer in weights.layers if layer.bias is not None]
    parts = [x.isfinite().all() for x in (gradient, *weights.parameters(), *biases)]
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
    weights.move(change.active, births(weights, change, active), optimizers)


def _means(values: Tensor, among: Tensor, groups: Groups) -> Tensor:
    """The mean of each group over what a mask holds, or over what it holds of all groups where that is nothing."""
    sums, numbers = groups.sums(torch.where(among, values, 0.0)), groups.counts(among)
    return torch.where(numbers > 0, sums / numbers, sums.sum() / numbers.sum())
