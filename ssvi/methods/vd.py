"""Sparse variational dropout (Molchanov et al. 2017): a log-uniform prior, and weights that are all noise pruned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from ssvi.core.layers import VariationalLayer
from ssvi.methods.base import Clock
from ssvi.methods.vi import VI

# Of the fit to the KL that has no closed form, within 0.01 nats of it.
K1, K2, K3 = 0.63576, 1.87320, 1.48695
# log alpha is held in this range in the KL, whose gradient is that of the nearer end outside, so never 0: a weight
# that has left the range comes back.
LOG_ALPHA = (-10.0, 10.0)
TINY = 1e-8  # beside theta^2, which may be 0


def log_alpha(theta: Tensor, sigma: Tensor) -> Tensor:
    """log(sigma^2/theta^2), the log of the noise-to-signal ratio of each weight."""
    return 2 * sigma.log() - (theta.square() + TINY).log()


def log_uniform_kl(log_alpha: Tensor) -> Tensor:
    """KL(N(theta, alpha theta^2) || log-uniform) of each weight in nats, up to the constant that makes it vanish.

    D = k1 - k1 sigmoid(k2 + k3 log alpha) + 1/2 log(1 + 1/alpha), which falls to 0 as alpha grows.
    """
    a = log_alpha.clamp(*LOG_ALPHA)
    return K1 * torch.sigmoid(-(K2 + K3 * a)) + 0.5 * functional.softplus(-a)


def log_uniform_kl_slope(log_alpha: Tensor) -> Tensor:
    """d D/d log alpha, below 0 everywhere; outside `LOG_ALPHA` that of its nearer end."""
    a = log_alpha.clamp(*LOG_ALPHA)
    s = torch.sigmoid(K2 + K3 * a)
    return -K1 * K3 * s * (1 - s) - 0.5 * torch.sigmoid(-a)


class VD(VI):
    """Additive-noise parameterisation w ~ N(theta, sigma^2), local reparameterisation, Adam, no weight decay.

    Minimises the mean cross-entropy + ramp kl_weight/N sum D(log alpha). Weights whose log alpha is above the
    threshold at the end are pruned, and BatchNorm's statistics are taken anew without their noise.
    """

    def layer_settings(self) -> dict[str, Any]:
        start = (self.spec.mu_init_sd, math.exp(self.spec.log_variance_init / 2), 0.0)
        return {"parameterisation": "exp", "sampling": "local", "start": start}

    def make_optimizers(self) -> list[Optimizer]:
        parameters = [self.flat.mean, self.flat.rho, *self.unmasked()]
        return [Adam(parameters, lr=self.spec.adam_lr, fused=True, capturable=self.flat.mean.is_cuda)]

    def lr_factor(self, clock: Clock) -> float:
        return min(1.0, 2 * (clock.epochs - clock.epoch + 1) / clock.epochs)

    def beta(self, clock: Clock) -> float:
        """KL ramp: linear from 0 in the first epoch to 1 after `kl_ramp` of the epochs."""
        ramp = self.spec.kl_ramp * clock.epochs
        return min((clock.epoch - 1) / ramp, 1.0) if ramp else 1.0

    def begin_epoch(self, clock: Clock) -> None:
        self.kl_weight.fill_(self.beta(clock) * self.spec.kl_weight / self.context.n_train)

    def kl_gradient(self, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        slope = 2 * log_uniform_kl_slope(log_alpha(mu, sigma))
        return -slope * mu / (mu.square() + TINY), slope / sigma

    def kl(self, mu: Tensor, sigma: Tensor) -> Tensor:
        return log_uniform_kl(log_alpha(mu, sigma)).sum()

    # Sparsity -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _keeps(self, layer: VariationalLayer) -> Tensor:
        return log_alpha(layer.mean, layer.sigma) <= self.spec.log_alpha_threshold

    def n_active(self) -> dict[str, int]:
        """Weights that would be kept as things are."""
        return {name: int((layer.mask & self._keeps(layer)).sum()) for name, layer in self.layers.items()}

    def n_computed(self) -> dict[str, int]:
        """Nothing is pruned before the end."""
        return {name: layer.size for name, layer in self.layers.items()}

    @torch.no_grad()
    def finish(self) -> None:
        # from here on a mask stands beside the weights
        self.flat.release()
        for layer in self.layers.values():
            layer.mask.copy_(self._keeps(layer))
            layer.apply_mask()
        self.context.recalibrate()
