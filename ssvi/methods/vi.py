"""Dense mean-field variational inference: a Gaussian posterior on every linear and convolutional weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from ssvi.flat import FlatPosterior
from ssvi.layers import LayerFactory, Operation, VariationalLayer
from ssvi.methods.base import Batch, Clock, Method
from ssvi.noise import NormalSource


class VI(Method):
    """Minimises the mean cross-entropy + beta_e kl_scale / N KL(q || p), a cold posterior (eq. 1)."""

    values_per_weight = 2
    layers: dict[str, VariationalLayer]

    def factory(self) -> LayerFactory:
        spec = self.spec

        def make(shape: tuple[int, ...], bias: bool, operation: Operation, dense_stem: bool) -> VariationalLayer:
            return VariationalLayer(
                shape,
                bias,
                operation,
                dense_stem,
                parameterisation=spec.parameterisation,
                sampling=spec.sampling,
                epsilon=spec.lrt_epsilon,
                start=(spec.mu_init_sd, spec.sigma_init, spec.sigma_init_sd),
                noise=self.noise,
            )

        return LayerFactory(make)

    def prepare(self) -> None:
        self.flat = FlatPosterior(self.layers.values())
        self._kl_weight = torch.zeros((), device=self.flat.mean.device)

    def make_optimizers(self, model: nn.Module) -> list[Optimizer]:
        others, cuda = [self.flat.mean, *self.unmasked(model)], self.flat.rho.is_cuda
        if self.spec.sigma_optimizer == "adam":
            return [self.sgd(others), Adam([self.flat.rho], lr=self.spec.sigma_lr, fused=True, capturable=cuda)]
        return [self.sgd(others, [{"params": [self.flat.rho], "lr": self.spec.sigma_lr, "weight_decay": 0.0}])]

    # A step -------------------------------------------------------------------------------------

    def beta(self, clock: Clock) -> float:
        """KL warm-up: min(2 epoch/epochs, 1), stepwise per epoch (section 4.1)."""
        return min(2 * clock.epoch / clock.epochs, 1.0) if self.spec.kl_warmup else 1.0

    def begin_epoch(self, clock: Clock) -> None:
        self._kl_weight.fill_(self.beta(clock) * self.spec.kl_scale / self.bench.n_train)

    def before_step(self) -> None:
        self.flat.spread()

    def on_data_gradient(self, clock: Clock, batch: Batch) -> None:
        self.flat.gather()

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        """The KL enters by its closed-form gradient; its value is only computed where it is recorded."""
        self.flat.add_kl(self._kl_weight, self.spec.prior_sigma)
        return True

    def settle(self) -> None:
        self.flat.settle()

    @property
    def passes(self) -> int:  # type: ignore[override]
        """12 with local reparameterisation: the mean's products and the variance's."""
        return 12 if self.spec.sampling == "local" else 6

    @torch.no_grad()
    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        return {
            "kl": float(self.flat.kl(self.spec.prior_sigma)),
            "beta": self.beta(clock),
            "sigma_mean": float(self.flat.sigma.mean(dtype=torch.float64)),
        }

    def set_mean(self) -> None:
        for layer in self.layers.values():
            layer.mode = "mean"

    def set_train(self) -> None:
        for layer in self.layers.values():
            layer.mode = "train"

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """n weight samples of the posterior, one set of weights for all images each."""
        for i in range(n):
            for layer in self.layers.values():
                layer.draw(source)
                layer.mode = "sample"
            yield i

    # Resuming -----------------------------------------------------------------------------------

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.flat.follow()
