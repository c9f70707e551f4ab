"""How promising the weights outside the subspace are: the gradients that rank candidates (section 3.3.2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ssvi.core import modes
from ssvi.core.active import ActiveWeights
from ssvi.core.counting import STEP_FLOPS, active_macs, training_flops
from ssvi.core.criteria import addition_scores
from ssvi.core.exchange import UpdateSchedule
from ssvi.core.layers import masked_layers
from ssvi.methods.context import Batch, Context
from ssvi.runs.spec import RunSpec


class Growth:
    """|gradient of the mean| of the step that an update follows."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def attach(self, flat: ActiveWeights, schedule: UpdateSchedule) -> None:
        """Know the weights, and when they are exchanged."""
        self.flat, self.schedule = flat, schedule

    def watches(self, step: int) -> bool:
        """Whether the dense gradient of this step is asked for."""
        return self.schedule.is_due(step)

    def collect(self, step: int, batch: Batch) -> None:
        """After the backward pass of a step that is watched: the gradients hold the data term alone."""

    def promise(self) -> Tensor:
        """What ranks the candidates [d], >= 0, after the step that an update follows."""
        return self.flat.gradient.abs()

    def flops(self, images: int, n_active: dict[str, int]) -> int:
        """Counted FLOPs of an update: the dense gradient of the mean, one product a weight that is not active."""
        return 2 * self._outside(n_active) * images

    def _outside(self, n_active: dict[str, int]) -> int:
        """Multiply-adds of an image with the weights that are not active."""
        layers = masked_layers(self.context.model)
        return active_macs(self.context.positions, {name: layers[name].size - n for name, n in n_active.items()})

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart between two steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


class PosteriorGrowth(Growth):
    """The gradient with respect to the posterior's mean: of this step (`mc1`), at the mean (`mean`), or of several
    weight samples (`mcK`); of the data term, or with the KL's (`addition_gradient`)."""

    def __init__(self, context: Context, spec: RunSpec, kl_weight: Callable[[], Tensor]) -> None:
        """`kl_weight` gives the present factor of the KL in the loss."""
        super().__init__(context)
        self.spec, self._kl_weight = spec, kl_weight
        self._several = spec.addition == "mcK"
        self._signed = self._several and spec.addition_average == "signed"
        self._collected: Tensor | None = None

    def watches(self, step: int) -> bool:
        return super().watches(step) or self._is_one_of_the_last(step)

    def _is_one_of_the_last(self, step: int) -> bool:
        """Whether the gradient of this step is one of the last K before an update that averages them signed."""
        due = -(-step // self.spec.delta_t) * self.spec.delta_t
        return self._signed and self.schedule.is_due(due) and due - step < self.spec.addition_samples

    def promise(self) -> Tensor:
        collected, self._collected = self._collected, None
        return collected

    def collect(self, step: int, batch: Batch) -> None:
        if self._signed:
            self._add_signed(step)
        elif self.spec.addition == "mean":
            self._collected = self._another(batch, at_mean=True)
        else:
            total = self._rated(self._with_kl(self.flat.gradient))
            extra = self.spec.addition_samples - 1 if self._several else 0
            for _ in range(extra):
                total += self._another(self.context.fresh_batch(), at_mean=False)
            self._collected = total / (1 + extra)

    def _add_signed(self, step: int) -> None:
        """The published variant: signed gradients of the last K steps, averaged before the modulus."""
        gradient = self._with_kl(self.flat.gradient) / self.spec.addition_samples
        self._collected = gradient if self._collected is None else self._collected + gradient
        if self.schedule.is_due(step):
            self._collected = self._collected.abs()

    def _rated(self, gradient: Tensor) -> Tensor:
        """What the addition rule makes of a signed gradient [d]."""
        mean, sigma = (self.flat.dense(vector.detach()) for vector in (self.flat.mean, self.flat.sigma))
        return addition_scores(self.spec.addition, gradient, mean, sigma)

    def _with_kl(self, gradient: Tensor) -> Tensor:
        """Add the KL's gradient mu/prior^2 if candidates are ranked by the total."""
        if self.spec.addition_gradient == "data":
            return gradient
        return gradient + self._kl_weight() * self.flat.dense(self.flat.mean.detach()) / self.spec.prior_sigma**2

    def _another(self, batch: Batch, at_mean: bool) -> Tensor:
        """|gradient| of one more pass at the present parameters, leaving the gradients at hand alone."""
        model = self.context.model
        with modes.frozen_batch_statistics(model), modes.at_mean(model) if at_mean else nullcontext():
            loss = self.context.data_loss(batch)
        return self._with_kl(self.flat.ordered(torch.autograd.grad(loss, self.flat.probe)[0])).abs()

    def flops(self, images: int, n_active: dict[str, int]) -> int:
        """Dense gradients of the mean, and the extra passes of `mean` and `mcK`."""
        spec, one = self.spec, super().flops(images, n_active)
        if spec.addition == "mean":
            return one + STEP_FLOPS * active_macs(self.context.positions, n_active) * images
        if self._several and not self._signed:
            fresh = min(spec.batch_size, self.context.n_train)
            layers, places = masked_layers(self.context.model), self.context.positions
            extra = super().flops(fresh, n_active) + training_flops(layers, places, n_active) * fresh
            return one + (spec.addition_samples - 1) * extra
        return (spec.addition_samples if self._several else 1) * one

    def state_dict(self) -> dict[str, Any]:
        return {"gradients": self._collected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._collected = state["gradients"]
