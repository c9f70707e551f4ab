"""Randomness: one generator per purpose, all derived from the seed, so that no stream disturbs another."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

# What each stream decides. A new purpose gets a new name and changes no existing stream. Start values and data
# order come from CPU generators, so that they are the same on every device.
STREAMS = ("weights", "masks", "order", "augmentation", "growth")
ON_DEVICE = ("augmentation",)

# torch draws normal numbers on one CPU thread. A large tensor is cut into pieces that fit into a core's cache, which
# go to this many generators in turn, and the generators are shared by the threads; so the numbers do not depend on
# how many threads there are. On pieces of this size torch itself stays on the calling thread.
GENERATORS = 16
PIECE = 1 << 15


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed that depends on the run's seed and the purpose alone."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the seed and the purpose alone."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))


class NormalSource:
    """A stream of independent N(0, 1) draws with a state that can be saved, and generators of its own.

    It draws where it is asked to: on another device than before, from the beginning of that device's stream.
    """

    def __init__(self, seed: int, purpose: str, device: torch.device | str = "cpu", single: bool = False) -> None:
        """`single` draws in torch's own way, on one thread, from the same distribution."""
        self._seed, self._purpose, self._single = seed, purpose, single
        self._threads: ThreadPoolExecutor | None = None
        self._held = False
        self._move(torch.device(device))
        self._enter()

    def _enter(self) -> None:
        self.key = next(_keys)
        _sources[self.key] = self

    def _move(self, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        n = GENERATORS if device.type == "cpu" and not self._single else 1
        purposes = [f"{self._purpose}/{i}" if i else self._purpose for i in range(n)]
        self.generators = [generator(self._seed, purpose, device) for purpose in purposes]

    def follow(self, like: Tensor) -> None:
        """Draw where a tensor is, from here on."""
        if like.device != self.device:
            self._move(like.device)

    def begin(self, purpose: str) -> None:
        """Become the stream of another purpose, from its beginning."""
        self._purpose = purpose
        self._move(self.device)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in ("generators", "_threads", "key")}
        return kept | {"state": self.get_state()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state = kept.pop("state")
        self.__dict__ |= kept
        self._threads = None
        self._move(self.device)
        self.set_state(state)
        self._enter()

    def normal(self, like: Tensor) -> Tensor:
        """Draws in the shape, type, memory order and on the device of `like`, as a new tensor."""
        if torch.compiler.is_compiling():
            return torch.ops.ssvi.normal(like.detach(), self.key)
        if self._held:
            return _pattern(like)
        self.follow(like)
        out = torch.empty_like(like)
        if self.device.type == "cpu":
            self._each_piece(_draw, out)
        else:
            out.normal_(generator=self.generators[0])
        return out

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile every draw is one pattern, in eager and in compiled code."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def add_noise(self, mean: Tensor, variance: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """mean + sd * noise and noise / (2 sd), with sd = sqrt(variance + epsilon); both arguments are used up.

        On a CPU all of it happens piece by piece in the cache, in the arguments' own memory. Compiled, nothing is
        changed in place: torch 2.11's compiler gives a Function that returns a tensor it has changed no gradient.
        """
        if torch.compiler.is_compiling() or mean.device.type != "cpu" or self._held:
            sd = (variance + epsilon).sqrt()
            noise = self.normal(mean)
            return torch.addcmul(mean, sd, noise), noise / (2 * sd)

        self.follow(mean)

        def add(mean: Tensor, variance: Tensor, source: torch.Generator) -> None:
            noise = torch.empty(mean.shape, dtype=_drawn_in(mean.dtype)).normal_(generator=source)
            variance_ = variance.to(noise.dtype).add_(epsilon)
            # 1/sd, by the root that torch has vectorised
            inverse = variance_.rsqrt()
            noise.mul_(inverse)
            mean.copy_(torch.addcmul(mean, noise, variance_))
            torch.mul(noise, 0.5, out=variance)

        if variance.stride() != mean.stride():
            variance = torch.empty_like(mean).copy_(variance)
        self._each_piece(add, mean, variance)
        return mean, variance

    def _each_piece(self, work: Callable[..., None], *tensors: Tensor) -> None:
        """Call `work` with each piece of the tensors, which share a memory layout, and the piece's generator."""
        # what `empty_like` and torch's operations return has no gaps: its memory in order is the tensor
        n = tensors[0].numel()
        flat = [t.as_strided((n,), (1,), t.storage_offset()) for t in tensors]
        size = n if len(self.generators) == 1 else PIECE
        pieces = list(zip(*(t.split(size) for t in flat), strict=True)) if n else []
        used = min(len(self.generators), len(pieces))
        workers = min(torch.get_num_threads(), used)

        inference = torch.is_inference_mode_enabled()

        def run(first: int) -> None:
            # the mode is a thread's own, and such tensors may not be written outside it
            with torch.inference_mode() if inference else nullcontext():
                for g in range(first, used, workers):
                    for piece in pieces[g :: len(self.generators)]:
                        work(*piece, self.generators[g])

        if workers < 2:
            run(0) if workers else None
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads() - 1, "noise")
        waiting = [self._threads.submit(run, first) for first in range(1, workers)]
        run(0)
        for future in waiting:
            future.result()

    def get_state(self) -> Tensor:
        """The states of the generators, one in a row."""
        return torch.stack([g.get_state() for g in self.generators])

    def set_state(self, state: Tensor) -> None:
        """Put the stream back to where `get_state` saw it."""
        for g, row in zip(self.generators, state.cpu(), strict=True):
            g.set_state(row.clone())  # the generator reads a tensor's whole storage


