"""Removal and addition during a training, for every method with a sparse subspace (sections 3.2, 3.3).

`Topology` owns the masks' start, the schedule, the update itself and its records. A method tells it only how to score
weights and what new ones start with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ssvi.exchange import Births, decide, exchange
from ssvi.flat import ActiveWeights
from ssvi.layers import MaskedLayer
from ssvi.methods.base import Clock, Record
from ssvi.spec import RunSpec
from ssvi.subspace import Change, Groups, LayerShape, UpdateSchedule, best_masks, random_masks
from ssvi.tensors import fetched

N_RECORDS = 20

# Importance [s] of the active weights.
Score = Callable[[ActiveWeights], Tensor]
# What a record says beside the counts, given how the active weights lie in layers that have some: of the network, and
# of each of those layers; tensors are fetched with the rest.
Describe = Callable[[ActiveWeights, Groups], tuple[Record, list[Record]]]
# A statistic [s] of the active weights whose mean is followed.
Statistic = Callable[[ActiveWeights], Tensor]


@contextmanager
def frozen_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Extra forward passes see the batch's statistics, but leave BatchNorm's running ones alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class Topology:
    """The subspace of one run and its updates, which wait for the device two or three times in all."""

    def __init__(
        self,
        spec: RunSpec,
        layers: dict[str, MaskedLayer],
        total_steps: int,
        *,
        score: Score,
        births: Births,
        describe: Describe | None = None,
        drifting: Statistic | None = None,
        moving: bool = True,
    ) -> None:
        """
        Args:
            spec: of the run.
            layers: every layer with a mask, by name.
            total_steps: steps of the whole training.
            score: ranks the active weights of a layer, or of the network where the allocation is global.
            births: what new weights start with.
            describe: given the weights before the update, and the active ones by layer.
            drifting: how much of the change of its mean came by gradient, how much by exchanging weights, is recorded.
            moving: whether the subspace is ever updated.
        """
        self.spec = spec
        self.layers = layers
        self.schedule = UpdateSchedule(spec.delta_t, spec.alpha, int(moving * spec.update_until * total_steps))
        self.recorded = _spread(self.schedule.n_updates, N_RECORDS)
        self._score, self._births, self._describe, self._drifting = score, births, describe, drifting
        self._drift: dict[str, Tensor] = {}
        self._first = torch.empty(0)
        self._counts: dict[str, int] = {}

    @torch.no_grad()
    def start(self, source: torch.Generator) -> None:
        """Draw the random subspace and zero everything outside it."""
        self._start(random_masks(self._shapes(), self.spec.density, self.spec.allocation, source))

    @torch.no_grad()
    def start_best(self, score: Callable[[MaskedLayer], Tensor]) -> None:
        """Choose the subspace of the highest scores [n] of all weights of each layer, with the allocation's counts."""
        scores = [score(layer).view_as(layer.mask).cpu() for layer in self.layers.values()]
        self._start(best_masks(self._shapes(), self.spec.density, self.spec.allocation, scores))

    def _shapes(self) -> list[LayerShape]:
        return [LayerShape(x.shape, x.dense_stem) for x in self.layers.values()]

    def _start(self, masks: list[Tensor]) -> None:
        for layer, mask in zip(self.layers.values(), masks, strict=True):
            layer.mask.copy_(mask)
            layer.apply_mask()
        self._recount()
        self._first = torch.cat([layer.mask.flatten() for layer in self.layers.values()])

    def _recount(self) -> None:
        counts = torch.stack([layer.mask.sum() for layer in self.layers.values()])
        self._know(Groups(tuple(counts.tolist()), counts))

    def _know(self, active: Groups) -> None:
        self._active = active
        self._counts = dict(zip(self.layers, active.sizes, strict=True))

    @torch.no_grad()
    def follow(self, weights: ActiveWeights) -> None:
        """Begin to follow the statistic whose drift is recorded."""
        if self._drifting:
            value = self._means(weights)
            self._drift = {"last": value, "gradient": torch.zeros_like(value), "topology": torch.zeros_like(value)}

    def n_active(self) -> dict[str, int]:
        """Active weights per layer, counted when they change."""
        return self._counts

    def _means(self, weights: ActiveWeights) -> Tensor:
        """The drifting statistic's mean in each layer, 0 where nothing is active: float64 [layers]."""
        assert self._drifting is not None
        return self._active.sums(self._drifting(weights)) / self._active.on_device.clamp_min(1)

    @torch.no_grad()
    def update(
        self, clock: Clock, weights: ActiveWeights, gradient: Tensor, optimizers: Sequence[Optimizer] = ()
    ) -> Record | None:
        """Remove and add once.

        Args:
            clock: of the step that was just taken.
            weights: of all layers.
            gradient: |gradient of the mean| [d], in the order of the layers and of the index within one.
            optimizers: of the weights; those that stay keep their momenta.

        Returns:
            the record of the update, if it is one of about 20 that are kept.

        Raises:
            Diverged: if a gradient, a parameter or a score is not finite.
        """
        step = clock.step
        keep_record = step // self.spec.delta_t - 1 in self.recorded
        fraction, together = self.schedule.drop_fraction(step), self.spec.allocation == "global"
        change = decide(weights, self._active, self._score(weights), gradient, fraction, together, step)
        alive = [name for name, count in self._counts.items() if count]
        described: tuple[Record, list[Record]] = {}, [{} for _ in alive]
        if keep_record and self._describe:
            described = self._describe(weights, self._active.without_empty())
        drifted = self._means(weights) if self._drifting else None
        exchange(weights, change, self._births, self._active, optimizers)
        if together:
            self._know(weights.counts())
        if drifted is not None:
            self._drift["gradient"] += drifted - self._drift["last"]
            self._drift["last"] = self._means(weights)
            self._drift["topology"] += self._drift["last"] - drifted
        if not keep_record:
            return None
        found = fetched(
            {
                "network": described[0],
                "layers": dict(zip(alive, described[1], strict=True)),
                "counts": self._counted(weights, change),
            }
        )
        layers = [
            {"layer": name, "size": size, "active": self._counts[name]}
            | {key: each[i] for key, each in found["counts"].items()}
            | found["layers"].get(name, {})
            for i, (name, size) in enumerate(zip(self.layers, weights.sizes.sizes, strict=True))
        ]
        when = {"step": step, "epoch": clock.epoch, "update": step // self.spec.delta_t, "drop_fraction": fraction}
        return {**when, **found["network"], "layers": layers}

    def _counted(self, weights: ActiveWeights, change: Change) -> dict[str, Tensor]:
        """What a record says of each layer, [layers] each."""
        counts = {key: weights.sizes.counts(getattr(change, key)) for key in ("removed", "added", "born")}
        counts["survivors"] = weights.sizes.counts(change.active & self._first)
        drift = {f"sigma_drift_{by}": self._drift[by] for by in ("gradient", "topology") if self._drift}
        return counts | drift

    def state_dict(self) -> dict[str, Any]:
        """The first masks and the drift so far (the present masks are in the network)."""
        return {"first": self._first, "drift": self._drift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._first, self._drift = state["first"], state["drift"]
        self._recount()


def _spread(n_updates: int, n_records: int) -> set[int]:
    """Indices of at most n_records updates, spread evenly, the first and the last among them."""
    if n_updates <= n_records:
        return set(range(n_updates))
    return {round(i * (n_updates - 1) / (n_records - 1)) for i in range(n_records)}
