"""What cameras and files do to an image: less contrast, warping, coarse pixels, compression."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvi.data.corruptions.draws import Draws
from ssvi.data.corruptions.filters import field, gaussian, sampled, scale

# Of the field by which an image is warped: sd of its Gaussian.
SMOOTH = 4.0
# From this side in pixels on, a cell of `pixelate` is of the nearest whole one; levels of small images are too near.
ROUNDED = 4
# JPEG's blocks, its tables of quality 50 (ITU-T T.81, annex K), its colours (JFIF).
CELL = 8
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
RGB = ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0))
# Keeps coefficients halfway between two steps, as sums of bytes often are, from falling to either by the last bit.
NUDGE = 2.0**-20


def contrast(images: Tensor, left: float, draws: Draws) -> Tensor:
    """Every channel is drawn towards its mean over the image."""
    mean = images.mean((-2, -1), keepdim=True)
    return mean + left * (images - mean)


def elastic_transform(images: Tensor, displacement: float, draws: Draws) -> Tensor:
    """The image is warped by a smooth field."""
    moved = displacement * scale(images) * field(draws, 2, images.shape[-1], gaussian(SMOOTH * scale(images)))
    return sampled(images, moved[:, 0], moved[:, 1])


def pixelate(images: Tensor, more: float, draws: Draws) -> Tensor:
    """Square cells of one value, from the upper left corner on; between two small whole sizes, both mixed."""
    cell = 1 + more * scale(images)
    if cell >= ROUNDED:
        cell = math.floor(cell + 0.5)
    whole, part = int(cell), cell % 1
    means = (1 - part) * _means(images.shape[-1], whole) + part * _means(images.shape[-1], whole + 1)
    return means @ images @ means.T


def _means(side: int, cell: int) -> Tensor:
    """What gives each of `side` values the mean of its cell: [side, side]."""
    number = torch.arange(side) // cell
    together = (number == number.unsqueeze(1)).double()
    return together / together.sum(1, keepdim=True)


def jpeg_compression(images: Tensor, quality: int, draws: Draws) -> Tensor:
    """What is left after JPEG at this quality, 1 to 100, the colours at half the resolution as is common."""
    values = images * 255 - 128
    if images.shape[1] == 1:
        return (_coded(values, table(LUMA, quality)) + 128) / 255
    # the 128 of JFIF belongs to the luma alone, as its rows of chroma sum to 0
    luma, *chroma = torch.einsum("ij,njhw->inhw", _matrix(YCC), values).unsqueeze(2)
    side = images.shape[-1]
    even = F.pad(torch.cat(chroma, 1), (0, side % 2, 0, side % 2), mode="replicate")
    halved = _coded(F.avg_pool2d(even, 2), table(CHROMA, quality))
    colours = halved.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :side, :side]
    all_three = torch.cat([_coded(luma, table(LUMA, quality)), colours], 1)
    return (torch.einsum("ij,njhw->nihw", _matrix(RGB), all_three) + 128) / 255


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def table(base: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Quantisation steps [8, 8] of a quality, as the Independent JPEG Group scales its tables."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((_matrix(base) * percent + 50) / 100).floor().clamp(1, 255)


@functools.cache
def cosines() -> Tensor:
    """The orthonormal DCT [frequency, place] of 8 values."""
    index = torch.arange(CELL, dtype=torch.float64)
    waves = (math.pi / CELL * index.unsqueeze(1) * (index + 0.5)).cos() * math.sqrt(2 / CELL)
    waves[0] /= math.sqrt(2)
    return waves


def _coded(values: Tensor, steps: Tensor) -> Tensor:
    """Values [n, C, H, W] from -128 to 127 after their blocks' coefficients were rounded to whole steps [8, 8]."""
    height, width = values.shape[-2:]
    whole = F.pad(values, (0, -width % CELL, 0, -height % CELL), mode="replicate")
    blocks = whole.unflatten(-1, (-1, CELL)).unflatten(-3, (-1, CELL)).transpose(-3, -2)
    coefficients = cosines() @ blocks @ cosines().T / steps
    coefficients = coefficients.sign() * (coefficients.abs() + (0.5 + NUDGE)).floor()
    back = cosines().T @ (coefficients * steps) @ cosines()
    return back.transpose(-3, -2).flatten(-4, -3).flatten(-2)[..., :height, :width].clamp(-128, 127)
