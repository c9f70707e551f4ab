"""What corruptions share: kernels of any width, filtering, images read between their pixels, random fields.

All of it is computed in float64, whose last bits, which may depend on the number of threads, no byte shows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvi.data.corruptions.draws import Draws

# The side of an image for which lengths are given, in pixels.
SIDE = 32
# A Gaussian is cut off at so many sd. Kernels are sums over points: at least so many to either side, and a pixel.
TAIL, POINTS, DENSE = 3.5, 32, 4


def scale(images: Tensor) -> float:
    """Of lengths, for images [..., side, side]."""
    return images.shape[-1] / SIDE


def taps(points: Tensor, reach: int) -> Tensor:
    """Weights [..., m, 2 reach + 1] of the pixels -reach to reach where a linearly interpolated image is read at
    points [..., m]; so widths below a pixel count too."""
    pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)
    return (1 - (points.unsqueeze(-1) - pixels).abs()).clamp(min=0)


def _spread(reach: float) -> Tensor:
    """The middles of equal parts of -reach to reach pixels, `POINTS` to either side and `DENSE` a pixel at least."""
    number = max(POINTS, math.ceil(DENSE * reach))
    return (torch.arange(-number, number, dtype=torch.float64) + 0.5) / number * reach


def gaussian(sd: float) -> Tensor:
    """Kernel [k, k] of a Gaussian, sd in pixels; sums to 1."""
    points = _spread(TAIL * sd)
    weights = (-0.5 * (points / sd).square()).exp()
    line = (weights / weights.sum()) @ taps(points, math.ceil(TAIL * sd))
    return torch.outer(line, line)


def disc(radius: float) -> Tensor:
    """Kernel [k, k] of a disc, radius in pixels; sums to 1."""
    points, reach = _spread(radius), math.ceil(radius)
    y, x = torch.meshgrid(points, points, indexing="ij")
    inside = y.square() + x.square() <= radius**2
    kernel = taps(y[inside], reach).T @ taps(x[inside], reach)
    return kernel / inside.sum()


def lines(angles: Tensor, length: float) -> Tensor:
    """Kernels [n, 1, k, k] of lines through the middle, length in pixels, at angles [n] in radians; each sums to 1."""
    reach = math.ceil(length / 2)
    along = _spread(length / 2)
    y, x = (taps(side.unsqueeze(-1) * along, reach) for side in (angles.sin(), angles.cos()))
    return (y.mT @ x).unsqueeze(1) / len(along)


def filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Images [n, C, H, W] filtered with one kernel [k, k] or each with its own [n, 1, k, k]; beyond the edge they go on
    as they are at the edge."""
    reach = kernel.shape[-1] // 2
    return inner(F.pad(images, (reach,) * 4, mode="replicate"), kernel)


def inner(images: Tensor, kernel: Tensor) -> Tensor:
    """The part [n, C, H - k + 1, W - k + 1] of filtered images for which no pixel beyond the edge is needed."""
    height, width, cut = *images.shape[-2:], kernel.shape[-1] - 1
    # a multiple of 8 has a fast transform
    size = (-(-height // 8) * 8, -(-width // 8) * 8)
    product = torch.fft.rfft2(images, s=size) * torch.fft.rfft2(kernel, s=size)
    return torch.fft.irfft2(product, s=size)[..., cut:height, cut:width]


def sampled(images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Images [n, C, H, W] read at each pixel's place moved by dy and dx [n, H, W], in pixels; between pixels they are
    interpolated linearly, beyond the edge they are mirrored."""
    half = (images.shape[-1] - 1) / 2
    side = torch.arange(images.shape[-1], dtype=torch.float64)
    places = torch.stack([side + dx, side.unsqueeze(1) + dy], -1) / half - 1
    return F.grid_sample(images, places, mode="bilinear", padding_mode="reflection", align_corners=True)


def field(draws: Draws, number: int, side: int, kernel: Tensor) -> Tensor:
    """White noise [n, number, side, side] filtered with a kernel, of mean 0 and sd 1."""
    cut = kernel.shape[-1] - 1
    noise = draws.normal(number, side + cut, side + cut)
    return inner(noise, kernel) / kernel.square().sum((-2, -1), keepdim=True).sqrt()


def clouds(draws: Draws, side: int, power: float) -> Tensor:
    """Random textures [n, 1, side, side] from 0 to 1 whose amplitude falls with this power of the frequency; they look
    alike at every side."""
    # of twice the side, because a texture goes on at its other edge
    noise = torch.fft.rfft2(draws.normal(1, 2 * side, 2 * side))
    kind = {"dtype": torch.float64}
    across, down = torch.fft.rfftfreq(2 * side, **kind), torch.fft.fftfreq(2 * side, **kind)
    frequency = torch.hypot(down.unsqueeze(1), across)
    frequency[0, 0] = torch.inf
    texture = torch.fft.irfft2(noise * frequency.pow(-power), s=(2 * side, 2 * side))[..., :side, :side]
    low, high = texture.amin((-2, -1), keepdim=True), texture.amax((-2, -1), keepdim=True)
    return (texture - low) / (high - low)
