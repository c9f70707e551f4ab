"""Removal and addition during a training, for every method with a sparse subspace (sections 3.2, 3.3).

`Topology` owns the masks' start, the schedule, the dense gradients that rank candidates, the update
itself and its records. A method tells it only how to score weights and what new ones start with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssvi.errors import Diverged
from ssvi.layers import MaskedLayer
from ssvi.methods.base import Clock, Record
from ssvi.spec import RunSpec
from ssvi.subspace import Change, LayerShape, UpdateSchedule, best_masks, random_masks, update

N_RECORDS = 20

Score = Callable[[MaskedLayer], Tensor]
Grow = Callable[[MaskedLayer, Tensor, Tensor], None]
Describe = Callable[[dict[str, MaskedLayer]], tuple[Record, dict[str, Record]]]
Statistic = Callable[[MaskedLayer], Tensor]


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
    """The subspace of one run and its updates."""

    def __init__(
        self,
        spec: RunSpec,
        layers: dict[str, MaskedLayer],
        total_steps: int,
        *,
        score: Score,
        grow: Grow,
        describe: Describe | None = None,
        drifting: Statistic | None = None,
        moving: bool = True,
    ) -> None:
        """
        Args:
            spec: of the run.
            layers: every layer with a mask, by name.
            total_steps: steps of the whole training.
            score: importance [n_active] of a layer's active weights, in index order.
            grow: called with a layer, the mask of its born weights and the mask of those that stayed.
            describe: what a record says beside the counts: of the network, and of each layer, before
                the update.
            drifting: a statistic whose mean over active weights is followed: how much of its change came
                by gradient, how much by exchanging weights.
            moving: whether the subspace is ever updated.
        """
        self.spec = spec
        self.layers = layers
        self.schedule = UpdateSchedule(spec.delta_t, spec.alpha, int(moving * spec.update_until * total_steps))
        self.recorded = _spread(self.schedule.n_updates, N_RECORDS)
        self._score, self._grow, self._describe, self._drifting = score, grow, describe, drifting
        self._drift: dict[str, dict[str, Tensor]] = {}
        self._first: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    @torch.no_grad()
    def start(self, source: torch.Generator) -> None:
        """Draw the random subspace and zero everything outside it."""
        self._start(random_masks(self._shapes(), self.spec.density, self.spec.allocation, source))

    @torch.no_grad()
    def start_best(self, score: Score) -> None:
        """Choose the subspace of the highest scores [n] of all weights, with the allocation's counts."""
        scores = [score(layer).view_as(layer.mask).cpu() for layer in self.layers.values()]
        self._start(best_masks(self._shapes(), self.spec.density, self.spec.allocation, scores))

    def _shapes(self) -> list[LayerShape]:
        return [LayerShape(tuple(x.mean.shape), x.dense_stem) for x in self.layers.values()]

    def _start(self, masks: list[Tensor]) -> None:
        for layer, mask in zip(self.layers.values(), masks, strict=True):
            layer.mask.copy_(mask)
            layer.apply_mask()
        self._first = {name: layer.mask.clone() for name, layer in self.layers.items()}
        self._recount()
        if self._drifting:
            for name, layer in self.layers.items():
                value = self._mean(layer)
                zero = torch.zeros_like(value)
                self._drift[name] = {"last": value, "gradient": zero, "topology": zero.clone()}

    def n_active(self) -> dict[str, int]:
        """Active weights per layer, counted when they change."""
        return self._counts

    def _recount(self) -> None:
        self._counts = {name: int(layer.mask.sum()) for name, layer in self.layers.items()}

    def _mean(self, layer: MaskedLayer) -> Tensor:
        assert self._drifting is not None
        return self._drifting(layer).sum(dtype=torch.float64) / layer.mask.sum().clamp_min(1)

    @torch.no_grad()
    def update(self, clock: Clock, gradients: dict[str, Tensor]) -> Record | None:
        """Remove and add once; `gradients` hold |gradient of the mean|, dense, per layer.

        Returns:
            the record of the update, if it is one of about 20 that are kept.

        Raises:
            Diverged: if a gradient or a parameter is not finite.
        """
        step = clock.step
        self._check_finite(step, gradients)
        fraction = self.schedule.drop_fraction(step)
        keep_record = step // self.spec.delta_t - 1 in self.recorded
        described = self._describe(self.layers) if keep_record and self._describe else ({}, {})
        by_gradient = {name: self._mean(layer) for name, layer in self.layers.items()} if self._drifting else {}
        layer_records: list[Record] = []
        for group in self._groups():
            for name, change in self._change(group, gradients, fraction).items():
                layer = self.layers[name]
                if keep_record:
                    layer_records.append(self._count(name, change))
                self._apply(layer, change)
        self._recount()
        for name, before in by_gradient.items():
            drift, now = self._drift[name], self._mean(self.layers[name])
            drift["gradient"] = drift["gradient"] + before - drift["last"]
            drift["topology"] = drift["topology"] + now - before
            drift["last"] = now
        if not keep_record:
            return None
        for record in layer_records:
            name = record["layer"]
            record["active"] = self._counts[name]
            record["survivors"] = int((self.layers[name].mask & self._first[name]).sum())
            record |= described[1].get(name, {})
            if name in self._drift:
                record["sigma_drift_gradient"] = float(self._drift[name]["gradient"])
                record["sigma_drift_topology"] = float(self._drift[name]["topology"])
        return {
            "step": step,
            "epoch": clock.epoch,
            "update": step // self.spec.delta_t,
            "drop_fraction": fraction,
            **described[0],
            "layers": layer_records,
        }

    def _check_finite(self, step: int, gradients: dict[str, Tensor]) -> None:
        """What is not a number cannot be ranked; one look at the device for all layers."""
        parts = [gradients[name].isfinite().all() for name in self.layers]
        parts += [p.isfinite().all() for layer in self.layers.values() for p in layer.parameters()]
        if not bool(torch.stack(parts).all()):
            raise Diverged(f"a gradient or a parameter is not finite at the subspace update of step {step}")

    def _groups(self) -> list[list[str]]:
        names = list(self.layers)
        return [names] if self.spec.allocation == "global" else [[name] for name in names]

    def _change(self, names: list[str], gradients: dict[str, Tensor], fraction: float) -> dict[str, Change]:
        layers = [self.layers[name] for name in names]
        active = torch.cat([x.mask.flatten() for x in layers])
        score = torch.cat([self._score(x) for x in layers])
        gradient = torch.cat([gradients[name].flatten() for name in names])
        n_drop = int(score.numel() * fraction)
        whole = update(active, score, gradient, n_drop)
        sizes = [x.mask.numel() for x in layers]
        parts = {key: getattr(whole, key).split(sizes) for key in ("removed", "added", "active", "born")}
        return {
            name: Change(**{key: part[i].view_as(self.layers[name].mask) for key, part in parts.items()})
            for i, name in enumerate(names)
        }

    def _apply(self, layer: MaskedLayer, change: Change) -> None:
        kept = layer.mask & ~change.removed
        layer.mask.copy_(change.active)
        self._grow(layer, change.born, kept)
        layer.apply_mask()

    @staticmethod
    def _count(name: str, change: Change) -> Record:
        counts = {key: int(getattr(change, key).sum()) for key in ("removed", "added", "born")}
        return {"layer": name, "size": change.active.numel(), **counts}

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
