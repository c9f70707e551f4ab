"""Structured Bayesian pruning (Neklyudov et al. 2017): log-normal noise on channels; those that are noise fall away."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from ssvi.core import gates
from ssvi.core.gates import NoisyGate
from ssvi.core.noise import NormalSource
from ssvi.methods.base import Batch, Clock, Method, Network, Record
from ssvi.methods.predictive import Predictive
from ssvi.methods.structured import Channels

GATE_LR = 10.0  # times the weights' learning rate
BETA1 = 0.95


class Gated(Predictive):
    """A network that predicts with draws of its gates' noise, and without the channels that are closed."""

    def __init__(self, model: nn.Module, channels: Channels[NoisyGate], frozen: bool) -> None:
        """`frozen` keeps BatchNorm's statistics as they are while training."""
        super().__init__(model)
        self._channels, self._frozen = channels, frozen

    def set_train(self) -> None:
        super().set_train()
        if self._frozen:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """n draws of the gates, one for all images each."""
        self._channels.slim()
        yield from super().samples(n, source)

    def uncounted(self) -> tuple[int, int]:
        """With BatchNorm's, mu and log sigma of every closed gate; log sigma of every open one, whose mu is counted."""
        n_open = [int(gate.keep.sum()) for gate in self._channels.gates]
        closed = sum(len(gate.keep) for gate in self._channels.gates) - sum(n_open)
        return self._channels.living().dead_numbers + 2 * closed, sum(n_open)


class SBP(Method):
    """Minimises the mean cross-entropy + kl_weight/N sum of the gates' KL; weights are deterministic.

    A gate stands behind the ReLU inside each residual block and behind the BatchNorm of its branch, never on the
    stream, where it would tie its two summands. Noise that a batch shares would cancel in a BatchNorm that follows
    it, so it is drawn for each image, or BatchNorm is frozen.
    """

    def build(self, network: Network) -> nn.Module:
        self.channels = Channels(network, ("hidden", "branch"), self.gate, self._is_open)
        return self.channels.build()

    def gate(self, channels: int) -> NoisyGate:
        """What stands behind so many channels."""
        return NoisyGate(channels, self.spec.gate_noise == "example", self.noise)

    def _is_open(self, gate: NoisyGate) -> Tensor:
        return gate.keep & (gates.snr(*gate.parameters_of_theta()) > self.spec.snr_threshold)

    def make_predictive(self) -> Gated:
        self.channels.bind(self.model, self.spec)
        self.gates = self.channels.gates
        return Gated(self.model, self.channels, frozen=self.spec.gate_noise == "batch")

    def make_optimizers(self) -> list[Optimizer]:
        own = [p for gate in self.gates for p in gate.parameters()]
        ids = {id(p) for p in own}
        others = [p for p in self.model.parameters() if id(p) not in ids]
        lr = self.spec.adam_lr
        groups = [{"params": others, "lr": lr}, {"params": own, "lr": GATE_LR * lr}]
        return [Adam(groups, lr=lr, betas=(BETA1, 0.999), fused=True, capturable=own[0].is_cuda)]

    def lr_factor(self, clock: Clock) -> float:
        return min(1.0, 6 * (clock.epochs - clock.epoch + 1) / clock.epochs)

    def prepare(self) -> None:
        self.channels.update_masks()
        self.keep_in_range()

    def keep_in_range(self) -> None:
        """Lay the gates' parameters together, so that all are moved back at once."""
        self._mu = _together([gate.mu for gate in self.gates])
        self._log_sigma = _together([gate.log_sigma for gate in self.gates])

    def move_back(self) -> None:
        """Move parameters that left their range to its ends."""
        self._mu.clamp_(gates.LOW, gates.HIGH)
        self._log_sigma.clamp_(*gates.LOG_SIGMA)

    def kl(self) -> Tensor:
        """KL of all gates in nats, float64."""
        mu, log_sigma = (torch.cat([getattr(gate, name) for gate in self.gates]) for name in ("mu", "log_sigma"))
        return gates.kl(mu.double(), log_sigma.double().exp()).sum()

    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        (self.kl() * (self.spec.kl_weight / self.context.n_train)).backward()
        return True

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        self.move_back()
        return super().after_step(clock, batch)

    @torch.no_grad()
    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        return {"kl": float(self.kl()), "beta": 1.0}

    # Sparsity -----------------------------------------------------------------------------------

    def n_active(self) -> dict[str, int]:
        return self.channels.n_active()

    def n_computed(self) -> dict[str, int]:
        """Nothing is pruned before the end."""
        return {name: layer.size for name, layer in self.layers.items()}

    def end_epoch(self, clock: Clock) -> None:
        self.channels.update_masks()

    @torch.no_grad()
    def finish(self) -> None:
        self.channels.update_masks()
        for gate, is_open in zip(self.gates, self.channels.open(), strict=True):
            gate.keep.copy_(is_open)
        for layer in self.layers.values():
            layer.apply_mask()
        if self.spec.gate_noise == "example":
            self.context.recalibrate()


def _together(parameters: list[nn.Parameter]) -> Tensor:
    """Move parameters into one vector, of which they are views from here on."""
    whole = torch.cat([p.detach() for p in parameters])
    for p, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
        p.data = part
    return whole
