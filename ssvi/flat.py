"""The active weights of a network as flat vectors: what a sparse training optimises.

The optimiser, its momentum and the KL see s numbers a vector, in the order of the layers and of the index within
one, instead of d numbers in dozens of tensors. The layers keep dense tensors, which are views of flat ones too;
`spread` writes them before a step's forward pass, `gather` reads their gradients after its backward pass, and
`settle` makes everything that the network stores agree with the vectors. The number s never changes, and no tensor
moves in memory, so what was compiled or captured before a subspace update is right after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.layers import TO_SIGMA, MaskedLayer, VariationalLayer

# d sigma / d rho from rho and sigma
SLOPE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softplus": lambda rho, sigma: -torch.expm1(-sigma),
    "exp": lambda rho, sigma: sigma,
    "abs": lambda rho, sigma: rho.sign(),
}


def _in_memory_order(value: Tensor, like: Tensor) -> Tensor:
    """A tensor as the vector that it would be, stored as `like` is (which has no gaps)."""
    if value.stride() != like.stride():
        value = torch.empty_like(like, dtype=value.dtype).copy_(value)
    return value.as_strided((value.numel(),), (1,), value.storage_offset())


class FlatWeights:
    """The active means (or plain weights) of some layers as the vector `mean` [s]."""

    layers: list[MaskedLayer]

    def __init__(self, layers: Iterable[MaskedLayer]) -> None:
        """The masks must be drawn already; from here on the layers' tensors are views of this object's."""
        self.layers = list(layers)
        self._dense_mean = self._flatten("mean")
        found = self._positions()
        # nothing to select where every weight is active: the vector is the layers' own memory
        self._index = found if len(found) < len(self._dense_mean) else None
        self._scratch = torch.empty_like(self._dense_mean) if self._index is not None else None
        self.mean = self._vector(self._dense_mean)

    def _flatten(self, name: str) -> Tensor:
        """Move a parameter of every layer into one vector [d]."""
        parameters = [getattr(layer, name) for layer in self.layers]
        flat = torch.cat([_in_memory_order(p.detach(), p) for p in parameters])
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.data = part.as_strided(p.shape, p.stride())
        return flat

    def _positions(self) -> Tensor:
        """Where in a dense vector the active weights lie."""
        found, start = [], 0
        for layer in self.layers:
            n = layer.mean.numel()
            places = torch.arange(start, start + n, device=layer.mean.device)
            found.append(places.as_strided(layer.mean.shape, layer.mean.stride())[layer.mask])
            start += n
        return torch.cat(found)

    def _vector(self, dense: Tensor) -> nn.Parameter:
        return nn.Parameter(dense if self._index is None else dense[self._index])

    def _put(self, dense: Tensor, active: Tensor) -> None:
        if self._index is None:
            if dense.data_ptr() != active.data_ptr():
                dense.copy_(active)
        else:
            dense.index_copy_(0, self._index, active)

    def _active_gradient(self, gradients: list[Tensor]) -> Tensor:
        parts = [_in_memory_order(g, layer.mean) for g, layer in zip(gradients, self.layers, strict=True)]
        if self._index is None:
            return torch.cat(parts)
        return torch.cat(parts, out=self._scratch)[self._index]

    def parameters(self) -> list[nn.Parameter]:
        """The vectors."""
        return [self.mean]

    def parts(self, vector: Tensor) -> list[Tensor]:
        """A dense vector [d] in the order of the layers' memory as views, one a layer, in its shape."""
        pieces = vector.split([layer.mean.numel() for layer in self.layers])
        return [p.as_strided(x.mean.shape, x.mean.stride()) for p, x in zip(pieces, self.layers, strict=True)]

    @torch.no_grad()
    def spread(self) -> None:
        """Write what the next forward pass uses into the layers, and forget the gradients of the last."""
        self._put(self._dense_mean, self.mean)
        for layer in self.layers:
            layer.mean.grad = None

    @torch.no_grad()
    def gather(self) -> None:
        """Take the gradients of the active weights from the layers."""
        self.mean.grad = self._active_gradient([layer.mean_gradient for layer in self.layers])

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the layers' parameters up to date."""
        self._put(self._dense_mean, self.mean)

    @torch.no_grad()
    def follow(self, optimizers: Iterable[Optimizer] = ()) -> None:
        """Take new masks and values from the layers; weights that were active keep their momenta, new ones have 0."""
        if self._index is not None:
            self._reindex(optimizers)
        self._load()

    def _reindex(self, optimizers: Iterable[Optimizer]) -> None:
        index = self._positions()
        for optimizer in optimizers:
            for parameter in self.parameters():
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        self._scratch.zero_()[self._index] = value
                        value.copy_(self._scratch[index])
        self._index.copy_(index)

    def _load(self) -> None:
        self._take(self.mean, self._dense_mean)

    def _take(self, vector: Tensor, dense: Tensor) -> None:
        if self._index is not None:
            vector.copy_(dense[self._index])


