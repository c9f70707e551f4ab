"""RigL (Evci et al. 2020): a deterministic network in a sparse subspace, scored by |w|."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.exchange import magnitude, plain_births
from ssvi.flat import ActiveWeights
from ssvi.methods.base import Batch, Clock, Method, Record
from ssvi.methods.topology import Topology


class RigL(Method):
    """Drops the smallest |w|, grows the largest |gradient|; new weights start at 0."""

    moving = True  # whether the subspace is ever updated

    def prepare(self) -> None:
        steps = self.bench.clock.total_steps
        self.topology = Topology(
            self.spec, self.layers, steps, score=magnitude, births=plain_births, moving=self.moving
        )
        self.topology.start(self.bench.streams["masks"])
        self.flat = ActiveWeights(self.bench.model, self.layers.values())

    def make_optimizers(self, model: nn.Module) -> list[Optimizer]:
        return [self.sgd([self.flat.mean, *self.unmasked(model)])]

    def updates(self, step: int) -> bool:
        return self.topology.schedule.is_due(step)

    def routine(self, step: int) -> bool:
        return not self.watches(step)

    def watches(self, step: int) -> bool:
        """Whether the dense gradient of this step is asked for."""
        return self.updates(step)

    def _skips(self, step: int) -> bool:
        """Whether the optimisers leave out this step."""
        return self.updates(step) and self.spec.update_step == "skip"

    def before_step(self, clock: Clock) -> None:
        self.flat.watch(self.watches(clock.step))

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        return not self._skips(clock.step)

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        super().after_step(clock, batch)
        if not self.updates(clock.step):
            return None
        self.flops += self.growth_flops(len(batch[1]))
        return self.topology.update(clock, self.flat, self.ranking(), self.optimizers)

    def ranking(self) -> Tensor:
        """|gradient of the mean| [d] of the step that was just taken, which ranks what may be added."""
        return self.flat.gradient.abs()

    def growth_flops(self, images: int) -> int:
        """The dense gradient of the mean, one product a weight that is not active: 2 (M - M_S)."""
        places = self.bench.positions
        outside = sum(places[n] * (x.size - self.n_active()[n]) for n, x in self.layers.items())
        return 2 * outside * images

    def notes(self) -> list[str]:
        if self.topology.schedule.n_updates or not self.moving:
            return []
        spec, steps = self.spec, self.bench.clock.total_steps
        return [
            f"the subspace will never be updated: {steps} steps in all, delta_t {spec.delta_t}, "
            f"update_until {spec.update_until:g}; the random start stays"
        ]

    def n_active(self) -> dict[str, int]:
        return self.topology.n_active()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"topology": self.topology.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.topology.load_state_dict(state["topology"])
