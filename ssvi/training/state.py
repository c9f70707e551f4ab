"""What must survive a restart of a training, with the names under which it stands in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssvi.training import checkpoint
from ssvi.training.journal import Journal
from ssvi.training.watch import Spent

Part = TypeVar("Part", Journal, Spent)


@dataclass(kw_only=True)
class State(Journal, Spent):
    """A training between two steps: its journal, the time it took, and the state of its parts.

    The fields are the keys of a checkpoint: whoever changes them raises `ssvi.training.checkpoint.VERSION`.

    Attributes:
        model: the network's own state.
        method: what of the method is not in the network.
        streams: of all random numbers.
        order: [n_train], in which this epoch takes the training images.
        totals: [3], float64: loss, correct and images of this epoch so far.
        epoch: as `Clock` has it.
        step: as `Clock` has it.
    """

    model: dict[str, Tensor]
    method: dict[str, Any]
    streams: dict[str, Tensor]
    order: Tensor
    totals: Tensor
    epoch: int
    step: int

    def save(self, folder: Path) -> None:
        """Make this the run's checkpoint; the last one is kept beside it."""
        checkpoint.save(folder, vars(self))

    @classmethod
    def load(cls, folder: Path, device: torch.device, say: Callable[[str], None] = lambda line: None) -> State | None:
        """The state in the run's last checkpoint that is whole, or None if it has none at all.

        Raises:
            UserError: as `ssvi.training.checkpoint.load`.
        """
        found = checkpoint.load(folder, device, frozenset(field.name for field in fields(cls)), say)
        return None if found is None else cls(**found)

    def part(self, kind: type[Part]) -> Part:
        """The journal, or the time that was spent."""
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})
