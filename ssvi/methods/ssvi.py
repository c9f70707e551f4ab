"""Variational inference in a sparse subspace: random, chosen from a trained posterior, or kept up to date (SSVI)."""

from __future__ import annotations

import torch
from torch import Tensor

from ssvi.core.criteria import scores
from ssvi.core.exchange import gaussian_births
from ssvi.core.layers import VariationalLayer
from ssvi.methods.growth import PosteriorGrowth
from ssvi.methods.records import of_posterior
from ssvi.methods.subspace import Fixed, Moving
from ssvi.methods.vi import VI
from ssvi.runs.spec import RunSpec


class StaticVI(VI):
    """A random subspace that never changes."""

    def make_subspace(self) -> Fixed:
        return Fixed(self.spec, self.layers, self.context.streams["masks"])


class Pruned(VI):
    """A trained dense BNN, pruned once to the highest scores of the removal criterion (section 3.3.1).

    Without epochs that is all, but for BatchNorm's statistics, which are taken anew from the pruned network; with
    epochs it goes on training in that subspace.
    """

    def make_subspace(self) -> Fixed:
        def best(layer: VariationalLayer) -> Tensor:
            return importance(self.spec, layer.mean, layer.sigma)

        return Fixed(self.spec, self.layers, self.context.streams["masks"], best)

    def finish(self) -> None:
        if not self.spec.epochs:
            self.context.recalibrate()


class SSVI(VI):
    """Sparse Subspace Variational Inference (algorithm 1)."""

    def make_subspace(self) -> Moving:
        spec = self.spec
        return Moving(
            spec,
            self.layers,
            self.context,
            score=lambda weights: importance(spec, weights.mean, weights.sigma),
            births=gaussian_births(spec.parameterisation, spec.grow_sigma, spec.grow_sigma_value),
            growth=PosteriorGrowth(self.context, spec, lambda: self.kl_weight),
            records=of_posterior(spec),
        )


@torch.no_grad()
def importance(spec: RunSpec, mean: Tensor, sigma: Tensor) -> Tensor:
    """Scores of weights by the run's removal criterion (section 3.3.1)."""
    return scores(spec.criterion, mean, sigma, spec.exp_lambda, spec.score_arithmetic)
