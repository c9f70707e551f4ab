"""The GPU: driver, build of torch, who else uses it, memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ssvi.doctor.base import Asked, Result, worst

if TYPE_CHECKING:
    import torch

GIB = 2**30
# A default training (ResNet-18, batch of 128, bf16) with CUDA's own context and a captured graph's pool.
NEEDED = 4 * GIB
SMI_SECONDS = 15.0
NO_GPU = Result("skipped", "no GPU is used here")
CPU_INSTEAD = "trainings would run on the CPU, some hundred times slower for a ResNet-18"


def device_of(asked: Asked) -> torch.device:
    """Where is trained, as `ssvi train --device` has it, but without claiming a GPU."""
    import torch

    name = asked.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def smi(query: str, what: str = "gpu") -> list[list[str]]:
    """Rows of what nvidia-smi says; none where it is not there, fails or hangs."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{what}={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()] if not done.returncode else []
    )


def driver(asked: Asked) -> Result:
    """Whether torch sees a GPU, and if not, why."""
    import torch

    if asked.device == "cpu":
        return Result("skipped", "--device cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(asked.device.partition(":")[2] or 0)
    versions = sorted({row[0] for row in smi("driver_version")})
    built = f"torch for CUDA {torch.version.cuda}"
    if index < count:
        listed = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
        return Result("ok", f"{count} GPU{'s' * (count > 1)}: {listed}; driver {', '.join(versions) or '?'}, {built}")
    reason, advice = _why_none(count, len(smi("index")), [str(one.message) for one in said])
    if asked.device != "auto" or versions:
        return Result("failed", f"torch sees {count} GPUs: {reason}", CPU_INSTEAD, advice)
    return Result("note", f"no GPU: {reason}", "trainings run on the CPU")


def _why_none(count: int, listed: int, said: list[str]) -> tuple[str, str]:
    """Why torch does not see the GPU that is asked for, and what to do."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        return "this torch is built without CUDA", "install a build for CUDA (pytorch.org/get-started)"
    if visible is not None:
        there = f", nvidia-smi lists {listed}" if listed else ""
        return f"CUDA_VISIBLE_DEVICES is {visible!r}{there}", "name GPUs that are there in it, or unset it"
    if count:
        return f"there are no more than {count}", f"choose one of cuda:0 to cuda:{count - 1}"
    if old := next((line for line in said if "too old" in line), ""):
        return old.splitlines()[0], f"update the driver, or install a torch for an older CUDA than {torch.version.cuda}"
    if shutil.which("nvidia-smi") is None:
        return (
            f"built for CUDA {torch.version.cuda}, but there is no nvidia-smi, so no driver",
            "ask for a node with a GPU",
        )
    if not listed:
        return "nvidia-smi is there, but lists none", "ask for a GPU (Slurm: --gpus 1), or look at the driver"
    return (said or ["CUDA cannot be initialised"])[-1].splitlines()[0], "look at `nvidia-smi` and at the driver's log"


def build(asked: Asked) -> Result:
    """Whether this torch has code for these GPUs."""
    import torch

    if device_of(asked).type == "cpu":
        return NO_GPU
    archs, found = torch.cuda.get_arch_list(), []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        how = code_for(capability, archs)
        told = f"cuda:{index} is sm_{capability[0]}{capability[1]}"
        advice = "install a build of torch for this GPU (pytorch.org/get-started)"
        if how == "none":
            meaning = "every kernel would fail, or trainings end at their first step"
            found.append(Result("failed", f"{told}; torch has code for {', '.join(archs)}", meaning, advice))
        elif how == "translated":
            meaning = "the driver translates torch's code when it starts, which takes minutes"
            found.append(Result("warning", f"{told}, for which torch has none but {archs[-1]}", meaning, advice))
        else:
            found.append(Result("ok", f"{told}, for which torch has code"))
    return worst(found)


def code_for(capability: tuple[int, int], archs: Iterable[str]) -> str:
    """`own` if there is machine code that runs on a GPU, `translated` if the driver can make some, else `none`.

    Machine code (sm_XY) runs on GPUs of its generation X from Y on, with a letter on XY alone; compute_XY can be
    translated for all from XY on.
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch) for arch in archs]
    known = [(m[1], (int(m[2]), int(m[3])), m[4]) for m in found if m]
    if any(
        kind == "sm" and of[0] == capability[0] and (of == capability if letter == "a" else of <= capability)
        for kind, of, letter in known
    ):
        return "own"
    return "translated" if any(kind == "compute" and of <= capability for kind, of, _ in known) else "none"


def use(asked: Asked) -> Result:
    """How many processes may use it, in which parts it is cut, and who else is there."""
    if device_of(asked).type == "cpu":
        return NO_GPU
    import torch

    if not (rows := smi("index,compute_mode,mig.mode.current,uuid")):
        return Result("skipped", "nvidia-smi says nothing")
    count, found = torch.cuda.device_count(), []
    mine = {f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(count)}
    # the parts of one that is cut have names of their own
    for index, mode, mig, _ in [row for row in rows if row[-1] in mine] or rows:
        if mode == "Prohibited":
            advice = "nvidia-smi -c DEFAULT (its administrator)"
            found.append(Result("failed", f"GPU {index} is prohibited", "nothing can be computed on it", advice))
        elif mode.startswith("Exclusive"):
            meaning = "a second training on it ends with an error"
            found.append(Result("warning", f"GPU {index}: {mode}", meaning, "keep runs_per_gpu: 1 in config.yaml"))
        if mig == "Enabled":
            found.append(Result("note", f"GPU {index} is cut in parts (MIG)", "a process sees one part of it alone"))
    others = [row for row in smi("pid,used_memory", "compute-apps") if row[0] != str(os.getpid())]
    if others:
        listed = ", ".join(f"process {' '.join(row)} MiB" for row in others)
        meaning = "times measured beside others are too long (in a container this very process may be listed)"
        found.append(Result("note", f"who computes there: {listed}", meaning))
    several = f"{count} GPUs, each training takes one of its own" if count > 1 else "one GPU"
    return worst(found or [Result("ok", f"{several}; nobody else computes there")])


def memory(asked: Asked) -> Result:
    """Free against what a default training takes."""
    import torch

    if (device := device_of(asked)).type == "cpu":
        return NO_GPU
    free, total = torch.cuda.mem_get_info(device)
    told = f"{device}: {free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < NEEDED:
        meaning = f"a default training (ResNet-18, batch_size 128) needs about {NEEDED / GIB:g} GiB"
        return Result("warning", told, meaning, "end what else is there (nvidia-smi), or take a smaller batch_size")
    return Result("ok", f"{told}; a default training fits")
