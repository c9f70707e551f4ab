"""Sparse Subspace Variational Inference (algorithm 1): VI in a sparse subspace that is kept up to date."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssvi.criteria import CRITERIA, scores
from ssvi.layers import TO_RHO, TO_SIGMA, MaskedLayer, VariationalLayer
from ssvi.methods.base import Batch, Clock, Record
from ssvi.methods.rigl import RigL
from ssvi.methods.topology import Topology, frozen_batch_statistics
from ssvi.methods.vi import VI
from ssvi.overlap import overlap_matrices

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


class SSVI(VI, RigL):
    """VI's layers, loss and predictions, RigL's drop and grow, with scores of the posterior."""

    layers: dict[str, VariationalLayer]

    def prepare(self) -> None:
        self.topology = Topology(
            self.spec,
            self.layers,
            self.bench.clock.total_steps,
            score=self.score,
            grow=self.grow,
            describe=self.describe,
            drifting=lambda layer: layer.sigma,
            moving=self.moving,
        )
        self.start_masks()
        self._gradients: dict[str, Tensor] = {}
        VI.prepare(self)

    def start_masks(self) -> None:
        """Draw the first subspace."""
        self.topology.start(self.bench.streams["masks"])

    @torch.no_grad()
    def score(self, layer: VariationalLayer) -> Tensor:
        """Importance of the active weights by the run's removal criterion (section 3.3.1)."""
        spec, mask = self.spec, layer.mask
        return scores(spec.criterion, layer.mean[mask], layer.sigma[mask], spec.exp_lambda, spec.score_arithmetic)

    @torch.no_grad()
    def grow(self, layer: VariationalLayer, born: Tensor, kept: Tensor) -> None:
        """Start values of born weights: mu = 0 and sigma as section 3.2 has it.

        `mean` is over the weights that were kept; `mean_rho`, as the published code does it once the new mask is in
        place, over those removed and added again as well.
        """
        spec = self.spec
        stay = layer.mask & ~born if spec.grow_sigma == "mean_rho" else kept
        survivors = [(layer, stay)] if bool(stay.any()) else [(x, x.mask) for x in self.layers.values()]
        rho = torch.cat([x.rho[where] for x, where in survivors]).double()
        if spec.grow_sigma == "mean_rho":
            layer.rho[born] = rho.mean().float()
            return
        mean = TO_SIGMA[spec.parameterisation](rho).mean()
        sigma = mean if spec.grow_sigma == "mean" else torch.full_like(mean, spec.grow_sigma_value)
        layer.rho[born] = TO_RHO[spec.parameterisation](sigma).float()

    # The gradient that ranks candidates (section 3.3.2) ------------------------------------------

    def routine(self, step: int) -> bool:
        return not (self.topology.schedule.is_due(step) or self._collects_signed(step))

    def on_data_gradient(self, clock: Clock, batch: Batch) -> None:
        VI.on_data_gradient(self, clock, batch)
        self._collect(clock, batch)

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        VI.on_gradient(self, clock, batch)
        return not (self.topology.schedule.is_due(clock.step) and self.spec.update_step == "skip")

    def _collect(self, clock: Clock, batch: Batch) -> None:
        """Gather |gradient| where an update is due, in whichever of the three ways was asked for."""
        spec, signed, due = self.spec, self._collects_signed(clock.step), self.topology.schedule.is_due(clock.step)
        if not (signed or due):
            return
        self.settle()
        if signed:
            self._collect_signed(clock)
            return
        if spec.addition == "mean":
            self._gradients = self._gradient_of(batch, at_mean=True)
            return
        total = {name: gradient.abs() for name, gradient in self._gradient_at_hand().items()}
        extra = spec.addition_samples - 1 if spec.addition == "mcK" else 0
        for _ in range(extra):
            self.flat.spread()
            for name, gradient in self._gradient_of(self.bench.fresh_batch(), at_mean=False).items():
                total[name] += gradient
        self._gradients = {name: value / (1 + extra) for name, value in total.items()}

    def _gradient_at_hand(self) -> dict[str, Tensor]:
        return {name: self._with_kl(layer, layer.mean_gradient) for name, layer in self.layers.items()}

    def _with_kl(self, layer: VariationalLayer, gradient: Tensor) -> Tensor:
        """Add the KL's gradient mu/prior^2 if candidates are ranked by the total."""
        if self.spec.addition_gradient == "data":
            return gradient
        return gradient + self._kl_weight * layer.mean.detach() / self.spec.prior_sigma**2

    def _collects_signed(self, step: int) -> bool:
        """Whether the gradient of this step is one of the last K before an update that averages them signed."""
        spec, schedule = self.spec, self.topology.schedule
        due = -(-step // spec.delta_t) * spec.delta_t
        signed = spec.addition == "mcK" and spec.addition_average == "signed"
        return signed and schedule.is_due(due) and due - step < spec.addition_samples

    def _collect_signed(self, clock: Clock) -> None:
        """The published variant: signed gradients of the last K steps, averaged before the modulus."""
        for name, value in self._gradient_at_hand().items():
            gradient = value / self.spec.addition_samples
            self._gradients[name] = self._gradients[name] + gradient if name in self._gradients else gradient
        if self.topology.schedule.is_due(clock.step):
            self._gradients = {name: value.abs() for name, value in self._gradients.items()}

    def _gradient_of(self, batch: Batch, at_mean: bool) -> dict[str, Tensor]:
        """|gradient| of one more pass at the present parameters, leaving the gradients at hand alone."""
        if at_mean:
            self.set_mean()
        with frozen_batch_statistics(self.bench.model):
            loss = self.bench.data_loss(batch)
        self.set_train()
        layers = self.layers.values()
        sampled = not at_mean and self.spec.sampling == "weight"
        gradients = torch.autograd.grad(loss, [layer.realised if sampled else layer.mean for layer in layers])
        each = zip(self.layers.items(), gradients, strict=True)
        return {name: self._with_kl(layer, gradient).abs() for (name, layer), gradient in each}

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
    def describe(self, layers: dict[str, MaskedLayer]) -> tuple[Record, dict[str, Record]]:
        """Overlap of the criteria, and per layer the quantiles of sigma and |mu|/sigma."""
        posterior = {name: (x.mean[x.mask], x.sigma[x.mask]) for name, x in self.layers.items()}
        each = {
            name: {criterion: f(mu, sigma, self.spec.exp_lambda) for criterion, f in CRITERIA.items()}
            for name, (mu, sigma) in posterior.items()
            if mu.numel()
        }
        per_layer = {
            name: {"sigma": _quantiles(posterior[name][1]), "snr": _quantiles(table["snr"])}
            for name, table in each.items()
        }
        return overlap_matrices(list(each.values())), per_layer

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"gradients": self._gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._gradients = state["gradients"]


def _quantiles(values: Tensor) -> dict[str, float]:
    """The values at QUANTILES by name, by the nearest rank (torch.quantile stops at 16 million elements)."""
    ordered = values.double().sort().values
    ranks = [round(q * (ordered.numel() - 1)) for q in QUANTILES.values()]
    return dict(zip(QUANTILES, ordered[ranks].tolist(), strict=True))
