"""That speed costs no accuracy: the same trainings with every switch on and with every switch off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssvi.bench.record import Figure
from ssvi.data import load
from ssvi.machine import process
from ssvi.machine.process import SWITCHES
from ssvi.runs.spec import RunSpec
from ssvi.training.progress import Lines
from ssvi.training.step import Machine, choose_machine
from ssvi.training.trainer import Settings, Trainer

SEEDS = range(5)
DIGITS = {"dataset": "digits", "model": "resnet8", "epochs": 12, "batch_size": 64, "lr": 0.1, "delta_t": 10,
          "prior_sigma": 0.05, "density": 0.1}  # fmt: skip
SLICE = {"model": "resnet8", "width": 2.0, "epochs": 6, "batch_size": 64, "lr": 0.1, "delta_t": 20, "prior_sigma": 0.05,
         "density": 0.1}  # fmt: skip


class _Quiet(Lines):
    def epoch(self, row: dict[str, Any]) -> None:
        """Nothing: dozens of trainings."""


def _history(spec: dict[str, Any], machine: Machine, seed: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="ssvi-bench-") as name:
        run = RunSpec(**{**spec, "seed": seed})
        data = load(run, Path(os.environ.get("SSVI_DATA", "data")), machine.device)
        trainer = Trainer(run, data, Path(name), Settings(machine, 1e9), _Quiet())
        trainer.run()
        return trainer.journal.history


def accuracy(repeats: int, say: Callable[[str], None]) -> list[Figure]:
    """Validation accuracy on digits and, where $SSVI_BENCH_IMAGES names an image folder, its loss curve; 5 seeds each.

    `fast` has every switch on that pays on this device, `plain` has none.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        process.hold_memory()
        torch.set_num_threads(2)
    machines = {"fast": choose_machine(device), "plain": choose_machine(device, dict.fromkeys(SWITCHES, False))}
    found = []
    for name, machine in machines.items():
        say(f"digits, {name}: {len(SEEDS)} trainings")
        last = [_history(DIGITS, machine, seed)[-1]["validation_accuracy"] for seed in SEEDS]
        found.append(Figure(f"accuracy.digits.{name}", "", tuple(last), "validation, a value a seed"))
    if folder := os.environ.get("SSVI_BENCH_IMAGES"):
        for name, machine in machines.items():
            say(f"images, {name}: {len(SEEDS)} trainings")
            curves = [_history({**SLICE, "dataset": f"folder:{folder}"}, machine, seed) for seed in SEEDS]
            for epoch in range(SLICE["epochs"]):
                losses = tuple(curve[epoch]["loss"] for curve in curves)
                found.append(Figure(f"accuracy.images.{name}.loss.{epoch + 1}", "nats", losses, "a value a seed"))
    return found
