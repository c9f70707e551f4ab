"""This machine's processors: their names, how many GPUs, and which one a process is to use; without loading torch."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


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
    """
    names = _named_visible() or []
    if len(names) != count:
        names = [str(index) for index in range(count)]
    folder = Path(tempfile.gettempdir(), f"ssvi-gpus-{os.uname().nodename}-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with open(folder / "gate", "a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # one process counts and claims at a time
            claims = Counter(path.name.split("~")[0] for path in folder.glob("*~*") if _is_held(path))
            index = min(range(count), key=lambda index: claims[names[index]])
            claim, _ = tempfile.mkstemp(prefix=f"{names[index]}~", dir=folder)
            fcntl.flock(claim, fcntl.LOCK_EX)  # open, and so held, until the process ends
    except OSError as error:  # a folder that is not writable, or cannot lock, is no reason not to train
        print(f"ssvi: no GPU could be claimed in {folder}, so this takes the first one: {error}", file=sys.stderr)
        return 0
    return index


def _is_held(path: Path) -> bool:
    """Whether the process of a claim still lives; the file of one that has ended is removed."""
    with open(path, "a") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink()
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
