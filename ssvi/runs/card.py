"""What it takes to use a trained network: its spec, its inputs, how far it can be trusted, where it came from.

A run folder says it in spec.json, training.json and metrics.json; an exported file has it in one piece, and comes from
anywhere: all of it is checked, none of it is carried out.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssvi import __version__
from ssvi.errors import UserError, quoted
from ssvi.registry import KINDS
from ssvi.runs import files, plugins, ties
from ssvi.runs.records import is_number, read_record
from ssvi.runs.runfolder import plugins_of, read_spec, read_spec_record, read_training
from ssvi.runs.spec import RunSpec
from ssvi.runs.values import validate

FORMAT = 1
# What a card tells of metrics.json; the rest is of the machine and of comparisons.
METRICS = (
    *(*files.MEASURED, "predictive_entropy", "mutual_information", "test_images"),
    *("density", "sparsity", "active_weights", "maskable_weights", "complexity", "stored_bytes", "inference_flops"),
    *("training_flops", "training_seconds"),
)
PROVENANCE = ("ssvi", "commit", "dirty", "torch", "python", "device", "cpu", "started", "data", "test_data", "numerics")
LONGEST, MOST_CLASSES, MOST_STEPS = 1000, 100_000, 1000
MOST_SIDE, MOST_SAMPLES = 512, 1_000_000
# Channels that images have: grey, and red, green, blue.
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Inputs:
    """What a network takes, and the classes that it tells apart.

    Attributes:
        classes: their names, in the order of its outputs.
        channels: 1 for grey images, 3 for red, green, blue.
        image_size: side of the (square) images in pixels, to which others are resized.
        mean: of each channel, in units of the brightest value: images are normalised by it.
        std: of each channel, in the same units.
        bits: that grey images of more than 8 bits hold; None where the training images had none.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int | None = None

    @classmethod
    def from_json(cls, value: Any, where: str) -> Inputs:
        """What `dataclasses.asdict` made of it.

        Raises:
            UserError: naming what is wrong with it, and `where` it was read.
        """
        read = _Reader(value, where, "inputs")
        names, channels = read.list("classes", MOST_CLASSES), read.whole("channels", 1, max(CHANNELS))
        if len(names) < 2 or len({*names}) < len(names) or not all(map(_is_word, names)):
            raise read.wrong("classes", "at least 2 names, each once")
        if channels not in CHANNELS:
            raise read.wrong("channels", "1 (grey) or 3 (red, green, blue)")
        mean, std = read.list("mean", max(CHANNELS)), read.list("std", max(CHANNELS))
        for name, numbers, low in (("mean", mean, -math.inf), ("std", std, 0.0)):
            if len(numbers) != channels or not all(is_number(x) and x > low for x in numbers):
                raise read.wrong(name, f"{channels} numbers{' > 0' if name == 'std' else ''}, one a channel")
        bits = None if read.value.get("bits") is None else read.whole("bits", 8, 16)
        size = read.whole("image_size", 1, MOST_SIDE)
        return cls(tuple(names), channels, size, tuple(map(float, mean)), tuple(map(float, std)), bits)

    def reading(self) -> tuple[str, ...]:
        """How an image file becomes what the network takes, a line each."""
        colour = "grey (ITU-R 601 luma)" if self.channels == 1 else "red, green, blue; grey images three times the same"
        deep = "" if self.bits is None else f"; grey values of more than 8 bits are taken as {self.bits}-bit"
        return (
            "turned as EXIF data say, transparency dropped, of several frames the first",
            f"resized to {self.image_size} × {self.image_size} pixels, whatever its sides were, by PIL's bilinear "
            "filter, which averages where it shrinks (antialiased)",
            f"{colour}{deep}",
            "normalised: (value / 255 − mean) / sd of each channel, mean "
            f"{', '.join(f'{x:.4g}' for x in self.mean)}, sd {', '.join(f'{x:.4g}' for x in self.std)}",
        )


