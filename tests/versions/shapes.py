"""Search small shapes of layers for crashes, damaged memory and wrong gradients of this version of PyTorch on a CPU.

    python tests/versions/shapes.py [--sample N] [--plain]

Every kernel, stride, number of channels and batch size that narrow networks and last batches have, with one to four
threads, in both memory layouts: output and gradients of the package's layers in float32 against PyTorch's convolution
in float64 on one thread. Each share of the shapes has a process of its own; one that dies is named with its shape, and
the search goes on behind it. `--plain` searches PyTorch's own strided convolution instead of the package's layers,
`--sample N` only N shapes, always the same ones. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ssvi.core.layers import LayerFactory, MaskedLayer, VariationalLayer
from ssvi.core.noise import NormalSource
from ssvi.core.operations import Operation

# On small images nothing showed where memory was damaged on larger ones.
SIDES = (8, 15, 32)
OUTPUTS = (4, 16, 17)
CHANNELS, BATCHES, THREADS = range(1, 18), range(1, 18), range(1, 5)
KERNELS, STRIDES, PADDINGS = (1, 3, 5), (1, 2, 3), (0, 1, 2)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Damage shows when memory is used again, so each shape is tried several times.
TIMES = 4
TOLERANCE = 1e-3
WHAT = ("output", "gradient of the input", "gradient of the weight")
SHARE = 500
# Where glibc has it, a heap that checks itself: damage is noticed when memory is freed.
CHECKED_HEAP = "libc_malloc_debug.so.0"

# kernel, stride, padding, side, inputs, outputs, batch, threads, layout
Shape = tuple[int, int, int, int, int, int, int, int, str]


def shapes(sample: int | None) -> list[Shape]:
    """All of them, or some."""
    everything = list(
        itertools.product(KERNELS, STRIDES, PADDINGS, SIDES, CHANNELS, OUTPUTS, BATCHES, THREADS, LAYOUTS)
    )
    return random.Random(0).sample(everything, sample) if sample else everything


def layer_of(kind: type[MaskedLayer], kernel: int, stride: int, padding: int, inputs: int, outputs: int) -> MaskedLayer:
    """A convolution of the package's with weights of size 1."""

    def make(shape: tuple[int, ...], bias: bool, operation: Operation | None, stem: bool) -> MaskedLayer:
        if kind is MaskedLayer:
            return MaskedLayer(shape, bias, operation, stem)
        settings = {"parameterisation": "softplus", "sampling": "local", "epsilon": 1e-8, "start": (1.0, 0.5, 0.1)}
        return VariationalLayer(shape, bias, operation, stem, noise=NormalSource(0, "noise"), **settings)

    layer = LayerFactory(make).conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    layer.reset(torch.Generator().manual_seed(0))
    if isinstance(layer, VariationalLayer):
        # a sigma of 1e-8 beside means of size 1 leaves no trace but its way through the code
        torch.nn.init.constant_(layer.rho, -18.0)
    return layer


def results(f: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """Output, and gradients with respect to input and weight."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = f(x)
    yield y.detach()
    yield from torch.autograd.grad(y.square().sum(), [x, weight])


def wrong(shape: Shape, plain: bool) -> str | None:
    """What is wrong with a shape, if anything."""
    kernel, stride, padding, side, inputs, outputs, batch, threads, layout = shape
    source = torch.Generator().manual_seed(1)
    x = torch.randn(batch, inputs, side, side, generator=source).contiguous(memory_format=LAYOUTS[layout])
    for kind in (MaskedLayer,) if plain else (MaskedLayer, VariationalLayer):
        layer = layer_of(kind, kernel, stride, padding, inputs, outputs).to(memory_format=LAYOUTS[layout])
        weight = layer.mean
        exact = weight.detach().double().requires_grad_()
        torch.set_num_threads(1)
        expected = list(
            results(lambda x, w=exact: functional.conv2d(x, w, None, stride, padding), x.double().contiguous(), exact)
        )
        torch.set_num_threads(threads)
        for _ in range(TIMES):
            if plain:
                found = results(lambda x, w=weight: functional.conv2d(x, w, None, stride, padding), x, weight)
            else:
                found = results(layer, x, weight)
            for what, a, b in zip(
                ("output", "gradient of the input", "gradient of the weight"), found, expected, strict=True
            ):
                off = float((a.double() - b).norm() / b.norm())
                if not off < TOLERANCE:
                    return f"{kind.__name__}: {what} is off by {off:.2g}"
    return None


def work(given: argparse.Namespace) -> None:
    """A share of the search, in this process; says each shape before it is tried."""
    for number, shape in list(enumerate(shapes(given.sample)))[given.first : given.last]:
        print(f"try {number}", flush=True)
        if (problem := wrong(shape, given.plain)) is not None:
            print(f"wrong {number} {problem}", flush=True)


def search(given: argparse.Namespace) -> int:
    """The whole search, in processes; returns how many shapes are bad."""
    everything = shapes(given.sample)
    bad, first = 0, 0
    heap = next(Path("/usr/lib", f"{platform.machine()}-linux-gnu").glob(CHECKED_HEAP), None)
    environment = os.environ | ({"LD_PRELOAD": str(heap), "MALLOC_CHECK_": "3"} if heap else {})
    while first < len(everything):
        last = min(first + SHARE, len(everything))
        command = [sys.executable, __file__, "--work", f"--first={first}", f"--last={last}"]
        command += [f"--sample={given.sample}"] * bool(given.sample) + ["--plain"] * given.plain
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        for line in lines:
            if line[0] == "wrong":
                bad += 1
                print(f"WRONG {name(everything[int(line[1])])}: {line[2]}", flush=True)
        first = last
        if done.returncode:
            tried = [int(line[1]) for line in lines if line[0] == "try"]
            if not tried:
                sys.exit(done.stderr)
            bad += 1
            said = done.stderr.strip().splitlines()[-1:] or [""]
            print(
                f"DIED (exit code {done.returncode}) at or after {name(everything[tried[-1]])}: {said[0]}", flush=True
            )
            first = tried[-1] + 1
    print(f"torch {torch.__version__}: {len(everything)} shapes, {bad} bad")
    return bad


def name(shape: Shape) -> str:
    """A shape in words."""
    kernel, stride, padding, side, inputs, outputs, batch, threads, layout = shape
    return (
        f"{kernel}x{kernel} stride {stride} padding {padding}, {inputs} -> {outputs} channels, "
        f"{batch} images of {side}x{side}, {threads} threads, {layout}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
    else:
        sys.exit(1 if search(arguments) else 0)
