"""Randomness: one generator per purpose, all derived from the seed, so that no stream disturbs another."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# What each stream decides. A new purpose gets a new name and changes no existing stream.
STREAMS = ("weights", "masks", "order", "augmentation", "noise", "growth")


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the seed and the purpose alone."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Streams:
    """The random streams of one run, saved and restored together."""

    def __init__(self, seed: int, device: torch.device) -> None:
        # Start values and data order come from CPU generators, so that they are the same on every device.
        on_device = ("augmentation", "noise")
        self._generators = {n: generator(seed, n, device if n in on_device else "cpu") for n in STREAMS}

    def __getitem__(self, purpose: str) -> torch.Generator:
        return self._generators[purpose]

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every stream."""
        return {name: g.get_state() for name, g in self._generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put every stream back to where `state_dict` saw it."""
        for name, g in self._generators.items():
            g.set_state(state[name].cpu())


def standard_normal(like: Tensor, source: torch.Generator) -> Tensor:
    """Independent N(0, 1) draws in the shape, type and device of `like`."""
    return torch.empty_like(like).normal_(generator=source)
