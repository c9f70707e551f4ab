"""A trained network on other images than its own (`ssvi evaluate RUN --on DATA`), and the record of that.

Whatever data set the images come from, they are made into what the network takes as those of its training were, and
their classes are its own by name. A run folder has the record in `on/`, beside its own figures and never in their
place, tied to the network that it is of: of another training it is refused (`ssvi.runs.ties.check_ties`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvi.core.prediction import joined
from ssvi.data.cache import fingerprint_of_tests
from ssvi.data.pixels import coloured, resized
from ssvi.data.sources import prepare
from ssvi.errors import UserError, nearest, quoted
from ssvi.runs import files, ties
from ssvi.runs.card import Inputs
from ssvi.runs.images import PARTS, Classes, dataset_path, expanded, scan_classes
from ssvi.runs.options import FOLDER_PREFIX
from ssvi.runs.records import check_record
from ssvi.runs.values import validate
from ssvi.runs.versions import EVALUATION
from ssvi.serving.predictor import Predictor
from ssvi.serving.reading import read
from ssvi.training.measure import BATCH, SCALED, is_finite, measured, scaled

# Of many classes the first ones say enough.
NAMED = 5


@dataclass(frozen=True)
class Others:
    """Images that a network can take, of the classes that it knows.

    Attributes:
        dataset: where they are from.
        part: `train` or `test`; None of class folders alone.
        classes: all that there are, the network's or not.
        images: uint8 [n, channels, size, size], in the network's channels.
        labels: int64 [n], which index the network's classes.
        fingerprint: of these images as they were read, and of their labels, as `test_data` is in metrics.json.
        unknown: how many images there are of classes that the network does not know.
        unread: why images could not be read.
        left_out: how many files are none that are read, by reason.
    """

    dataset: str
    part: str | None
    classes: tuple[str, ...]
    images: Tensor
    labels: Tensor
    fingerprint: str
    unknown: Mapping[str, int]
    unread: Sequence[str] = ()
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)


def gather(dataset: str, part: str | None, inputs: Inputs, root: Path, follow_links: bool = False) -> Others:
    """The images of a data set as a network takes them.

    Args:
        dataset: one of `DATASETS`, or folder:PATH, of which the training images are not needed: train/ and test/
            with class folders, or class folders alone.
        part: train or test; without it test, where there are parts.
        inputs: what the network takes.
        root: folder of the data.
        follow_links: whether links in folder:PATH may lead out of it.

    Raises:
        UserError: if there is no such data set or no image, or the network knows none of its classes.
    """
    validate({"dataset": dataset}, "--on")
    if (path := dataset_path(dataset)) is not None:
        found = _of_folder(dataset, scan_classes(path, part, follow_links), inputs)
        # by its whole path, so that one folder has one record, however it is called
        return dataclasses.replace(found, dataset=f"{FOLDER_PREFIX}{expanded(path).resolve()}")
    data = prepare(dataset, root)
    part = part or PARTS[1]
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    counts = dict(zip(data.classes, labels.bincount(minlength=len(data.classes)).tolist(), strict=True))
    unknown = _unknown(dataset, counts, inputs)
    kept = torch.tensor([name not in unknown for name in data.classes])[labels]
    images = resized(images[kept], inputs.image_size)
    return _others(dataset, part, data.classes, images, labels[kept], inputs, unknown=unknown)


def _of_folder(dataset: str, found: Classes, inputs: Inputs) -> Others:
    """Every image of the classes that the network knows, resized; one that cannot be read is left out, and why."""
    counts = {name: len(of) for name, of in found.files.items()}
    unknown = _unknown(dataset, counts, inputs, _deeper(found, inputs))
    as_read = dataclasses.replace(inputs, channels=3)
    images, labels, unread = [], [], []
    for label, (name, of) in enumerate(found.files.items()):
        for one in read(of, as_read) if name not in unknown else ():
            if one.pixels is None:
                unread.append(f"{one.name}: {one.cause}")
            else:
                images.append(one.pixels)
                labels.append(label)
    if not images:
        raise UserError(f"--on {dataset}: none of its {len(unread)} images can be read; the first: {unread[0]}.")
    stacked = torch.stack(images), torch.tensor(labels)
    more = {"unknown": unknown, "unread": unread, "left_out": found.left_out}
    return _others(dataset, found.part, tuple(found.files), *stacked, inputs, **more)


def _others(
    dataset: str,
    part: str | None,
    classes: tuple[str, ...],
    images: Tensor,
    labels: Tensor,
    inputs: Inputs,
    **more: Any,
) -> Others:
    """Images in the colours and labels of the network, from those that index `classes`."""
    own = {name: i for i, name in enumerate(inputs.classes)}
    place = torch.tensor([own.get(name, -1) for name in classes])
    fingerprint = fingerprint_of_tests(images, labels, classes)
    taken = coloured(images, inputs.channels)
    return Others(dataset, part, classes, taken, place[labels], fingerprint, **more)


def _unknown(dataset: str, counts: Mapping[str, int], inputs: Inputs, hint: str = "") -> dict[str, int]:
    """How many images there are of each class that the network does not know, if it knows any that has images."""
    unknown = {name: number for name, number in counts.items() if name not in inputs.classes}
    if not any(number for name, number in counts.items() if name not in unknown):
        close = next((near for name in unknown if (near := nearest(name, inputs.classes, cutoff=0.8))), None)
        hint = hint or (f"; for {quoted(close)} it has to have just this name" if close else "")
        raise UserError(
            f"--on {dataset}: has images of {_names(unknown)}, but the network knows none of these, only "
            f"{_names(inputs.classes)}{hint}."
        )
    return unknown


def _deeper(found: Classes, inputs: Inputs) -> str:
    """What to say of folders that have the network's classes a level deeper than they should be."""
    for name, of in found.files.items():
        inside = {file.relative_to(found.place / name).parts[0] for file in of}
        if inside & {*inputs.classes}:
            return f"; these are folders in {found.place / name}: give that one"
    return ""


