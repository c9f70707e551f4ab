"""What the machine is, and whether fp32 means fp32 on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import ssvi.evaluate
from benchmarks.gpu.given import Fault, Given, replaced, spec_of
from ssvi import cli
from ssvi.bench.record import record
from ssvi.noise import generator
from ssvi.provenance import git_state
from ssvi.spec import run_path, to_flags
from ssvi.step import Stepper, choose_machine

# Relative errors: of fp32 below 1e-6, of TF32, which rounds what it multiplies to 11 bits, about 3e-4.
FP32 = 3e-5


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.splitlines()
    return lines[0].strip() if lines else None


def switches() -> dict[str, Any]:
    """What says in which precision torch computes on this device."""
    return {
        "matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


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
        driver=_driver(),
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


def errors(device: str) -> dict[str, float]:
    """Relative errors of a matrix product and of a convolution with its gradients, against float64 on the CPU."""
    numbers = generator(0, "precision")
    a, b = (torch.randn(512, 512, generator=numbers) for _ in range(2))
    x, weight = torch.randn(16, 64, 16, 16, generator=numbers), torch.randn(64, 64, 3, 3, generator=numbers)

    def results(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = [t.to(device, dtype).requires_grad_() for t in (x, weight)]
        with torch.inference_mode(False), torch.enable_grad():
            y = functional.conv2d(*leaves, padding=1)
            of_input, of_weight = torch.autograd.grad(y.square().sum(), leaves)
        found = {"product": a.to(device, dtype) @ b.to(device, dtype), "convolution": y.detach()}
        found |= {"its gradient by the input": of_input, "its gradient by the weight": of_weight}
        return {name: value.double().cpu() for name, value in found.items()}

    true = results("cpu", torch.float64)
    found = results(device, torch.float32)
    return {name: float((value - true[name]).norm() / true[name].norm()) for name, value in found.items()}


def precision(given: Given) -> None:
    """In the processes of `ssvi train --precision=fp32` and of `ssvi evaluate`, once they have begun."""
    seen: dict[str, dict[str, float]] = {}
    step, evaluate = Stepper.__call__, ssvi.evaluate.evaluate

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
    with replaced(Stepper, "__call__", first_step), replaced(ssvi.evaluate, "evaluate", evaluated):
        cli.main(["train", *to_flags(spec), "--out", str(folder), "--capture=off", *common])
        cli.main(["evaluate", str(folder), *common])
    given.say(relative_errors=seen, switches=switches(), tolerance=FP32)
    if set(seen) != {"train", "evaluate"}:
        raise Fault(f"only {', '.join(seen) or 'nothing'} was looked at; the trial does not know the code any more")
    wrong = [f"{where}: {what} {e:.1g}" for where, each in seen.items() for what, e in each.items() if not e <= FP32]
    if wrong:
        raise Fault(f"fp32 is not fp32 (relative errors above {FP32:g}): {'; '.join(wrong)}")
