"""What a training method is: the one thing the trainer asks for layers, optimisers, steps and the subspace.

A method overrides what it does differently; nothing must be. Its life, in order:

    build(network)                   the network, of the layers of `factory`; start values are drawn
    bind(model)                      knows its layers, and how they predict: `make_predictive`
    attach(context, parents)         gets ready to train: `inherit`, `make_subspace`, `prepare`, `make_optimizers`
    begin_epoch(clock)               with learning rates times `lr_factor`
        before_step(clock)
        the data term's backward pass
        on_gradient(clock, batch)    adds the rest of the loss; says whether the optimisers step, which they then do
        after_step(clock, batch)     subspace, chains, stochastic approximation; perhaps a record
    end_epoch(clock)                 then `epoch_figures`
    finish()                         prunes what is pruned at the end

An evaluation needs the first two alone. Steps that are `routine` may be compiled, or captured once and replayed: there,
all but `after_step` must do the same work on the same tensors each time, and numbers that change with the epoch are
tensors that `begin_epoch` fills.

What predicts, counts and is stored is another thing, `method.predictive`.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ssvi.core.active import ActiveWeights, active_weights
from ssvi.core.counting import training_flops
from ssvi.core.layers import LayerFactory, MaskedLayer, masked_layers, scale_to_active
from ssvi.core.noise import NormalSource
from ssvi.methods.context import Batch, Clock, Context, Network, Record
from ssvi.methods.predictive import Predictive
from ssvi.methods.subspace import Fixed, Whole
from ssvi.runs.spec import RunSpec

ADAM_BETA_2 = 0.999  # AdamW's, as usual

__all__ = ["Batch", "Clock", "Context", "Method", "Network", "Record"]


class Method:
    """A deterministic network of all its weights, trained by SGD.

    Attributes:
        layers: every layer with a mask, by name.
        predictive: what the network is to those who use it.
        subspace: the weights that are trained.
        flat: these as parameters of the network, where they are fewer than all or have a posterior.
        optimizers: of all parameters.
        flops: counted FLOPs of the training so far.
    """

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
        """Know the network and its layers; all that prediction needs."""
        self.model, self.layers = model, masked_layers(model)
        self.predictive = self.make_predictive()

    def make_predictive(self) -> Predictive:
        """How the network predicts."""
        return Predictive(self.model)

    def attach(self, context: Context, parents: list[dict[str, Tensor]] | None = None) -> None:
        """Get ready to train: start values are drawn, masks not yet; make the subspace and the optimisers.

        `parents` are the tensors of the runs to start from, None where there are none or a checkpoint follows.
        """
        self.context = context
        if parents:
            self.inherit(parents)
        self.subspace = self.make_subspace()
        self.prepare()
        self.optimizers = self.make_optimizers()

    def inherit(self, parents: list[dict[str, Tensor]]) -> None:
        """Start from trained networks: their parameters and BatchNorm statistics, not their masks."""
        own = self.model.state_dict()
        taken = {k: v for k, v in parents[0].items() if k in own and not k.endswith("mask")}
        self.model.load_state_dict(own | taken)

    def make_subspace(self) -> Whole:
        """The weights that are trained; masks are drawn here."""
        return Whole(self.layers)

    def prepare(self) -> None:
        """Once the masks are drawn, before the optimisers are made: what is trained is flattened where it is a part."""
        if isinstance(self.subspace, Fixed):
            self.flatten()

    def flatten(self) -> None:
        """Make the active weights, and nothing else of the layers' weights, parameters of the network."""
        if self.spec.mean_init == "active_fan_in":
            scale_to_active(self.layers.values())
        self.flat = ActiveWeights(self.model, self.layers.values(), together=self.spec.allocation == "global")
        self.subspace.attach(self.flat)

    def make_optimizers(self) -> list[Optimizer]:
        """The common optimiser, with weight decay on every parameter."""
        return [self.common(list(self.model.parameters()))]

    def unmasked(self) -> list[nn.Parameter]:
        """Biases and BatchNorm: the parameters that no mask concerns."""
        masked = {id(p) for weights in active_weights(self.model) for p in weights.parameters()}
        return [p for p in self.model.parameters() if id(p) not in masked]

    def common(self, parameters: list[nn.Parameter], extra: list[dict[str, Any]] | None = None) -> Optimizer:
        """SGD with momentum, or AdamW; `extra` adds parameter groups with their own settings."""
        spec = self.spec
        groups = [{"params": parameters, "lr": spec.lr, "weight_decay": spec.weight_decay}, *(extra or [])]
        if spec.optimizer == "adam":
            return AdamW(groups, lr=spec.lr, betas=(spec.momentum, ADAM_BETA_2), fused=True, capturable=self.cuda)
        return SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=True)

    @property
    def cuda(self) -> bool:
        """Whether optimisers may be captured in a graph."""
        return next(self.model.parameters()).is_cuda

    # A training ---------------------------------------------------------------------------------

    def lr_factor(self, clock: Clock) -> float:
        """Factor on every start learning rate in this epoch: cosine from 1 to 0, constant in an epoch."""
        return 0.5 * (1 + math.cos(math.pi * (clock.epoch - 1) / clock.epochs))

    def begin_epoch(self, clock: Clock) -> None:
        """Set what changes with the epoch."""

    def routine(self, step: int) -> bool:
        """Whether this step, up to `after_step`, is a forward pass, a backward pass and the optimisers' step alone."""
        return self.subspace.routine(step)

    def before_step(self, clock: Clock) -> None:
        """The network is about to be used by a training step."""
        self.subspace.before_step(clock.step)

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        """The gradients hold the data term alone; add the rest. Returns whether the optimisers take their step."""
        self.subspace.collect(clock.step, batch)
        return not self.subspace.skips(clock.step)

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        """After the optimisers' step. Returns a record of a subspace update that is to be kept."""
        images = len(batch[1])
        # before the update, in which a training may diverge
        self.flops += self.flops_per_image() * images + self.subspace.flops(clock.step, images)
        return self.subspace.after_step(clock, self.optimizers)

    def end_epoch(self, clock: Clock) -> None:
        """After the last step of an epoch."""

    def finish(self) -> None:
        """After the last epoch: prune what the method prunes at the end, before the network is published."""

    # Figures ------------------------------------------------------------------------------------

    def flops_per_image(self) -> int:
        """Counted training FLOPs of one image at the present masks."""
        return training_flops(self.layers, self.context.positions, self.n_computed())

    def n_computed(self) -> dict[str, int]:
        """Weights per layer that a training step would have to touch: the active ones, if masks are there to train."""
        return self.n_active()

    def n_active(self) -> dict[str, int]:
        """Active weights per layer."""
        return self.subspace.n_active()

    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        """Figures of the history that only some methods have (kl, beta, sigma_mean)."""
        return {}

    # Resuming -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is not in the network and must survive a restart."""
        own = {"flops": self.flops, "optimizers": [o.state_dict() for o in self.optimizers]}
        return own | self.subspace.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the network's own state is loaded before."""
        self.flops = state["flops"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.subspace.load_state_dict(state)
