"""This machine's processors: their names, how many GPUs, and which one a process is to use; without loading torch."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ssvi.errors import told
from ssvi.machine.disk import is_private, runtime_folder, try_lock

GATE_SECONDS = 10.0
CLAIM = re.compile(r"[^/~]+~[a-z0-9_]{8}", re.DOTALL)  # as `claim_gpu` names them


def gpu_count() -> int:
    """Number of NVIDIA GPUs that a job started here would see; 0 where there is no driver."""
    visible = _named_visible()
    if visible is not None:
        return len(visible)
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0


def claim_gpu(count: int) -> int:
    """Choose among the `count` GPUs that this process sees the one that the fewest processes of this user claim.

    So the first processes get a GPU each, the next ones share, and none waits. The claim is a locked file, which the
    kernel unlocks when the process ends, however it ends. Processes that see different GPUs understand each other: a
    claim bears the name that its GPU has for all of them.

    The claims are in a folder of this user's alone (`ssvi.machine.disk.runtime_folder`), so of other users' processes
    nothing is known, and two users alone on a machine both begin with its first GPU. Who shares one gives each user
    some, by CUDA_VISIBLE_DEVICES or a scheduler. The same holds for processes with other XDG_RUNTIME_DIR or TMPDIR.
    """
    names = _named_visible() or []
    if len(names) != count:
        names = [str(index) for index in range(count)]
    try:
        folder = runtime_folder() / f"ssvi-gpus-{os.uname().nodename}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if not is_private(folder):
            raise PermissionError(errno.EPERM, "is not a folder that is this user's alone (mode 0700)", str(folder))
        with _gate(folder / "gate"):
            claims = Counter(path.name.split("~")[0] for path in folder.iterdir() if _is_held(path))
            index = min(range(count), key=lambda index: claims[names[index]])
            claim, _ = tempfile.mkstemp(prefix=f"{names[index]}~", dir=folder)
            if try_lock(claim) is None:  # open, and so held, until the process ends
                raise OSError(errno.ENOLCK, "has no locks", str(folder))
    except OSError as error:  # a folder that is not writable, or cannot lock, is no reason not to train
        print(f"ssvi: no GPU could be claimed, so this takes the first one: {told(error)}", file=sys.stderr)
        return 0
    return index


@contextlib.contextmanager
def _gate(path: Path) -> Iterator[None]:
    """One process counts and claims at a time, which takes no time at all: one that was stopped there is passed by.

    Raises:
        TimeoutError: if another one is still in there after `GATE_SECONDS`.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + GATE_SECONDS
        while try_lock(handle) is False:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has been choosing for {GATE_SECONDS:g} s", path)
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _is_held(path: Path) -> bool:
    """Whether this is a claim of a process that still lives; the file of one that has ended is removed."""
    if CLAIM.fullmatch(path.name) is None or not stat.S_ISREG(path.lstat().st_mode):
        return False
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if try_lock(handle) is False:
            return True
        path.unlink()
    finally:
        os.close(handle)
    return False


def _named_visible() -> list[str] | None:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, by index or UUID; None if it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = (name.strip().replace("/", "-") for name in visible.split(","))  # MIG devices may have slashes
    return [name for name in names if name not in ("", "-1")]


def processor_name() -> str:
    """The CPU's name, where Linux tells it, and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
