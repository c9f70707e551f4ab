"""Baselines in a subspace that never changes: drawn at random, or chosen once from a trained dense BNN."""

from __future__ import annotations

from ssvi.methods.rigl import RigL
from ssvi.methods.ssvi import SSVI


class Static(RigL):
    """A deterministic network in a random subspace: RigL without its updates."""

    moving = False


class StaticVI(SSVI):
    """Variational inference in a random subspace: SSVI without its updates."""

    moving = False


class Pruned(StaticVI):
    """A trained dense BNN, pruned once to the highest scores of the removal criterion (section 3.3.1).

    Without epochs that is all, but for BatchNorm's statistics, which are taken anew from the pruned network; with
    epochs it goes on training in that subspace.
    """

    def start_masks(self) -> None:
        self.topology.start_best(lambda layer: self.score(layer.mean, layer.sigma))

    def finish(self) -> None:
        if not self.spec.epochs:
            self.bench.recalibrate()
