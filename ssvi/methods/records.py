"""What is kept of some subspace updates: counts a layer, how sigma moved, what the posterior looked like before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssvi.core.active import ActiveWeights
from ssvi.core.criteria import compared, scores
from ssvi.core.exchange import Change
from ssvi.core.layers import MaskedLayer
from ssvi.core.overlap import overlap_matrices
from ssvi.core.ranking import Groups
from ssvi.core.tensors import fetched
from ssvi.methods.context import Record
from ssvi.runs.spec import RunSpec

N_RECORDS = 20
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

# What a record says beside the counts, given how the active weights lie in layers that have some: of the network, and
# of each of those layers; tensors are fetched with the rest.
Description = tuple[Record, list[Record]]
# A statistic [s] of the active weights whose mean is followed.
Statistic = Callable[[ActiveWeights], Tensor]


@dataclass(frozen=True)
class Before:
    """What is to be known of the weights before an update.

    Attributes:
        described: of those before; None where no record is kept.
        alive: the layers that had active weights.
        drifted: mean of the statistic in each layer.
    """

    described: Description | None
    alive: list[str]
    drifted: Tensor | None


class UpdateRecords:
    """The records of one run's updates."""

    def __init__(
        self,
        describe: Callable[[ActiveWeights, Groups], Description] | None = None,
        drifting: Statistic | None = None,
    ) -> None:
        """
        Args:
            describe: given the weights before the update, and the active ones by layer.
            drifting: how much of the change of its mean came by gradient, how much by exchanging weights, is recorded.
        """
        self._describe, self._drifting = describe, drifting
        self._drift: dict[str, Tensor] = {}

    def start(self, layers: Mapping[str, MaskedLayer], n_updates: int) -> None:
        """Know the first masks, and which of the updates are recorded."""
        self._sizes = {name: layer.size for name, layer in layers.items()}
        self.recorded: set[int] | range = _spread(n_updates, N_RECORDS)
        self._first = torch.cat([layer.mask.flatten() for layer in layers.values()])

    @torch.no_grad()
    def follow(self, weights: ActiveWeights, active: Groups) -> None:
        """Begin to follow the statistic whose drift is recorded."""
        if self._drifting:
            value = self._means(weights, active)
            self._drift = {"last": value, "gradient": torch.zeros_like(value), "topology": torch.zeros_like(value)}

    def _means(self, weights: ActiveWeights, active: Groups) -> Tensor:
        """The drifting statistic's mean in each layer, 0 where nothing is active: float64 [layers]."""
        return active.sums(self._drifting(weights)) / active.on_device.clamp_min(1)

    def before(self, weights: ActiveWeights, active: Groups, number: int) -> Before:
        """To be called before update `number` (from 1) of these weights."""
        alive = [name for name, count in zip(self._sizes, active.sizes, strict=True) if count]
        described: Description | None = None
        if number - 1 in self.recorded:
            described = {}, [{} for _ in alive]
            if self._describe:
                described = self._describe(weights, active.without_empty())
        return Before(described, alive, self._means(weights, active) if self._drifting else None)

    def after(self, before: Before, weights: ActiveWeights, active: Groups, change: Change) -> Record | None:
        """What there is to record, if anything, of the update that was just done."""
        if before.drifted is not None:
            self._drift["gradient"] += before.drifted - self._drift["last"]
            self._drift["last"] = self._means(weights, active)
            self._drift["topology"] += self._drift["last"] - before.drifted
        if before.described is None:
            return None
        network, of_layers = before.described
        counted = self._counted(weights, change)
        parts = {"network": network, "layers": dict(zip(before.alive, of_layers, strict=True)), "counts": counted}
        found = fetched(parts)
        layers = [
            {"layer": name, "size": size, "active": n_active}
            | {key: each[i] for key, each in found["counts"].items()}
            | found["layers"].get(name, {})
            for i, ((name, size), n_active) in enumerate(zip(self._sizes.items(), active.sizes, strict=True))
        ]
        return {**found["network"], "layers": layers}

    def _counted(self, weights: ActiveWeights, change: Change) -> dict[str, Tensor]:
        """What a record says of each layer, [layers] each."""
        counts = {key: weights.sizes.counts(getattr(change, key)) for key in ("removed", "added", "born")}
        counts["survivors"] = weights.sizes.counts(change.active & self._first)
        drift = {f"sigma_drift_{by}": self._drift[by] for by in ("gradient", "topology") if self._drift}
        return counts | drift

    def state_dict(self) -> dict[str, Any]:
        """The first masks and the drift so far."""
        return {"first": self._first, "drift": self._drift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._first, self._drift = state["first"], state["drift"]


def _spread(n_updates: int, n_records: int) -> set[int]:
    """Indices of at most n_records updates, spread evenly, the first and the last among them."""
    if n_updates <= n_records:
        return set(range(n_updates))
    return {round(i * (n_updates - 1) / (n_records - 1)) for i in range(n_records)}


def of_posterior(spec: RunSpec) -> UpdateRecords:
    """Records of a Gaussian posterior: how alike the criteria are, quantiles of sigma and |mu|/sigma, sigma's drift."""

    @torch.no_grad()
    def describe(weights: ActiveWeights, active: Groups) -> Description:
        mu, sigma = weights.mean, weights.sigma
        table = {name: scores(name, mu, sigma, spec.exp_lambda) for name in compared(spec.criterion)}
        parts = zip(sigma.split(active.sizes), table["snr"].split(active.sizes), strict=True)
        per_layer = [{"sigma": _quantiles(own), "snr": _quantiles(snr)} for own, snr in parts]
        return overlap_matrices(table, active), per_layer

    return UpdateRecords(describe, lambda weights: weights.sigma)


def _quantiles(values: Tensor) -> dict[str, Tensor]:
    """The values at QUANTILES by name, by the nearest rank (torch.quantile stops at 16 million elements)."""
    ordered = values.double().sort().values
    return {name: ordered[round(q * (ordered.numel() - 1))] for name, q in QUANTILES.items()}
