"""What a training would compute here: in float32, in every way that steps are taken, stopped and gone on."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ssvi.bench.contestants import Training, images
from ssvi.bench.cuda import WAYS
from ssvi.doctor import agreement, passes, precision
from ssvi.doctor.base import Asked, Result
from ssvi.doctor.gpu import device_of
from ssvi.doctor.outcome import results
from ssvi.doctor.probing import PREFIX
from ssvi.machine.process import Interrupted
from ssvi.methods.context import Clock
from ssvi.runs import files
from ssvi.runs.spec import RunSpec
from ssvi.training.precision import float32_is_full, full_float32
from ssvi.training.progress import Lines
from ssvi.training.step import Machine, choose_machine
from ssvi.training.trainer import Settings, Trainer

BACKEND = "inductor"
OFF = "train with --compile=off --capture=off, and say so to the authors"
# A training of seconds with updates of its subspace, on images of noise, stopped in the middle of an epoch.
TINY = {"dataset": "cifar10", "model": "resnet8", "width": 0.25, "batch_size": 32, "epochs": 2, "method": "ssvi",
        "density": 0.25, "delta_t": 3}  # fmt: skip
TINY_IMAGES, STOPPED_AT = 160, 7
# Steps after which everything is captured.
WARM = 5


def fp32(asked: Asked) -> Result:
    """Products and convolutions in float32 against float64, and the switches, as a training sets them."""
    device, before = device_of(asked), os.environ.get("NVIDIA_TF32_OVERRIDE")
    full_float32()
    apart = precision.errors(str(device))
    worst = max(apart, key=lambda name: apart[name])
    told = f"relative error {apart[worst]:.1g} ({worst})"
    if before not in (None, "0"):
        told += f"; NVIDIA_TF32_OVERRIDE={before} is set to 0 by trainings"
    meaning = "what is called fp32 is rounded to TF32 or bf16, and is no result of fp32"
    advice = "look for what sets torch.backends or NVIDIA_TF32_OVERRIDE after ssvi does (sitecustomize, .pth files)"
    if not all(value <= precision.FP32 for value in apart.values()):
        return Result("failed", f"float32 is not in full: {told} above {precision.FP32:g}", meaning, advice)
    if not float32_is_full():
        switched = ", ".join(f"{name} {value}" for name, value in precision.switches().items())
        return Result("failed", f"float32 is not in full by torch's switches: {switched}", meaning, advice)
    return Result("ok", f"float32 is in full: {told}, TF32 has 3e-4")


def bf16(asked: Asked) -> Result:
    """Whether the device computes in bf16 itself; trainings on CUDA do so unless told otherwise."""
    if device_of(asked).type == "cpu":
        return Result("ok", "trainings on a CPU are in fp32 unless a spec says bf16")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        meaning = "the default precision on CUDA is emulated here, and slower than fp32"
        return Result("warning", "the GPU has no bf16", meaning, "precision: fp32 in config.yaml")
    return Result("ok", "bf16 by the GPU itself")


class _Stopping(Lines):
    """Asks the process that it reports of to stop after a step."""

    def step(self, clock: Clock) -> None:
        if clock.step == STOPPED_AT:
            os.kill(os.getpid(), signal.SIGTERM)


def resume(asked: Asked) -> Result:
    """A training that is stopped and goes on ends byte by byte as an undisturbed one, where two of those do."""
    device = device_of(asked)
    data, spec = images(TINY_IMAGES, device, TINY_IMAGES // 10), RunSpec(**TINY)
    settings = Settings(choose_machine(device, steps=0), 1e9)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{asked.token}-") as place:

        def trained(name: str) -> str:
            folder = Path(place, name)
            if name == "stopped":
                with contextlib.suppress(Interrupted):
                    Trainer(spec, data, folder, settings, _Stopping()).run()
                if not (folder / files.CHECKPOINT).exists() or files.is_trained(folder):
                    raise RuntimeError("a training that was asked to stop did not")
            Trainer(spec, data, folder, settings, Lines()).run()
            return results(folder)

        undisturbed, stopped = trained("undisturbed"), trained("stopped")
        again = undisturbed if stopped == undisturbed else trained("again")
    if undisturbed != again:
        said = f"two undisturbed trainings end with other bytes on {device}"
        meaning = "equal specs give results that differ in their last digits, and so do trainings that were interrupted"
        if device.type == "cuda":  # whose kernels add in any order
            return Result("note", said, meaning)
        return Result("failed", said, meaning, "look for what changes in between: threads, memory, other processes")
    if stopped != undisturbed:
        said = "a training that was stopped and gone on ends with other bytes than two undisturbed ones"
        return Result("failed", said, "what is interrupted here gives other results", "let no training be interrupted")
    return Result("ok", f"two trainings on {device}, one of them stopped and gone on, end with the same bytes")


@contextlib.contextmanager
def _own_cache(asked: Asked) -> Iterator[Path]:
    """A folder for what is compiled: a compiler that is killed leaves half a file, which breaks the next training."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{asked.token}-", ignore_cleanup_errors=True) as place:
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            os.environ[name] = str(Path(place, name.lower()))
        yield Path(place)


