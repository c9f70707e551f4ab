"""The subspace that a method owns: all weights, some that stay, or some that are exchanged (sections 3.1 to 3.3).

The method tells it what step is coming and when it was taken. Masks, counts, schedule, growth, what an update costs
and what must survive a restart are the subspace's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.core.active import ActiveWeights
from ssvi.core.exchange import Births, UpdateSchedule, decide, exchange
from ssvi.core.layers import MaskedLayer, choose_masks
from ssvi.core.ranking import Groups
from ssvi.methods.context import Batch, Clock, Context, Record
from ssvi.methods.growth import Growth
from ssvi.methods.records import UpdateRecords
from ssvi.runs.spec import RunSpec

Layers = Mapping[str, MaskedLayer]
# Importance [s] of the active weights.
Score = Callable[[ActiveWeights], Tensor]


class Whole:
    """Every weight from the first step to the last; there is nothing to do for it."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def n_active(self) -> dict[str, int]:
        """Active weights per layer."""
        return {name: layer.size for name, layer in self.layers.items()}

    def attach(self, flat: ActiveWeights) -> None:
        """Know the active weights, once they are the network's vectors."""

    def is_due(self, step: int) -> bool:
        """Whether weights are exchanged after this step."""
        return False

    def routine(self, step: int) -> bool:
        """Whether this step is like any other, up to what comes after it."""
        return True

    def skips(self, step: int) -> bool:
        """Whether the optimisers leave out this step."""
        return False

    def before_step(self, step: int) -> None:
        """This step is coming."""

    def collect(self, step: int, batch: Batch) -> None:
        """The gradients of this step hold the data term alone."""

    def flops(self, step: int, images: int) -> int:
        """Counted FLOPs of what is done for it in this step on so many images, beside the step itself."""
        return 0

    def after_step(self, clock: Clock, optimizers: Sequence[Optimizer]) -> Record | None:
        """The step was taken. Returns a record that is to be kept."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; the masks are in the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the network's own state is loaded before."""


class Fixed(Whole):
    """As many weights as the allocation gives each layer: random ones, or those of the highest scores."""

    def __init__(
        self,
        spec: RunSpec,
        layers: Layers,
        source: torch.Generator,
        best: Callable[[MaskedLayer], Tensor] | None = None,
    ) -> None:
        """Choose the subspace and zero everything outside it.

        Args:
            spec: of the run.
            layers: every layer with a mask, by name.
            source: of the random subspace.
            best: the scores of all weights of a layer, which choose it instead.
        """
        super().__init__(layers)
        self.spec = spec
        with torch.no_grad():
            scores = None if best is None else [best(x).view_as(x.mask).cpu() for x in layers.values()]
        choose_masks(layers.values(), spec.density, spec.allocation, source, scores)
        self._recount()

    def _recount(self) -> None:
        counts = torch.stack([layer.mask.sum() for layer in self.layers.values()])
        self._know(Groups(tuple(counts.tolist()), counts))

    def _know(self, active: Groups) -> None:
        self._active = active
        self._counts = dict(zip(self.layers, active.sizes, strict=True))

    def n_active(self) -> dict[str, int]:
        """Active weights per layer, counted when they change."""
        return self._counts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recount()


class Moving(Fixed):
    """A random subspace whose least important weights are exchanged for the most promising ones.

    An update waits for the device two or three times in all.
    """

    def __init__(
        self,
        spec: RunSpec,
        layers: Layers,
        context: Context,
        *,
        score: Score,
        births: Births,
        growth: Growth,
        records: UpdateRecords | None = None,
    ) -> None:
        """
        Args:
            spec: of the run.
            layers: every layer with a mask, by name.
            context: of its training.
            score: ranks the active weights of a layer, or of the network where the allocation is global.
            births: what new weights start with.
            growth: ranks the weights that may come in.
            records: what is told of some updates; None tells the counts.
        """
        super().__init__(spec, layers, context.streams["masks"])
        steps = context.clock.total_steps
        self.schedule = UpdateSchedule(spec.delta_t, spec.alpha, int(spec.update_until * steps))
        self.growth, self._score, self._births = growth, score, births
        self.records = records or UpdateRecords()
        self.records.start(self.layers, self.schedule.n_updates)
        if not self.schedule.n_updates:
            context.say(
                f"the subspace will never be updated: {steps} steps in all, delta_t {spec.delta_t}, "
                f"update_until {spec.update_until:g}; the random start stays"
            )

    def attach(self, flat: ActiveWeights) -> None:
        self.flat = flat
        self.growth.attach(flat, self.schedule)
        self.records.follow(flat, self._active)

    def is_due(self, step: int) -> bool:
        return self.schedule.is_due(step)

    def routine(self, step: int) -> bool:
        return not (self.growth.watches(step) or self.is_due(step))

    def skips(self, step: int) -> bool:
        return self.is_due(step) and self.spec.update_step == "skip"

    def before_step(self, step: int) -> None:
        self.flat.watch(self.growth.watches(step))

    def collect(self, step: int, batch: Batch) -> None:
        if self.growth.watches(step):
            self.growth.collect(step, batch)

    def flops(self, step: int, images: int) -> int:
        return self.growth.flops(images, self.n_active()) if self.is_due(step) else 0

    def after_step(self, clock: Clock, optimizers: Sequence[Optimizer]) -> Record | None:
        if not self.is_due(clock.step):
            return None
        return self.update(clock, self.flat, self.growth.promise(), optimizers)

    @torch.no_grad()
    def update(
        self, clock: Clock, weights: ActiveWeights, promise: Tensor, optimizers: Sequence[Optimizer] = ()
    ) -> Record | None:
        """Remove and add once.

        Args:
            clock: of the step that was just taken.
            weights: of all layers.
            promise: how promising each weight is [d], in the order of the layers and of the index within one.
            optimizers: of the weights; those that stay keep their momenta.

        Returns:
            the record of the update, if it is one of those that are kept.

        Raises:
            Diverged: if a gradient, a parameter or a score is not finite.
        """
        step, number = clock.step, clock.step // self.spec.delta_t
        fraction = self.schedule.drop_fraction(step)
        change = decide(weights, self._active, self._score(weights), promise, fraction, step)
        before = self.records.before(weights, self._active, number)
        exchange(weights, change, self._births, self._active, optimizers)
        if weights.together:
            self._know(weights.counts())
        found = self.records.after(before, weights, self._active, change)
        if found is None:
            return None
        return {"step": step, "epoch": clock.epoch, "update": number, "drop_fraction": fraction, **found}

    def state_dict(self) -> dict[str, Any]:
        return {"topology": self.records.state_dict(), **self.growth.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.records.load_state_dict(state["topology"])
        self.growth.load_state_dict(state)
