"""What is left of a network when whole channels fall away: which weights can still matter, counted exactly.

A weight matters if its input channel is alive and its output channel reaches the output. Both are read off a copy of
the network in which every weight is positive, BatchNorm does nothing and closed gates are 0: a channel is alive where
its activation is positive, and is needed where its gradient is. Constants that biases leave in a layer whose inputs
have all fallen away are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssvi.core.layers import LayerFactory, MaskedLayer, Site, masked_layers

SMALL = 8


class _Gate(nn.Module):
    open: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("open", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.open.view(-1, *[1] * (x.dim() - 2))


@dataclass(frozen=True)
class Living:
    """What matters of a network.

    Attributes:
        masks: bool, a layer's weights each.
        unneeded: channels that no output depends on, bool, of each bias and BatchNorm parameter.
    """

    masks: dict[str, Tensor]
    unneeded: list[Tensor]

    @property
    def dead_numbers(self) -> int:
        """Biases and BatchNorm parameters of channels that no output depends on."""
        return int(torch.cat(self.unneeded).sum()) if self.unneeded else 0


class Probe:
    """The positive copy of one network, asked again whenever gates have closed."""

    def __init__(
        self,
        network: Callable[[LayerFactory], nn.Module],
        gated: Callable[[Site], bool],
        image: tuple[int, ...],
    ) -> None:
        """
        Args:
            network: makes the network of a factory's layers.
            gated: at which sites the method has gates.
            image: shape of one image [C, H, W].
        """
        self._gates: list[_Gate] = []

        def gate(channels: int, site: Site) -> nn.Module | None:
            if not gated(site):
                return None
            self._gates.append(_Gate(channels))
            return self._gates[-1]

        self._model = network(LayerFactory(MaskedLayer, gate)).double().eval()
        self._image = self._smallest(image)
        with torch.no_grad():
            for layer in masked_layers(self._model).values():
                # so small that no product of layers overflows, so large that none vanishes
                layer.mean.fill_(1 / layer.fan_in)
                if layer.bias is not None:
                    layer.bias.zero_()

    @torch.no_grad()
    def _smallest(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """A convolutional network is asked about a small image, which has the same channels."""
        small = (image[0], *(min(side, SMALL) for side in image[1:]))
        try:
            self._model(torch.ones(1, *small, dtype=torch.float64))
        except RuntimeError:
            return image
        return small

    def living(self, gates: Sequence[Tensor]) -> Living:
        """What matters while the gates [channels each, in the order of construction] are open or closed.

        Found where the gates are; the host does not wait for it.
        """
        device = gates[0].device
        self._model.to(device)
        for gate, is_open in zip(self._gates, gates, strict=True):
            gate.open.copy_(is_open)
        alive: dict[nn.Module, Tensor] = {}
        needed: dict[nn.Module, Tensor] = {}

        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            at = module.operation.channels if isinstance(module, MaskedLayer) else 1
            # a module that is used more than once is alive, and needed, where it is so once
            alive[module] = _channels(inputs[0].detach(), at) | alive.get(module, False)
            if output.requires_grad:
                output.register_hook(lambda gradient: needs(module, _channels(gradient, at)))

        def needs(module: nn.Module, channels: Tensor) -> None:
            needed[module] = channels | needed.get(module, False)

        watched = [m for m in self._model.modules() if isinstance(m, MaskedLayer | _BatchNorm)]
        hooks = [m.register_forward_hook(look) for m in watched]
        try:
            with torch.enable_grad():
                self._model(torch.ones(1, *self._image, dtype=torch.float64, device=device)).sum().backward()
        finally:
            for hook in hooks:
                hook.remove()
            self._model.zero_grad(set_to_none=True)
        masks, unneeded = {}, []
        for name, layer in masked_layers(self._model).items():
            # of each group the channels that it sees
            groups = layer.operation.groups
            sees = alive[layer].view(groups, -1).repeat_interleave(layer.shape[0] // groups, 0)
            both = needed[layer][:, None] & sees
            masks[name] = both.view(*both.shape, *[1] * (len(layer.shape) - 2)).expand(layer.shape)
            unneeded += [~needed[layer]] if layer.bias is not None else []
        unneeded += [~needed[m] for m in watched if isinstance(m, _BatchNorm) for _ in range(2)]
        return Living(masks, unneeded)


def _channels(x: Tensor, at: int) -> Tensor:
    """Which channels, the dimension `at`, have anything but 0."""
    return (x != 0).movedim(at, 0).flatten(1).any(1)
