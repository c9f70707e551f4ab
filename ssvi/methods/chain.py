"""Markov chains over networks: the posterior samples are networks that the chain passed, kept on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ssvi.core.active import dense_state
from ssvi.core.noise import NormalSource
from ssvi.methods.base import Clock, Method
from ssvi.methods.predictive import Predictive, load_state

PREFIX = "snapshot"


class Snapshots(Predictive):
    """Networks that a chain passed. The one published beside them is where it ended.

    Attributes:
        kept: their tensors, in the order of time.
    """

    has_mean = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.kept: list[dict[str, Tensor]] = []

    def keep(self) -> None:
        """Keep the network as it is."""
        self.kept.append(self.snapshot())

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the network as it is."""
        return {name: value.detach().clone() for name, value in dense_state(self.model).items()}

    def recall(self, snapshot: dict[str, Tensor]) -> None:
        """Be the network of a snapshot."""
        self.model.load_state_dict(snapshot)

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """At most n of the snapshots, spread evenly over them, the last one among them."""
        count = min(n, len(self.kept))
        for i in range(count):
            self.recall(self.kept[-1 - (count - 1 - i) * len(self.kept) // count])
            yield i

    def states(self) -> Iterator[None]:
        # a chain that diverged has none, and is what it was last
        for snapshot in self.kept or [self.snapshot()]:
            self.model.load_state_dict(snapshot)
            yield

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"{PREFIX}.{i}.{name}": v for i, s in enumerate(self.kept) for name, v in s.items()}
        return super().tensors() | kept

    def load(self, tensors: dict[str, Tensor]) -> None:
        own: dict[int, dict[str, Tensor]] = {}
        rest = {}
        for key, value in tensors.items():
            if key.startswith(f"{PREFIX}."):
                _, number, name = key.split(".", 2)
                own.setdefault(int(number), {})[name] = value
            else:
                rest[key] = value
        if any(snapshot.keys() != rest.keys() for snapshot in own.values()):
            raise KeyError("a snapshot is of another network")
        self.kept = [own[number] for number in sorted(own)]
        load_state(self.model, rest)


class Chain(Method, ABC):
    """What methods share that predict with snapshots: keeping them, on the way and over a restart."""

    predictive: Snapshots

    def make_predictive(self) -> Snapshots:
        return Snapshots(self.model)

    @abstractmethod
    def kept_epochs(self, epochs: int) -> set[int]:
        """The epochs (from 1) at whose end a snapshot is kept."""

    def end_epoch(self, clock: Clock) -> None:
        if clock.epoch in self.kept_epochs(clock.epochs):
            self.predictive.keep()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"snapshots": self.predictive.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.predictive.kept = state["snapshots"]
