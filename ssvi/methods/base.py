"""What a training method is: the one thing the trainer asks for layers, losses, steps, topology, predictions.

The trainer's loop is the same for every method:

    method.before_step(clock)        -> what is to be kept of the step is told
    data_loss.backward()             -> method.on_data_gradient(clock, batch)
    method.extra_loss(clock)         -> backward, if there is one
    method.on_gradient(clock, batch) -> whether the optimisers step
    method.after_step(clock, batch)  -> topology, chains, stochastic approximation; perhaps a record

Steps that are `routine` may be compiled, or captured once and replayed: there, all but `after_step` must do the same
work on the same tensors each time, and numbers that change with the epoch are tensors that `begin_epoch` fills.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ssvi.counting import Positions, active_macs
from ssvi.flat import active_weights, dense_state
from ssvi.layers import LayerFactory, MaskedLayer, masked_layers
from ssvi.noise import NormalSource, Streams
from ssvi.spec import RunSpec

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
class Workbench:
    """What the trainer lends a method: the network in training and ways to compute more with it."""

    model: nn.Module
    streams: Streams
    clock: Clock
    n_train: int
    positions: Positions
    data_loss: Callable[[Batch], Tensor]
    exact_loss: Callable[[Batch], Tensor]
    fresh_batch: Callable[[], Batch]
    recalibrate: Callable[[], None]


class Method:
    """A deterministic dense network; every other method overrides what it does differently."""

    def __init__(self, spec: RunSpec, noise: NormalSource) -> None:
        """`noise` feeds the layers' own randomness while training."""
        self.spec = spec
        self.noise = noise
        self.flops = 0
        self.layers: dict[str, MaskedLayer] = {}
        self.optimizers: list[Optimizer] = []

    # Building -----------------------------------------------------------------------------------

    def build(self, network: Network) -> nn.Module:
        """What is trained: the network that the spec names, of this method's layers."""
        return network(self.factory())

    def factory(self) -> LayerFactory:
        """The layers that the network is built of."""
        return LayerFactory(MaskedLayer)

    def bind(self, model: nn.Module) -> None:
        """Know the layers of a network; all that prediction needs."""
        self.layers = masked_layers(model)

    def attach(self, bench: Workbench, parents: list[dict[str, Tensor]] | None = None) -> None:
        """Get ready to train: start values are drawn, masks not yet; make masks and optimisers.

        `parents` are the tensors of the runs to start from, None where there are none or a checkpoint follows.
        """
        self.bench = bench
        self.bind(bench.model)
        if parents:
            self.inherit(parents)
        self.prepare()
        self.optimizers = self.make_optimizers(bench.model)

    def inherit(self, parents: list[dict[str, Tensor]]) -> None:
        """Start from trained networks: their parameters and BatchNorm statistics, not their masks."""
        own = self.bench.model.state_dict()
        taken = {k: v for k, v in parents[0].items() if k in own and not k.endswith("mask")}
        self.bench.model.load_state_dict(own | taken)

    def prepare(self) -> None:
        """Draw masks and flatten what is trained, before the optimisers are made."""

    def make_optimizers(self, model: nn.Module) -> list[Optimizer]:
        """SGD with momentum and weight decay on every parameter."""
        return [self.sgd(list(model.parameters()))]

    def unmasked(self, model: nn.Module) -> list[nn.Parameter]:
        """Biases and BatchNorm: the parameters that no mask concerns."""
        masked = {id(p) for weights in active_weights(model) for p in weights.parameters()}
        return [p for p in model.parameters() if id(p) not in masked]

    def sgd(self, parameters: list[nn.Parameter], extra: list[dict[str, Any]] | None = None) -> Optimizer:
        """The common optimiser; `extra` adds parameter groups with their own settings."""
        spec = self.spec
        decayed = {"params": parameters, "lr": spec.lr, "weight_decay": spec.weight_decay}
        return SGD([decayed, *(extra or [])], lr=spec.lr, momentum=spec.momentum, fused=True)

    # A step -------------------------------------------------------------------------------------

    def lr_factor(self, clock: Clock) -> float:
        """Factor on every start learning rate in this epoch: cosine from 1 to 0, constant in an epoch."""
        return 0.5 * (1 + math.cos(math.pi * (clock.epoch - 1) / clock.epochs))

    def begin_epoch(self, clock: Clock) -> None:
        """Set what changes with the epoch."""

    def routine(self, step: int) -> bool:
        """Whether this step, up to `after_step`, is a forward pass, a backward pass and the optimisers' step alone."""
        return True

    def updates(self, step: int) -> bool:
        """Whether the subspace is updated after this step."""
        return False

    def before_step(self, clock: Clock) -> None:
        """The network is about to be used by a training step."""

    def extra_loss(self, clock: Clock) -> Tensor | None:
        """What is added to the mean cross-entropy of a batch."""
        return None

    def on_data_gradient(self, clock: Clock, batch: Batch) -> None:
        """The gradients hold the data term alone."""

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        """The gradients are complete. Returns whether the optimisers take their step."""
        return True

    def end_epoch(self, clock: Clock) -> None:
        """After the last step of an epoch."""

    def finish(self) -> None:
        """After the last epoch: prune what the method prunes at the end, before the network is published."""

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        """After the optimisers' step. Returns a record of a topology update that is to be kept."""
        self.flops += self.flops_per_image() * len(batch[1])
        return None

    def notes(self) -> list[str]:
        """What a person should know of this run before it starts, a line each."""
        return []

    # Figures ------------------------------------------------------------------------------------

    passes = 6  # FLOPs per multiply-add of a training step: 2 x (forward, two products backward)

    def flops_per_image(self) -> int:
        """Counted training FLOPs of one image at the present masks."""
        return self.passes * active_macs(self.bench.positions, self.n_computed())

    def n_computed(self) -> dict[str, int]:
        """Weights per layer that a training step would have to touch: the active ones, if masks are there to train."""
        return self.n_active()

    def n_active(self) -> dict[str, int]:
        """Active weights per layer."""
        return {name: layer.size for name, layer in self.layers.items()}

    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        """Figures of the history that only some methods have (kl, beta, sigma_mean)."""
        return {}

    # Prediction ---------------------------------------------------------------------------------

    values_per_weight = 1  # stored numbers per active weight
    samples_are_parts = False  # whether a predictive state runs a part of the active weights, all of them each once

    def states(self) -> Iterator[None]:
        """Put the network into each of the states that its size is an average over; most have one."""
        yield

    def dead_numbers(self) -> int:
        """Biases and BatchNorm parameters of channels that have fallen away."""
        return 0

    def paired_numbers(self) -> int:
        """Parameters beside the weights that are the second number of a pair."""
        return 0

    def slim(self) -> None:
        """Predict without what has fallen away, where whole channels have."""

    def set_mean(self) -> None:
        """Predict with the network's mean parameters."""

    def set_train(self) -> None:
        """Predict as in training."""

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """Put the network into each of its predictive states in turn; deterministic ones have one."""
        yield 0

    # Files --------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What is published of a trained run."""
        return dense_state(self.bench.model)

    def take_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep what is the method's own of what was published; returns the rest, the network's."""
        return tensors

    # Resuming -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is not in the network and must survive a restart."""
        return {"flops": self.flops, "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the network's own state is loaded before."""
        self.flops = state["flops"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
