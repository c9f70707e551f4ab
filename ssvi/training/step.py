"""One training step, from image indices to changed parameters, in the ways a machine can take it.

Eager; with the network's passes compiled; and, on CUDA, captured once as a graph and replayed. All three do the same
arithmetic. Steps that a method does something special in (subspace updates) and batches of another size are eager.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssvi.core.noise import Streams
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.machine.process import SWITCHES
from ssvi.methods import Method
from ssvi.methods.context import Batch, Clock
from ssvi.runs.spec import RunSpec
from ssvi.training.precision import full_float32, repeatable

# Images and labels to loss and logits.
Passes = Callable[[Batch], tuple[Tensor, Tensor]]

# Before a graph is captured, libraries choose algorithms and optimisers make their state in steps as usual.
WARM_UP_STEPS = 3
# Steps that win back what compiling takes: on an H200 (torch 2.11) some 45 s, for 0.76 ms of the 3.24 ms of a captured
# step of the dense ResNet-18 (batch 128, bf16).
WORTH_COMPILING = 60_000


@dataclass(frozen=True)
class Machine:
    """How a training is computed, not what: no part of a run's identity, and equal up to rounding.

    Attributes:
        device: where.
        compile: the forward and backward passes are compiled (minutes at the start, fewer passes over memory).
        capture: routine steps are captured as a CUDA graph and replayed without the host.
        channels_last: images and weights lie in memory with the channels innermost.
        parallel_noise: normal numbers on the CPU are drawn on all threads (see `ssvi.core.noise`).
        hold_memory: on the CPU, freed memory stays in the process (see `ssvi.machine.process`).
    """

    device: torch.device
    compile: bool = False
    capture: bool = False
    channels_last: bool = False
    parallel_noise: bool = True
    hold_memory: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and convolution weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def settings(self) -> dict[str, bool]:
        """What was chosen, for the record."""
        return {name: getattr(self, name) for name in SWITCHES}


def choose_machine(
    device: torch.device, switches: Mapping[str, bool] | None = None, steps: int = WORTH_COMPILING
) -> Machine:
    """The fastest settings of a device for so many steps, except for what `switches` (names of `SWITCHES`) says.

    Raises:
        UserError: if something is switched on that this machine cannot do.
    """
    cuda, wanted = device.type == "cuda", dict(switches or {})
    compiler = next((name for name in ("c++", "g++", "clang++", "cc", "gcc", "clang") if shutil.which(name)), None)
    missing = "no C or C++ compiler is found" if compiler is None else None
    if cuda and importlib.util.find_spec("triton") is None:
        missing = "Triton is not installed"
    elif cuda and not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing = "Python's headers, which Triton compiles with, are not installed"
    if wanted.get("compile") and missing:
        raise UserError(f"--compile=on: {missing}; choose auto or off.")
    if wanted.get("capture") and not cuda:
        raise UserError(f"--capture=on: the device is {device}, but only CUDA has graphs; choose auto or off.")
    best = {
        "compile": cuda and not missing and steps >= WORTH_COMPILING,
        "capture": cuda,
        "channels_last": True,
        "parallel_noise": True,
    }
    return Machine(device, **{**best, "hold_memory": not cuda, **wanted})


class Stepper:
    """Takes the steps of one training."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        model: nn.Module,
        method: Method,
        streams: Streams,
        clock: Clock,
        machine: Machine,
        say: Callable[[str], None],
    ) -> None:
        """`say` is told what a person must see."""
        full_float32()
        repeatable()
        self.spec, self.data, self.model, self.method = spec, data, model, method
        self.streams, self.clock, self.machine, self.say = streams, clock, machine, say
        self.totals = torch.zeros(3, dtype=torch.float64, device=machine.device)  # loss, correct, images
        # Batches of one size only, so that nothing is ever compiled twice.
        self.passes: Passes = torch.compile(self.loss, dynamic=False) if machine.compile else self.loss
        self._start_lr: list[list[float]] = []
        self._warm = 0
        self._side = torch.cuda.Stream(machine.device) if machine.capture else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._index = torch.zeros(spec.batch_size, dtype=torch.int64, device=machine.device)
        self._batch: Batch | None = None

    def switch_off(self, switch: str, why: str) -> None:
        """Take no step compiled, or none captured, from here on, and say so."""
        self.say(f"WARNING: --{switch} is switched off: {why}; the training is right, but slower")
        self.machine = replace(self.machine, **{switch: False})
        if switch == "compile":
            self.passes = self.loss

    # Batches and losses -------------------------------------------------------------------------

    def batch(self, index: Tensor) -> Batch:
        """Augmented, normalised images and labels."""
        images = self.data.train_images[index]
        if self.spec.augment:
            images = self.data.augment(images, self.streams["augmentation"])
        return self.images(images), self.data.train_labels[index]

    def images(self, images: Tensor) -> Tensor:
        """Images uint8 as the network takes them."""
        return self.data.normalise(images).contiguous(memory_format=self.machine.memory_format)

    def fresh_batch(self) -> Batch:
        """A random batch beside the epoch's order, for extra gradients."""
        count = min(self.spec.batch_size, self.data.n_train)
        index = torch.randperm(self.data.n_train, generator=self.streams["growth"])[:count]
        return self.batch(index.to(self.machine.device))

    @property
    def precision(self) -> str:
        """Of the passes: bf16 (autocast) or fp32; never fp16, in which sigma^2 underflows."""
        automatic = "bf16" if self.machine.device.type == "cuda" else "fp32"
        return automatic if self.spec.precision == "auto" else self.spec.precision

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the passes have their precision."""
        if self.precision == "fp32":
            return nullcontext()
        # A graph must not keep the casts of the step in which it was captured.
        return torch.autocast(self.machine.device.type, torch.bfloat16, cache_enabled=not self.machine.capture)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits of a batch in training: the data term.

        The rest, such as the KL, is the method's (`on_gradient`).
        """
        with self.autocast():
            logits = self.model(batch[0])
        return functional.cross_entropy(logits.float(), batch[1]), logits

    def exact_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same in float32, whatever the precision of the steps."""
        logits = self.model(batch[0])
        return functional.cross_entropy(logits, batch[1]), logits

    # Steps --------------------------------------------------------------------------------------

    def keep_lr(self) -> None:
        """Learning rates are as at the start now."""
        self._start_lr = [[group["lr"] for group in o.param_groups] for o in self.method.optimizers]

    def set_lr(self, factor: float) -> None:
        """Set every learning rate to that of the start times a factor; a captured step reads it from the device."""
        for optimizer, bases in zip(self.method.optimizers, self._start_lr, strict=True):
            for group, lr in zip(optimizer.param_groups, bases, strict=True):
                if not self.machine.capture:
                    group["lr"] = lr * factor
                elif isinstance(group["lr"], Tensor) and group["lr"].device == self.totals.device:
                    group["lr"].fill_(lr * factor)
                else:
                    group["lr"] = torch.full((), lr * factor, device=self.totals.device)

    def __call__(self, index: Tensor) -> Batch:
        """Take the step of `clock.step` on the training images at `index` [b], on the device; returns its batch."""
        routine = self.method.routine(self.clock.step) and len(index) == self.spec.batch_size
        if not (routine and self.machine.capture):
            return self._step(index, self.passes if routine else self.loss)
        if self._warm < WARM_UP_STEPS:
            return self._warm_up(index)
        self._index.copy_(index)
        if self._graph is None and not self._capture():
            return self._step(index, self.passes)
        self._graph.replay()
        return self._batch

    def _step(self, index: Tensor, passes: Passes) -> Batch:
        method, clock = self.method, self.clock
        method.before_step(clock)
        for optimizer in method.optimizers:
            optimizer.zero_grad(set_to_none=True)
        batch = self.batch(index)
        loss, logits = passes(batch)
        loss.backward()
        if method.on_gradient(clock, batch):
            for optimizer in method.optimizers:
                optimizer.step()
        with torch.no_grad():
            size, correct = len(index), (logits.argmax(1) == batch[1]).sum()
            self.totals += torch.stack([loss.double() * size, correct.double(), torch.full_like(loss, size).double()])
        return batch

    def _warm_up(self, index: Tensor) -> Batch:
        """A step as usual, on a side stream as capturing asks for."""
        stream = self._side
        stream.wait_stream(torch.cuda.current_stream(self.machine.device))
        with torch.cuda.stream(stream):
            batch = self._step(index, self.passes)
        torch.cuda.current_stream(self.machine.device).wait_stream(stream)
        self._warm += 1
        return batch

    def _capture(self) -> bool:
        """Capture a step; whether that worked. If not, nothing has changed, and steps are taken as usual from here on.

        Raises:
            UserError: if the attempt left the device unusable.
        """
        streams, graph = self.streams.state_dict(), torch.cuda.CUDAGraph()
        for source in (self.streams["augmentation"], *self.streams.noise.generators):
            graph.register_generator_state(source)
        for optimizer in self.method.optimizers:
            optimizer.zero_grad(set_to_none=True)
        try:
            with torch.cuda.graph(graph):
                self._batch = self._step(self._index, self.passes)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            why = told_cause(error)
            still_usable(self.machine.device, "capture", why)
            self.streams.load_state_dict(streams)
            self.switch_off("capture", f"it failed with {why}")
            return False
        self._graph = graph
        return True


def told_cause(error: BaseException) -> str:
    """The line of an error that tells most: the last that names an exception, as in a traceback of another process.

    Compilers say "An exception occurred in a subprocess" first, and what it was further down.
    """
    lines = str(error).strip().splitlines() or [""]
    inner = [line for line in lines[1:] if re.match(r"[\w.]*(Error|Exception|OutOfResources)\b.*:", line)]
    return f"{type(error).__name__}: {inner[-1] if inner else lines[0]}"


def still_usable(device: torch.device, switch: str, why: str) -> None:
    """A capture that broke can leave a GPU's random numbers, or all of it, unusable for this process.

    Raises:
        UserError: if it did.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.empty_cache()
        torch.randn((), device=device).item()
    except RuntimeError:
        raise UserError(
            f"--{switch} failed with {why}, and the GPU is unusable since; train with --{switch}=off."
        ) from None