class FlatPosterior(FlatWeights):
    """The active mu and rho of variational layers as the vectors `mean` and `rho` [s]."""

    layers: list[VariationalLayer]

    def __init__(self, layers: Iterable[VariationalLayer]) -> None:
        super().__init__(layers)
        first = self.layers[0]
        self._parameterisation, self._local, self._source = (
            first.parameterisation,
            first.sampling == "local",
            first.noise,
        )
        self._dense_rho = self._flatten("rho")
        self.rho = self._vector(self._dense_rho)
        self._realised = torch.zeros_like(self._dense_mean)
        for layer, part in zip(self.layers, self.parts(self._realised), strict=True):
            layer.realised = part.requires_grad_()
        self._sigma = self._noise = self._sigma_gradient = torch.empty(0)

    def parameters(self) -> list[nn.Parameter]:
        return [self.mean, self.rho]

    @property
    def sigma(self) -> Tensor:
        """Standard deviations [s] of the active weights."""
        return TO_SIGMA[self._parameterisation](self.rho)

    @torch.no_grad()
    def spread(self) -> None:
        """Write the variances, or a weight sample, and where it is used the mean into the layers."""
        self._sigma = self.sigma
        if self._local:
            super().spread()
            self._put(self._realised, self._sigma.square())
        else:
            self._noise = self._source.normal(self._sigma)
            self._put(self._realised, torch.addcmul(self.mean, self._sigma, self._noise))
        for layer in self.layers:
            layer.realised.grad = None

    @torch.no_grad()
    def gather(self) -> None:
        """Take the gradients of the data term with respect to mu and, through the variance or sample, sigma."""
        super().gather()
        if self._local:
            to_variance = self._active_gradient([layer.realised.grad for layer in self.layers])
            self._sigma_gradient = to_variance.mul_(self._sigma).mul_(2)
        else:
            self._sigma_gradient = self.mean.grad * self._noise

    @torch.no_grad()
    def add_kl(self, weight: Tensor, gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        """Add the gradient of a weighted KL and pass sigma's on to rho; follows `gather`.

        Args:
            weight: of the KL, a scalar.
            gradient: d KL/d mu and d KL/d sigma [s] each, from mu and sigma [s]; may use sigma's memory for neither.
        """
        to_mean, to_sigma = gradient(self.mean, self._sigma)
        self.mean.grad.addcmul_(to_mean, weight)
        slope = SLOPE[self._parameterisation](self.rho, self._sigma)
        self.rho.grad = self._sigma_gradient.addcmul_(to_sigma, weight).mul_(slope)

    @torch.no_grad()
    def settle(self) -> None:
        super().settle()
        self._put(self._dense_rho, self.rho)

    def _reindex(self, optimizers: Iterable[Optimizer]) -> None:
        super()._reindex(optimizers)
        self._realised.zero_()

    def _load(self) -> None:
        super()._load()
        self._take(self.rho, self._dense_rho)
