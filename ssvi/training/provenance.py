"""Where a result comes from: commit, versions, machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from ssvi import __version__
from ssvi.machine.process import processor
from ssvi.runs.versions import untested
from ssvi.training.precision import float32_is_full


def device_name(device: torch.device) -> str:
    """A GPU's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def git_state() -> dict[str, Any]:
    """Commit of the checkout this package runs from and whether it was changed; None outside a checkout."""
    folder = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside somebody else's repository is not a checkout of this project.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--", str(folder))
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def provenance(device: torch.device, switches: dict[str, bool], precision: str) -> dict[str, Any]:
    """What spec.json says beside the spec."""
    return {
        **git_state(),
        "ssvi": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "untested": untested(),
        "computed_precision": precision,
        "full_float32": float32_is_full(),
        "device": device_name(device),
        "cpu": processor(),
        "host_cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "switches": switches,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def session(step: int, device: torch.device) -> dict[str, Any]:
    """What training.json says of each process that worked on it: from which step on, when, where, with what."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "from_step": step,
        "started": started,
        "host": platform.node(),
        "device": device_name(device),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage also counts what this process's parent held before it started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
