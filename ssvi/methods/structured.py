"""Methods that remove whole channels: masks follow from which channels are open, and predictions skip the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ssvi.errors import UserError
from ssvi.layers import LayerFactory, MaskedLayer, Site
from ssvi.methods.base import Method, Network
from ssvi.structure import Living, Probe
from ssvi.tensors import fetched


class Structured(Method, ABC):
    """What they share. `mask` of a layer says which of its weights can matter while the present gates are open."""

    sites: tuple[Site, ...]
    gate_class: type[nn.Module]
    widening = 1.0

    def build(self, network: Network) -> nn.Module:
        def plain(factory: LayerFactory) -> nn.Module:
            return network(factory, self.widening)

        self._probe = Probe(plain, lambda site: site in self.sites, network.image)
        return network(self.factory(), self.widening)

    @abstractmethod
    def gate(self, channels: int) -> nn.Module:
        """What stands behind the channels at one of the method's sites."""

    def factory(self) -> LayerFactory:
        return LayerFactory(MaskedLayer, lambda channels, site: self.gate(channels) if site in self.sites else None)

    def bind(self, model: nn.Module) -> None:
        super().bind(model)
        self.model = model
        self.gates = [m for m in model.modules() if isinstance(m, self.gate_class)]
        if not self.gates:
            sites = " or ".join(map(repr, self.sites))
            raise UserError(
                f"network {self.spec.model!r}: has no gate at {sites}, where method {self.spec.method!r} prunes; "
                "behind channels that may fall away it has to ask the factory for one: make.gate."
            )

    @abstractmethod
    def open_channels(self) -> Iterator[Tensor]:
        """Which channels of each gate are open, bool, in the order of construction."""

    def _living(self) -> Living:
        return self._probe.living(list(self.open_channels()))

    @torch.no_grad()
    def update_masks(self) -> None:
        """Set the masks by the present gates."""
        for name, mask in self._living().masks.items():
            self.layers[name].mask.copy_(mask)
        self._counts = fetched({name: layer.mask.sum() for name, layer in self.layers.items()})

    def n_active(self) -> dict[str, int]:
        return self._counts

    def prepare(self) -> None:
        super().prepare()
        self.update_masks()

    def dead_numbers(self) -> int:
        return self._living().dead_numbers

    def slim(self) -> None:
        for layer in self.layers.values():
            layer.slim()
