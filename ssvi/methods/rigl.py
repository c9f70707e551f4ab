"""Deterministic networks in a sparse subspace: one that stays, and RigL (Evci et al. 2020), scored by |w|."""

from __future__ import annotations

from ssvi.core.exchange import magnitude, plain_births
from ssvi.methods.base import Method
from ssvi.methods.growth import Growth
from ssvi.methods.subspace import Fixed, Moving


class Static(Method):
    """A random subspace that never changes."""

    def make_subspace(self) -> Fixed:
        return Fixed(self.spec, self.layers, self.context.streams["masks"])


class RigL(Static):
    """Drops the smallest |w|, grows the largest |gradient|; new weights start at 0."""

    def growth(self) -> Growth:
        """What ranks the weights that may come in."""
        return Growth(self.context)

    def make_subspace(self) -> Moving:
        return Moving(self.spec, self.layers, self.context, score=magnitude, births=plain_births, growth=self.growth())
