"""What a training keeps of its way: where it came from, who worked on it, its figures, the networks worth keeping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssvi.core.active import dense_state
from ssvi.machine.disk import write_json, write_text
from ssvi.methods.context import Record
from ssvi.runs import files, records
from ssvi.runs.records import to_jsonl


@dataclass
class Journal:
    """Everything that a training knows beside the state of its parts; it survives a restart as it is.

    Attributes:
        spec: what spec.json holds.
        sessions: a record for each process that worked on it.
        good: the last network known to be finite, which a run that diverges is left with.
        best: `epoch`, `accuracy` and `tensors` of the epoch with the best test accuracy, if that is recorded.
        history: a row an epoch.
        topology: a record an update of the subspace.
    """

    spec: Record = field(default_factory=dict)
    sessions: list[Record] = field(default_factory=list)
    good: dict[str, Tensor] = field(default_factory=dict)
    best: Record | None = None
    history: list[Record] = field(default_factory=list)
    topology: list[Record] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Make spec.json and the live files hold just what stands here."""
        # A workflow that cleans up after a failed job deletes spec.json, so a checkpoint has a copy.
        write_json(folder / files.SPEC, self.spec)
        write_text(folder / files.LIVE_HISTORY, to_jsonl(self.history))
        write_text(folder / files.LIVE_TOPOLOGY, to_jsonl(self.topology))

    def add_epoch(self, folder: Path, row: Mapping[str, Any]) -> None:
        """The columns of the history that a row has, here and in the live file."""
        self.history.append({column: row.get(column) for column in files.HISTORY_COLUMNS})
        records.append_jsonl(folder / files.LIVE_HISTORY, self.history[-1])

    def add_update(self, folder: Path, record: Record) -> None:
        """The record of an update of the subspace, here and in the live file."""
        self.topology.append(record)
        records.append_jsonl(folder / files.LIVE_TOPOLOGY, record)

    def note_switches(self, switches: Mapping[str, bool]) -> None:
        """How this session's steps are taken; one may have been switched off on the way."""
        self.sessions[-1]["switches"] = dict(switches)

    def remember_good(self, model: nn.Module) -> None:
        """Keep the present network: what a run that diverges from here on is left with."""
        self.good = {name: value.detach().clone() for name, value in dense_state(model).items()}

    def remember_best(self, row: Mapping[str, Any], tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep the epoch with the best test accuracy, the earliest of several, and its network."""
        if self.best is None or row["test_accuracy"] > self.best["accuracy"]:
            kept = {name: value.detach().cpu().clone() for name, value in tensors().items()}
            self.best = {"epoch": row["epoch"], "accuracy": row["test_accuracy"], "tensors": kept}
