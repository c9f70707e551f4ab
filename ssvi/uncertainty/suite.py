"""The suite of one run: its network is shown corrupted images and images from outside, and all is kept and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvi.core.calibration import fit_temperature
from ssvi.core.prediction import Prediction
from ssvi.data import Data
from ssvi.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from ssvi.data.corruptions.published import published
from ssvi.data.outside import Outside, outside
from ssvi.errors import UserError
from ssvi.machine.disk import write_text
from ssvi.runs import files, ties
from ssvi.runs.arrays import read_arrays
from ssvi.runs.records import read_record, to_csv
from ssvi.runs.spec import RunSpec
from ssvi.runs.versions import SUITE
from ssvi.training.evaluate import Trained, open_trained
from ssvi.training.kept import VALIDATION, arrays, kept, write_arrays
from ssvi.training.measure import UNCERTAINTY, is_finite
from ssvi.uncertainty import figures

# Images that are corrupted, and that each set from outside has at most.
IMAGES = 1000
# So many at once take half the time of a thousand: what a layer makes of them stays in the cache.
BATCH = 250
# Of the draw of the corrupted images, and of the corruptions' noise: the same for every run.
SEED = 0
CLEAN = "clean"
# By name of a corruption what gives its images of a severity.
Shifts = Mapping[str, Callable[..., Tensor]]


@dataclass(frozen=True)
class Suite:
    """What a suite was of, and what came of it.

    Attributes:
        rows: of uncertainty.csv.
        sets: name, whether near, number of images and source of each set from outside.
        file_bytes: of uncertainty.npz.
        seconds: that all took.
    """

    rows: Sequence[figures.Row]
    sets: Sequence[tuple[str, bool, int, str]]
    file_bytes: int
    seconds: float


def evaluate_suite(
    spec: RunSpec,
    data: Data,
    folder: Path,
    device: torch.device,
    *,
    root: Path,
    folders: Sequence[str] = (),
    follow_links: bool = False,
) -> Suite:
    """Show a trained and evaluated network all suites; writes uncertainty.npz and uncertainty.csv.

    The weight samples are those of its evaluation. A diverged run has no rows.

    Args:
        spec: the run's.
        data: its data set, on `device`.
        folder: the run folder, with what `ssvi evaluate` wrote.
        device: where to compute.
        root: folder of the data, in which sets from outside are looked for.
        folders: more of these, each folder:PATH.
        follow_links: whether links in these may lead out of them.

    Raises:
        UserError: if the folder's files are missing, damaged, of another spec, or a set from outside is not there.
    """
    start = time.perf_counter()
    training, trained = open_trained(spec, data, folder, device)
    metrics, predicted = _evaluated(folder)
    rows: list[figures.Row] = []
    shown: dict[str, np.ndarray] = {}
    sets: list[Outside] = []
    if training["status"] == "complete" and metrics["status"] == "complete":
        samples, bins = int(metrics["evaluation"]["asked"]), int(metrics["evaluation"]["bins"])
        sets = outside(spec, data, root, most=IMAGES, folders=folders, follow_links=follow_links)
        shifts = shifted_images(spec, data, root)
        for name, prediction, labels in _predicted(trained, shifts, sets, samples):
            if not is_finite(prediction):
                raise UserError(f"{folder}: what it predicts of {name.rstrip('/')} is not finite.")
            shown |= arrays(prediction, labels, name, half=True)
        # which images these are, in words: scores that cannot be told of which split they are prove nothing
        shown |= {f"{outside_name(one.name)}source": np.array(one.source) for one in sets}
        rows = _rows(metrics, predicted, shown, (shifts, sets), bins)
        about = {"samples": metrics["evaluation"]["samples"], "bins": bins, "version": SUITE}
        rows = [one | about for one in rows]
    write_arrays(folder / files.UNCERTAINTY_PREDICTIONS, shown)
    tested_on = {files.TESTED_ON: data.identity.test_data}
    text = to_csv([one | tested_on for one in rows], files.UNCERTAINTY_COLUMNS)
    write_text(folder / files.UNCERTAINTY, ties.seal(folder, files.UNCERTAINTY, text))
    described = [(one.name, one.near, len(one.images), one.source) for one in sets]
    size = (folder / files.UNCERTAINTY_PREDICTIONS).stat().st_size
    return Suite(rows, described, size, time.perf_counter() - start)


def _evaluated(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `ssvi evaluate` wrote: metrics, and predictions.

    Raises:
        UserError: if it did not yet, was of a version that kept less, or its files do not belong together.
    """
    remedy = f"evaluate it first: ssvi evaluate {folder}"
    if not (folder / files.METRICS).is_file():
        raise UserError(f"{folder}: has no {files.METRICS} yet; {remedy}")
    ties.check_ties(folder, files.METRICS)
    metrics = read_record(folder / files.METRICS, status=str)
    found = read_arrays(folder / files.PREDICTIONS, remedy)
    if "least_confidence" not in found:
        raise UserError(f"{folder}: was evaluated by a version that kept less of its predictions; {remedy}")
    return metrics, found