def _pattern(like: Tensor) -> Tensor:
    """Numbers spread evenly over +-sqrt(3), so of mean 0 and sd 1, that depend on their place in the shape alone."""
    places = torch.arange(like.numel(), device=like.device)
    even = (places * 40503 & 0xFFFF).to(torch.float32) * (2 / 0xFFFF) - 1
    # in the memory order of `like`, as draws are
    return torch.empty_like(like).copy_((even * 3**0.5).view(like.shape))


def _drawn_in(dtype: torch.dtype) -> torch.dtype:
    """Half-precision draws are float32 draws rounded, for which torch has the faster kernel."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def _draw(out: Tensor, source: torch.Generator) -> None:
    if out.dtype == _drawn_in(out.dtype):
        out.normal_(generator=source)
    else:
        out.copy_(torch.empty(out.shape, dtype=torch.float32).normal_(generator=source))


# Compiled code draws by this operation: opaque to the compiler, which must neither repeat nor drop it.
_keys = itertools.count()
_sources: weakref.WeakValueDictionary[int, NormalSource] = weakref.WeakValueDictionary()
torch.library.define("ssvi::normal", "(Tensor like, int source) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))


@torch.library.impl("ssvi::normal", ("cpu", "cuda"))
def _normal(like: Tensor, source: int) -> Tensor:
    return _sources[source].normal(like)


@torch.library.register_fake("ssvi::normal")
def _fake_normal(like: Tensor, source: int) -> Tensor:
    return torch.empty_like(like)


class Streams:
    """The random streams of one run, saved and restored together."""

    def __init__(self, seed: int, device: torch.device, single: bool = False) -> None:
        """`single`: see `NormalSource`."""
        self._generators = {n: generator(seed, n, device if n in ON_DEVICE else "cpu") for n in STREAMS}
        self.noise = NormalSource(seed, "noise", device, single)

    def __getitem__(self, purpose: str) -> torch.Generator:
        return self._generators[purpose]

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every stream."""
        return {name: g.get_state() for name, g in self._generators.items()} | {"noise": self.noise.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put every stream back to where `state_dict` saw it."""
        for name, g in self._generators.items():
            g.set_state(state[name].cpu())
        self.noise.set_state(state["noise"])
