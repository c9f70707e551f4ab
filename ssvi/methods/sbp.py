"""Structured Bayesian pruning (Neklyudov et al. 2017): log-normal noise on channels; those that are noise fall away."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from ssvi import gates
from ssvi.gates import NoisyGate
from ssvi.methods.base import Batch, Clock, Record
from ssvi.methods.structured import Structured
from ssvi.noise import NormalSource

GATE_LR = 10.0  # times the weights' learning rate
BETA1 = 0.95


class SBP(Structured):
    """Minimises the mean cross-entropy + kl_weight/N sum of the gates' KL; weights are deterministic.

    A gate stands behind the ReLU inside each residual block and behind the BatchNorm of its branch, never on the
    stream, where it would tie its two summands. Noise that a batch shares would cancel in a BatchNorm that follows
    it, so it is drawn for each image, or BatchNorm is frozen.
    """

    sites = ("hidden", "branch")
    gate_class = NoisyGate
    gates: list[NoisyGate]

    def gate(self, channels: int) -> NoisyGate:
        return NoisyGate(channels, self.spec.gate_noise == "example", self.noise)

    def make_optimizers(self, model: nn.Module) -> list[Optimizer]:
        own = [p for gate in self.gates for p in gate.parameters()]
        ids = {id(p) for p in own}
        others = [p for p in model.parameters() if id(p) not in ids]
        lr = self.spec.adam_lr
        groups = [{"params": others, "lr": lr}, {"params": own, "lr": GATE_LR * lr}]
        return [Adam(groups, lr=lr, betas=(BETA1, 0.999), fused=True, capturable=own[0].is_cuda)]

    def lr_factor(self, clock: Clock) -> float:
        return min(1.0, 6 * (clock.epochs - clock.epoch + 1) / clock.epochs)

    def prepare(self) -> None:
        super().prepare()
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

    def extra_loss(self, clock: Clock) -> Tensor:
        return self.kl() * (self.spec.kl_weight / self.bench.n_train)

    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        self.move_back()
        return super().after_step(clock, batch)

    @torch.no_grad()
    def epoch_figures(self, clock: Clock) -> dict[str, float]:
        return {"kl": float(self.kl()), "beta": 1.0}

    # Sparsity -----------------------------------------------------------------------------------

    @torch.no_grad()
    def open_channels(self) -> Iterator[Tensor]:
        for gate in self.gates:
            yield gate.keep & (gates.snr(*gate.parameters_of_theta()) > self.spec.snr_threshold)

    def dead_numbers(self) -> int:
        """Those of BatchNorm, and mu and log sigma of every closed gate."""
        return super().dead_numbers() + 2 * sum(int((~gate.keep).sum()) for gate in self.gates)

    def paired_numbers(self) -> int:
        """log sigma of every open gate, whose mu is counted."""
        return sum(int(gate.keep.sum()) for gate in self.gates)

    def n_computed(self) -> dict[str, int]:
        """Nothing is pruned before the end."""
        return {name: layer.size for name, layer in self.layers.items()}

    def end_epoch(self, clock: Clock) -> None:
        self.update_masks()

    @torch.no_grad()
    def finish(self) -> None:
        self.update_masks()
        for gate, is_open in zip(self.gates, list(self.open_channels()), strict=True):
            gate.keep.copy_(is_open)
        for layer in self.layers.values():
            layer.apply_mask()
        if self.spec.gate_noise == "example":
            self.bench.recalibrate()

    # Prediction ---------------------------------------------------------------------------------

    def _set_mode(self, mode: str) -> None:
        for gate in self.gates:
            gate.mode = mode

    def set_mean(self) -> None:
        self._set_mode("mean")

    def set_train(self) -> None:
        self._set_mode("train")
        if self.spec.gate_noise == "batch":
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """n draws of the gates, one for all images each."""
        self._set_mode("sample")
        for i in range(n):
            for gate in self.gates:
                gate.draw(source)
            yield i


def _together(parameters: list[nn.Parameter]) -> Tensor:
    """Move parameters into one vector, of which they are views from here on."""
    whole = torch.cat([p.detach() for p in parameters])
    for p, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
        p.data = part
    return whole
