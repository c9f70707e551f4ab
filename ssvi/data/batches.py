"""A run's data on its device, and what is done to a batch: normalisation, random crops and flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ssvi.data.folders import remarks
from ssvi.data.pixels import moments, resized
from ssvi.data.sources import prepare
from ssvi.errors import UserError
from ssvi.runs.card import Inputs
from ssvi.runs.identity import Identity
from ssvi.runs.spec import RunSpec

# Customary mean and sd of each colour, in units of the brightest value, by data set and `normalisation`.
STATISTICS = {
    ("cifar10", "pixels"): ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ("cifar10", "images"): ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ("cifar100", "pixels"): ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
# Where a mirrored image is known to be of its class. A mirrored digit, letter or arrow is another one, or none.
FLIPPED = frozenset({"cifar10", "cifar100", "fashion"})
# Which images are held out, and which are trained on where not all are: two draws that have nothing in common.
SPLIT_SEED, SUBSET_SEED = 0, 1


@dataclass(frozen=True)
class Data:
    """All images of a run on one device: uint8 [n, C, H, W], labels int64 [n]; the validation part may be empty.

    `held_out_images` are the test images of the classes that the network is not to know, mostly none.
    `mean` and `std` are float32 [C] in units of the brightest value, `padding` is in pixels. `notes` is, of a folder of
    images, what is to be said of how they were read, `bits` are those of its grey images of more than 8.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    held_out_images: Tensor
    classes: tuple[str, ...]
    identity: Identity
    mean: Tensor
    std: Tensor
    padding: int
    flip: bool
    notes: tuple[str, ...] = ()
    bits: int | None = None

    @property
    def inputs(self) -> Inputs:
        """What a network of these images takes, and tells apart."""
        mean, std = (tuple(x.tolist()) for x in (self.mean.double(), self.std.double()))
        return Inputs(self.classes, self.channels, self.image_size, mean, std, self.bits)

    @property
    def n_train(self) -> int:
        """Number of images trained on, those held out for validation not counted."""
        return len(self.train_images)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of the (square) images in pixels."""
        return self.train_images.shape[2]

    def normalise(self, images: Tensor) -> Tensor:
        """Images uint8 [b, C, H, W] as float32 of about mean 0 and sd 1 in each channel."""
        return normalised(images, self.mean, self.std)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop every image at its own random place after padding with black, and flip half of them if `flip`.

        Args:
            images: uint8 [b, C, H, W].
            generator: on the images' device; advanced by the same amount for every batch of this size.
        """
        b, channels, height, width = images.shape
        reach = 2 * self.padding + 1
        top, left = torch.randint(reach, (2, b, 1), generator=generator, device=images.device)
        rows = top + torch.arange(height, device=images.device)
        columns = left + torch.arange(width, device=images.device)
        if self.flip:
            mirrored = torch.randint(2, (b, 1), generator=generator, device=images.device).bool()
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = pad(images, [self.padding] * 4).flatten(2)
        index = rows[:, :, None] * (width + 2 * self.padding) + columns[:, None, :]
        picked = padded.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
        return picked.view(b, channels, height, width)


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images uint8 [b, C, H, W] as float32, less the mean and divided by the sd of each channel, [C] each."""
    return images.to(torch.float32).div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def load(spec: RunSpec, root: Path, device: torch.device, follow_links: bool = False) -> Data:
    """The data of a run, on `device`.

    Args:
        spec: its options of data sets, its `validation`, `normalisation`, `flip` and `batch_size` matter.
        root: folder of the data and of their cache.
        device: where the images are to lie.
        follow_links: whether links in folder:PATH may lead out of it.

    Raises:
        UserError: if the data set is missing or wrong, has not the classes or the images that the spec names, or fewer
            training images than a batch.
    """
    prepared = prepare(spec.dataset, root, spec.image_size, follow_links=follow_links)
    size = _size(spec, prepared.train_images.shape[2])
    kept = _known(spec, prepared.classes)
    numbers = torch.full((len(prepared.classes),), -1)
    numbers[kept] = torch.arange(len(kept))
    train_labels, test_labels = numbers[prepared.train_labels], numbers[prepared.test_labels]
    train, val = _split(spec, train_labels)

    def images_of(images: Tensor, which: Tensor) -> Tensor:
        return resized(images[which], size).to(device)

    train_images = images_of(prepared.train_images, train)
    usual = STATISTICS.get((spec.dataset, spec.normalisation)) if spec.shrink == 1 else None
    mean, std = usual or statistics(train_images.cpu())
    return Data(
        train_images=train_images,
        train_labels=train_labels[train].to(device),
        val_images=images_of(prepared.train_images, val),
        val_labels=train_labels[val].to(device),
        test_images=images_of(prepared.test_images, test_labels >= 0),
        test_labels=test_labels[test_labels >= 0].to(device),
        held_out_images=images_of(prepared.test_images, test_labels < 0),
        classes=tuple(prepared.classes[i] for i in kept),
        identity=prepared.identity,
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        padding=round(size / 8),
        flip=spec.flip == "horizontal" or (spec.flip == "auto" and spec.dataset in FLIPPED),
        notes=tuple(remarks(prepared)),
        bits=prepared.reading.get("bits"),
    )


def _size(spec: RunSpec, side: int) -> int:
    """The side of the images that the network is shown, of those of this side."""
    if side % spec.shrink:
        raise UserError(f"{spec.dataset}: shrink is {spec.shrink}, but must divide {side}, the side of its images.")
    return side // spec.shrink


def _known(spec: RunSpec, classes: Sequence[str]) -> list[int]:
    """The numbers of the classes that the network is to know."""
    unseen = [int(word) for word in spec.held_out_classes.split("+")] if spec.held_out_classes else []
    kept = [number for number in range(len(classes)) if number not in unseen]
    if (wrong := [number for number in unseen if number >= len(classes)]) or len(kept) < 2:
        cause = f"has no class {wrong[0]}" if wrong else f"keeps {len(kept)} of {len(classes)}"
        raise UserError(
            f"{spec.dataset}: held_out_classes is {spec.held_out_classes}, which {cause}; its classes are 0 to "
            f"{len(classes) - 1}, and at least 2 must be left."
        )
    return kept


def _split(spec: RunSpec, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (ascending) of the images to train on and of those held out; a label below 0 is of neither."""
    known = (labels >= 0).nonzero().squeeze(1)
    if spec.training_images:
        if spec.training_images > len(known):
            raise UserError(
                f"{spec.dataset}: training_images is {spec.training_images}, but must be at most {len(known)}."
            )
        known = known[_share(labels[known], spec.training_images, SUBSET_SEED)]
    train, val = split_validation(labels[known], spec.validation)
    if spec.training_epochs and len(train) < spec.batch_size:
        held_out = f" after {len(val)} were held out (validation {spec.validation:g})" if len(val) else ""
        raise UserError(
            f"{spec.dataset}: batch_size is {spec.batch_size}, but must be at most {len(train)}, "
            f"the number of training images{held_out}."
        )
    return known[train], known[val]


