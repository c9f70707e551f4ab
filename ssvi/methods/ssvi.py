"""Sparse Subspace Variational Inference (algorithm 1): VI in a sparse subspace that is kept up to date."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssvi.criteria import addition_scores, compared, scores
from ssvi.exchange import gaussian_births
from ssvi.flat import ActiveWeights
from ssvi.layers import VariationalLayer
from ssvi.methods.base import Batch, Clock, Record
from ssvi.methods.rigl import RigL
from ssvi.methods.topology import Topology, frozen_batch_statistics
from ssvi.methods.vi import VI
from ssvi.overlap import overlap_matrices
from ssvi.subspace import Groups

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


class SSVI(VI, RigL):
    """VI's layers, loss and predictions, RigL's drop and grow, with scores of the posterior."""

    layers: dict[str, VariationalLayer]

    def prepare(self) -> None:
        self.topology = Topology(
            self.spec,
            self.layers,
            self.bench.clock.total_steps,
            score=lambda weights: self.score(weights.mean, weights.sigma),
            births=gaussian_births(self.spec.parameterisation, self.spec.grow_sigma, self.spec.grow_sigma_value),
            describe=self.describe,
            drifting=lambda weights: weights.sigma,
            moving=self.moving,
        )
        self.start_masks()
        self._gradients: Tensor | None = None
        VI.prepare(self)
        self.topology.follow(self.flat)

    def start_masks(self) -> None:
        """Draw the first subspace."""
        self.topology.start(self.bench.streams["masks"])

    @torch.no_grad()
    def score(self, mean: Tensor, sigma: Tensor) -> Tensor:
        """Importance of weights by the run's removal criterion (section 3.3.1)."""
        return scores(self.spec.criterion, mean, sigma, self.spec.exp_lambda, self.spec.score_arithmetic)

    # The gradient that ranks candidates (section 3.3.2) ------------------------------------------

    def watches(self, step: int) -> bool:
        return self.updates(step) or self._collects_signed(step)

    def ranking(self) -> Tensor:
        gradients, self._gradients = self._gradients, None
        return gradients

    def on_data_gradient(self, clock: Clock, batch: Batch) -> None:
        if self.watches(clock.step):
            self._collect(clock, batch)

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        VI.on_gradient(self, clock, batch)
        return not self._skips(clock.step)

    def _collect(self, clock: Clock, batch: Batch) -> None:
        """Gather |gradient| [d] in whichever of the three ways was asked for."""
        spec = self.spec
        if self._collects_signed(clock.step):
            self._collect_signed(clock)
            return
        if spec.addition == "mean":
            self._gradients = self._gradient_of(batch, at_mean=True)
            return
        total = self._rated(self._with_kl(self.flat.gradient))
        extra = spec.addition_samples - 1 if spec.addition == "mcK" else 0
        for _ in range(extra):
            total += self._gradient_of(self.bench.fresh_batch(), at_mean=False)
        self._gradients = total / (1 + extra)

    def _rated(self, gradient: Tensor) -> Tensor:
        """What the addition rule makes of a signed gradient [d]."""
        mean, sigma = (self.flat.dense(vector.detach()) for vector in (self.flat.mean, self.flat.sigma))
        return addition_scores(self.spec.addition, gradient, mean, sigma)

    def _with_kl(self, gradient: Tensor) -> Tensor:
        """Add the KL's gradient mu/prior^2 if candidates are ranked by the total."""
        if self.spec.addition_gradient == "data":
            return gradient
        return gradient + self._kl_weight * self.flat.dense(self.flat.mean.detach()) / self.spec.prior_sigma**2

    def _collects_signed(self, step: int) -> bool:
        """Whether the gradient of this step is one of the last K before an update that averages them signed."""
        spec, schedule = self.spec, self.topology.schedule
        due = -(-step // spec.delta_t) * spec.delta_t
        signed = spec.addition == "mcK" and spec.addition_average == "signed"
        return signed and schedule.is_due(due) and due - step < spec.addition_samples

    def _collect_signed(self, clock: Clock) -> None:
        """The published variant: signed gradients of the last K steps, averaged before the modulus."""
        gradient = self._with_kl(self.flat.gradient) / self.spec.addition_samples
        self._gradients = gradient if self._gradients is None else self._gradients + gradient
        if self.updates(clock.step):
            self._gradients = self._gradients.abs()

    def _gradient_of(self, batch: Batch, at_mean: bool) -> Tensor:
        """|gradient| of one more pass at the present parameters, leaving the gradients at hand alone."""
        if at_mean:
            self.set_mean()
        with frozen_batch_statistics(self.bench.model):
            loss = self.bench.data_loss(batch)
        self.set_train()
        return self._with_kl(self.flat.ordered(torch.autograd.grad(loss, self.flat.probe)[0])).abs()

    def growth_flops(self, images: int) -> int:
        """Dense gradients of the mean, and the extra passes of `mean` and `mcK`."""
        spec, one = self.spec, RigL.growth_flops(self, images)
        if spec.addition == "mean":
            return one + self.flops_per_image() // self.passes * 6 * images
        if spec.addition == "mcK" and spec.addition_average == "absolute":
            fresh = min(spec.batch_size, self.bench.n_train)
            extra = RigL.growth_flops(self, fresh) + self.flops_per_image() * fresh
            return one + (spec.addition_samples - 1) * extra
        return (spec.addition_samples if spec.addition == "mcK" else 1) * one

    # Records ------------------------------------------------------------------------------------

    @torch.no_grad()
    def describe(self, weights: ActiveWeights, active: Groups) -> tuple[Record, list[Record]]:
        """Overlap of the criteria, and per layer the quantiles of sigma and |mu|/sigma."""
        mu, sigma = weights.mean, weights.sigma
        table = {name: scores(name, mu, sigma, self.spec.exp_lambda) for name in compared(self.spec.criterion)}
        parts = zip(sigma.split(active.sizes), table["snr"].split(active.sizes), strict=True)
        per_layer = [{"sigma": _quantiles(own), "snr": _quantiles(snr)} for own, snr in parts]
        return overlap_matrices(table, active), per_layer

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"gradients": self._gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._gradients = state["gradients"]


def _quantiles(values: Tensor) -> dict[str, Tensor]:
    """The values at QUANTILES by name, by the nearest rank (torch.quantile stops at 16 million elements)."""
    ordered = values.double().sort().values
    return {name: ordered[round(q * (ordered.numel() - 1))] for name, q in QUANTILES.items()}
