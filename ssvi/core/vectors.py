"""Where the active weights of a network's layers are kept: in vectors that are parameters of the network.

A network whose layers were taken over has two parameters in their place, `subspace_mean` and (with a posterior)
`subspace_rho`: vectors of s numbers in the order of the layers and of the index within one, and a buffer
`subspace_index` that says which of the d weights they are. They are parameters like any other: `backward` fills their
`.grad`, and `deepcopy`, `.to`, `state_dict`, clipping and data parallelism know nothing special.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.core.gaussian import TO_SIGMA
from ssvi.core.layers import MaskedLayer, VariationalLayer
from ssvi.core.layout import Layout, Places
from ssvi.core.ranking import Groups

MEAN, RHO, INDEX = "subspace_mean", "subspace_rho", "subspace_index"
ATTRIBUTE = "_active_weights"


class Vectors:
    """The active means (or plain weights), and rho if there is a posterior, of some layers of a network.

    Attributes:
        network: whose parameters they are.
        layers: whose weights they are.
        layout: of dense vectors of all the layers' weights.
        places: of the active weights in these.
    """

    def __init__(self, network: nn.Module, layers: Iterable[MaskedLayer]) -> None:
        """The masks must be drawn already; from here on the layers' weights are the network's vectors."""
        self.network, self.layers = network, list(layers)
        first = self.layers[0]
        self._kind = first if isinstance(first, VariationalLayer) else None
        self.layout = Layout([layer.mean for layer in self.layers])
        self.places = Places(self.layout)
        self._take_over()
        setattr(network, ATTRIBUTE, self)
        self._hooks = []
        if self.layout.order is not None and self.index is None:
            self._hooks += [
                network.register_state_dict_post_hook(partial(Vectors._to_logical, self)),
                network.register_load_state_dict_pre_hook(partial(Vectors._from_logical, self)),
            ]

    @torch.no_grad()
    def _take_over(self) -> None:
        active = torch.cat([layer.mask.flatten() for layer in self.layers]).nonzero().flatten()
        # nothing to select where every weight is active: the vectors are what the layers have in memory
        whole = len(active) == self.layout.total
        for name, parameter in zip((MEAN, RHO) if self._kind else (MEAN,), ("mean", "rho"), strict=False):
            own = [getattr(layer, parameter).detach() for layer in self.layers]
            vector = self.layout.joined(own) if whole else torch.cat([value.flatten() for value in own])[active]
            self.network.register_parameter(name, nn.Parameter(vector))
        self.network.register_buffer(INDEX, None if whole else active)
        for number, layer in enumerate(self.layers):
            layer.home = (self, number)
            for parameter in ("mean", "rho"):
                layer._parameters.pop(parameter, None)
            if not whole:
                del layer._buffers["mask"]

    @torch.no_grad()
    def release(self) -> None:
        """Give the layers their weights back; the network is then as it was before, and this object of no use."""
        for layer in self.layers:
            own = {name: getattr(layer, name).clone() for name in layer.OWN}
            layer.home = None
            for name, value in own.items():
                if name == "mask":
                    layer.register_buffer(name, value)
                else:
                    layer.register_parameter(name, nn.Parameter(value))
        for hook in self._hooks:
            hook.remove()
        for name in (MEAN, RHO):
            self.network._parameters.pop(name, None)
        del self.network._buffers[INDEX]
        delattr(self.network, ATTRIBUTE)

    # The vectors --------------------------------------------------------------------------------

    @property
    def mean(self) -> nn.Parameter:
        """Means, or plain weights: [s]."""
        return getattr(self.network, MEAN)

    @property
    def rho(self) -> nn.Parameter:
        """What the standard deviations are functions of: [s]."""
        return getattr(self.network, RHO)

    @property
    def index(self) -> Tensor | None:
        """Which weights are active, int64 [s], ascending; None if all are."""
        return getattr(self.network, INDEX)

    @property
    def has_posterior(self) -> bool:
        """Whether there is a standard deviation for each mean."""
        return self._kind is not None

    @property
    def parameterisation(self) -> str:
        """What sigma is as a function of rho."""
        assert self._kind is not None
        return self._kind.parameterisation

    def parameters(self) -> list[nn.Parameter]:
        """The vectors."""
        return [self.mean, self.rho] if self._kind else [self.mean]

    @property
    def sigma(self) -> Tensor:
        """Standard deviations [s], differentiable with respect to rho."""
        return TO_SIGMA[self.parameterisation](self.rho)

    # Dense tensors ------------------------------------------------------------------------------

    @property
    def sizes(self) -> Groups:
        """Numbers of weights of the layers, active or not."""
        return self.layout.sizes_on(self.mean.device)

    def ordered(self, dense: Tensor) -> Tensor:
        """A dense vector [d] from the order of the layers' memory to that of `active`."""
        return self.layout.ordered(dense)

    def laid(self, values: Tensor) -> Tensor:
        """A dense vector [d] from the order of `active` to that of the layers' memory."""
        return self.layout.laid(values)

    def spread(self, vector: Tensor) -> Tensor:
        """A vector of the active weights [s] among zeros [d], in the order of the layers' memory; differentiable."""
        if self.index is None:
            return vector
        return vector.new_zeros(self.layout.total).index_copy_(0, self.places.of(self.index), vector)

    def dense(self, vector: Tensor) -> Tensor:
        """The same in the order of the layers and of the index within one."""
        return self.ordered(self.spread(vector))

    def one(self, number: int, vector: Tensor) -> Tensor:
        """A layer's part of what `spread` gives, in its shape."""
        if self.index is None:
            return self.layout.parts(vector)[number]
        first, end = self.layout.starts[number : number + 2]
        begin, stop = torch.searchsorted(self.index, torch.tensor([first, end], device=self.index.device)).tolist()
        part = vector.new_zeros(end - first).index_copy_(0, self.index[begin:stop] - first, vector[begin:stop])
        return part.view(self.layers[number].shape)

    def tensor_of(self, number: int, name: str) -> Tensor:
        """What a layer would store: `mean`, `rho` or `mask`, dense; of a network without zeros views of its vectors."""
        if name == "mask":
            assert self.index is not None
            return self.one(number, torch.ones_like(self.index, dtype=torch.bool))
        return self.one(number, getattr(self, name))

    # The subspace -------------------------------------------------------------------------------

    @property
    def active(self) -> Tensor:
        """Which weights are active, bool [d], in the order of the layers and of the index within one."""
        whole = torch.zeros(self.layout.total, dtype=torch.bool, device=self.mean.device)
        return ~whole if self.index is None else whole.index_fill_(0, self.index, True)

    def counts(self) -> Groups:
        """How the active weights lie in layers; the host waits for the device."""
        if self.index is None:
            return self.sizes
        ends = torch.tensor(self.layout.starts, device=self.index.device)
        numbers = torch.searchsorted(self.index, ends).diff()
        return Groups(tuple(numbers.tolist()), numbers)

    # Files --------------------------------------------------------------------------------------

    def _to_logical(self, network: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
        """What is stored does not depend on how weights lie in memory."""
        for name in (MEAN, RHO):
            if (value := state.get(prefix + name)) is not None:
                state[prefix + name] = self.ordered(value.detach())

    def _from_logical(self, network: nn.Module, state: dict[str, Any], prefix: str, *others: object) -> None:
        for name in (MEAN, RHO):
            if (value := state.get(prefix + name)) is not None and len(value) == self.layout.total:
                state[prefix + name] = self.laid(value)

    def dense_state(self, prefix: str = "") -> dict[str, Tensor]:
        """What the layers would store, by the names it would have there."""
        names = {id(module): f"{name}." if name else "" for name, module in self.network.named_modules()}
        found = {}
        for layer in self.layers:
            for own in (n for n in layer.OWN if n != "mask" or self.index is not None):
                found[f"{prefix}{names[id(layer)]}{own}"] = getattr(layer, own).detach()
        return found
