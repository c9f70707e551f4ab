"""Snow, frost, fog and glaring light, of textures that are drawn."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvi.data.corruptions.draws import Draws
from ssvi.data.corruptions.filters import clouds, field, filtered, gaussian, lines, scale

# Of a flake of snow.
FLAKE = 0.55
# Of a needle of ice: its length, and the sd of its width.
NEEDLE = 9.0, 0.3
# Of fog: its light, its least depth as a part of the middle one, the power of its spectrum.
FOG, THIN, BANKS = 0.9, 0.1, 1.8


def snow(images: Tensor, level: tuple[float, float, float], draws: Draws) -> Tensor:
    """Flakes with a trail before a paler image."""
    share, length, left = level
    flakes = field(draws, 1, images.shape[-1], gaussian(FLAKE * scale(images)))
    # of a standard normal field, this share is above
    above = -torch.special.ndtri(torch.tensor(share, dtype=torch.float64))
    white = ((flakes - above) * 2 + 0.5).clamp(0, 1)
    fall = math.pi * (0.35 + 0.3 * draws.uniform())
    white = (filtered(white, lines(fall, length * scale(images))) * 1.6).clamp(max=1)
    pale = images * left + (1 - left) * (0.5 + 0.5 * images.mean(1, keepdim=True))
    return pale + (1 - pale) * white


def frost(images: Tensor, level: tuple[float, float], draws: Draws) -> Tensor:
    """Ice with needles in three directions at 60 degrees, thick in some places, on a darker image."""
    left, weight = level
    side, width = images.shape[-1], gaussian(NEEDLE[1] * scale(images))
    turn, edge = math.pi * draws.uniform(), (width.shape[-1] // 2,) * 4
    ice = torch.full((), -math.inf, dtype=torch.float64)
    for i in range(3):
        needle = lines(turn + math.pi * i / 3, NEEDLE[0] * scale(images))
        ice = ice.maximum(field(draws, 1, side, filtered(F.pad(needle, edge), width)))
    thick = clouds(draws, side, 1.5)
    return images * left + weight * thick * (0.55 + 0.3 * ice).clamp(0, 1.3) * _tint(images)


def _tint(images: Tensor) -> Tensor:
    """The colour [C, 1, 1] of ice; grey images have none."""
    return torch.tensor([0.85, 0.95, 1.0] if images.shape[1] == 3 else [1.0], dtype=torch.float64).view(-1, 1, 1)


def fog(images: Tensor, depth: float, draws: Draws) -> Tensor:
    """Light of the image is lost in banks of fog, whose own comes instead (Koschmieder's law)."""
    through = (-depth * (THIN + 2 * (1 - THIN) * clouds(draws, images.shape[-1], BANKS))).exp()
    return images * through + FOG * (1 - through)


def brightness(images: Tensor, more: float, draws: Draws) -> Tensor:
    """The brightest channel of each pixel gets so much more, up to white; hue and saturation stay."""
    value = images.amax(1, keepdim=True)
    lit = (value + more).clamp(max=1)
    return torch.where(value > 0, images * (lit / value), lit)
