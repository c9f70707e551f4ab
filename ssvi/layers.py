"""Layers with an explicit boolean mask: plain (one value a weight) and variational (mu and sigma a weight).

A masked weight is zero because its stored value is zero: `mask` says which weights those are and nothing
is ever read off a float. Gradients with respect to the mean are dense after `backward`, since growing needs
them; the optimiser sees those of the active weights alone (`ssvi.flat`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssvi.noise import NormalSource

Mode = Literal["train", "mean", "sample"]
# Where a network asks for a gate on its channels: after the ReLU inside a residual block, before a branch joins the
# stream, on the stream itself (after the ReLU that ends a block, or the stem).
Site = Literal["hidden", "branch", "stream"]

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


_scratch = threading.local()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a * b for use until the next product: on a CPU always in the same memory, which is warm and never asked for."""
    dense = a.is_contiguous() or (a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last))
    if a.is_cuda or torch.compiler.is_compiling() or not dense or a.stride() != b.stride():
        return a * b
    buffers: dict[torch.dtype, Tensor] = _scratch.__dict__.setdefault("buffers", {})
    buffer = buffers.get(a.dtype)
    if buffer is None or buffer.numel() < a.numel():
        buffer = buffers[a.dtype] = torch.empty(a.numel(), dtype=a.dtype)
    return torch.mul(a, b, out=buffer.as_strided(a.shape, a.stride()))


class _LocalReparameterisation(torch.autograd.Function):
    """y = f(x, mean) + sqrt(f(x^2, variance) + epsilon) * noise (eq. 4) for a linear operation f, as one node.

    Beside its inputs it keeps one tensor for the backward pass, noise / (2 sd); x^2 is computed again. Sums and
    products are formed in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        bias: Tensor | None,
        operation: Operation,
        epsilon: float,
        noise: NormalSource,
    ) -> Tensor:
        out = operation(x, mean, bias)
        out, slope = noise.add_noise(out, operation(_product(x, x), variance, None), epsilon)
        ctx.save_for_backward(x, mean, variance, slope)
        ctx.operation, ctx.has_bias = operation, bias is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, slope = ctx.saved_tensors
        operation: Operation = ctx.operation
        wants_x = ctx.needs_input_grad[0]
        to_x, to_mean, to_bias = operation.backward(grad, x, mean, wants_x, ctx.has_bias)
        squared_x, to_variance, _ = operation.backward(grad * slope, _product(x, x), variance, wants_x, False)
        if wants_x:
            to_x = to_x.addcmul_(x, squared_x, value=2)
        return to_x, to_mean, to_variance, to_bias, None, None, None


def local_reparameterisation(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    bias: Tensor | None,
    operation: Operation,
    epsilon: float,
    noise: NormalSource,
) -> Tensor:
    """A draw of the outputs under weights N(mean, variance), independent per output (eq. 4).

    Under autocast everything is computed in its type, gradients come back in the parameters' own.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        bias = None if bias is None else bias.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            return local_reparameterisation(
                x.to(dtype), mean.to(dtype), variance.to(dtype), bias, operation, epsilon, noise
            )
    rows = operation.rows(x)
    out = _LocalReparameterisation.apply(rows, mean, variance, bias, operation, epsilon, noise)
    return operation.like(out, x)


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
        self._slim: tuple[Tensor, Tensor, Tensor] | None = None

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

    @property
    def mean_gradient(self) -> Tensor:
        """Dense gradient with respect to the mean, which ranks what may be added; after `backward`."""
        assert self.mean.grad is not None
        return self.mean.grad

    @torch.no_grad()
    def slim(self) -> None:
        """From here on compute with the living outputs and inputs alone, where whole ones are masked.

        For predictions of a network whose masks do not change any more: masked outputs are 0.
        """
        rows = self.mask.flatten(1).any(1)
        columns = self.mask.transpose(0, 1).flatten(1).any(1)
        # a layer that is dead as a whole keeps one weight, of value 0
        rows[0] |= ~rows.any()
        columns[0] |= ~columns.any()
        self._slim = None
        if not (bool(rows.all()) and bool(columns.all())):
            self._slim = rows.nonzero().flatten(), columns.nonzero().flatten(), self.mean[rows][:, columns]

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation.seen(x)
        if self._slim is None:
            return self.operation(x, self.mean, self.bias)
        rows, columns, weight = self._slim
        at = self.operation.channels
        part = self.operation(x.index_select(at, columns), weight, None if self.bias is None else self.bias[rows])
        shape = list(part.shape)
        shape[at] = len(self.mean)
        return part.new_zeros(shape).index_copy_(at, rows, part)


