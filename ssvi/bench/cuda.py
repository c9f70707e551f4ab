"""What only a GPU can tell: epochs as a user has them, synchronisations, and several runs on one device."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ssvi.bench.contestants import Training, images, in_turn, ratios
from ssvi.bench.record import Figure
from ssvi.progress import Lines
from ssvi.spec import RunSpec
from ssvi.step import choose_machine
from ssvi.trainer import Settings, Trainer

BATCH = 128
SSVI = {"method": "ssvi", "density": 0.1, "batch_size": BATCH}
STEPS = 50
PACKED = 3
# Host calls that wait for the device.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def figures(repeats: int, say: Callable[[str], None]) -> list[Figure]:
    """All of them, on the current device."""
    device = torch.device("cuda")
    note = f"ResNet-18, batch {BATCH}, {torch.cuda.get_device_name(device)}"
    return [
        *_steps(device, repeats, say, note),
        _epochs(device, repeats, say, note),
        _packed(say, note),
    ]


def _steps(device: torch.device, repeats: int, say: Callable[[str], None], note: str) -> list[Figure]:
    say("compiling and capturing dense and ssvi")
    machine, data = choose_machine(device), images(50_000, device)
    specs = {"dense": {"method": "dense", "batch_size": BATCH}, "ssvi": SSVI}
    trainings = {name: Training(data, machine, spec) for name, spec in specs.items()}

    def many(training: Training) -> Callable[[], None]:
        def work() -> None:
            for _ in range(STEPS):
                training.step()

        return work

    # each round ends when the device is done, so that rounds do not run into each other
    seconds = in_turn({n: many(t) for n, t in trainings.items()}, repeats, sync=torch.cuda.synchronize)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        many(trainings["ssvi"])()
        torch.ones((), device=device).item()
    waits = sum(event.count for event in seen.key_averages() if event.key in WAITS) - 1
    if waits < 0:
        raise RuntimeError("the profiler did not see the one wait that was put there for it, so it sees none")
    return [
        Figure("gpu.lrt_over_plain", "", ratios(seconds, "ssvi", "dense"), note),
        Figure("gpu.syncs_per_step", "", (waits / STEPS,), note),
        *(Figure(f"gpu.seconds.{n}", "s", tuple(t / STEPS for t in each), note) for n, each in seconds.items()),
    ]


def _epochs(device: torch.device, repeats: int, say: Callable[[str], None], note: str) -> Figure:
    """50,000 images an epoch, with augmentation, validation, logging and updates; the first is not counted."""
    say(f"{repeats} epochs of ssvi")
    with tempfile.TemporaryDirectory(prefix="ssvi-bench-") as name:
        spec = RunSpec(dataset="cifar10", epochs=repeats + 1, **SSVI)
        data = images(50_000, device, held_out=5_000)
        trainer = Trainer(spec, data, Path(name), Settings(choose_machine(device)), Lines())
        trainer.run()
    return Figure("gpu.seconds_per_epoch", "s", tuple(row["seconds"] for row in trainer.history[1:]), note)


def _packed(say: Callable[[str], None], note: str) -> Figure:
    """Images a second of several processes on one GPU over those of one."""
    say(f"{PACKED} trainings on one GPU")
    alone, together = _images_per_second(1), _images_per_second(PACKED)
    return Figure("gpu.packed_speedup", "", (together / alone,), f"{note}, {PACKED} processes")


def _images_per_second(n: int) -> float:
    command = [sys.executable, "-m", "ssvi.bench.cuda"]
    jobs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    for job in jobs:
        assert job.stdout is not None
        job.stdout.readline()  # compiled and captured
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    return sum(json.loads(job.communicate()[0].splitlines()[-1]) for job in jobs)


def _worker() -> None:
    device = torch.device("cuda")
    training = Training(images(50_000, device), choose_machine(device), SSVI)
    for _ in range(STEPS):
        training.step()
    torch.cuda.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    start, steps = time.perf_counter(), 20 * STEPS
    for _ in range(steps):
        training.step()
    torch.cuda.synchronize()
    print(json.dumps(steps * BATCH / (time.perf_counter() - start)), flush=True)


if __name__ == "__main__":
    _worker()
