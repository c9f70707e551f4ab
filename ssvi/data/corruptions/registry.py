"""The corruptions by name, what each severity is to them, and `corrupted`, which applies one.

Lengths are in pixels of an image whose side is 32 and scale with the side; JPEG's blocks are of 8 pixels, as the
standard has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssvi.data.corruptions import blur, digital, noise, weather
from ssvi.data.corruptions.draws import Draws
from ssvi.errors import Misuse, UserError, quoted, unknown

SEVERITIES = (1, 2, 3, 4, 5)
FAMILIES = ("noise", "blur", "weather", "digital")
# Of smaller images nothing is left to be blurred.
LEAST_SIDE = 4
# Images and values that are worked on at once at most, so that memory stays flat and in the cache.
PIECE, VALUES = 64, 2**19
# Keeps values halfway between two bytes, as means of bytes often are, from falling to either side by the last bit.
NUDGE = 2.0**-20


@dataclass(frozen=True)
class Corruption:
    """A way to make images worse.

    Attributes:
        family: one of `FAMILIES`.
        apply: images float64 [n, C, H, W] in [0, 1], a level and the images' draws to images of the same shape, whose
            values may leave [0, 1].
        levels: of severity 1 to 5.
    """

    family: str
    apply: Callable[[Tensor, Any, Draws], Tensor]
    levels: tuple[Any, Any, Any, Any, Any]


# The fifteen over which the mean corruption error is taken.
CORRUPTIONS: dict[str, Corruption] = {
    # sd
    "gaussian_noise": Corruption("noise", noise.gaussian_noise, (0.04, 0.08, 0.13, 0.19, 0.27)),
    # photons of a pixel as bright as can be
    "shot_noise": Corruption("noise", noise.shot_noise, (250, 90, 35, 15, 6)),
    # share of the values
    "impulse_noise": Corruption("noise", noise.impulse_noise, (0.01, 0.03, 0.07, 0.13, 0.22)),
    # radius
    "defocus_blur": Corruption("blur", blur.defocus_blur, (0.6, 1.0, 1.5, 2.2, 3.0)),
    # rms displacement
    "glass_blur": Corruption("blur", blur.glass_blur, (0.3, 0.5, 0.8, 1.2, 1.7)),
    # length
    "motion_blur": Corruption("blur", blur.motion_blur, (1.6, 3.0, 5.0, 7.5, 10.5)),
    # largest zoom
    "zoom_blur": Corruption("blur", blur.zoom_blur, (1.08, 1.16, 1.25, 1.36, 1.5)),
    # share of the area under flakes, length of a flake's trail, share of the colour that is left
    "snow": Corruption(
        "weather",
        weather.snow,
        ((0.02, 1.5, 0.9), (0.04, 2.0, 0.85), (0.07, 2.5, 0.8), (0.11, 3.0, 0.7), (0.16, 4.0, 0.6)),
    ),
    # share of the image that is left, weight of the ice
    "frost": Corruption("weather", weather.frost, ((0.95, 0.2), (0.9, 0.35), (0.8, 0.5), (0.7, 0.6), (0.6, 0.7))),
    # optical depth, where the fog is neither thin nor thick
    "fog": Corruption("weather", weather.fog, (0.1, 0.2, 0.4, 0.75, 1.4)),
    # what is added
    "brightness": Corruption("weather", weather.brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    # what is left
    "contrast": Corruption("digital", digital.contrast, (0.7, 0.5, 0.35, 0.22, 0.12)),
    # rms displacement
    "elastic_transform": Corruption("digital", digital.elastic_transform, (0.6, 1.0, 1.4, 1.9, 2.5)),
    # side of a cell, beyond a pixel
    "pixelate": Corruption("digital", digital.pixelate, (0.5, 1.0, 2.0, 3.0, 4.0)),
    # quality
    "jpeg_compression": Corruption("digital", digital.jpeg_compression, (60, 30, 16, 9, 5)),
}


def corrupted(images: Tensor, name: str, severity: int, seed: int, first: int = 0) -> Tensor:
    """The same images, made worse.

    What is drawn for an image depends on the seed, the corruption and the image's number, `first` + its place, alone:
    not on the severity, the other images or the number of threads. So a set may be corrupted in parts of any size, and
    a higher severity is more of the same noise.

    Args:
        images: uint8 [n, C, H, W], square, grey (C = 1) or colour (C = 3).
        name: one of `CORRUPTIONS`.
        severity: one of `SEVERITIES`.
        seed: any whole number.
        first: number of the first image.

    Returns:
        uint8 [n, C, H, W], on the images' device; computed on the CPU.

    Raises:
        UserError: if there is no such corruption or severity.
        Misuse: if the images are not such.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS, "data")
    check_severity(name, severity)
    _check(images, first)
    kind, level = CORRUPTIONS[name], CORRUPTIONS[name].levels[severity - 1]
    clean, result = images.detach().cpu(), torch.empty(images.shape, dtype=torch.uint8)
    size = min(PIECE, max(1, VALUES // images.shape[1:].numel()))
    for begin in range(0, len(clean), size):
        piece = clean[begin : begin + size].double() / 255
        draws = Draws(name, seed, range(first + begin, first + begin + len(piece)))
        result[begin : begin + size] = _bytes(kind.apply(piece, level, draws))
    return result.to(images.device)


def check_severity(name: str, severity: int) -> None:
    """Refuse what is none of `SEVERITIES`."""
    if type(severity) is not int or severity not in SEVERITIES:
        levels = ", ".join(map(str, SEVERITIES))
        raise UserError(f"data: severity of {name} is {quoted(severity)}, but must be one of {levels}.")


def _check(images: Tensor, first: int) -> None:
    shape = tuple(images.shape)
    if images.dtype is not torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
        kind = str(images.dtype).removeprefix("torch.")
        raise Misuse(f"images are {kind} {list(shape)}, but must be uint8 [n, C, H, W] with C 1 or 3 and H = W.")
    if shape[2] < LEAST_SIDE:
        raise Misuse(f"images are {shape[2]} pixels across, but must be at least {LEAST_SIDE}.")
    if first < 0:
        raise Misuse(f"first is {first}, but must be >= 0.")


def _bytes(images: Tensor) -> Tensor:
    """Images of [0, 1] as the nearest of 256 values."""
    return (images * 255 + (0.5 + NUDGE)).floor_().clamp_(0, 255).to(torch.uint8)
