"""A run's data on its device, and what is done to a batch: normalisation, random crops and flips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ssvi.data.folders import remarks
from ssvi.data.pixels import moments
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
FLIPPED = frozenset({"cifar10", "cifar100"})
SPLIT_SEED = 0


@dataclass(frozen=True)
class Data:
    """All images of a run on one device: uint8 [n, C, H, W], labels int64 [n]; the validation part may be empty.

    `mean` and `std` are float32 [C] in units of the brightest value, `padding` is in pixels. `notes` is, of a folder of
    images, what is to be said of how they were read, `bits` are those of its grey images of more than 8.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
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
        spec: its `dataset`, `validation`, `normalisation`, `flip`, `batch_size` and, for folder:PATH, `image_size`
            matter.
        root: folder of the data and of their cache.
        device: where the images are to lie.
        follow_links: whether links in folder:PATH may lead out of it.

    Raises:
        UserError: if the data set is missing or wrong, or has fewer training images than a batch.
    """
    prepared = prepare(spec.dataset, root, spec.image_size, follow_links=follow_links)
    train, val = split_validation(prepared.train_labels, spec.validation)
    if spec.training_epochs and len(train) < spec.batch_size:
        held_out = f" after {len(val)} were held out (validation {spec.validation:g})" if len(val) else ""
        raise UserError(
            f"{spec.dataset}: batch_size is {spec.batch_size}, but must be at most {len(train)}, "
            f"the number of training images{held_out}."
        )
    train_images = prepared.train_images[train]
    mean, std = STATISTICS.get((spec.dataset, spec.normalisation)) or statistics(train_images)
    return Data(
        train_images=train_images.to(device),
        train_labels=prepared.train_labels[train].to(device),
        val_images=prepared.train_images[val].to(device),
        val_labels=prepared.train_labels[val].to(device),
        test_images=prepared.test_images.to(device),
        test_labels=prepared.test_labels.to(device),
        classes=prepared.classes,
        identity=prepared.identity,
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        padding=round(train_images.shape[2] / 8),
        flip=spec.flip == "horizontal" or (spec.flip == "auto" and spec.dataset in FLIPPED),
        notes=tuple(remarks(prepared)),
        bits=prepared.reading.get("bits"),
    )


def split_validation(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices (ascending) of the images to train on and of those held out, the same for every seed.

    Every class gives its share of round(fraction * n) images, the classes with the largest remainders one more, but
    never its last image.

    Args:
        labels: int64 [n].
        fraction: of all images, in [0, 0.5].
    """
    counts = labels.bincount()
    shares = counts.double() * fraction
    quota = shares.long()
    missing = round(len(labels) * fraction) - int(quota.sum())
    quota[(quota - shares).argsort(stable=True)[: max(missing, 0)]] += 1
    quota = quota.minimum((counts - 1).clamp_min(0))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, number in enumerate(quota.tolist()):
        held_out[order[labels[order] == label][:number]] = True
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and sd of each channel of images uint8 [n, C, H, W], in units of the brightest value.

    A channel without any variation gets sd 1.
    """
    means, sds = moments(images)
    return means, [sd or 1.0 for sd in sds]
