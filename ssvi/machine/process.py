"""What a process needs of the system, said without torch: switches, threads, memory, signals, standard streams."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

# What can be switched on and off by itself, with a line for the command line's help.
SWITCHES = {
    "compile": "compile the passes (needs a C++ compiler, on CUDA also Triton; auto: on CUDA where they are there)",
    "capture": "replay routine steps as a CUDA graph (auto: on CUDA)",
    "channels_last": "memory with the channels innermost (auto: on)",
    "parallel_noise": "draw normal numbers on all CPU threads, else on one (auto: on)",
    "hold_memory": "on a CPU, do not give memory back between steps (auto: on)",
}

CALM = {"GOMP_SPINCOUNT": "1000"}

# Slurm says twice that the time is over, and a command that was handed over hears both its caller and its group.
ECHO_SECONDS = 1.0

# glibc: <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def usable_cpus() -> int:
    """How many CPUs this process may use, which on a shared machine are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def processor() -> str | None:
    """The model of this machine's processor; None where the system does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []:
        key, _, name = line.partition(":")
        if key.strip() == "model name" and name.strip():
            return " ".join(name.split())
    if sys.platform == "darwin":
        try:
            words = ["sysctl", "-n", "machdep.cpu.brand_string"]
            asked = subprocess.run(words, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return asked.stdout.strip() or None
    return platform.processor() or None


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


class Output(io.FileIO):
    """Standard output or error as a file that takes everything: what it cannot write is lost, and `problem` says why.

    So nothing that a command does fails because nobody can be told of it.
    """

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written; returns the size of all of it."""
        try:
            written = super().write(data)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            self.problem = self.problem or error
            return len(memoryview(data).cast("B"))
        return written


def hold_streams() -> None:
    """Keep standard output and error from failing this process, and their numbers from the files that it opens.

    One that was closed would give its number to the next file opened, a checkpoint perhaps, and what is meant for a
    person would be written there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free; whoever writes to it is told so
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        kept: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "line_buffering": number == 2}
        if stream is not None:
            kept = {key: getattr(stream, key) for key in kept}
            kept["line_buffering"] |= stream.write_through  # as PYTHONUNBUFFERED asks for
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(Output(number, "w", closefd=False)), **kept))


def check_output() -> None:
    """End a command whose output is what it is for.

    Raises:
        OSError: if not all of it could be written.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Output) and raw.problem is not None:
        raise OSError(raw.problem.errno, raw.problem.strerror, "standard output")


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop, and it did so in order; the text says where.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, where: str = "stopped") -> None:
        super().__init__(where)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells have it after Ctrl-C, else what says "try again", because somebody wanted the machine."""
        return 130 if self.number == signal.SIGINT else os.EX_TEMPFAIL


class Interrupts:
    """While it is entered, a wish to stop is remembered until `check` raises it, where everything is in order.

    An exception raised right in a signal's handler may land in a destructor, which ignores it, or in the middle of a
    step. A second wish kills the process at once; what comes within `ECHO_SECONDS` of the first is the same wish.
    Signals that this process ignores stay ignored.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

    def __init__(self) -> None:
        self._seen: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._seen, self._before = None, {}
        # signals are the main thread's; elsewhere there is nothing to remember
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._seen is None:
            self._seen, self._since = number, now
        elif now - self._since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def check(self) -> None:
        """Raise what was remembered.

        Raises:
            Interrupted: if a signal came since this was entered.
        """
        if self._seen is not None:
            raise Interrupted(self._seen)
