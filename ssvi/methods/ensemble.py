"""A deep ensemble (Lakshminarayanan et al. 2017) of sparse networks, each trained by itself as a parent of this run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.core.noise import NormalSource
from ssvi.methods.base import Method, Network
from ssvi.methods.predictive import Predictive


class Members(nn.Module):
    """Several networks; one of them, or the average of their probabilities."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.chosen: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.chosen is not None:
            return self.members[self.chosen](x)
        logs = torch.stack([member(x).float().log_softmax(1) for member in self.members])
        return logs.logsumexp(0)


class EachMember(Predictive):
    """Predicts with every member in turn, however many samples are asked for."""

    has_mean = False
    samples_are_parts = True
    model: Members

    def set_mean(self) -> None:
        self.model.chosen = None

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        for i in range(len(self.model.members)):
            self.model.chosen = i
            yield i


class Ensemble(Method):
    """Puts its parents together and trains nothing; the members' active weights add up to the density."""

    model: Members

    def build(self, network: Network) -> nn.Module:
        return Members([network(self.factory()) for _ in range(self.spec.members)])

    def make_predictive(self) -> EachMember:
        return EachMember(self.model)

    def inherit(self, parents: list[dict[str, Tensor]]) -> None:
        for member, state in zip(self.model.members, parents, strict=True):
            member.load_state_dict(state)

    def make_optimizers(self) -> list[Optimizer]:
        return []

    def n_active(self) -> dict[str, int]:
        return {name: int(layer.mask.sum()) for name, layer in self.layers.items()}