def split_validation(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices (ascending) of the images to train on and of those held out, the same for every seed.

    Every class gives its share of round(fraction * n) images, the classes with the largest remainders one more, but
    never its last image.

    Args:
        labels: int64 [n].
        fraction: of all images, in [0, 0.5].
    """
    held_out = _share(labels, round(len(labels) * fraction), SPLIT_SEED, fraction, keep=1)
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


def _share(labels: Tensor, number: int, seed: int, fraction: float | None = None, keep: int = 0) -> Tensor:
    """Which images make up a part of a data set in which the classes are as frequent as in the whole, bool [n].

    Args:
        labels: int64 [n].
        number: of images in the part.
        seed: of the draw within a class.
        fraction: number / n, where that is known more exactly.
        keep: images of a class that stay out of it.
    """
    counts = labels.bincount()
    shares = counts.double() * (number / len(labels) if fraction is None else fraction)
    quota = shares.long()
    missing = number - int(quota.sum())
    quota[(quota - shares).argsort(stable=True)[: max(missing, 0)]] += 1
    quota = quota.minimum((counts - keep).clamp_min(0))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    part = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in enumerate(quota.tolist()):
        part[order[labels[order] == label][:share]] = True
    return part


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and sd of each channel of images uint8 [n, C, H, W], in units of the brightest value.

    A channel without any variation gets sd 1.
    """
    means, sds = moments(images)
    return means, [sd or 1.0 for sd in sds]
