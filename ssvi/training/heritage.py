"""The trained runs that another one starts from: what they say, what they cost, what it takes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssvi.core.noise import NormalSource
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.methods.context import Record
from ssvi.runs import files, ties
from ssvi.runs.identity import other_images
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import ANEW, is_number, read_record
from ssvi.runs.runfolder import check_spec, read_data, read_training
from ssvi.runs.spec import RunSpec
from ssvi.runs.versions import numerics
from ssvi.training.network import build
from ssvi.training.stored import load_model


@dataclass(frozen=True)
class Parent:
    """A trained run: its spec, its folder, and what training.json says, with its numerics and its network."""

    spec: RunSpec
    folder: Path
    record: Record


@dataclass(frozen=True)
class Heritage:
    """The parents of a run, in order: none, one, or the members of an ensemble.

    Attributes:
        numerics: the version of the arithmetic that the run is of: what is made of older numbers is as old as they are.
    """

    parents: Sequence[Parent]
    numerics: int

    @classmethod
    def read(cls, spec: RunSpec, folders: Sequence[Path], data: Data) -> Heritage:
        """The parents of the run `spec` on these images, in their folders, as many as its spec asks for.

        Raises:
            UserError: if one is not trained, damaged, of another spec, or of other images.
        """
        found = [
            Parent(one, folder, _record(one, folder)) for one, folder in zip(parents_of(spec), folders, strict=True)
        ]
        for parent in found:
            if others := other_images(read_data(parent.folder), parent.spec, data.identity):
                raise UserError(
                    f"{parent.folder}: the parent of this run was trained on {others}; bring those images back, or "
                    "move its folder away."
                )
        return cls(found, min([numerics(spec), *(parent.record["numerics"] for parent in found)]))

    @property
    def cause(self) -> str | None:
        """Why the first parent that diverged did; None where all are complete."""
        return next((p.record["cause"] for p in self.parents if p.record["status"] != "complete"), None)

    @property
    def flops(self) -> int:
        """Of the parents' trainings and of what those started from."""
        return sum(parent.record["training_flops"] for parent in self.parents)

    @property
    def seconds(self) -> float:
        """Of the parents' trainings and of what those started from."""
        return sum(parent.record["training_seconds"] for parent in self.parents)

    def networks(self) -> dict[str, str]:
        """Which networks a training starts from: fingerprints by run path."""
        return {run_path(parent.spec): parent.record["model"] for parent in self.parents}

    def tensors(self, data: Data) -> list[dict[str, Tensor]]:
        """What each parent published, for a network that takes these images.

        Raises:
            UserError: as `ssvi.training.network.load_model`, or if a number is not finite.
        """
        return [_tensors(parent, data) for parent in self.parents]


def _record(spec: RunSpec, folder: Path) -> Record:
    if not files.is_trained(folder):
        raise UserError(f"{folder}: the parent of this run is not trained; train it first.")
    check_spec(folder, spec)
    ties.check_ties(folder, files.TRAINING)
    costs = read_record(folder / files.TRAINING, training_flops=float, training_seconds=float)
    origin = read_record(folder / files.SPEC, provenance=dict)["provenance"]
    before = origin.get("numerics", 1)
    if not is_number(before):
        raise UserError(f"{folder / files.SPEC}: numerics is {before!r}, but must be a number; {ANEW}")
    origin = {"numerics": before, "model": ties.identity(folder / files.MODEL)}
    return costs | read_training(folder) | origin


def _tensors(parent: Parent, data: Data) -> dict[str, Tensor]:
    noise = NormalSource(parent.spec.seed, "parent", torch.device("cpu"))
    _, method = build(parent.spec, data.channels, data.image_size, data.n_classes, noise)
    tensors = load_model(parent.folder, method)
    if wrong := [name for name, value in tensors.items() if not bool(value.isfinite().all())]:
        raise UserError(f"{parent.folder / files.MODEL}: {wrong[0]} has numbers that are not finite; {ANEW}")
    return tensors
