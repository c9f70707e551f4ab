"""`ssvi doctor` where compiler, GPU or arithmetic are at fault: the line tells it."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from doctors import bare, examined
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from ssvi.doctor import agreement, compiler, gpu, passes, precision, results, training
from ssvi.doctor.base import Asked, Result
from ssvi.doctor.outcome import results as digest


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Asked:
    return bare(tmp_path, monkeypatch)


# ---------------------------------------------------------------- compilers


def test_a_compiler_that_fails_or_is_missing_is_told(asked, monkeypatch, tmp_path) -> None:
    assert examined("compiler", asked).verdict in ("ok", "warning")  # headers need not be there
    monkeypatch.setenv("CXX", "false -O2")
    found = examined("compiler", asked)
    assert found.verdict == "failed"
    assert "CXX=false -O2 compiles nothing" in found.finding
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in examined("compiler", asked).finding
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examined("compiler", asked)
    assert found.verdict == "warning"
    assert "no C++ compiler" in found.finding


def test_a_compiler_whose_files_cannot_be_loaded_is_told(asked, monkeypatch) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no compiler")

    def refuse(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(compiler.ctypes, "CDLL", refuse)
    assert "does not run" in examined("compiler", asked).finding


def test_a_cache_that_cannot_be_written_or_loaded_from_is_told(asked, monkeypatch, tmp_path) -> None:
    assert examined("compiler.cache", asked).verdict == "ok"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none / ext4 rw 0 0\nnone {tmp_path} tmpfs rw,noexec 0 0\n")
    monkeypatch.setattr(results, "MOUNTS", mounts)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    found = examined("compiler.cache", asked)
    assert found.verdict == "failed"
    assert "TORCHINDUCTOR_CACHE_DIR" in found.finding
    assert "noexec" in found.finding
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in examined("compiler.cache", asked).finding


# ---------------------------------------------------------------- GPUs


@pytest.mark.parametrize(
    ("capability", "archs", "how"),
    [
        ((9, 0), ["sm_80", "sm_90"], "own"),
        ((8, 9), ["sm_80", "sm_90"], "own"),
        ((8, 0), ["sm_86"], "none"),
        ((12, 0), ["sm_90", "compute_90"], "translated"),
        ((7, 0), ["sm_75", "compute_120"], "none"),
        ((9, 0), ["sm_90a"], "own"),
        ((10, 3), ["sm_100a", "sm_100"], "own"),
        ((10, 3), ["sm_100a"], "none"),
        ((12, 1), ["sm_120"], "own"),
    ],
)
def test_code_for_a_gpu(capability, archs, how) -> None:
    assert gpu.code_for(capability, archs) == how


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    """A torch for CUDA that sees no GPU, and an `nvidia-smi` that can be put on the path."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("PATH", str(tmp_path))

    def smi(text: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return smi


def test_a_gpu_that_torch_does_not_see_is_told_with_the_reason(no_gpu, asked, monkeypatch) -> None:
    def found(device: str) -> Result:
        return gpu.driver(Asked(device, asked.results, asked.data_root))

    assert found("cpu").verdict == "skipped"
    assert found("auto").verdict == "note"
    assert "no nvidia-smi" in found("auto").finding
    assert found("cuda").verdict == "failed"
    no_gpu("echo 580.1")
    assert found("auto").verdict == "failed"  # there is one, and nothing would train on it
    for visible in ("7", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert f"CUDA_VISIBLE_DEVICES is {visible!r}, nvidia-smi lists 1" in found("auto").finding
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    no_gpu("exit 9")
    assert "nvidia-smi is there, but lists none" in found("cuda:1").finding
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in found("cuda").finding

    def old() -> bool:
        gpu.warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found 11040).", stacklevel=2
        )
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", old)
    assert "too old" in found("cuda").finding


