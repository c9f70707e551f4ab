"""Layers with an explicit boolean mask: plain (one value a weight) and variational (mu and sigma a weight).

A masked weight is zero because its stored value is zero: `mask` says which weights those are and nothing
is ever read off a float. Gradients with respect to the mean stay dense after `backward`, since growing
needs them; `mask_gradients` zeroes them before the optimiser sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssvi.noise import standard_normal

Mode = Literal["train", "mean", "sample"]

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


class _AddNoise(torch.autograd.Function):
    """mean + sqrt(variance + epsilon) * noise, saving one tensor for the backward pass."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor, noise: Tensor, epsilon: float) -> Tensor:
        sd = (variance + epsilon).sqrt_()
        out = torch.addcmul(mean, sd, noise)
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(noise / sd.mul_(2))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if not ctx.needs_input_grad[1]:
            return grad, None, None, None
        (slope,) = ctx.saved_tensors
        return grad, grad * slope, None, None


class _GaussianKL(torch.autograd.Function):
    """Sum over active weights of KL(N(mu, sigma^2) || N(0, prior^2)), with its closed-form gradient."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, sigma: Tensor, mask: Tensor, prior_sigma: float) -> Tensor:
        ctx.save_for_backward(mu, sigma, mask)
        ctx.prior_sigma = prior_sigma
        ratio = sigma / prior_sigma
        each = 0.5 * (ratio.square() + (mu / prior_sigma).square() - 1) - ratio.log()
        # sigma is 0 outside the mask, where the logarithm is not a number anyone wants
        return torch.where(mask, each, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        mu, sigma, mask = ctx.saved_tensors
        precision = ctx.prior_sigma**-2
        towards_prior = torch.where(mask, sigma * precision - 1 / sigma, 0.0)
        return grad * mu * precision, grad * towards_prior, None, None


def gaussian_kl(mu: Tensor, sigma: Tensor, mask: Tensor, prior_sigma: float) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, prior_sigma^2)) summed over the active weights (eq. 3), a scalar.

    log(prior_sigma/sigma) + (sigma^2 + mu^2)/(2 prior_sigma^2) - 1/2 for each. mu and sigma must be 0
    outside the mask.
    """
    return _GaussianKL.apply(mu, sigma, mask, prior_sigma)


class MaskedLayer(nn.Module):
    """What Linear and Conv2d share: a weight with a mask, an optional deterministic bias, an operation.

    Attributes:
        mean: the parameter whose entries are the axes of the subspace (the weight, or mu).
        mask: bool, same shape; True where the weight is active.
        dense_stem: a convolution on the images themselves, which `uniform` keeps dense.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, ...], bias: bool, operation: Operation, dense_stem: bool) -> None:
        super().__init__()
        self.operation = operation
        self.dense_stem = dense_stem
        self.mean = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0])) if bias else None
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))

    @property
    def fan_in(self) -> int:
        """Weights that feed one output."""
        return math.prod(self.mean.shape[1:])

    def reset(self, source: torch.Generator) -> None:
        """Draw start values: PyTorch's own for plain weights and biases, uniform in +-1/sqrt(fan in)."""
        bound = 1 / math.sqrt(self.fan_in)
        with torch.no_grad():
            self.mean.uniform_(-bound, bound, generator=source)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound, generator=source)

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Zero every stored value outside the mask."""
        self.mean.mul_(self.mask)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradient outside the mask, and through it momentum and weight decay."""
        if self.mean.grad is not None:
            self.mean.grad.mul_(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x, self.mean, self.bias)


