"""Masked Bayesian neural networks (Kong et al. 2023): nodes are born and die by Metropolis-Hastings moves.

The weights follow stochastic-gradient Langevin dynamics. Proposals and acceptance are computed in logarithms, in
float64: three deaths in a wide layer have a prior ratio that overflows float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.core.active import ActiveWeights
from ssvi.core.modes import frozen_batch_statistics
from ssvi.core.samplers import SGHMC
from ssvi.methods.base import Batch, Clock, Network, Record
from ssvi.methods.chain import Chain, Snapshots
from ssvi.methods.structured import Channels

MOST_NODES = 3  # of one proposal (N_max)
LEAST_LEFT = 2 * MOST_NODES  # nodes of a layer, below which its prior is 0: a layer must not die
CAUCHY = 0.1  # scale of the prior on weights and biases
SNAPSHOTS = 5
SNAPSHOTS_FROM = 0.6  # of the epochs


class NodeGate(nn.Module):
    """Multiplies channels [n, c, ...] by 0 or 1."""

    nodes: Tensor

    def __init__(self, channels: int, n_open: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.arange(channels) < n_open)
        # stands in for the nodes where the gradient with respect to them is asked for
        self.leaf: Tensor | None = None

    def scale(self) -> Tensor:
        """What evaluation multiplies the channels by, [c]."""
        return self.nodes

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.nodes if self.leaf is None else self.leaf
        return x * nodes.to(x.dtype).view(-1, *[1] * (x.dim() - 2))


# The chain on masks, as functions of the nodes of all layers in one vector ------------------------


@dataclass(frozen=True)
class NodePrior:
    """pi(m_l) proportional to exp(-(lambda log n)^5 |m_l|^2) / binom(p_l, |m_l|), independent over layers.

    Attributes:
        widths: p_l of each layer.
        strength: (lambda log n)^5.
        least: nodes that each layer must keep.
    """

    widths: tuple[int, ...]
    strength: float
    least: tuple[int, ...]

    def log(self, nodes: Tensor) -> float:
        """The logarithm at nodes (bool), up to a constant; -inf where a layer has too few."""
        total = 0.0
        for part, width, least in zip(nodes.split(self.widths), self.widths, self.least, strict=True):
            m = int(part.sum())
            if m < least:
                return -math.inf
            total -= self.strength * m * m
            total -= math.lgamma(width + 1) - math.lgamma(m + 1) - math.lgamma(width - m + 1)
        return total


def log_chosen(log_weights: Tensor, chosen: Sequence[int]) -> float:
    """log probability that drawing one after the other without replacement gives this set, in whichever order.

    Args:
        log_weights: of everything that may be drawn, -inf for what may not; unnormalised.
        chosen: the set.
    """
    log_weights = log_weights.double()
    orders = []
    for order in itertools.permutations(chosen):
        left, total = log_weights.clone(), 0.0
        for i in order:
            total += float(left[i] - left.logsumexp(0))
            left[i] = -math.inf
        orders.append(total)
    return float(torch.tensor(orders, dtype=torch.float64).logsumexp(0))


def death_weights(nodes: Tensor, gradient: Tensor) -> Tensor:
    """Log weights with which active nodes are proposed to die: -|d log p/d m|/2."""
    return torch.where(nodes, -0.5 * gradient.double().abs(), -math.inf)


def birth_weights(nodes: Tensor) -> Tensor:
    """Log weights with which inactive nodes are proposed to be born: all alike."""
    return torch.where(nodes, -math.inf, torch.zeros(len(nodes), dtype=torch.float64))


def draw_set(log_weights: Tensor, count: int, source: torch.Generator) -> list[int]:
    """A set drawn one after the other without replacement, by the Gumbel trick."""
    uniform = torch.rand(len(log_weights), generator=source, dtype=torch.float64).clamp_min(1e-300)
    return (log_weights.double() - torch.log(-torch.log(uniform))).topk(count).indices.tolist()


def log_acceptance(
    before: Tensor, after: Tensor, gradient_before: Tensor, gradient_after: Tensor, change: float, prior: NodePrior
) -> float:
    """log of the Metropolis-Hastings ratio of a move between two node vectors that differ in births or in deaths.

    Args:
        before: bool [P].
        after: bool [P], with more nodes (a birth) or fewer (a death).
        gradient_before: d log p/d m there, [P].
        gradient_after: the same after the move.
        change: log likelihood after minus before.
        prior: of the nodes.
    """
    moved = (before != after).nonzero().flatten().tolist()
    if int(after.sum()) > int(before.sum()):
        forth = log_chosen(birth_weights(before), moved)
        back = log_chosen(death_weights(after, gradient_after), moved)
    else:
        forth = log_chosen(death_weights(before, gradient_before), moved)
        back = log_chosen(birth_weights(after), moved)
    after_prior = prior.log(after)
    return -math.inf if after_prior == -math.inf else after_prior - prior.log(before) + change + back - forth


class Slimmed(Snapshots):
    """Snapshots that predict without the nodes that are closed."""

    def __init__(self, model: nn.Module, channels: Channels[NodeGate]) -> None:
        super().__init__(model)
        self._channels = channels

    def snapshot(self) -> dict[str, Tensor]:
        """Weights that cannot matter are 0 in a snapshot; in the chain they wait for a birth."""
        found = super().snapshot()
        for name, layer in self.layers.items():
            found[f"{name}.mean"].mul_(layer.mask)
        return found

    def recall(self, snapshot: dict[str, Tensor]) -> None:
        super().recall(snapshot)
        self._channels.slim()

    def uncounted(self) -> tuple[int, int]:
        return self._channels.living().dead_numbers, 0


class MBNN(Chain):
    """Samples weights and node masks. The likelihood of a move is that of the batch, scaled to all images.

    That is not exact Metropolis-Hastings, and a temperature of 1/N makes the weights' posterior a very cold one; both
    as published.
    """

    predictive: Slimmed

    def build(self, network: Network) -> nn.Module:
        widening = self.spec.widening

        def gate(channels: int) -> NodeGate:
            return NodeGate(channels, round(channels / widening))

        self.channels = Channels(network, ("hidden", "stream"), gate, lambda gate: gate.nodes, widening)
        return self.channels.build()

    def make_predictive(self) -> Slimmed:
        self.channels.bind(self.model, self.spec)
        self.gates = self.channels.gates
        return Slimmed(self.model, self.channels)

    def prepare(self) -> None:
        # before there are masks: the weights of closed nodes are trained too, by the prior alone
        self.flat = ActiveWeights(self.model, self.layers.values())
        self.channels.update_masks()
        started = [int(gate.nodes.sum()) for gate in self.gates]
        self.prior = NodePrior(
            tuple(len(gate.nodes) for gate in self.gates),
            (self.spec.mask_lambda * math.log(self.context.n_train)) ** 5,
            tuple(min(LEAST_LEFT, n) for n in started),
        )

    def make_optimizers(self) -> list[Optimizer]:
        parameters = [self.flat.mean, *self.unmasked()]
        temperature = torch.full((), 1 / self.context.n_train, device=self.flat.mean.device)
        return [
            SGHMC(
                parameters,
                lr=self.spec.mbnn_lr,
                friction=1.0,
                temperature=temperature,
                n=self.context.n_train,
                noise=self.context.streams.noise,
            )
        ]

    # A step -------------------------------------------------------------------------------------

    def lr_factor(self, clock: Clock) -> float:
        half = clock.epochs / 2
        done = min((clock.epoch - 1) / half, 1.0)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        """Add the gradient of the Cauchy prior, 2 theta/(scale^2 + theta^2), on weights and their biases."""
        biases = [layer.bias for layer in self.layers.values() if layer.bias is not None]
        for p in (self.flat.mean, *biases):
            p.grad.add_(2 * p / (CAUCHY**2 + p.square()), alpha=1 / self.context.n_train)
        return True

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        super().after_step(clock, batch)
        if clock.step % self.spec.mask_period == 0:
            self._move(batch)
        return None

    # Births and deaths --------------------------------------------------------------------------

    def _nodes(self) -> Tensor:
        return torch.cat([gate.nodes for gate in self.gates]).cpu()

    def _set_nodes(self, nodes: Tensor) -> None:
        for gate, part in zip(self.gates, nodes.split([len(g.nodes) for g in self.gates]), strict=True):
            gate.nodes.copy_(part)

    def _likelihood(self, batch: Batch) -> tuple[float, Tensor]:
        """Log likelihood of a batch, scaled to all images, and its gradient with respect to the nodes."""
        leaves = []
        for gate in self.gates:
            gate.leaf = gate.nodes.float().requires_grad_()
            leaves.append(gate.leaf)
        with frozen_batch_statistics(self.model):
            loss = self.context.exact_loss(batch)
            gradients = torch.autograd.grad(loss, leaves)
        for gate in self.gates:
            gate.leaf = None
        n = self.context.n_train
        return -n * float(loss.detach()), -n * torch.cat(gradients).cpu()

    def _move(self, batch: Batch) -> None:
        """Propose that up to three nodes, of whichever layers, are born or die, and accept or not."""
        source = self.context.streams["masks"]
        birth = bool(torch.rand((), generator=source) < 0.5)
        count = int(torch.randint(1, MOST_NODES + 1, (), generator=source))
        before = self._nodes()
        if count > int((~before if birth else before).sum()):
            return
        likelihood, gradient = self._likelihood(batch)
        weights = birth_weights(before) if birth else death_weights(before, gradient)
        after = before.clone()
        after[draw_set(weights, count, source)] = birth
        self._set_nodes(after)
        proposed, gradient_after = self._likelihood(batch)
        self.flops += 2 * self.flops_per_image() * len(batch[1])
        ratio = log_acceptance(before, after, gradient, gradient_after, proposed - likelihood, self.prior)
        if math.log(max(float(torch.rand((), generator=source, dtype=torch.float64)), 1e-300)) < ratio:
            self.channels.update_masks()
        else:
            self._set_nodes(before)

    # Sparsity, snapshots ------------------------------------------------------------------------

    def n_active(self) -> dict[str, int]:
        return self.channels.n_active()

    def kept_epochs(self, epochs: int) -> set[int]:
        """At 60, 70, 80, 90 and 100 % of the epochs."""
        step = (1 - SNAPSHOTS_FROM) / (SNAPSHOTS - 1)
        return {math.ceil(round((SNAPSHOTS_FROM + i * step) * epochs, 6)) for i in range(SNAPSHOTS)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.channels.update_masks()
