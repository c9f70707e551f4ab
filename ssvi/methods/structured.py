"""Whole channels that fall away: masks follow from which gates are open, and predictions skip the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ssvi.core.layers import LayerFactory, MaskedLayer, Site, masked_layers
from ssvi.core.structure import Living, Probe
from ssvi.core.tensors import fetched
from ssvi.errors import UserError
from ssvi.methods.context import Network
from ssvi.runs.spec import RunSpec

Gate = TypeVar("Gate", bound=nn.Module)


class Channels(Generic[Gate]):
    """The gates behind a network's channels. `mask` of a layer says which of its weights can matter while these are
    open.

    Attributes:
        gates: in the order of construction.
    """

    gates: list[Gate]

    def __init__(
        self,
        network: Network,
        sites: Sequence[Site],
        gate: Callable[[int], Gate],
        is_open: Callable[[Gate], Tensor],
        widening: float = 1.0,
    ) -> None:
        """
        Args:
            network: to be built.
            sites: where gates stand.
            gate: makes what stands behind so many channels.
            is_open: which channels of a gate are open, bool.
            widening: a factor on the number of channels.
        """
        self._network = partial(network, widening=widening)
        self._sites, self._gate, self._is_open = tuple(sites), gate, is_open
        self._made: list[Gate] = []
        self._probe = Probe(self._network, lambda site: site in self._sites, network.image)

    def build(self) -> nn.Module:
        """The network with its gates."""

        def gate(channels: int, site: Site) -> nn.Module | None:
            if site not in self._sites:
                return None
            self._made.append(self._gate(channels))
            return self._made[-1]

        return self._network(LayerFactory(MaskedLayer, gate))

    def bind(self, model: nn.Module, spec: RunSpec) -> None:
        """Know the gates of the network that was built.

        Raises:
            UserError: if it asked for none, or has not just those that it asked for.
        """
        self.layers = masked_layers(model)
        self.gates = [module for module in model.modules() if isinstance(module, tuple({*map(type, self._made)}))]
        if self._made and (len(self.gates) != len(self._made) or {*self.gates} != {*self._made}):
            raise UserError(
                f"network {spec.model!r}: asks the factory for {len(self._made)} gates and has {len(self.gates)}; each "
                "stands at one place, and is no copy of another."
            )
        if not self.gates:
            sites = " or ".join(map(repr, self._sites))
            raise UserError(
                f"network {spec.model!r}: has no gate at {sites}, where method {spec.method!r} prunes; "
                "behind channels that may fall away it has to ask the factory for one: make.gate."
            )

    @torch.no_grad()
    def open(self) -> list[Tensor]:
        """Which channels of each gate are open, bool."""
        return [self._is_open(gate) for gate in self.gates]

    def living(self) -> Living:
        """What of the network matters with the present gates."""
        return self._probe.living(self.open())

    @torch.no_grad()
    def update_masks(self) -> None:
        """Set the masks by the present gates."""
        for name, mask in self.living().masks.items():
            self.layers[name].mask.copy_(mask)
        self._counts = fetched({name: layer.mask.sum() for name, layer in self.layers.items()})

    def n_active(self) -> dict[str, int]:
        """Weights per layer that can matter, counted when the masks change."""
        return self._counts

    def slim(self) -> None:
        """From here on compute without what has fallen away."""
        for layer in self.layers.values():
            layer.slim()