def test_how_a_gpu_may_be_used_is_told(no_gpu, asked, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "device_of", lambda asked: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"{index}"))
    others = "\n7, Prohibited, Disabled, GPU-7\n"
    rows = {"gpu": f"0, Default, Disabled, GPU-0{others}", "apps": ""}
    no_gpu('case "$1" in *compute-apps*) printf "$APPS";; *) printf "$GPUS";; esac')

    def found() -> Result:
        monkeypatch.setenv("GPUS", rows["gpu"])
        monkeypatch.setenv("APPS", rows["apps"])
        return gpu.use(asked)

    assert found() == Result("ok", "2 GPUs, each training takes one of its own; nobody else computes there")
    rows["apps"] = "1, 5000\n"
    assert "process 1 5000 MiB" in found().finding
    for mode, verdict in (("Exclusive_Process", "warning"), ("Prohibited", "failed")):
        rows["gpu"] = f"0, {mode}, Enabled, GPU-0{others}"
        assert found().verdict == verdict
        assert "MIG" in found().finding
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 80 * 2**30))
    assert "1.0 GiB free of 80.0" in gpu.memory(asked).finding
    assert gpu.memory(asked).verdict == "warning"


def test_a_triton_that_torch_does_not_ask_for_is_told(asked, monkeypatch) -> None:
    assert examined("triton", asked).verdict == "skipped"
    monkeypatch.setattr(compiler, "device_of", lambda asked: torch.device("cuda", 0))
    monkeypatch.setattr(compiler.metadata, "requires", lambda name: ["triton==3.6.0; platform_system != 'no'", "numpy"])
    for here, verdict in (("3.6.0", "ok"), ("3.5.1", "warning"), (None, "warning")):
        monkeypatch.setattr(compiler, "installed", {"triton": here}.get)
        assert examined("triton", asked).verdict == verdict


# ---------------------------------------------------------------- what is computed


def test_float32_that_is_not_in_full_is_told(asked, monkeypatch) -> None:
    assert examined("fp32", asked).verdict == "ok"
    true, product = precision.functional.conv2d, torch.Tensor.__matmul__

    def rounded(t: torch.Tensor) -> torch.Tensor:
        """To the 10 bits of a mantissa that TF32 has."""
        return t if t.dtype != torch.float32 else t + ((t * 8193) - (t * 8193 - t) - t).detach()

    def convolution(x, w, padding):
        return true(rounded(x), rounded(w), padding=padding)

    with monkeypatch.context() as patch:
        patch.setattr(precision.functional, "conv2d", convolution)
        patch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(rounded(a), rounded(b)))
        found = examined("fp32", asked)
    assert found.verdict == "failed"
    assert found.finding.endswith("above 3e-05")
    # a switch that is on though a training switches it off
    monkeypatch.setattr(training, "full_float32", lambda: torch.set_float32_matmul_precision("medium"))
    try:
        found = examined("fp32", asked)
    finally:
        monkeypatch.undo()
        training.full_float32()
    assert found.verdict == "failed"
    assert "float32 is not in full" in found.finding  # by the switch, or where the processor has bf16 by the numbers


def test_gradients_that_the_compiler_gets_wrong_are_told(asked, monkeypatch) -> None:
    def wrong(module, _):
        def doubled(*inputs):
            return [2 * g if isinstance(g, torch.Tensor) else g for g in module(*inputs)]

        return make_boxed_func(doubled)

    monkeypatch.setattr(training, "BACKEND", "aot_eager")
    found = examined("passes.compiled", asked)
    assert found.verdict == "ok", found
    monkeypatch.setattr(
        training, "BACKEND", aot_autograd(fw_compiler=lambda m, _: make_boxed_func(m), bw_compiler=wrong)
    )
    found = examined("passes.compiled", asked)
    assert found.verdict == "failed"
    for layer in passes.LAYERS:
        assert f"{layer}, fp32, compiled: " in found.finding
    torch._dynamo.reset()


def test_a_training_that_goes_on_otherwise_is_told(asked, monkeypatch) -> None:
    assert "end with the same bytes" in examined("resume", asked).finding
    # undisturbed, stopped, undisturbed again
    digests = iter("aba")
    monkeypatch.setattr(training, "results", lambda folder: digest(folder) and next(digests))
    found = examined("resume", asked)
    assert found.verdict == "failed"
    assert "ends with other bytes than two undisturbed ones" in found.finding


def test_a_method_that_differs_when_compiled_is_told(asked, monkeypatch) -> None:
    monkeypatch.setattr(training, "BACKEND", "aot_eager")
    walk = agreement.walk

    def astray(root, options, machine, backend):
        seen = walk(root, options, machine, backend)
        if machine.compile:
            seen.losses[0] += 1
        return seen

    monkeypatch.setattr(agreement, "walk", astray)
    found = examined("methods.dense", asked)
    assert found.verdict == "failed"
    assert found.finding == "compiled: losses are off by 1, after the update by 0 nats"