class VariationalLayer(MaskedLayer):
    """A mean-field Gaussian weight N(mu, sigma^2) on the mask and exactly 0 elsewhere (eq. 2-3).

    The forward pass depends on `mode`: `train` draws noise (local reparameterisation, eq. 4, or one
    weight sample a batch), `mean` sets theta = mu, `sample` uses the weights drawn by `draw`.

    Attributes:
        realised: while training, what this step uses beside or in place of the mean: the variance under local
            reparameterisation, else the sampled weight; a leaf that gathers gradients. None outside training:
            then the layer computes it from rho.
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
        noise: NormalSource,
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
        self.realised: Tensor | None = None
        self._drawn: Tensor | None = None

    @property
    def mu(self) -> nn.Parameter:
        """Posterior means, 0 outside the mask."""
        return self.mean

    @property
    def sigma(self) -> Tensor:
        """Posterior standard deviations, 0 outside the mask, differentiable with respect to rho."""
        return TO_SIGMA[self.parameterisation](self.rho) * self.mask

    @property
    def mean_gradient(self) -> Tensor:
        if self.sampling == "weight" and self.realised is not None:
            assert self.realised.grad is not None
            return self.realised.grad
        return super().mean_gradient

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

    @torch.no_grad()
    def draw(self, source: NormalSource) -> None:
        """Draw one set of weights, used by `forward` in mode `sample` until the next draw."""
        self._drawn = self._one_sample(source)

    def _one_sample(self, source: NormalSource) -> Tensor:
        return torch.addcmul(self.mean, self.sigma, source.normal(self.mean))

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation.seen(x)
        if self.mode == "mean":
            return self.operation(x, self.mean, self.bias)
        if self.mode == "sample":
            assert self._drawn is not None, "draw() comes before forward() in mode 'sample'"
            return self.operation(x, self._drawn, self.bias)
        if self.sampling == "weight":
            weight = self._one_sample(self.noise) if self.realised is None else self.realised
            return self.operation(x, weight, self.bias)
        variance = self.sigma.square() if self.realised is None else self.realised
        return local_reparameterisation(x, self.mean, variance, self.bias, self.operation, self.epsilon, self.noise)


class Operation:
    """A linear map of the input with given weights: a matrix product or a convolution.

    A matrix product takes [..., inputs], a convolution [n, inputs, h, w] or [inputs, h, w], as PyTorch's own layers do.

    Attributes:
        stride: of the convolution, None for the matrix product.
        padding: zeros around what is seen of the image.
        every, around: the convolution sees every n-th row and column of the image alone, which has so many zeros around
            it (see `seen`).
        channels: the dimension of the channels, from the end.
    """

    def __init__(self, stride: int | None = None, padding: int = 0, kernel: int | None = None) -> None:
        """`stride` None is the matrix product, else a 2-d convolution, whose `kernel` may be told."""
        # A strided 1x1 convolution is one with stride 1 of what it looks at. PyTorch's backward pass of the former
        # writes outside its memory on a CPU: channels-last, under 16 channels, an odd batch, two threads.
        pointwise = stride is not None and stride > 1 and kernel == 1
        self.every, self.around = (stride, padding) if pointwise else (1, 0)
        self.stride, self.padding = (1, 0) if pointwise else (stride, padding)
        self.channels = -1 if stride is None else -3

    def seen(self, x: Tensor) -> Tensor:
        """The part of the input that the weights are applied to; comes before everything else."""
        if self.every == 1:
            return x
        if self.around:
            x = functional.pad(x, [self.around] * 4)
        # averages of one pixel each, because that keeps the layout in memory, backwards too
        return functional.avg_pool2d(x, 1, self.every)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.stride is None:
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, self.stride, self.padding)

    def rows(self, x: Tensor) -> Tensor:
        """The input as `backward` takes it: [n, inputs], or [n, inputs, h, w]."""
        if self.stride is None:
            return x.reshape(-1, x.shape[-1])
        return x if x.dim() == 4 else x[None]

    def like(self, out: Tensor, x: Tensor) -> Tensor:
        """The output of `rows(x)` in the shape that x gives."""
        if self.stride is None:
            return out.reshape(*x.shape[:-1], out.shape[-1])
        return out if x.dim() == 4 else out[0]

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_bias: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients with respect to x (if wanted), the weight and the bias (if wanted), from that of the output.

        `x` is as `rows` gives it, and so is what belongs to it.
        """
        if self.stride is None:
            return grad @ weight if wants_x else None, grad.T @ x, grad.sum(0) if wants_bias else None
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [weight.shape[0]] if wants_bias else None,
            [self.stride] * 2,
            [self.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [wants_x, True, wants_bias],
        )


class LayerFactory:
    """Makes the layers of a network, in the order of its construction, for one method.

    `make(shape, bias, operation, dense_stem)` gives the layer; a network asks for `linear` and `conv2d`
    and never knows which kind it gets. It also asks for a gate at every site where channels may fall away as a whole;
    `gate(channels, site)` gives a module that keeps the shape, or None for nothing.
    """

    def __init__(
        self,
        make: Callable[[tuple[int, ...], bool, Operation, bool], MaskedLayer],
        gate: Callable[[int, Site], nn.Module | None] = lambda channels, site: None,
    ) -> None:
        self._make, self._gate = make, gate

    def gate(self, channels: int, site: Site) -> nn.Module:
        """What stands behind the channels at a site: [n, channels, ...] to the same."""
        return self._gate(channels, site) or nn.Identity()

    def linear(self, inputs: int, outputs: int) -> MaskedLayer:
        """A dense layer with a deterministic bias: [n, inputs] to [n, outputs]."""
        return self._make((outputs, inputs), True, Operation(), False)

    def conv2d(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, stem: bool = False
    ) -> MaskedLayer:
        """A convolution without bias: [n, inputs, h, w] to [n, outputs, h', w']."""
        return self._make((outputs, inputs, kernel, kernel), False, Operation(stride, padding, kernel), stem)


def masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The network's layers with a mask, by name, in the order of construction."""
    return {name: m for name, m in model.named_modules() if isinstance(m, MaskedLayer)}
