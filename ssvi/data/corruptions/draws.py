"""Random numbers of images, each image's its own whichever images stand beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ssvi.core.noise import derived_seed


class Draws:
    """The draws for some images: of each from a generator of its own, which its number and the seed decide."""

    def __init__(self, purpose: str, seed: int, numbers: range) -> None:
        self._purpose, self._seed, self._numbers = purpose, seed, numbers

    @functools.cached_property
    def _sources(self) -> list[torch.Generator]:
        first = derived_seed(self._seed, f"corruption/{self._purpose}")
        # torch takes the lower half of a seed for a CPU generator
        return [torch.Generator().manual_seed((first + number) % 2**32) for number in self._numbers]

    def uniform(self, *shape: int) -> Tensor:
        """float64 [n, *shape] in [0, 1)."""
        return self._filled(shape, torch.Tensor.uniform_)

    def normal(self, *shape: int) -> Tensor:
        """float64 [n, *shape] from N(0, 1)."""
        return self._filled(shape, torch.Tensor.normal_)

    def _filled(self, shape: tuple[int, ...], fill: Callable[..., Tensor]) -> Tensor:
        numbers = torch.empty(len(self._numbers), *shape)
        for one, source in zip(numbers, self._sources, strict=True):
            fill(one, generator=source)
        return numbers.double()
