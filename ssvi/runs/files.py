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
    samples.csv         metrics by the number of weight samples, written by `ssvi samples` where a figure needs it

How they are read: `ssvi.runs.records`; what a folder is refused for: `ssvi.runs.runfolder`; how files of two runs in
one folder are noticed: `ssvi.runs.ties`. They are written by `ssvi.machine.disk`, always whole or not at all.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ssvi.machine.disk import remove_leftovers

SPEC = "spec.json"
HISTORY = "history.csv"
TOPOLOGY = "topology.jsonl"
MODEL = "model.safetensors"
BEST_MODEL = "best.safetensors"
TRAINING = "training.json"
PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
SAMPLES = "samples.csv"
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

# What `ssvi train` publishes; the folder is complete when all of them are there.
TRAINED = (SPEC, HISTORY, TOPOLOGY, MODEL, TRAINING)
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
    for name in (TRAINING, BEST_MODEL, METRICS, PREDICTIONS, SAMPLES):
        (folder / name).unlink(missing_ok=True)
