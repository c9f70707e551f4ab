"""Layers with an explicit boolean mask: plain (one value a weight) and variational (mu and sigma a weight).

A masked weight is zero because its stored value is zero: `mask` says which weights those are and nothing
is ever read off a float.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssvi.noise import NormalSource
from ssvi.operations import Convolution, Operation

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
    # what is made in inference mode can be used nowhere else
    elsewhere = a.is_cuda or torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    if elsewhere or not dense or a.stride() != b.stride():
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
    @torch.autograd.function.once_differentiable
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


class Home(Protocol):
    """Where layers' weights are once they are a network's vectors (`ssvi.flat.ActiveWeights`)."""

    def tensor_of(self, number: int, name: str) -> Tensor:
        """What a layer would store: `mean`, `rho` or `mask`, dense."""

    def present_of(self, number: int, name: str) -> Tensor:
        """What the present forward pass uses of a layer: `mean`, `variance` or `sample`, dense."""


class MaskedLayer(nn.Module):
    """A weight with a mask, an optional deterministic bias, and the linear operation that applies it.

    The weight lies in the layer itself until `ssvi.flat.ActiveWeights` takes over what is active: from then on it is a
    part of the network's vectors, and `mean` and `mask` can only be read.

    Attributes:
        mean: what the axes of the subspace are (the weight, or mu).
        mask: bool, same shape; True where the weight is active.
        operation: None for a weight that another module reads.
        dense_stem: a convolution on the images themselves, which `uniform` keeps dense.
        home: of a weight that was taken over, the network's vectors and this layer's number there.
    """

    mean: nn.Parameter
    mask: Tensor
    OWN = ("mean", "mask")

    def __init__(self, shape: tuple[int, ...], bias: bool, operation: Operation | None, dense_stem: bool) -> None:
        super().__init__()
        self.operation = operation
        self.dense_stem = dense_stem
        self.shape = shape
        self.mean = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0])) if bias else None
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))
        self.home: tuple[Home, int] | None = None
        self._slim: tuple[Tensor, Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        """What was taken over is read where it is now."""
        home = self.__dict__.get("home")
        if home is not None and name in self.OWN and name not in self._buffers:
            return home[0].tensor_of(home[1], name)
        return super().__getattr__(name)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Weights that feed one output."""
        return math.prod(self.shape[1:])

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
    def noisy(self) -> bool:
        """Whether the next forward pass draws noise."""
        return False

    @property
    def weight(self) -> Tensor:
        """The weight with which the present forward pass computes."""
        return self.mean if self.home is None else self.home[0].present_of(self.home[1], "mean")

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
        if self.operation.groups == 1 and not (bool(rows.all()) and bool(columns.all())):
            self._slim = rows.nonzero().flatten(), columns.nonzero().flatten(), self.mean[rows][:, columns]

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation.seen(x)
        if self._slim is None:
            return self.operation(x, self.weight, self.bias)
        rows, columns, weight = self._slim
        at = self.operation.channels
        part = self.operation(x.index_select(at, columns), weight, None if self.bias is None else self.bias[rows])
        shape = list(part.shape)
        shape[at] = self.shape[0]
        return part.new_zeros(shape).index_copy_(at, rows, part)

    def extra_repr(self) -> str:
        """Shape, and what is done with it."""
        use = "read by its module" if self.operation is None else f"{self.operation}, bias={self.bias is not None}"
        return f"{'x'.join(map(str, self.shape))}, {use}"


class VariationalLayer(MaskedLayer):
    """A mean-field Gaussian weight N(mu, sigma^2) on the mask and exactly 0 elsewhere (eq. 2-3).

    In training a forward pass draws noise: by local reparameterisation (eq. 4), or one weight sample a pass. In
    evaluation theta = mu, or the weights of the last `draw` where there was one.

    Attributes:
        mode: None follows `training`; `train`, `mean` and `sample` overrule it.
        sampling: `local` or `weight`.
        noise: what the training's noise comes from.
    """

    rho: nn.Parameter
    OWN = (*MaskedLayer.OWN, "rho")

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: bool,
        operation: Operation | None,
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
        self.mode: Mode | None = None
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

    @torch.no_grad()
    def draw(self, source: NormalSource) -> None:
        """Draw one set of weights, with which `forward` computes until the next draw, or `forget`."""
        self.take_sample(self._one_sample(source))

    def take_sample(self, weight: Tensor) -> None:
        """Compute with these weights, of the layer's shape, until `forget`."""
        self.mode, self._drawn = "sample", weight

    def forget(self) -> None:
        """Follow `training` again, without a draw."""
        self.mode, self._drawn = None, None

    def _one_sample(self, source: NormalSource) -> Tensor:
        return torch.addcmul(self.mean, self.sigma, source.normal(self.mean))

    @property
    def noisy(self) -> bool:
        return self.training if self.mode is None else self.mode == "train"

    @property
    def weight(self) -> Tensor:
        """The weight with which the present forward pass computes: in training one sample for all of the pass."""
        if self.mode == "sample":
            assert self._drawn is not None
            return self._drawn
        if not self.noisy:
            return super().weight
        return self._one_sample(self.noise) if self.home is None else self.home[0].present_of(self.home[1], "sample")

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation.seen(x)
        if not (self.noisy and self.sampling == "local"):
            return self.operation(x, self.weight, self.bias)
        if self.home is None:
            mean, variance = self.mean, self.sigma.square()
        else:
            mean, variance = (self.home[0].present_of(self.home[1], name) for name in ("mean", "variance"))
        return local_reparameterisation(x, mean, variance, self.bias, self.operation, self.epsilon, self.noise)


class LayerFactory:
    """Makes the layers of a network, in the order of its construction, for one method.

    `layer(shape, bias, operation, dense_stem)` gives it; a network asks for `linear` and `conv2d`
    and never knows which kind it gets. It also asks for a gate at every site where channels may fall away as a whole;
    `gate(channels, site)` gives a module that keeps the shape, or None for nothing.
    """

    def __init__(
        self,
        make: Callable[[tuple[int, ...], bool, Operation | None, bool], MaskedLayer],
        gate: Callable[[int, Site], nn.Module | None] = lambda channels, site: None,
    ) -> None:
        self.layer, self._gate = make, gate

    def gate(self, channels: int, site: Site) -> nn.Module:
        """What stands behind the channels at a site: [n, channels, ...] to the same."""
        return self._gate(channels, site) or nn.Identity()

    def linear(self, inputs: int, outputs: int) -> MaskedLayer:
        """A dense layer with a deterministic bias: [n, inputs] to [n, outputs]."""
        return self.layer((outputs, inputs), True, Operation(), False)

    def conv2d(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, stem: bool = False
    ) -> MaskedLayer:
        """A convolution without bias: [n, inputs, h, w] to [n, outputs, h', w']."""
        operation = Convolution((kernel, kernel), stride, padding)
        return self.layer((outputs, inputs, kernel, kernel), False, operation, stem)


def masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The network's layers with a mask, by name, in the order of construction."""
    return {name: m for name, m in model.named_modules() if isinstance(m, MaskedLayer)}
