"""Truncated log-normal noise on whole channels (Neklyudov et al. 2017): its mathematics, and the module that has it.

log theta = z is normal N(mu, sigma^2) cut to [LOW, HIGH]; the prior of z is uniform there. Everything is computed in
float64 and, where numbers leave its range, in logarithms: the textbook formulas fail from sigma = 5 on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.special import log_ndtr, ndtr, ndtri

from ssvi.core.layers import Noisy
from ssvi.core.noise import NormalSource

LOW, HIGH = -20.0, 0.0
MU_START, LOG_SIGMA_START = 0.0, -5.0
# mu is kept in the support and log sigma in this range by moving them back after each step, so that no gradient stops.
LOG_SIGMA = (-20.0, 5.0)
EDGE = 1e-5  # a draw's place in the unit interval keeps this distance from its ends


def _ends(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return (LOW - mu) / sigma, (HIGH - mu) / sigma


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) for low < high, from whichever tail is the smaller one."""
    flip = low + high > 0
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    difference = (log_ndtr(a) - log_ndtr(b)).clamp_max(-torch.finfo(a.dtype).tiny)
    return log_ndtr(b) + torch.log(-torch.expm1(difference))


def kl(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(posterior || prior) of each theta in nats.

    log(b - a) - log sigma - 1/2 log(2 pi e) - log Z - (A phi(A) - B phi(B))/(2 Z), A and B the standardised ends and
    Z the mass between them.
    """
    low, high = _ends(mu, sigma)
    log_mass = _log_mass(low, high)
    density = (low * torch.exp(-0.5 * low.square()) - high * torch.exp(-0.5 * high.square())) / math.sqrt(2 * math.pi)
    constant = math.log(HIGH - LOW) - 0.5 * math.log(2 * math.pi * math.e)
    return constant - sigma.log() - log_mass - 0.5 * density * torch.exp(-log_mass)


def _log_moment(mu: Tensor, sigma: Tensor, order: int) -> Tensor:
    """log E theta^order."""
    low, high = _ends(mu, sigma)
    shifted = _log_mass(low - order * sigma, high - order * sigma)
    return order * mu + 0.5 * (order * sigma).square() + shifted - _log_mass(low, high)


def mean(mu: Tensor, sigma: Tensor) -> Tensor:
    """E theta."""
    return _log_moment(mu, sigma, 1).exp()


def snr(mu: Tensor, sigma: Tensor) -> Tensor:
    """E theta / sd theta; ratios above 10^6, which float64 cannot tell from rounding, are given as about that."""
    excess = _log_moment(mu, sigma, 2) - 2 * _log_moment(mu, sigma, 1)
    return torch.expm1(excess.clamp_min(1e-12)).rsqrt()


def sample(mu: Tensor, sigma: Tensor, uniform: Tensor) -> Tensor:
    """theta at the given places in the unit interval, by the inverse distribution function; differentiable."""
    low, high = _ends(mu, sigma)
    at = ndtr(low) + uniform.clamp(EDGE, 1 - EDGE) * (ndtr(high) - ndtr(low))
    return torch.exp(mu + sigma * ndtri(at)).clamp_max(math.exp(HIGH))


class NoisyGate(Noisy, nn.Module):
    """Multiplies channels [n, c, ...] by theta_c: in training a draw for each image or for the batch, in evaluation
    E theta or one draw for all images; then masked.

    Attributes:
        mu, log_sigma: [c], float32.
        keep: bool [c]; the others are 0.
    """

    keep: Tensor

    def __init__(self, channels: int, each_image: bool, noise: NormalSource) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.full((channels,), MU_START))
        self.log_sigma = nn.Parameter(torch.full((channels,), LOG_SIGMA_START))
        self.register_buffer("keep", torch.ones(channels, dtype=torch.bool))
        self.each_image, self.noise = each_image, noise

    def parameters_of_theta(self) -> tuple[Tensor, Tensor]:
        """mu and sigma in float64."""
        return self.mu.double(), self.log_sigma.double().exp()

    def one_sample(self, source: NormalSource) -> Tensor:
        """One theta for all images."""
        return self._theta(1, source)

    def _theta(self, rows: int, source: NormalSource) -> Tensor:
        uniform = ndtr(source.normal(self.mu.new_empty(rows, len(self.mu)).double()))
        return sample(*self.parameters_of_theta(), uniform)

    def scale(self) -> Tensor:
        """What evaluation multiplies the channels of all images by at present, [1, c], float64."""
        theta = mean(*self.parameters_of_theta())[None] if self.drawn is None else self.drawn
        return theta * self.keep

    def forward(self, x: Tensor) -> Tensor:
        theta = self._theta(len(x) if self.each_image else 1, self.noise) * self.keep if self.draws else self.scale()
        theta = theta.to(x.dtype)
        return x * theta.view(*theta.shape, *[1] * (x.dim() - 2))
