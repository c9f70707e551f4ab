"""What a training that has ended leaves in its run folder: network, history, topology and a summary."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ssvi.core.counting import Positions, training_flops
from ssvi.data import Data
from ssvi.machine.disk import write_json, write_text
from ssvi.methods import Method
from ssvi.methods.context import Clock, Record
from ssvi.runs import files, ties
from ssvi.runs.records import to_jsonl, write_csv
from ssvi.runs.spec import RunSpec
from ssvi.training.heritage import Heritage
from ssvi.training.journal import Journal
from ssvi.training.network import reference_weights
from ssvi.training.provenance import peak_memory
from ssvi.training.stored import save_model
from ssvi.training.watch import Spent


@dataclass(frozen=True)
class Ending:
    """A training that has ended, and how.

    Attributes:
        spec: the run's.
        data: its images.
        heritage: its parents.
        clock: where it ended.
        method: as it was left.
        journal: of the training.
        spent: its time.
        device: where it was computed.
        self_check: what `ssvi.training.selfcheck` found.
        cause: why it diverged, if it did.
        diverged_epoch: the epoch in which it did.
    """

    spec: RunSpec
    data: Data
    heritage: Heritage
    clock: Clock
    method: Method
    journal: Journal
    spent: Spent
    device: torch.device
    self_check: Record | None
    cause: str | None
    diverged_epoch: int | None

    @property
    def complete(self) -> bool:
        """Whether it did not diverge."""
        return self.cause is None

    @property
    def best(self) -> Record | None:
        """The epoch with the best test accuracy, if its network is published; a run that diverged has none."""
        best = self.journal.best
        return best if self.complete and best and best["tensors"] else None


def publish(folder: Path, ending: Ending) -> Record:
    """Write the final files, training.json last. What is needed to go on stays until the run is evaluated.

    Returns:
        what training.json says but for its ties.
    """
    journal = ending.journal
    save_model(folder, ending.method.predictive.tensors() if ending.complete else journal.good)
    if ending.best is not None:
        save_model(folder, ending.best["tensors"], files.BEST_MODEL)
    write_csv(folder / files.HISTORY, journal.history, files.HISTORY_COLUMNS)
    write_text(folder / files.TOPOLOGY, to_jsonl(journal.topology))
    summary = _summary(ending)
    # Anew, because another process may have deleted it since: a workflow that took this training for a dead one.
    write_json(folder / files.SPEC, journal.spec)
    ties.write_tied(folder, files.TRAINING, summary)
    return summary


def _summary(ending: Ending) -> Record:
    clock, method, journal, before = ending.clock, ending.method, ending.journal, ending.heritage
    images = clock.step / clock.steps_per_epoch * ending.data.n_train
    places = method.context.positions
    # of epochs that an earlier version trained nobody knows
    steps = [row["step_seconds"] for row in journal.history if row.get("step_seconds") is not None]
    return {
        "status": "complete" if ending.complete else "diverged",
        "cause": ending.cause,
        "diverged_epoch": ending.diverged_epoch,
        "numerics": before.numerics,
        "epochs_done": len(journal.history),
        "steps": clock.step,
        "accuracy_best_test": journal.best and journal.best["accuracy"],
        "best_epoch": ending.best and ending.best["epoch"],
        "training_flops": method.flops + before.flops,
        "training_flops_dense": round(_dense_flops(ending, places) * images) if images else 0,
        "training_seconds": ending.spent.seconds + before.seconds,
        "parent_flops": before.flops,
        "parent_seconds": before.seconds,
        "training_cpu_seconds": ending.spent.cpu_seconds,
        "step_seconds": statistics.median(steps) if steps else None,
        "images_per_second": images / max(ending.spent.seconds, 1e-9),
        "peak_memory_bytes": peak_memory(ending.device),
        "self_check": ending.self_check,
        "sessions": journal.sessions,
        "positions": places,
        "parents": before.networks(),
        "inputs": asdict(ending.data.inputs),
    }


def _dense_flops(ending: Ending, places: Positions) -> int:
    """Training FLOPs of an image through the network that the spec names, with all the weights of a plain one."""
    data = ending.data
    weights = reference_weights(ending.spec, data.channels, data.image_size, data.n_classes)
    return training_flops(ending.method.layers, places, weights)
