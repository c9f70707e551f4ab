"""Cores, memory and limits that this process was granted, which in a container or a job are not the machine's."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from ssvi.doctor.base import Asked, Result, worst
from ssvi.machine.process import usable_cpus

# Where the system's files are.
ROOT = Path("/")
GIB = 2**30
# A training of a ResNet-18 on a CPU takes about so much, and torch itself.
NEEDED_MEMORY = 2 * GIB
NEEDED_FILES = 256
# Limits of memory above it are none: cgroups write the largest number of pages.
NO_LIMIT = 2**60


def cores(asked: Asked) -> Result:
    """How many cores there are and were granted, and whether more threads are started than that."""
    counts: dict[str, float] = {"affinity": float(usable_cpus())}
    counts |= {"cgroup": quota} if (quota := cpu_quota()) is not None else {}
    counts |= {"Slurm": float(n)} if re.fullmatch("[1-9][0-9]*", n := os.environ.get("SLURM_CPUS_PER_TASK", "")) else {}
    granted = min(counts.values())
    told = ", ".join(f"{where} {count:g}" for where, count in counts.items())
    found = [Result("ok", f"{granted:g} cores granted of {os.cpu_count()} ({told})")]
    whole = max(1, int(granted))
    omp = os.environ.get("OMP_NUM_THREADS", "")
    started = int(omp) if re.fullmatch("[0-9]+", omp) else None
    slower = "threads wait for each other, and every step takes longer; results of other threads differ in last digits"
    if asked.threads is not None and asked.threads > granted:
        found.append(Result("warning", f"threads is {asked.threads}", slower, f"threads: {whole}"))
    elif started is not None and started > granted:
        found.append(Result("warning", f"OMP_NUM_THREADS is {started}", slower, f"OMP_NUM_THREADS={whole}"))
    elif started is None and asked.threads is None and granted < counts["affinity"]:
        advice = f"snakemake --cores {whole}; ssvi train --threads {whole}"
        found.append(Result("warning", f"torch would start {counts['affinity']:g} threads", slower, advice))
    return worst(found)


def memory(_: Asked) -> Result:
    """How much there is, is free, and was granted."""
    lines = (ROOT / "proc/meminfo").read_text().splitlines() if (ROOT / "proc/meminfo").exists() else []
    sizes = {key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in lines)}
    counts = {name: sizes[key] for name, key in (("free", "MemAvailable"), ("in all", "MemTotal")) if key in sizes}
    counts |= {"cgroup": limit} if (limit := memory_limit()) is not None else {}
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        if (value := os.environ.get(name, "")).isdigit() and int(value):
            counts[name] = int(value) * 2**20
    if not counts:
        return Result("skipped", "the system does not say")
    told = ", ".join(f"{name} {value / GIB:.1f} GiB" for name, value in counts.items())
    if min(counts.values()) < NEEDED_MEMORY:
        meaning = f"a training of a ResNet-18 on a CPU needs about {NEEDED_MEMORY / GIB:g} GiB, and would be killed"
        return Result("warning", told, meaning, "ask for more memory, or train smaller networks one at a time")
    return Result("ok", told)


def limits(_: Asked) -> Result:
    """Open files, and shared memory."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found = [Result("ok", f"{'any number of' if files == resource.RLIM_INFINITY else files} open files")]
    if 0 <= files < NEEDED_FILES:
        meaning = "compiling and workflows may end for want of them"
        found = [Result("warning", f"{files} open files", meaning, "ulimit -n 4096")]
    if (shm := ROOT / "dev/shm").is_dir():
        size = os.statvfs(shm)
        found.append(Result("ok", f"/dev/shm {size.f_blocks * size.f_frsize / GIB:.2f} GiB (not used by trainings)"))
    return worst(found)


def cpu_quota() -> float | None:
    """Cores that the cgroups of this process leave it; None where they set no limit."""
    found = []
    for text in _of_cgroups("", "cpu.max"):
        quota, _, period = text.partition(" ")
        found += [int(quota) / int(period)] if quota != "max" else []
    pairs = zip(_of_cgroups("cpu", "cpu.cfs_quota_us"), _of_cgroups("cpu", "cpu.cfs_period_us"), strict=True)
    found += [int(quota) / int(period) for quota, period in pairs if int(quota) > 0]
    return min(found, default=None)


def memory_limit() -> int | None:
    """Bytes that the cgroups of this process leave it; None where they set no limit."""
    texts = [*_of_cgroups("", "memory.max"), *_of_cgroups("memory", "memory.limit_in_bytes")]
    return min((int(text) for text in texts if text != "max" and int(text) < NO_LIMIT), default=None)


def _of_cgroups(controller: str, name: str) -> Iterator[str]:
    """What a file says in this process's cgroup and in those around it; controller "" is version 2."""
    own = ROOT / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        parts = Path(path.lstrip("/"))
        for top in {controllers, controller} if controller else {".", "unified"}:
            # in a container the path may be one of its host, and the limit stands at the top
            inmost = ROOT / "sys/fs/cgroup" / top / parts
            for folder in (inmost, *inmost.parents)[: len(parts.parts) + 1]:
                if (file := folder / name).is_file():
                    yield file.read_text().strip()
