"""One contestant in a process of its own, which takes a step when it is told to.

Each package then runs as its users run it: this one with the process settings of `ssvi train`, the others without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from ssvi.bench.peers import LIBRARY, PEERS
from ssvi.machine import process

BATCH = 64
THREADS = 2


class Worker:
    """A process that holds a network on the CPU and trains, or predicts with, it step by step.

    Args:
        spec: options of the run, a ResNet-18 on CIFAR-sized images where they say nothing else.
        peer: name of another package in `PEERS`, in place of this one's layers; or LIBRARY, the same in a loop of one's
            own in place of the trainer's.
        depth: blocks a stage.
        samples: if not 0, a step predicts 1,000 images with this many weight samples, in place of training.
    """

    def __init__(self, spec: Mapping[str, Any], *, peer: str = "", depth: int = 2, samples: int = 0) -> None:
        request = json.dumps({"spec": {**spec}, "peer": peer, "depth": depth, "samples": samples})
        command = [sys.executable, "-c", "from ssvi.bench.worker import main; main()", request]
        environment = {k: v for k, v in os.environ.items() if k not in process.CALM}
        environment |= {} if peer in PEERS else process.CALM
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> dict[str, float]:
        """Seconds of one more step, and bytes of peak memory beyond those before the network was made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended with exit code {self._process.wait()}; its error stands above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def in_turn(workers: Mapping[str, Worker], repeats: int, warm_up: int = 3) -> dict[str, list[dict[str, float]]]:
    """Steps of each, taken A B C A B C ... after `warm_up` rounds that are not counted; ends the processes."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    with ExitStack() as stack:
        for worker in workers.values():
            stack.callback(worker.close)
        for i in range(warm_up + repeats):
            for name, worker in workers.items():
                taken = worker.step()
                if i >= warm_up:
                    found[name].append(taken)
    return found


def _make(request: dict[str, Any]) -> tuple[Callable[[], None], Callable[[], int]]:
    """The step, and a function that gives the bytes used since before the network was made."""
    import torch

    from ssvi.bench.contestants import Training, images, library_step, peer_step, predict
    from ssvi.core.models import MODELS, ResNet
    from ssvi.training.provenance import peak_memory
    from ssvi.training.step import choose_machine

    peer = request["peer"]
    if peer not in PEERS:
        process.hold_memory()
    torch.set_num_threads(THREADS)
    device, spec, depth = torch.device("cpu"), request["spec"], request["depth"]
    batch = spec.setdefault("batch_size", BATCH)
    data = images(10 * batch, device)
    MODELS["resnet18"] = lambda make, channels, size, classes, width: ResNet(
        make, channels, [round(width * c) for c in (64, 128, 256, 512)], depth, classes
    )
    machine = choose_machine(device)
    before = peak_memory(device)
    if peer == LIBRARY:
        step = library_step(data, spec)
    elif peer:
        step = peer_step(peer, data, batch)
    else:
        training = Training(data, machine, spec)
        step = predict(training, request["samples"]) if request["samples"] else training.step
    return step, lambda: peak_memory(device) - before


def main() -> None:
    """What the process runs: a step and a line of JSON for each line that it reads."""
    step, used = _make(json.loads(sys.argv[1]))
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(json.dumps({"seconds": time.perf_counter() - start, "bytes": used()}), flush=True)
