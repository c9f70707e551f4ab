"""Noise on every value of an image by itself."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ssvi.data.corruptions.draws import Draws


def gaussian_noise(images: Tensor, sd: float, draws: Draws) -> Tensor:
    """Normal noise of one sd."""
    return images + sd * draws.normal(*images.shape[1:])


def shot_noise(images: Tensor, photons: int, draws: Draws) -> Tensor:
    """The light is counted: a value v becomes Poisson(photons v) / photons."""
    values = (images * 255).round().long()
    # by the inverse of the distribution, so that a value takes one draw whatever it is
    places = torch.searchsorted(_poisson(photons), (values + draws.uniform(*images.shape[1:])), right=True)
    return (places - values * (photons + 1)).double() / photons


@functools.cache
def _poisson(photons: int) -> Tensor:
    """Of each of the 256 values v, v + the distribution function at 0 to `photons` counts, as [256 (photons + 1)];
    more counts are brighter than can be shown, so the last has all of them."""
    rate = torch.arange(256, dtype=torch.float64).unsqueeze(1) / 255 * photons
    counts = torch.arange(photons + 1, dtype=torch.float64)
    below = torch.special.gammaincc(counts + 1, rate)
    below[:, -1] = 1
    return (below + torch.arange(256).unsqueeze(1)).flatten()


def impulse_noise(images: Tensor, share: float, draws: Draws) -> Tensor:
    """A share of the values becomes black or white, half of it each."""
    place = draws.uniform(*images.shape[1:])
    return torch.where(place < share / 2, 0.0, torch.where(place >= 1 - share / 2, 1.0, images))
