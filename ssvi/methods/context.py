"""What the trainer lends a method: the network in training, where it stands, and ways to compute more with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ssvi.core.counting import Positions
from ssvi.core.layers import LayerFactory
from ssvi.core.noise import Streams

Batch = tuple[Tensor, Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """The network that a spec names, to be made of any factory's layers.

    Attributes:
        image: shape of one image [C, H, W].
    """

    make: Callable[[LayerFactory, float], nn.Module]
    image: tuple[int, int, int]

    def __call__(self, factory: LayerFactory, widening: float = 1.0) -> nn.Module:
        """`widening` is a factor on the number of channels."""
        return self.make(factory, widening)


@dataclass
class Clock:
    """Where a training stands. `epoch` and `step` count from 1; `step` is the one being taken."""

    epochs: int
    steps_per_epoch: int
    epoch: int = 1
    step: int = 0

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch


@dataclass
class Context:
    """What there is beside the method itself.

    Attributes:
        positions: places at which each layer applies its weights to one image.
        data_loss: mean cross-entropy of a batch, in the precision of the steps; `exact_loss` in float32.
        fresh_batch: a random batch beside the epoch's order.
        recalibrate: takes BatchNorm's statistics anew from the present network.
        say: tells a person a line.
    """

    model: nn.Module
    streams: Streams
    clock: Clock
    n_train: int
    positions: Positions
    data_loss: Callable[[Batch], Tensor]
    exact_loss: Callable[[Batch], Tensor]
    fresh_batch: Callable[[], Batch]
    recalibrate: Callable[[], None]
    say: Callable[[str], None]