class VariationalLayer(MaskedLayer):
    """A mean-field Gaussian weight N(mu, sigma^2) on the mask and exactly 0 elsewhere (eq. 2-3).

    The forward pass depends on `mode`: `train` draws noise (local reparameterisation, eq. 4, or one
    weight sample a batch), `mean` sets theta = mu, `sample` uses the weights drawn by `draw`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: bool,
        operation: Operation,
        dense_stem: bool,
        *,
        parameterisation: str,
        sampling: str,
        epsilon: float,
        start: tuple[float, float, float],
        noise: torch.Generator,
    ) -> None:
        """`start` holds the sd of mu, and the mean and sd of sigma, at the start."""
        super().__init__(shape, bias, operation, dense_stem)
        self.parameterisation = parameterisation
        self.sampling = sampling
        self.epsilon = epsilon
        self.start = start
        self.noise = noise
        self.rho = nn.Parameter(torch.empty(shape))
        self.mode: Mode = "train"
        self._drawn: Tensor | None = None

    @property
    def mu(self) -> nn.Parameter:
        """Posterior means, 0 outside the mask."""
        return self.mean

    @property
    def sigma(self) -> Tensor:
        """Posterior standard deviations, 0 outside the mask, differentiable with respect to rho."""
        return TO_SIGMA[self.parameterisation](self.rho) * self.mask

    def reset(self, source: torch.Generator) -> None:
        """mu ~ N(0, mu_sd^2); sigma = |N(sigma_mean, sigma_sd^2)|, whatever the fan-in (as published)."""
        super().reset(source)
        mu_sd, sigma_mean, sigma_sd = self.start
        with torch.no_grad():
            self.mean.normal_(0, mu_sd, generator=source)
            sigma = torch.empty_like(self.rho).normal_(sigma_mean, sigma_sd, generator=source).abs_()
            self.rho.copy_(TO_RHO[self.parameterisation](sigma.clamp_min_(1e-12)))

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Zero mu and rho outside the mask (sigma is 0 there by the mask itself)."""
        super().apply_mask()
        self.rho.mul_(self.mask)

    def kl(self, prior_sigma: float) -> Tensor:
        """KL of this layer's active weights to the prior, a scalar."""
        return gaussian_kl(self.mean, self.sigma, self.mask, prior_sigma)

    @torch.no_grad()
    def draw(self, source: torch.Generator) -> None:
        """Draw one set of weights, used by `forward` in mode `sample` until the next draw."""
        self._drawn = self._one_sample(source)

    def _one_sample(self, source: torch.Generator) -> Tensor:
        return torch.addcmul(self.mean, self.sigma, standard_normal(self.mean, source))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "mean":
            return self.operation(x, self.mean, self.bias)
        if self.mode == "sample":
            assert self._drawn is not None, "draw() comes before forward() in mode 'sample'"
            return self.operation(x, self._drawn, self.bias)
        if self.sampling == "weight":
            return self.operation(x, self._one_sample(self.noise), self.bias)
        mean = self.operation(x, self.mean, self.bias)
        variance = self.operation(x.square(), self.sigma.square(), None)
        return _AddNoise.apply(mean, variance, standard_normal(mean, self.noise), self.epsilon)


class Operation:
    """A linear map of the input with given weights: a matrix product or a convolution."""

    def __init__(self, stride: int | None = None, padding: int = 0) -> None:
        """`stride` None is the matrix product, else a 2-d convolution."""
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.stride is None:
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, self.stride, self.padding)


class LayerFactory:
    """Makes the layers of a network, in the order of its construction, for one method.

    `make(shape, bias, operation, dense_stem)` gives the layer; a network asks for `linear` and `conv2d`
    and never knows which kind it gets.
    """

    def __init__(self, make: Callable[[tuple[int, ...], bool, Operation, bool], MaskedLayer]) -> None:
        self._make = make

    def linear(self, inputs: int, outputs: int) -> MaskedLayer:
        """A dense layer with a deterministic bias: [n, inputs] to [n, outputs]."""
        return self._make((outputs, inputs), True, Operation(), False)

    def conv2d(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, stem: bool = False
    ) -> MaskedLayer:
        """A convolution without bias: [n, inputs, h, w] to [n, outputs, h', w']."""
        return self._make((outputs, inputs, kernel, kernel), False, Operation(stride, padding), stem)


def masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The network's layers with a mask, by name, in the order of construction."""
    return {name: m for name, m in model.named_modules() if isinstance(m, MaskedLayer)}
