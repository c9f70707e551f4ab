"""A trained network with all that it takes to use it: images in, classes and how far they can be trusted out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from ssvi.core import checks
from ssvi.core.calibration import at_temperature
from ssvi.core.noise import NormalSource
from ssvi.core.prediction import Prediction, averages, entropy
from ssvi.data.batches import normalised
from ssvi.errors import Misuse, UserError
from ssvi.methods import Method
from ssvi.runs.card import Card, Step, read_card
from ssvi.serving import sparse
from ssvi.serving.reading import Image, read
from ssvi.training.evaluate import STREAM
from ssvi.training.measure import last
from ssvi.training.network import build
from ssvi.training.precision import full_float32
from ssvi.training.stored import load_model

# Of images at once: on a CPU 256 take a fifth more time, because what is between layers leaves the caches.
BATCH = 64
# The weights that are drawn lie in the network.
_one_at_a_time = Lock()
# What is told of an image beside its name and all probabilities.
TOLD = ("class", "probability", "predictive_entropy", "mutual_information", "abstain")


@dataclass(frozen=True)
class Predictions:
    """What a network says of some images; of one that could not be read its numbers are NaN.

    Attributes:
        names: of the images.
        classes: of the network.
        samples: weight samples; 0 where no image could be read.
        probabilities: [n, classes], float64, averaged over the samples.
        entropy: predictive entropy [n] in nats.
        mutual_information: of label and weights, [n] in nats; 0 of a single sample, which tells nothing of it.
        confidence: [n], the largest probability before any temperature: what thresholds are of.
        causes: why nothing is said of an image that could not be read; None of all others.
        step: the threshold that was asked for.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    samples: int
    probabilities: Tensor
    entropy: Tensor
    mutual_information: Tensor
    confidence: Tensor
    causes: tuple[str | None, ...]
    step: Step | None = None

    @property
    def abstain(self) -> Tensor | None:
        """Whether the network is not sure enough, bool [n]; None where no threshold was asked for."""
        return None if self.step is None else ~(self.confidence >= self.step.threshold)

    def rows(self) -> list[dict[str, Any]]:
        """A row an image: its name, class and probability, how uncertain that is, and all probabilities."""
        likely = self.probabilities.argmax(1).tolist()
        information = self.mutual_information.tolist() if self.samples > 1 else [None] * len(self.names)
        abstain = [None] * len(self.names) if self.abstain is None else self.abstain.tolist()
        found = []
        for i, (name, cause) in enumerate(zip(self.names, self.causes, strict=True)):
            own = self.probabilities[i].tolist()
            told = (self.classes[likely[i]], own[likely[i]], self.entropy[i].item(), information[i], abstain[i])
            row = dict(zip(TOLD, told if cause is None else (None,) * len(TOLD), strict=True))
            probabilities = dict(zip(self.classes, own if cause is None else [None] * len(own), strict=True))
            found.append({"image": name, **row, "cause": cause, "probabilities": probabilities})
        return found


@dataclass(frozen=True)
class Request:
    """How images are to be predicted: see `Predictor.predict`."""

    samples: int | None = None
    coverage: float | None = None
    risk: float | None = None
    calibrated: bool = False
    seed: int | None = None


