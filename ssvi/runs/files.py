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
    predictions.npz     what is predicted of the test images     | written by `ssvi evaluate`
                        and of those held out                    |
    metrics.json        every figure of the run, final           |
    MODEL_CARD.md       what it takes to use the network         |
    samples.csv         metrics by the number of weight samples, written by `ssvi samples` where a figure needs it
    uncertainty.csv     calibration, shift, OOD detection, selective prediction, written by
                        `ssvi evaluate --suite uncertainty` where a table or figure needs it
    uncertainty.npz     the predictions that it was computed of
    on/NAME.json        every figure on another data set, written by `ssvi evaluate --on`

How they are read: `ssvi.runs.records`; what a folder is refused for: `ssvi.runs.runfolder`; how files of two runs in
one folder are noticed: `ssvi.runs.ties`. They are written by `ssvi.machine.disk`, always whole or not at all.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
from pathlib import Path

from ssvi.machine.disk import remove_leftovers
from ssvi.runs.options import FOLDER_PREFIX
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
UNCERTAINTY = "uncertainty.csv"
UNCERTAINTY_PREDICTIONS = "uncertainty.npz"
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

# What is measured of every set of predictions (`METRICS` in `ssvi.core.metrics`), as tables show it.
MEASURED = ("accuracy", "nll", "ece", "ece_mass", "ece_classwise", "ece_marginal", "brier", "aurc")
# Those that temperature scaling changes: the order of the classes of an image, and so the accuracy, stays.
CALIBRATED = MEASURED[1:]

SAMPLES_COLUMNS = (
    *("samples", *MEASURED),
    *("predictive_entropy", "mutual_information", "mutual_information_share", "seconds", "bins", "numerics"),
    *("expected_entropy", "disagreement", "logit_sd"),
)

# Behind these numbers, in every row: what identifies the test images (`ssvi.runs.identity`).
TESTED_ON = "test_data"
# A row a figure: of which part of the suite, of what in it, by which score, at which level; empty where it has none.
UNCERTAINTY_COLUMNS = ("part", "name", "score", "level", "metric", "value", "samples", "bins", "version", TESTED_ON)
# Measured of a trained network beside its metrics.json, each sealed by itself (`ssvi.runs.ties`): the words of the
# command that does it, before and after the run folder.
SEALED = {SAMPLES: ("samples", ()), UNCERTAINTY: ("evaluate", ("--suite", "uncertainty"))}

# By what a file in on/ is told from others.
ON_SIGN = rb'"evaluation_numerics"\s*:\s*\d'

# What `ssvi train` publishes; the folder is complete when all of them are there.
TRAINED = (SPEC, HISTORY, TOPOLOGY, MODEL, TRAINING)
# All that a run folder's own files are called.
OWN = (*TRAINED, BEST_MODEL, PREDICTIONS, METRICS, MODEL_CARD, *SEALED, UNCERTAINTY_PREDICTIONS)
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
    for name in (TRAINING, BEST_MODEL, METRICS, PREDICTIONS, *SEALED, UNCERTAINTY_PREDICTIONS, MODEL_CARD):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / ON).glob("*.json"):
        if re.search(ON_SIGN, path.read_bytes()):  # what others put there stays
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / ON).rmdir()


def measuring(path: Path, *flags: str) -> str:
    """The command that makes one of `SEALED`, in a run folder, with these flags."""
    command, more = SEALED[path.name]
    return shlex.join(("ssvi", command, str(path.parent), *more, *flags))


def outside_name(folder: str) -> str:
    """What a set of images from outside, [near:]folder:PATH, is called: by its last part, with nothing in it that a
    row of a table could not hold."""
    _, prefix, path = folder.partition(FOLDER_PREFIX)
    return f"{prefix}{component(Path(os.path.normpath(path)).name)}"


def place_of(folder: str) -> int:
    """A number that tells [near:]folder:PATH, by its whole path, from others."""
    prefix, _, path = folder.partition(FOLDER_PREFIX)
    return int(hashlib.sha256(f"{prefix}{os.path.realpath(os.path.expanduser(path))}".encode()).hexdigest()[:12], 16)


def on_other(dataset: str, part: str | None) -> str:
    """The file of a run's figures on another data set, an injective function of both."""
    return f"{ON}/{component(dataset)}{'' if part is None else f'@{part}'}.json"
