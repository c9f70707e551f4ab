"""The files of a run folder: their names, and which of them there are when.

    spec.json           the format of these files, the full spec, written first, with the commit, versions and data it
                        was made with
    live/               what a training needs to go on, from its start to its evaluation: checkpoint.pt and the one
                        before it, history.jsonl, topology.jsonl, lock, owner.json
    history.csv         a row an epoch                       |
    topology.jsonl      a record per kept subspace update    |  published by `ssvi train` when it ends
    model.safetensors   final parameters and masks           |
    training.json       status, seconds, memory, FLOPs       |
    best.safetensors    the network of the epoch with the best test accuracy, where a spec asks to `record_best_test`
    predictions.npz     averaged test probabilities and labels   | written by `ssvi evaluate`
    metrics.json        every figure of the run, final           |
    MODEL_CARD.md       what it takes to use the network, in words    |
    samples.csv         metrics by the number of weight samples, written by `ssvi samples` where a figure needs it
    on/NAME.json        every figure on another data set, written by `ssvi evaluate --on`

How they are read: `ssvi.runs.records`; what a folder is refused for: `ssvi.runs.runfolder`; how files of two runs in
one folder are noticed: `ssvi.runs.ties`. They are written by `ssvi.machine.disk`, always whole or not at all.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ssvi.machine.disk import remove_leftovers
from ssvi.runs.paths import component

SPEC = "spec.json"
HISTORY = "history.csv"
TOPOLOGY = "topology.jsonl"
MODEL = "model.safetensors"
BEST_MODEL = "best.safetensors"
TRAINING = "training.json"
PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
MODEL_CARD = "MODEL_CARD.md"
SAMPLES = "samples.csv"
ON = "on"
# What a file of tensors says of itself, as JSON under this name of its metadata.
ENTRY = "ssvi"
LIVE = "live"
CHECKPOINT = "live/checkpoint.pt"
PREVIOUS_CHECKPOINT = "live/checkpoint.previous.pt"
LIVE_HISTORY = "live/history.jsonl"
LIVE_TOPOLOGY = "live/topology.jsonl"
LOCK = "live/lock"
OWNER = "live/owner.json"

# Columns of history.csv, a row an epoch; empty where a method or a run does not have one.
HISTORY_COLUMNS = (
    "epoch",
    "step",
    "loss",
    "kl",
    "beta",
    "train_accuracy",
    "validation_accuracy",
    "lr",
    "active_weights",
    "sigma_mean",
    "test_accuracy",
    "seconds",
    "step_seconds",
)

SAMPLES_COLUMNS = (
    *("samples", "accuracy", "nll", "ece", "ece_marginal", "brier"),
    *("predictive_entropy", "mutual_information", "mutual_information_share", "seconds", "bins", "numerics"),
)

# Behind these numbers, in every row: what identifies the test images (`ssvi.runs.identity`).
TESTED_ON = "test_data"

# By what a file in on/ is told from others.
ON_SIGN = rb'"evaluation_numerics"\s*:\s*\d'

# What `ssvi train` publishes; the folder is complete when all of them are there.
TRAINED = (SPEC, HISTORY, TOPOLOGY, MODEL, TRAINING)
# All that a run folder's own files are called.
OWN = (*TRAINED, BEST_MODEL, PREDICTIONS, METRICS, MODEL_CARD, SAMPLES)
# What is in `live/`; the lock goes last, because whoever waits for it begins when it is gone.
IN_LIVE = (CHECKPOINT, PREVIOUS_CHECKPOINT, LIVE_HISTORY, LIVE_TOPOLOGY, OWNER, LOCK)


def is_trained(folder: Path) -> bool:
    """Whether a training of this folder has ended (completed or diverged) and published all its files."""
    # what may not be looked at is not trained, and whoever uses it says why
    return all(os.path.isfile(folder / name) for name in TRAINED)


def remove_live(folder: Path) -> None:
    """Delete what a training needs to go on; what somebody is using just now may stay, and what others put there."""
    remove_leftovers(folder / LIVE)
    with contextlib.suppress(OSError):
        for name in IN_LIVE:
            (folder / name).unlink(missing_ok=True)
        (folder / LIVE).rmdir()


def remove_outdated(folder: Path) -> None:
    """Delete what says that this folder's training has ended, and what was measured of it then."""
    for name in (TRAINING, BEST_MODEL, METRICS, PREDICTIONS, SAMPLES, MODEL_CARD):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / ON).glob("*.json"):
        if re.search(ON_SIGN, path.read_bytes()):  # what others put there stays
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / ON).rmdir()


def on_other(dataset: str, part: str | None) -> str:
    """The file of a run's figures on another data set, an injective function of both."""
    return f"{ON}/{component(dataset)}{'' if part is None else f'@{part}'}.json"
