"""A weight's Gaussian: its standard deviation as a function of rho, and its KL to the prior N(0, prior_sigma^2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# sigma as a function of rho, and back.
TO_SIGMA: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": functional.softplus,
    "exp": torch.exp,
    "abs": torch.abs,
}
TO_RHO: dict[str, Callable[[Tensor], Tensor]] = {
    # log(expm1(s)) in a form that neither cancels for small s nor overflows for large s
    "softplus": lambda sigma: sigma + torch.log(-torch.expm1(-sigma)),
    "exp": torch.log,
    "abs": lambda sigma: sigma,
}
# d sigma/d rho as a function of rho.
SLOPE: dict[str, Callable[[Tensor], Tensor]] = {"softplus": torch.sigmoid, "exp": torch.exp, "abs": torch.sign}


def gaussian_kl(mu: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, prior_sigma^2)) summed over weights (eq. 3), a scalar.

    log(prior_sigma/sigma) + (sigma^2 + mu^2)/(2 prior_sigma^2) - 1/2 for each.
    """
    ratio = sigma / prior_sigma
    return (0.5 * (ratio.square() + (mu / prior_sigma).square() - 1) - ratio.log()).sum()


def gaussian_kl_gradient(mu: Tensor, sigma: Tensor, prior_sigma: float) -> tuple[Tensor, Tensor]:
    """Derivatives of each weight's KL: mu/prior^2, and sigma/prior^2 - 1/sigma."""
    precision = prior_sigma**-2
    return mu * precision, (sigma * precision).sub_(sigma.reciprocal())


class GaussianKL(torch.autograd.Function):
    """`gaussian_kl` with its closed-form gradient, which takes a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
        ctx.save_for_backward(mu, sigma)
        ctx.prior_sigma = prior_sigma
        return gaussian_kl(mu, sigma, prior_sigma)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        to_mu, to_sigma = gaussian_kl_gradient(*ctx.saved_tensors, ctx.prior_sigma)
        return to_mu.mul_(grad), to_sigma.mul_(grad), None