def captured(asked: Asked) -> Result:
    """Every kind of layer as a CUDA graph."""
    if device_of(asked).type == "cpu":
        return Result("skipped", "only CUDA has graphs")
    return _passes(asked, ["captured"])


def compiled(asked: Asked) -> Result:
    """Every kind of layer compiled, on CUDA captured too."""
    device = device_of(asked).type
    if reason := passes.cannot_compile(device, BACKEND):
        return Result("skipped", reason, "trainings here are not compiled")
    return _passes(asked, ["compiled", "both"] if device == "cuda" else ["compiled"])


def _passes(asked: Asked, ways: list[str]) -> Result:
    device, wrong, worst = device_of(asked).type, list[str](), dict[str, float]()
    full_float32()
    with _own_cache(asked):
        for kind in passes.TOLERANCES if device == "cuda" else ["fp32"]:
            eager = passes.gradients(device, kind, "eager", BACKEND)
            for way in ways:
                apart = passes.off(passes.gradients(device, kind, way, BACKEND), eager)
                wrong += passes.disagreements(apart, kind, way)
                worst[kind] = max(worst.get(kind, 0.0), *(off for of in apart.values() for off in of.values()))
    if wrong:
        meaning = "such trainings would go another way; each is compared before its first step, and switched off"
        return Result("failed", "; ".join(wrong), meaning, OFF)
    told = ", ".join(f"{off:.1g} in {kind}" for kind, off in worst.items())
    return Result(
        "ok", f"losses and gradients of {len(passes.LAYERS)} kinds of layer are the eager ones (off by {told})"
    )


def waits(asked: Asked) -> Result:
    """How often the host waits for the device in a routine step."""
    device = device_of(asked)
    if device.type == "cpu":
        return Result("skipped", "only a GPU is waited for")
    data, counts = images(640, device, 64), {}
    for way in ("eager", "captured"):
        machine = Machine(device, channels_last=True, **WAYS[way])
        training = Training(data, machine, {"model": "resnet8", "method": "ssvi", "density": 0.25})
        for _ in range(WARM):
            training.step()
        counts[way] = agreement.waits(training.step)
    told = ", ".join(f"{way} {count}" for way, count in counts.items())
    if any(counts.values()):
        meaning = "results are right, but the GPU stands still while the host catches up"
        return Result("warning", f"a routine step waits for the GPU: {told}", meaning, "tell the authors")
    return Result("ok", f"no routine step waits for the GPU ({', '.join(counts)})")


def method(asked: Asked, name: str) -> Result:
    """A method's first steps and an update in every way against the eager ones."""
    device = device_of(asked)
    ways, missing = passes.ways(device.type, BACKEND)
    options, wrong, told = agreement.options_of_walk(name, "fp32"), list[str](), list[str]()
    with _own_cache(asked) as place:
        eager = None
        for way in ways:
            machine = Machine(device, channels_last=True, **WAYS[way])
            seen = agreement.walk(place, options, machine, BACKEND)
            eager = eager or seen
            wrong += [f"{way}: {fault}" for fault in agreement.faults(way, seen, eager, "fp32")]
            if seen is not eager:
                told.append(f"{way} off by {max(agreement.moved_off(seen, eager).values()):.1g}")
    if wrong:
        return Result("failed", "; ".join(wrong), f"{name} would be trained otherwise than by eager steps", OFF)
    if not told:
        return Result("skipped", f"only eager steps here: {'; '.join(missing.values())}")
    return Result("ok", f"{', '.join(told)} of the way that each tensor went in {agreement.BEFORE} steps")