def _predicted(
    trained: Trained, shifts: Shifts, sets: Sequence[Outside], samples: int
) -> Iterator[tuple[str, Prediction, Tensor]]:
    """Of each set of images its name, ending in a slash, what is predicted of them, and their labels.

    All severities of a corruption are predicted at once, and forgotten before the next.
    """
    which = corrupted_images(trained.data)
    images, labels = trained.data.test_images[which], trained.data.test_labels[which]
    yield shift_name(CLEAN, 0), trained.prediction(images, samples, BATCH), labels
    for name, at in shifts.items():
        every = torch.cat([at(severity) for severity in SEVERITIES]).to(images.device)
        together = trained.prediction(every, samples, BATCH)
        for number, severity in enumerate(SEVERITIES):
            part = slice(number * len(images), (number + 1) * len(images))
            yield shift_name(name, severity), together.of(part), labels
    for one in sets:
        unknown = torch.full((len(one.images),), -1, device=labels.device)
        yield outside_name(one.name), trained.prediction(one.images, samples, BATCH), unknown


def shifted_images(spec: RunSpec, data: Data, root: Path) -> Shifts:
    """The corruptions of a data set: those published of CIFAR where they lie under `root`, else our own.

    Those are of all classes at full size; a network that is shown other images is shown our own.
    """
    which = corrupted_images(data)
    theirs = None
    if spec.shrink == 1 and not spec.held_out_classes:
        theirs = published(spec.dataset, root, data.test_labels)
    if theirs is not None:
        return {f"{theirs.folder.name}/{name}": partial(theirs.images, name, which=which) for name in theirs.names}
    images = data.test_images[which]
    return {name: partial(_corrupted, images, name) for name in CORRUPTIONS}


def _corrupted(images: Tensor, name: str, severity: int) -> Tensor:
    return corrupted(images, name, severity, SEED)


def corrupted_images(data: Data) -> Tensor:
    """Which test images are corrupted, ascending: all of few, of many a draw that is the same for every run."""
    number = len(data.test_labels)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(SEED))
    return order[:IMAGES].sort().values.to(data.test_labels.device)


def shift_name(corruption: str, severity: int) -> str:
    """Of the predictions of corrupted images, in uncertainty.npz."""
    return f"shift/{corruption}/{severity}/"


def outside_name(name: str) -> str:
    """Of the predictions of a set from outside, in uncertainty.npz."""
    return f"ood/{name}/"


def _rows(
    metrics: Mapping[str, Any],
    predicted: Mapping[str, np.ndarray],
    shown: Mapping[str, np.ndarray],
    of: tuple[Shifts, Sequence[Outside]],
    bins: int,
) -> list[figures.Row]:
    """Every figure, of predictions as they are kept."""
    shifts, sets = of
    test = kept(predicted)
    held_out = kept(predicted, VALIDATION) if f"{VALIDATION}labels" in predicted else None
    if held_out is not None and not bool(held_out.probabilities.isfinite().all()):
        held_out = None  # as the evaluation has it
    temperature = None if held_out is None else fit_temperature(held_out.probabilities, held_out.labels)
    shifted = {(name, severity): kept(shown, shift_name(name, severity)) for name in shifts for severity in SEVERITIES}
    shifted = {(CLEAN, 0): kept(shown, shift_name(CLEAN, 0)), **shifted}
    beyond = {one.name: (one.near, kept(shown, outside_name(one.name))) for one in sets}
    return [
        *figures.posterior({name: metrics[name] for name in UNCERTAINTY}),
        *figures.calibration(test, temperature, bins),
        *figures.selection(test),
        *figures.sets_of_classes(test, held_out),
        *figures.shift(shifted, held_out, temperature, bins),
        *figures.outside(test, temperature, beyond),
        *figures.places({one.name: one.folder for one in sets if one.folder}),
    ]