class Step(NamedTuple):
    """Predictions of at least this confidence were kept: this share of the validation images, of which this share was
    wrong."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True)
class Calibration:
    """What validation images say of a network's confidence.

    Attributes:
        images: how many there were.
        samples: weight samples with which they were predicted.
        temperature: of smallest NLL.
        curve: thresholds from the highest to the lowest.
    """

    images: int
    samples: int
    temperature: float
    curve: tuple[Step, ...]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Calibration:
        """As `Inputs.from_json`."""
        read = _Reader(value, where, "calibration")
        curve = read.list("curve", MOST_STEPS)
        if not curve or not all(isinstance(x, list | tuple) and len(x) == 3 and all(map(_is_share, x)) for x in curve):
            raise read.wrong("curve", "lists of threshold, coverage and risk, each from 0 to 1")
        temperature = value.get("temperature")
        if not is_number(temperature) or temperature <= 0:
            raise read.wrong("temperature", "a number > 0")
        images, samples = read.whole("images", 1, 2**40), read.whole("samples", 1, 2**31)
        return cls(images, samples, float(temperature), tuple(Step(*map(float, x)) for x in curve))

    def by_coverage(self, coverage: float) -> Step:
        """The highest threshold that keeps this share of the validation images, or more."""
        return next((step for step in self.curve if step.coverage >= coverage), self.curve[-1])

    def by_risk(self, risk: float) -> Step | None:
        """The lowest threshold whose kept validation images are wrong at most so often; None if there is none."""
        return next((step for step in reversed(self.curve) if step.risk <= risk), None)


@dataclass(frozen=True)
class Card:
    """All that is told of a trained network.

    Attributes:
        spec: what it was trained with.
        inputs: what it takes.
        samples: weight samples of a prediction, unless another number is asked for.
        calibration: None where no images were held out, or it was not evaluated yet.
        metrics: on its test images, by the names of metrics.json; empty where it was not evaluated yet.
        licence: what its owner says that others may do with it.
        provenance: commit, versions, machine.
        plugins: the modules without which it cannot be built.
    """

    spec: RunSpec
    inputs: Inputs
    samples: int
    calibration: Calibration | None
    metrics: Mapping[str, float | None]
    licence: str | None
    provenance: Mapping[str, Any]
    plugins: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def read_card(folder: Path) -> Card:
    """The card of a run folder; the plugins that it names are loaded, as `read_spec` has it.

    Raises:
        UserError: if its training has not ended or diverged, its files are damaged or do not belong together, or it was
            trained by a version that did not record what the network takes.
    """
    spec = read_spec(folder)
    record = read_spec_record(folder)
    ties.check_ties(folder, files.TRAINING)
    training = read_training(folder)
    if training["status"] != "complete":
        raise UserError(f"{folder}: diverged in epoch {training['diverged_epoch']}, so there is no network to use.")
    metrics: dict[str, Any] = {}
    if (folder / files.METRICS).exists():
        ties.check_ties(folder, files.METRICS)
        metrics = read_record(folder / files.METRICS)
    if (told := training.get("inputs") or metrics.get("inputs")) is None:
        raise UserError(
            f"{folder}: was trained by a version that did not record its classes and normalisation; where its data set "
            f"is at hand, `ssvi evaluate {folder}` records them."
        )
    where, held_out = str(folder / files.TRAINING), metrics.get("calibration")
    evaluation, evaluated_on = metrics.get("evaluation") or {}, {"test_data": metrics.get("test_data")}
    return Card(
        spec=spec,
        inputs=Inputs.from_json(told, where),
        samples=evaluation.get("asked", 5) if KINDS[spec.method].posterior else 1,
        calibration=held_out and Calibration.from_json(held_out, str(folder / files.METRICS)),
        metrics={name: metrics[name] for name in METRICS if is_number(metrics.get(name))},
        licence=metrics.get("licence"),
        provenance={name: (record.get("provenance", {}) | evaluated_on).get(name) for name in PROVENANCE},
        plugins=tuple(one["module"] for one in plugins_of(folder, record)),
    )


def card_of(value: Any, where: str) -> Card:
    """The card that a file of somebody's has.

    Args:
        value: from its JSON.
        where: it was read.

    Raises:
        UserError: if it is none, of a newer version, or needs a plugin that is not loaded; none is for that.
    """
    read = _Reader(value, where, "card")
    if (version := read.whole("format", 1, 2**31)) > FORMAT:
        raise UserError(
            f"{where}: format is {version}, but ssvi {__version__} knows none beyond {FORMAT}: a newer version wrote "
            "this file; update ssvi to read it."
        )
    needed = read.list("plugins", 100)
    if not all(map(_is_word, needed)):
        raise read.wrong("plugins", "names of modules")
    if missing := plugins.not_loaded(needed):
        raise UserError(
            f"{where}: needs the plugin {quoted(missing[0])}, which no file is trusted to load: if you know it, bring "
            "it to where you work and name it: --plugins."
        )
    if not isinstance(options := value.get("spec"), dict):
        raise read.wrong("spec", "an object of options")
    try:
        validate(options, where)
        spec = RunSpec(**options)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
    metrics = read.record("metrics", METRICS, lambda x: x is None or is_number(x))
    provenance = read.record(
        "provenance", PROVENANCE, lambda x: x is None or is_number(x) or type(x) is bool or _is_word(x)
    )
    if (licence := value.get("licence")) is not None and not _is_word(licence):
        raise read.wrong("licence", f"a word of at most {LONGEST} characters")
    held_out = value.get("calibration")
    return Card(
        spec=spec,
        inputs=Inputs.from_json(value.get("inputs"), where),
        samples=read.whole("samples", 1, MOST_SAMPLES),
        calibration=None if held_out is None else Calibration.from_json(held_out, where),
        metrics=metrics,
        licence=licence,
        provenance=provenance,
        plugins=tuple(needed),
    )


def check_licence(licence: str | None) -> None:
    """Refuse a licence that a card could not hold.

    Raises:
        UserError: if it is empty or too long.
    """
    if licence is not None and not _is_word(licence):
        raise UserError(f"licence is {quoted(licence)}, but must be a word of at most {LONGEST} characters.")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1 + 1e-9


@dataclass(frozen=True)
class _Reader:
    """An object of somebody's JSON."""

    value: Any
    where: str
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise UserError(f"{self.where}: {self.name} is {quoted(self.value)}, but must be an object.")

    def wrong(self, key: str, allowed: str) -> UserError:
        """The error for a value that cannot be."""
        return UserError(f"{self.where}: {key} of {self.name} is {quoted(self.value.get(key))}, but must be {allowed}.")

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number in a range."""
        found = self.value.get(key)
        if type(found) is not int or not low <= found <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return found

    def list(self, key: str, most: int) -> Sequence[Any]:
        """A list of at most so many."""
        found = self.value.get(key)
        if not isinstance(found, list | tuple) or len(found) > most:
            raise self.wrong(key, f"a list of at most {most}")
        return found

    def record(self, key: str, names: Collection[str], fits: Callable[[Any], bool]) -> dict[str, Any]:
        """An object of some of these names, in which every value fits."""
        found = self.value.get(key)
        if not isinstance(found, dict) or not all(name in names and fits(x) for name, x in found.items()):
            raise self.wrong(key, f"an object of values by the names {', '.join(names)}")
        return found
