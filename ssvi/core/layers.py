"""Layers with an explicit boolean mask: plain (one value a weight) and variational (mu and sigma a weight).

A masked weight is zero because its stored value is zero: `mask` says which weights those are and nothing
is ever read off a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ssvi.core.allocation import LayerShape, best_masks, random_masks
from ssvi.core.gaussian import TO_RHO, TO_SIGMA
from ssvi.core.noise import NormalSource
from ssvi.core.operations import Convolution, Operation
from ssvi.core.reparameterisation import local_reparameterisation

# Where a network asks for a gate on its channels: after the ReLU inside a residual block, before a branch joins the
# stream, on the stream itself (after the ReLU that ends a block, or the stem).
Site = Literal["hidden", "branch", "stream"]


class Noisy:
    """What layers and gates with noise have in common: in training a forward pass draws some, in evaluation it computes
    with means, until it is told otherwise (`ssvi.core.modes` tells a whole network).

    Attributes:
        mode: None follows `training`; `mean` and `sample`, the last draw, overrule it.
    """

    training: bool
    mode: Literal["mean", "sample"] | None = None
    _drawn: Tensor | None = None

    @property
    def draws(self) -> bool:
        """Whether the next forward pass draws noise."""
        return self.training and self.mode is None

    @property
    def drawn(self) -> Tensor | None:
        """The draw with which forward passes compute, None where they do not."""
        return self._drawn if self.mode == "sample" else None

    @torch.no_grad()
    def draw(self, source: NormalSource) -> None:
        """Draw once, and compute with that."""
        self.take_sample(self.one_sample(source))

    def take_sample(self, drawn: Tensor) -> None:
        """Compute with what was drawn elsewhere."""
        self.mode, self._drawn = "sample", drawn

    def take_mean(self) -> None:
        """Compute with means, in training, too."""
        self.mode, self._drawn = "mean", None

    def forget(self) -> None:
        """Follow `training` again."""
        self.mode, self._drawn = None, None

    def one_sample(self, source: NormalSource) -> Tensor:
        """A draw for all inputs alike."""
        # no abstract method, because a module that becomes a layer cannot take the class of one with an ABC
        raise NotImplementedError


class Home(Protocol):
    """Where layers' weights are once they are a network's vectors (`ssvi.core.active.ActiveWeights`)."""

    def tensor_of(self, number: int, name: str) -> Tensor:
        """What a layer would store: `mean`, `rho` or `mask`, dense."""

    def present_of(self, number: int, name: str) -> Tensor:
        """What the present forward pass uses of a layer: `mean`, `variance` or `sample`, dense."""


class MaskedLayer(nn.Module):
    """A weight with a mask, an optional deterministic bias, and the linear operation that applies it.

    The weight lies in the layer itself until `ssvi.core.active.ActiveWeights` takes over what is active: from then on
    it is a part of the network's vectors, and `mean` and `mask` can only be read.

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
    numbers = 1  # stored of each active weight

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
    def products(self) -> int:
        """How often a forward pass of training applies a tensor of the weight's shape."""
        return 1

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

    @torch.no_grad()
    def applied(self) -> tuple[Tensor, Tensor | None]:
        """Copies of the weight, dense, and of the bias with which evaluation computes at present."""
        if self._slim is None:
            return self.weight.clone(), None if self.bias is None else self.bias.clone()
        rows, columns, part = self._slim
        weight = part.new_zeros(self.shape)
        weight[rows[:, None], columns] = part
        return weight, None if self.bias is None else torch.zeros_like(self.bias).index_copy_(0, rows, self.bias[rows])

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


class VariationalLayer(Noisy, MaskedLayer):
    """A mean-field Gaussian weight N(mu, sigma^2) on the mask and exactly 0 elsewhere (eq. 2-3).

    In training a forward pass draws noise: by local reparameterisation (eq. 4), or one weight sample a pass. In
    evaluation theta = mu, or the weights of the last `draw` where there was one.

    Attributes:
        sampling: `local` or `weight`.
        noise: what the training's noise comes from.
    """

    rho: nn.Parameter
    OWN = (*MaskedLayer.OWN, "rho")
    numbers = 2

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
        start: tuple[float | None, float, float],
        noise: NormalSource,
    ) -> None:
        """`start` holds the sd of mu (None is that of a plain weight), and the mean and sd of sigma, at the start."""
        super().__init__(shape, bias, operation, dense_stem)
        self.parameterisation = parameterisation
        self.sampling = sampling
        self.epsilon = epsilon
        self.start = start
        self.noise = noise
        self.rho = nn.Parameter(torch.empty(shape))

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
            if mu_sd is not None:
                self.mean.normal_(0, mu_sd, generator=source)
            sigma = torch.empty_like(self.rho).normal_(sigma_mean, sigma_sd, generator=source).abs_()
            self.rho.copy_(TO_RHO[self.parameterisation](sigma.clamp_min_(1e-12)))

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Zero mu and rho outside the mask (sigma is 0 there by the mask itself)."""
        super().apply_mask()
        self.rho.mul_(self.mask)

    def one_sample(self, source: NormalSource) -> Tensor:
        """One set of weights."""
        return torch.addcmul(self.mean, self.sigma, source.normal(self.mean))

    @property
    def products(self) -> int:
        """With local reparameterisation the mean is applied, and the variance."""
        return 2 if self.sampling == "local" else 1

    @property
    def weight(self) -> Tensor:
        """The weight with which the present forward pass computes: in training one sample for all of the pass."""
        if self.drawn is not None:
            return self.drawn
        if not self.draws:
            return super().weight
        return self.one_sample(self.noise) if self.home is None else self.home[0].present_of(self.home[1], "sample")

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation.seen(x)
        if not (self.draws and self.sampling == "local"):
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


@torch.no_grad()
def scale_to_active(layers: Iterable[MaskedLayer]) -> None:
    """From a start by the fan-in to one by the fan-in that is active: times sqrt(weights/active weights), by layer."""
    for layer in layers:
        layer.mean.mul_((layer.size / layer.mask.sum().clamp_min(1)).sqrt())


@torch.no_grad()
def choose_masks(
    layers: Iterable[MaskedLayer],
    density: float,
    allocation: str,
    source: torch.Generator,
    scores: list[Tensor] | None = None,
) -> None:
    """Choose the active weights, as many as the allocation gives each layer, and zero the others.

    Args:
        layers: all that share the density.
        density: kept fraction of their weights.
        allocation: how it is shared.
        source: of random ones.
        scores: of all weights, a tensor of each layer's shape on the CPU; the highest are chosen instead.
    """
    layers = list(layers)
    shapes = [LayerShape(layer.shape, layer.dense_stem) for layer in layers]
    if scores is None:
        masks = random_masks(shapes, density, allocation, source)
    else:
        masks = best_masks(shapes, density, allocation, scores)
    for layer, mask in zip(layers, masks, strict=True):
        layer.mask.copy_(mask)
        layer.apply_mask()
