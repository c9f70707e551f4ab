"""What the machine is, and whether fp32 means fp32 on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ssvi.training.evaluate
from benchmarks.gpu.given import Fault, Given, spec_of
from ssvi import cli
from ssvi.bench.record import record
from ssvi.doctor.agreement import replaced
from ssvi.doctor.gpu import smi
from ssvi.doctor.precision import FP32, errors, switches
from ssvi.runs.paths import run_path, to_flags
from ssvi.training.provenance import git_state
from ssvi.training.step import Stepper, choose_machine


def probe(given: Given) -> None:
    """Hardware, versions, commit, what can be compiled, switches."""
    if given.cuda and not torch.cuda.is_available():
        raise Fault("torch sees no GPU; without one, --device cpu --tiny plays the trial through")
    gpu: dict[str, Any] = {"gpu": None}
    if given.cuda:
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        gpu = {"gpu": properties.name, "capability": capability, "memory_bytes": properties.total_memory}
    header = record([])
    given.say(
        when=header["when"],
        hardware=header["hardware"],
        **git_state(),
        **gpu,
        driver=next((row[0] for row in smi("driver_version")), None),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        python=platform.python_version(),
        cpus=os.cpu_count(),
        compilers=[name for name in ("gcc", "g++", "cc", "c++", "clang") if shutil.which(name)],
        triton=importlib.util.find_spec("triton") is not None,
        python_h=Path(sysconfig.get_path("include"), "Python.h").exists(),
        machine=choose_machine(torch.device(given.device)).settings(),
        precision=switches(),
    )


def precision(given: Given) -> None:
    """In the processes of `ssvi train --precision=fp32` and of `ssvi evaluate`, once they have begun."""
    seen: dict[str, dict[str, float]] = {}
    step, evaluate = Stepper.__call__, ssvi.training.evaluate.evaluate

    def first_step(self: Stepper, index: Tensor) -> Any:
        batch = step(self, index)
        if "train" not in seen:
            seen["train"] = errors(given.device)
        return batch

    def evaluated(*arguments: Any) -> Any:
        metrics = evaluate(*arguments)
        seen["evaluate"] = errors(given.device)
        return metrics

    spec = spec_of("dense", epochs=1, precision="fp32")
    folder = given.room / "precision" / run_path(spec)
    common = ["--device", given.device, "--data-root", str(given.data)]
    with replaced(Stepper, "__call__", first_step), replaced(ssvi.training.evaluate, "evaluate", evaluated):
        cli.main(["train", *to_flags(spec), "--out", str(folder), "--capture=off", *common])
        cli.main(["evaluate", str(folder), *common])
    given.say(relative_errors=seen, switches=switches(), tolerance=FP32)
    if set(seen) != {"train", "evaluate"}:
        raise Fault(f"only {', '.join(seen) or 'nothing'} was looked at; the trial does not know the code any more")
    wrong = [f"{where}: {what} {e:.1g}" for where, each in seen.items() for what, e in each.items() if not e <= FP32]
    if wrong:
        raise Fault(f"fp32 is not fp32 (relative errors above {FP32:g}): {'; '.join(wrong)}")
