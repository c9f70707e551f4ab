"""Dense mean-field variational inference: a Gaussian posterior on every linear and convolutional weight."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ssvi.layers import LayerFactory, Operation, VariationalLayer
from ssvi.methods.base import Clock, Method


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

    def make_optimizers(self, model: nn.Module) -> list[Optimizer]:
        rhos = [layer.rho for layer in self.layers.values()]
        others = [p for p in model.parameters() if all(p is not rho for rho in rhos)]
        if self.spec.sigma_optimizer == "adam":
            return [self.sgd(others), Adam(rhos, lr=self.spec.sigma_lr, fused=True)]
        return [self.sgd(others, [{"params": rhos, "lr": self.spec.sigma_lr, "weight_decay": 0.0}])]

    def beta(self, clock: Clock) -> float:
        """KL warm-up: min(2 epoch/epochs, 1), stepwise per epoch (section 4.1)."""
        return min(2 * clock.epoch / clock.epochs, 1.0) if self.spec.kl_warmup else 1.0

    def kl(self) -> Tensor:
        """KL(q || p) of the whole network in nats."""
        return torch.stack([layer.kl(self.spec.prior_sigma) for layer in self.layers.values()]).sum()

    def extra_loss(self, clock: Clock) -> Tensor:
        return (self.beta(clock) * self.spec.kl_scale / self.bench.n_train) * self.kl()

    @property
    def passes(self) -> int:  # type: ignore[override]
        """12 with local reparameterisation: the mean's products and the variance's."""
        return 12 if self.spec.sampling == "local" else 6

    @torch.no_grad()
    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        total = sum(float(layer.sigma.sum(dtype=torch.float64)) for layer in self.layers.values())
        return {
            "kl": float(self.kl()),
            "beta": self.beta(clock),
            "sigma_mean": total / sum(self.n_active().values()),
        }

    def set_mean(self) -> None:
        for layer in self.layers.values():
            layer.mode = "mean"

    def set_train(self) -> None:
        for layer in self.layers.values():
            layer.mode = "train"

    def samples(self, n: int, source: torch.Generator) -> Iterator[int]:
        """n weight samples of the posterior, one set of weights for all images each."""
        for i in range(n):
            for layer in self.layers.values():
                layer.draw(source)
                layer.mode = "sample"
            yield i
