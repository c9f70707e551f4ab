"""The active weights of a network as flat vectors: what a sparse training optimises.

The optimiser, its momentum and the KL see s numbers a vector, in the order of the layers and of the index within
one, instead of d numbers in dozens of tensors. The layers keep dense tensors, which are views of flat ones too;
`spread` writes them before a step's forward pass, `gather` reads their gradients after its backward pass, and
`settle` makes everything that the network stores agree with the vectors. The number s never changes, and no tensor
moves in memory, so what was compiled or captured before a subspace update is right after it.

The layers' memory may have its own order (channels innermost). What ranks weights has the order of the layers and of
the index within one: `active`, `gradient` and `move` speak of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.layers import TO_SIGMA, MaskedLayer, VariationalLayer
from ssvi.subspace import Groups, positions

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
        self.sizes = Groups.of([layer.mean.numel() for layer in self.layers], self.layers[0].mean.device)
        self._dense_mean = self._flatten("mean")
        self._dense = [self._dense_mean]
        self._dense_mask = self._flatten("mask")
        self._order = self._places()
        found = self._order[self.active]
        # nothing to select where every weight is active: the vector is the layers' own memory
        self._index = found if len(found) < len(self._dense_mean) else None
        self._scratch = self._gradient = torch.empty(0)
        if self._index is not None:
            self._scratch, self._gradient = torch.empty_like(self._dense_mean), torch.empty_like(self._dense_mean)
        self.mean = self._vector(self._dense_mean)

    def _flatten(self, name: str) -> Tensor:
        """Move a parameter or buffer of every layer into one vector [d], in the order of the mean's memory."""
        flat = torch.cat([_in_memory_order(getattr(layer, name).detach(), layer.mean) for layer in self.layers])
        for layer, part in zip(self.layers, self.parts(flat), strict=True):
            getattr(layer, name).data = part
        return flat

    def _places(self) -> Tensor:
        """Where in a dense vector each weight lies, in the order of the layers and of the index within one: [d]."""
        every = torch.arange(sum(self.sizes.sizes), device=self._dense_mean.device)
        return torch.cat([part.flatten() for part in self.parts(every)])

    def _vector(self, dense: Tensor) -> nn.Parameter:
        return nn.Parameter(dense if self._index is None else dense[self._index])

    def _put(self, dense: Tensor, active: Tensor) -> None:
        if self._index is None:
            if dense.data_ptr() != active.data_ptr():
                dense.copy_(active)
        else:
            dense.index_copy_(0, self._index, active)

    def _join(self, tensors: Iterable[Tensor], out: Tensor | None = None) -> Tensor:
        """A tensor of each layer's shape as one dense vector [d]."""
        return torch.cat([_in_memory_order(t, x.mean) for t, x in zip(tensors, self.layers, strict=True)], out=out)

    def _active_gradient(self, gradients: list[Tensor], dense: Tensor) -> Tensor:
        """The active weights' part [s] of gradients of all, which are left in `dense` [d] where there is a choice."""
        if self._index is None:
            return self._join(gradients)
        return self._join(gradients, out=dense)[self._index]

    def parameters(self) -> list[nn.Parameter]:
        """The vectors."""
        return [self.mean]

    def parts(self, vector: Tensor) -> list[Tensor]:
        """A dense vector [d] in the order of the layers' memory as views, one a layer, in its shape."""
        pieces = vector.split(self.sizes.sizes)
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
        self.mean.grad = self._active_gradient([layer.mean_gradient for layer in self.layers], self._gradient)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the layers' parameters up to date."""
        self._put(self._dense_mean, self.mean)

    # The subspace -------------------------------------------------------------------------------

    @property
    def active(self) -> Tensor:
        """Which weights are active, bool [d], in the order of the layers and of the index within one."""
        return self.ordered(self._dense_mask)

    @property
    def gradient(self) -> Tensor:
        """Dense gradient [d] with respect to the mean that the last `gather` took, in the order of `active`."""
        dense = self._gradient if self._index is not None else self._join(x.mean_gradient for x in self.layers)
        return self.ordered(dense)

    def ordered(self, dense: Tensor) -> Tensor:
        """A dense vector [d] from the order of the layers' memory to that of `active`."""
        return dense[self._order]

    @torch.no_grad()
    def close(self, active: Tensor) -> Tensor:
        """Set the layers' masks alone, bool [d]; returns them in the order of the layers' memory."""
        self._dense_mask[self._order] = active
        return self._dense_mask

    @torch.no_grad()
    def move(self, active: Tensor, starts: Iterable[Tensor], optimizers: Sequence[Optimizer] = ()) -> None:
        """Take another subspace of as many weights, vectors, momenta, masks and all.

        Args:
            active: bool [d].
            starts: for each of `parameters`, what a weight that was not active starts with, by layer: [layers].
            optimizers: of the vectors; weights that were active keep their momenta, new ones have 0.
        """
        if self._index is None:
            return
        index = self._order[positions(active, len(self._index))]
        for vector, start in zip(self.parameters(), starts, strict=True):
            self._scratch.copy_(self.sizes.spread(start))
            self._carry(vector, index)
            for optimizer in optimizers:
                for value in optimizer.state.get(vector, {}).values():
                    if isinstance(value, Tensor) and value.shape == vector.shape:
                        self._scratch.zero_()
                        self._carry(value, index)
        self._index.copy_(index)
        for dense in (*self._dense, self._dense_mask):
            dense.zero_()
        self._dense_mask.index_fill_(0, index, True)
        self.settle()

    def _carry(self, vector: Tensor, index: Tensor) -> None:
        """Bring a vector to other active weights, those that were not active with what lies in the scratch."""
        vector.copy_(self._scratch.index_copy_(0, self._index, vector)[index])

    @torch.no_grad()
    def follow(self) -> None:
        """Take masks and values anew from the layers."""
        if self._index is not None:
            self._index.copy_(self._order[self.active])
        self._load()

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
        self._dense += [self._dense_rho, self._realised]
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
            to_variance = self._active_gradient([layer.realised.grad for layer in self.layers], self._scratch)
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

    @torch.no_grad()
    def follow(self) -> None:
        self._realised.zero_()
        super().follow()

    def _load(self) -> None:
        super()._load()
        self._take(self.rho, self._dense_rho)