class Predictor:
    """A trained network that takes images as they are.

    Attributes:
        card: what is known of it.
        model: the network.
        method: how it predicts (`method.predictive`).
        device: where it computes.
    """

    def __init__(self, card: Card, model: nn.Module, method: Method, device: torch.device) -> None:
        self.card, self.model, self.method, self.device = card, model.to(device).eval(), method, device
        self._mean, self._std = (
            torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in (card.inputs.mean, card.inputs.std)
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of probabilities."""
        return self.card.inputs.classes

    def step(self, coverage: float | None = None, risk: float | None = None) -> Step | None:
        """The confidence below which the network abstains, chosen on validation data.

        Args:
            coverage: the share of images on which it is to answer, as far as they are like those.
            risk: the share of its answers that may be wrong; as many as possible are given then.

        Raises:
            Misuse: if both are given, one is no share, or the run held out no validation data.
            UserError: if no threshold is safe enough.
        """
        if coverage is None and risk is None:
            return None
        if coverage is not None and risk is not None:
            raise Misuse("coverage and risk are both given, but one threshold follows from one of them.")
        name, wanted = ("coverage", coverage) if risk is None else ("risk", risk)
        if not isinstance(wanted, int | float) or not (0 < wanted <= 1 or (wanted == 0 and name == "risk")):
            raise Misuse(f"{name} is {wanted!r}, but must be a share {'above 0' if risk is None else 'from 0'} to 1.")
        if (found := self.card.calibration) is None:
            raise Misuse(
                f"{name} is {wanted:g}, but nothing says at which confidence that is: the run held out no validation "
                "data (validation), or was not evaluated."
            )
        step = found.by_coverage(wanted) if risk is None else found.by_risk(wanted)
        if step is None:
            least = min(one.risk for one in found.curve)
            raise UserError(
                f"risk is {wanted:g}, but of the {found.images} validation images no confident part is wrong less "
                f"often than {least:.3g}; choose a larger one."
            )
        return step

    def predict(
        self,
        images: Any,
        *,
        samples: int | None = None,
        coverage: float | None = None,
        risk: float | None = None,
        calibrated: bool = False,
        seed: int | None = None,
        batch_size: int = BATCH,
    ) -> Predictions:
        """What the network says of images.

        Args:
            images: one or several: paths, bytes of image files, PIL images, uint8 arrays [height, width] or
                [height, width, 3]; or one uint8 tensor [n, channels, size, size], taken as it is.
            samples: weight samples (default: the card's); a network without a posterior has one.
            coverage: abstain below the confidence that keeps this share of validation images.
            risk: abstain below the confidence above which this share of validation images is wrong.
            calibrated: whether probabilities are those at the temperature that validation data chose.
            seed: of the weight samples (default: those with which the run was evaluated).
            batch_size: images at once.

        Raises:
            Misuse: if an argument is something else.
            UserError: as `step`.
        """
        request = Request(samples, coverage, risk, calibrated, seed)
        parts = list(self.stream(images, request, batch_size))
        return _joined(parts) if parts else self._predicted([], request, self.step(coverage, risk))

    def stream(self, images: Any, request: Request, batch_size: int = BATCH) -> Iterator[Predictions]:
        """The same batch by batch, each of at most so many images, under the same weight samples.

        Raises:
            Misuse, UserError: as `predict`, before an image is read.
        """
        checks.whole("batch_size", batch_size)
        if request.samples is not None:
            checks.whole("samples", request.samples)
        if request.calibrated and self.card.calibration is None:
            raise Misuse("calibrated probabilities were asked for, but no validation data chose a temperature.")
        step = self.step(request.coverage, request.risk)
        return self._stream(read(images, self.card.inputs), request, step, batch_size)

    def _stream(
        self, images: Iterator[Image], request: Request, step: Step | None, batch_size: int
    ) -> Iterator[Predictions]:
        while batch := list(itertools.islice(images, batch_size)):
            yield self._predicted(batch, request, step)

    def _predicted(self, batch: list[Image], request: Request, step: Step | None) -> Predictions:
        there = [i for i, image in enumerate(batch) if image.pixels is not None]
        probabilities = torch.full((len(batch), len(self.classes)), torch.nan, dtype=torch.float64)
        total, information, confidence = torch.full((3, len(batch)), torch.nan, dtype=torch.float64)
        causes, samples = [image.cause for image in batch], 0
        if there:
            found = self.average(torch.stack([batch[i].pixels for i in there]), request.samples, request.seed)
            own, samples = found.probabilities, found.samples
            confidence[there], information[there] = own.max(1).values, found.mutual_information
            if request.calibrated:
                own = at_temperature(own, self.card.calibration.temperature)
            probabilities[there], total[there] = own, entropy(own)
            for i in itertools.compress(there, ~own.isfinite().all(1)):
                causes[i] = "the network gives no finite numbers for it"
        return Predictions(
            names=tuple(image.name for image in batch),
            classes=self.classes,
            samples=samples,
            probabilities=probabilities,
            entropy=total,
            mutual_information=information,
            confidence=confidence,
            causes=tuple(causes),
            step=step,
        )

    def average(self, pixels: Tensor, samples: int | None = None, seed: int | None = None) -> Prediction:
        """The average over weight samples, on the CPU. Several threads wait for each other here.

        Args:
            pixels: uint8 [n, channels, size, size].
            samples: how many (default: the card's).
            seed: of the weight samples (default: those with which the run was evaluated).
        """
        full_float32()
        source = NormalSource(self.card.spec.seed if seed is None else seed, STREAM, self.device)
        x = normalised(pixels.to(self.device), self._mean, self._std)

        def each() -> Iterator[Tensor]:
            for _ in self.method.predictive.samples(self.card.samples if samples is None else samples, source):
                yield self.model(x).cpu()

        with _one_at_a_time, torch.inference_mode():
            return last(averages(each()))


def _joined(parts: list[Predictions]) -> Predictions:
    """The predictions of one request."""

    def along(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return Predictions(
        names=tuple(itertools.chain.from_iterable(part.names for part in parts)),
        classes=parts[0].classes,
        samples=max(part.samples for part in parts),
        probabilities=along("probabilities"),
        entropy=along("entropy"),
        mutual_information=along("mutual_information"),
        confidence=along("confidence"),
        causes=tuple(itertools.chain.from_iterable(part.causes for part in parts)),
        step=parts[0].step,
    )


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Predictor:
    """A trained network, ready to predict.

    Args:
        path: a run folder, or a file that `ssvi export` wrote (.safetensors).
        device: where it is to compute: cpu, cuda, cuda:1, ...

    Raises:
        UserError: if there is none, it is damaged, or it is something else.
    """
    place, where = Path(path), _device(device)
    if not place.is_dir():
        return Predictor(*sparse.read(place, where), where)
    card = read_card(place)
    inputs = card.inputs
    noise = NormalSource(card.spec.seed, STREAM, where)
    model, method = build(card.spec, inputs.channels, inputs.image_size, len(inputs.classes), noise)
    load_model(place, method)
    return Predictor(card, model, method, where)


def _device(name: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        UserError: if there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is {str(name)!r}, but must be cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device is {str(name)!r}, but torch sees {torch.cuda.device_count()} CUDA devices.")
    return device