def _names(names: Mapping[str, int] | Sequence[str]) -> str:
    """Classes in words, of many the first."""
    listed = [quoted(name) for name in names]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return f"{', '.join(listed[:NAMED])}{more}"


def evaluate_on(predictor: Predictor, others: Others, samples: int | None = None, bins: int = 15) -> dict[str, Any]:
    """Every figure of a network on other images, as `ssvi evaluate` has them on its own.

    Args:
        predictor: the network.
        others: the images.
        samples: weight samples (default: those that it was evaluated with).
        bins: of the calibration errors.

    Returns:
        what `on/NAME.json` holds but for its ties.

    Raises:
        UserError: if what the network predicts is not finite.
    """
    asked = predictor.card.samples if samples is None else samples
    prediction = joined([predictor.average(part, asked) for part in others.images.split(BATCH)])
    if not is_finite(prediction):
        raise UserError(f"--on {others.dataset}: the predictions are not finite.")
    figures: dict[str, Any] = measured(prediction, others.labels, bins) | dict.fromkeys(SCALED)
    if (calibration := predictor.card.calibration) is not None:
        figures |= scaled(prediction.probabilities, others.labels, calibration.temperature, bins)
    right = prediction.probabilities.argmax(1) == others.labels
    by_class = {
        name: {"images": int(mine.sum()), "accuracy": float(right[mine].double().mean())}
        for label, name in enumerate(predictor.classes)
        if (mine := others.labels == label).any()
    }
    return {
        "dataset": others.dataset,
        "part": others.part,
        "evaluation": {"samples": prediction.samples, "bins": bins, "asked": asked},
        "evaluation_numerics": EVALUATION,
        "test_data": others.fingerprint,
        "test_images": len(others.labels),
        **figures,
        "by_class": by_class,
        "classes_without_images": [name for name in predictor.classes if name not in by_class],
        "unknown_classes": dict(others.unknown),
        "unread_images": {"number": len(others.unread), "first": next(iter(others.unread), None)},
        "left_out": dict(others.left_out),
    }


def write_on(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write such a record into the folder of its run; returns where.

    Raises:
        UserError: if what there is to be replaced is something else.
    """
    name = files.on_other(record["dataset"], record["part"])
    check_record(folder / name, "dataset", "evaluation_numerics")
    ties.write_tied(folder, name, record)
    return folder / name


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the figures of such a record, a line each."""
    lines = []
    if unknown := record["unknown_classes"]:
        number = sum(unknown.values())
        lines.append(f"left out: {number} images of classes that the network does not know: {_names(unknown)}")
    if without := record["classes_without_images"]:
        lines.append(f"no images of {len(without)} classes of the network: {_names(without)}")
    if number := record["unread_images"]["number"]:
        lines.append(f"left out: {number} images that cannot be read, the first: {record['unread_images']['first']}")
    if left := record["left_out"]:
        lines.append(f"left out: {', '.join(f'{n} {why}' for why, n in left.items())}")
    return lines
