"""An image out of focus, behind glass, moving or coming near."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssvi.data.corruptions.draws import Draws
from ssvi.data.corruptions.filters import disc, field, filtered, gaussian, lines, sampled, scale

# Of glass: the sd of its grains, and of the blur behind it as a part of the displacement.
GRAIN, FROSTED = 0.4, 0.5
# Motion is at most so far from horizontal.
STEEPEST = math.pi / 4
# From one enlargement to the next.
MOST_STEPS = 24


def defocus_blur(images: Tensor, radius: float, draws: Draws) -> Tensor:
    """A point becomes a disc."""
    return filtered(images, disc(radius * scale(images)))


def glass_blur(images: Tensor, displacement: float, draws: Draws) -> Tensor:
    """Pixels are displaced at random, in grains, and blurred."""
    length = displacement * scale(images)
    moved = length * field(draws, 2, images.shape[-1], gaussian(GRAIN * scale(images)))
    return filtered(sampled(images, moved[:, 0], moved[:, 1]), gaussian(FROSTED * length))


def motion_blur(images: Tensor, length: float, draws: Draws) -> Tensor:
    """A point becomes a line, of another direction in each image."""
    angles = (2 * draws.uniform() - 1) * STEEPEST
    return filtered(images, lines(angles, length * scale(images)))


def zoom_blur(images: Tensor, most: float, draws: Draws) -> Tensor:
    """The mean of the image enlarged by 1 to `most`, in steps of a pixel at the edge; of large images, of a few."""
    side = images.shape[-1]
    from_middle = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    steps = min(1 + math.ceil((most - 1) * side / 2), MOST_STEPS)
    zooms = torch.linspace(1, most, 1 + steps, dtype=torch.float64)
    total = torch.zeros_like(images)
    for zoom in zooms:
        moved = (from_middle * (1 / zoom - 1)).expand(len(images), side, side)
        total += sampled(images, moved.mT, moved)
    return total / len(zooms)
