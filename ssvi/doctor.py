"""`ssvi doctor`: what this installation is, beside what was tested, and what this machine can do for a training."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator

from ssvi import __version__
from ssvi.versions import EVALUATION, NUMERICS, NUMERICS_OF_FOLDERS, tested, untested


def examine() -> Iterator[str]:
    """The findings, a line each."""
    numerics = f"numerics {NUMERICS} ({NUMERICS_OF_FOLDERS} of folder:PATH)"
    yield f"ssvi {__version__}, {numerics}, evaluation {EVALUATION}; Python {platform.python_version()}"
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    yield from _packages()
    yield from _torch()


def _packages() -> Iterator[str]:
    different = untested(tested())
    if not different:
        yield "packages: as tested"
        return
    yield f"packages: {len(different)} in other versions than were tested (pip install -c ssvi/constraints.txt ...)"
    width = max(map(len, different))
    for name, pair in sorted(different.items()):
        yield f"  {name:<{width}}  {pair['here']}  tested with {pair['tested']}"


def _torch() -> Iterator[str]:
    import torch

    from ssvi.precision import float32_is_full, full_float32
    from ssvi.step import choose_machine

    full_float32()
    yield f"torch {torch.__version__}: float32 {'in full' if float32_is_full() else 'REDUCED'}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        yield f"  cuda:{index}  {torch.cuda.get_device_name(index)}"
    if not count:
        built = (
            f"built for CUDA {torch.version.cuda}, but none is there" if torch.version.cuda else "built without CUDA"
        )
        yield f"  no GPU ({built})"
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    yield f"  C++ compiler: {compiler or 'none, so --compile=on is refused'}"
    machine = choose_machine(torch.device("cuda" if count else "cpu"))
    yield f"  a long training here: {', '.join(f'{k} {v}' for k, v in machine.settings().items()).lower()}"
