"""What a training process needs of the system, said without torch: switches, idle threads, memory, Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading

# What can be switched on and off by itself, with a line for the command line's help.
SWITCHES = {
    "compile": "compile the passes (needs a C++ compiler, on CUDA also Triton; auto: on CUDA where they are there)",
    "capture": "replay routine steps as a CUDA graph (auto: on CUDA)",
    "channels_last": "memory with the channels innermost (auto: on)",
    "parallel_noise": "draw normal numbers on all CPU threads, else on one (auto: on)",
    "hold_memory": "on a CPU, do not give memory back between steps (auto: on)",
}

CALM = {"GOMP_SPINCOUNT": "1000"}

# glibc: <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def calm_threads() -> None:
    """Let idle OpenMP threads sleep after some microseconds instead of spinning for milliseconds.

    Spinning, they take the processor from the threads that draw the noise and from other trainings on the machine.
    Only has an effect before torch is imported; a setting of the user's is left alone.
    """
    for name, value in CALM.items():
        os.environ.setdefault(name, value)


def hold_memory() -> bool:
    """Keep freed memory in this process instead of giving it back to the system and asking again in each step.

    Returns whether that was possible (with glibc, as on nearly every Linux).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # large blocks from the heap, which is never trimmed and grows by 64 MiB
    return all(mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 1 << 26)))


class Interrupts:
    """While it is entered, Ctrl-C is remembered until `check` raises it, where nothing can swallow it.

    A KeyboardInterrupt that Python raises on its own may land in a destructor, which ignores it. A second Ctrl-C is
    raised at once.
    """

    def __init__(self) -> None:
        self._seen = False

    def __enter__(self) -> Interrupts:
        self._seen = False
        # signals are the main thread's; elsewhere there is nothing to remember
        in_main = threading.current_thread() is threading.main_thread()
        self._before = signal.signal(signal.SIGINT, self._remember) if in_main else None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def _remember(self, *_: object) -> None:
        if self._seen:
            raise KeyboardInterrupt
        self._seen = True

    def check(self) -> None:
        """Raise what was remembered.

        Raises:
            KeyboardInterrupt: if Ctrl-C came since this was entered.
        """
        if self._seen:
            raise KeyboardInterrupt
