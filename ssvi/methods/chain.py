"""Markov chains over networks: the posterior samples are networks that the chain passed, kept on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ssvi.flat import dense_state
from ssvi.methods.base import Clock, Method
from ssvi.noise import NormalSource

PREFIX = "snapshot"


class Chain(Method, ABC):
    """What methods share that predict with snapshots: keeping, storing and recalling them.

    The network published beside them is where the chain ended.
    """

    snapshots: list[dict[str, Tensor]]

    def bind(self, model: nn.Module) -> None:
        super().bind(model)
        self.model = model
        self.snapshots = []

    @abstractmethod
    def kept_epochs(self, epochs: int) -> set[int]:
        """The epochs (from 1) at whose end a snapshot is kept."""

    def end_epoch(self, clock: Clock) -> None:
        if clock.epoch in self.kept_epochs(clock.epochs):
            self.snapshots.append(self.snapshot())

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the network as it is."""
        return {name: value.detach().clone() for name, value in dense_state(self.model).items()}

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """At most n of the snapshots, spread evenly over them, the last one among them."""
        count = min(n, len(self.snapshots))
        for i in range(count):
            self.model.load_state_dict(self.snapshots[-1 - (count - 1 - i) * len(self.snapshots) // count])
            self.recalled()
            yield i

    def states(self) -> Iterator[None]:
        # a chain that diverged has none, and is what it was last
        for snapshot in self.snapshots or [self.snapshot()]:
            self.model.load_state_dict(snapshot)
            yield

    def recalled(self) -> None:
        """The network is that of a snapshot now."""

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"{PREFIX}.{i}.{name}": v for i, s in enumerate(self.snapshots) for name, v in s.items()}
        return super().tensors() | kept

    def take_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
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
        self.snapshots = [own[number] for number in sorted(own)]
        return rest

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"snapshots": self.snapshots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.snapshots = state["snapshots"]
