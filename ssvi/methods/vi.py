"""Dense mean-field variational inference: a Gaussian posterior on every linear and convolutional weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from ssvi.core.gaussian import TO_RHO, TO_SIGMA, gaussian_kl, gaussian_kl_gradient
from ssvi.core.layers import LayerFactory, VariationalLayer
from ssvi.core.natural import IVON, memory_beta, sigma_of
from ssvi.core.operations import Operation
from ssvi.methods.base import Batch, Clock, Method
from ssvi.runs.parents import parents_of


class VI(Method):
    """Minimises the mean cross-entropy + beta_e kl_scale / N KL(q || p), a cold posterior (eq. 1)."""

    layers: dict[str, VariationalLayer]
    natural: IVON | None = None  # which has the KL in its own equations

    def layer_settings(self) -> dict[str, Any]:
        """What the layers are told beside their shape."""
        spec = self.spec
        return {
            "parameterisation": spec.parameterisation,
            "sampling": spec.sampling,
            "start": (
                spec.mu_init_sd if spec.mean_init == "published" else None,
                spec.sigma_init,
                spec.sigma_init_sd,
            ),
        }

    def factory(self) -> LayerFactory:
        settings = {**self.layer_settings(), "epsilon": self.spec.lrt_epsilon, "noise": self.noise}

        def make(shape: tuple[int, ...], bias: bool, operation: Operation | None, dense_stem: bool) -> VariationalLayer:
            return VariationalLayer(shape, bias, operation, dense_stem, **settings)

        return LayerFactory(make)

    def inherit(self, parents: list[dict[str, Tensor]]) -> None:
        """From a Gaussian posterior also sigma, whatever function of rho it was there."""
        super().inherit(parents)
        before = parents_of(self.spec)[0].parameterisation
        with torch.no_grad():
            for name, layer in self.layers.items():
                if f"{name}.rho" in parents[0]:
                    sigma = TO_SIGMA[before](parents[0][f"{name}.rho"].double())
                    layer.rho.copy_(TO_RHO[layer.parameterisation](sigma))

    def prepare(self) -> None:
        if self.spec.curvature_init:
            self.start_by_curvature()
        self.flatten()
        self.flat.prior_sigma = self.spec.prior_sigma
        self.kl_weight = torch.zeros((), device=self.flat.mean.device)  # factor of the KL in this epoch

    def make_optimizers(self) -> list[Optimizer]:
        if self.spec.posterior_optimizer == "ivon":
            self.natural = self.make_natural()
            return [self.common(self.unmasked()), self.natural]
        others, rho = [self.flat.mean, *self.unmasked()], {"params": [self.flat.rho], "lr": self.spec.sigma_lr}
        if self.spec.sigma_optimizer == "adam":
            return [self.common(others), Adam([rho], fused=True, capturable=self.cuda)]
        if self.spec.optimizer == "sgd":
            return [self.common(others, [rho | {"weight_decay": 0.0}])]
        return [self.common(others), SGD([rho], momentum=self.spec.momentum, fused=True)]

    @torch.no_grad()
    def start_by_curvature(self) -> None:
        """The sigma of `curvature_init` at the end of the warm-up, before anything follows where sigma goes."""
        spec = self.spec
        sigma = sigma_of(spec.curvature_init, spec.prior_sigma, spec.kl_scale, self.context.n_train)
        for layer in self.layers.values():
            rho = TO_RHO[layer.parameterisation](torch.full(layer.shape, sigma, dtype=torch.float64))
            layer.rho.copy_(rho.to(layer.rho.device) * layer.mask)

    def make_natural(self) -> IVON:
        """The optimiser of the posterior, at the temperature of the end of the warm-up."""
        spec = self.spec
        return IVON(
            self.model,
            lr=spec.ivon_lr,
            n_train=self.context.n_train,
            temperature=spec.kl_scale,
            momentum=spec.momentum,
            curvature_beta=spec.curvature_beta or memory_beta(spec.curvature_memory, self.context.clock.total_steps),
            step_clip=spec.step_clip or None,
        )

    # A step -------------------------------------------------------------------------------------

    def beta(self, clock: Clock) -> float:
        """KL warm-up: min(2 epoch/epochs, 1), stepwise per epoch (section 4.1)."""
        return min(2 * clock.epoch / clock.epochs, 1.0) if self.spec.kl_warmup else 1.0

    def begin_epoch(self, clock: Clock) -> None:
        temperature = self.beta(clock) * self.spec.kl_scale
        self.kl_weight.fill_(temperature / self.context.n_train)
        if self.natural is not None:
            self.natural.set_temperature(temperature)

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        """The KL enters by its closed-form gradient; its value is only computed where it is recorded."""
        takes = super().on_gradient(clock, batch)
        if self.natural is None:
            self.flat.add_kl(self.kl_weight, self.kl_gradient)
        return takes

    def kl_gradient(self, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """d KL/d mu and d KL/d sigma of each weight."""
        return gaussian_kl_gradient(mu, sigma, self.spec.prior_sigma)

    def kl(self, mu: Tensor, sigma: Tensor) -> Tensor:
        """KL(q || p) in nats, summed over weights."""
        return gaussian_kl(mu, sigma, self.spec.prior_sigma)

    @torch.no_grad()
    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        return {
            "kl": float(self.kl(self.flat.mean.double(), self.flat.sigma.double())),
            "beta": self.beta(clock),
            "sigma_mean": float(self.flat.sigma.mean(dtype=torch.float64)),
        }
