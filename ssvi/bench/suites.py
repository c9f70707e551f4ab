"""What is measured, in suites of figures that belong together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch

from ssvi.bench import contestants
from ssvi.bench.accuracy import accuracy
from ssvi.bench.contestants import Training, images, ratios
from ssvi.bench.operations import Operations
from ssvi.bench.peers import LIBRARY, PEERS, installed_peers
from ssvi.bench.record import Figure
from ssvi.bench.worker import BATCH, THREADS, Worker, in_turn
from ssvi.machine import process
from ssvi.training.step import choose_machine
from ssvi.training.trainer import Settings

Say = Callable[[str], None]
Suite = Callable[[int, Say], Iterable[Figure]]

SSVI = {"method": "ssvi", "density": 0.1}
NOTE = f"ResNet-18, batch {BATCH}, {THREADS} threads"


def steps(repeats: int, say: Say) -> list[Figure]:
    """Training steps on the CPU in turn: plain, SSVI, with weight samples, by the natural gradient, in bf16, in an own
    loop, and the peers."""
    specs: dict[str, dict[str, Any]] = {
        "plain": {"method": "dense"},
        "lrt": SSVI,
        "sampling": {**SSVI, "sampling": "weight"},
        "natural": {**SSVI, "sampling": "weight", "posterior_optimizer": "ivon"},
        "bf16": {**SSVI, "precision": "bf16"},
    }
    peers = installed_peers()
    if len(peers) < len(PEERS):
        say("peers are missing: pip install -e '.[bench]'")
    say(f"{repeats} rounds of {', '.join([*specs, *peers, LIBRARY])}")
    workers = {name: Worker(spec) for name, spec in specs.items()} | {name: Worker({}, peer=name) for name in peers}
    workers[LIBRARY] = Worker(SSVI, peer=LIBRARY)
    taken = in_turn(workers, repeats)
    seconds = {name: [x["seconds"] for x in each] for name, each in taken.items()}
    peak = {name: max(x["bytes"] for x in each) for name, each in taken.items()}
    pairs = {
        "cpu.lrt_over_plain": ("lrt", "plain"),
        "cpu.sampling_over_plain": ("sampling", "plain"),
        "cpu.natural_over_plain": ("natural", "plain"),
        "cpu.library_over_trainer": ("library", "lrt"),
        "cpu.lrt_over_flipout": ("lrt", "flipout"),
        "cpu.sampling_over_torchbnn": ("sampling", "torchbnn"),
        "cpu.sampling_over_bayesian_torch": ("sampling", "bayesian_torch"),
        "cpu.best_over_fp32": ("bf16", "lrt"),
    }
    found = [
        Figure(name, "", ratios(seconds, *pair), NOTE + (", bf16 autocast" if "bf16" in pair else ""))
        for name, pair in pairs.items()
        if set(pair) <= set(seconds)
    ]
    found.append(Figure("memory.lrt_over_plain", "", (peak["lrt"] / peak["plain"],), NOTE))
    found += [Figure(f"cpu.seconds.{name}", "s", tuple(each), NOTE) for name, each in seconds.items()]
    return found + [Figure(f"memory.bytes.{name}", "B", (each,), NOTE) for name, each in peak.items()]


def topology(repeats: int, say: Say) -> list[Figure]:
    """Share of the training time that the subspace updates take, of which about 20 are recorded in full."""
    cuda = torch.cuda.is_available()
    if not cuda:
        process.hold_memory()
        torch.set_num_threads(THREADS)
    machine = choose_machine(torch.device("cuda" if cuda else "cpu"))
    batch = 128 if cuda else BATCH
    say("subspace updates")
    training = Training(images(20 * batch, machine.device), machine, {**SSVI, "batch_size": batch})
    sync = torch.cuda.synchronize if cuda else None
    subspace = training.trainer.method.subspace
    routine = contestants.in_turn({"step": training.step}, repeats, warm_up=5, sync=sync)["step"]
    kept, subspace.records.recorded = subspace.records.recorded, set()
    plain = contestants.in_turn({"update": training.update_step}, repeats, warm_up=1, sync=sync)["update"]
    subspace.records.recorded = range(subspace.schedule.n_updates)
    recorded = contestants.in_turn({"update": training.update_step}, max(2, repeats // 3), warm_up=1, sync=sync)[
        "update"
    ]
    # the paper's training: 45,000 images, batch 128, 200 epochs, updates until 75 %
    updates = int(0.75 * 200 * 45_000 / 128) // 100
    shares = []
    for cost in plain:
        extra = cost - median(routine) + len(kept) / updates * (median(recorded) - median(plain))
        shares.append(max(extra, 0.0) / (100 * median(routine) + max(extra, 0.0)))
    where = f"ResNet-18, batch {batch}, {machine.device.type}"
    trainer, counted = training.trainer, {}
    for name, kept in {"update": set(), "recorded": range(subspace.schedule.n_updates)}.items():
        subspace.records.recorded = kept
        training.to_update()
        drawn = trainer.take_step(training.index)
        with Operations() as counted[name]:
            trainer.method.after_step(trainer.clock, drawn)
    return [
        *(Figure(f"topology.operations.{name}", "", (seen.count,), where) for name, seen in counted.items()),
        *(Figure(f"topology.reads.{name}", "", (seen.reads,), where) for name, seen in counted.items()),
        Figure("topology.share", "", tuple(shares), where),
        Figure("topology.seconds.update", "s", tuple(t - median(routine) for t in plain), where),
        Figure("topology.seconds.recorded", "s", tuple(t - median(routine) for t in recorded), where),
    ]


def scaling(repeats: int, say: Say) -> list[Figure]:
    """Seconds and bytes of a step against width, depth and batch, and of a prediction against weight samples."""
    axes: dict[str, tuple[float, ...]] = {
        "width": (0.25, 0.5, 1.0, 1.5),
        "depth": (1, 2, 3),
        "batch": (16, 32, 64, 128),
        "samples": (1, 2, 5, 10),
    }
    found = []
    for axis, points in axes.items():
        for method in ("dense", "ssvi") if axis != "samples" else ("ssvi",):
            for x in points:
                spec = {"method": method, "batch_size": int(x) if axis == "batch" else 32}
                more = {axis: int(x)} if axis in ("depth", "samples") else {}
                worker = Worker({**spec, "width": x if axis == "width" else 1.0}, **more)
                taken = in_turn({"it": worker}, repeats, warm_up=1 if axis == "samples" else 3)["it"]
                for what, unit in (("seconds", "s"), ("bytes", "B")):
                    figure = Figure(f"scaling.{axis}.{method}.{what}", unit, tuple(t[what] for t in taken), f"{x:g}")
                    say(f"{figure.name} {axis}={x:g}: {figure.value:.3g} {unit}")
                    found.append(figure)
    return found


def checkpoints(repeats: int, say: Say) -> list[Figure]:
    """What a checkpoint of the ResNet-18 costs, and its share of a training's time at the spacing of `ssvi train`."""
    say("checkpoints")
    process.hold_memory()
    training = Training(images(20 * BATCH, torch.device("cpu")), choose_machine(torch.device("cpu")), SSVI)
    training.step()
    trainer = training.trainer
    cost = contestants.in_turn({"save": trainer._save}, repeats, warm_up=1)["save"]
    settings = Settings(trainer.settings.machine)
    share = tuple(t / (t + settings.wait(t)) for t in cost)
    return [Figure("checkpoint.share", "", share, NOTE), Figure("checkpoint.seconds", "s", tuple(cost), NOTE)]


FIRST_STEP = """
import os, sys, time
from ssvi import cli
from ssvi.machine import process
process.calm_threads()
from ssvi.training.step import Stepper
take = Stepper.__call__
def first(self, index):
    take(self, index)
    print(time.time(), flush=True)
    os._exit(0)
Stepper.__call__ = first
cli.main(sys.argv[1:])
"""


def startup(repeats: int, say: Say) -> list[Figure]:
    """From the start of the process `ssvi train` to the end of its first step, on the CPU, data prepared before."""
    say(f"{repeats} starts of ssvi train")
    with tempfile.TemporaryDirectory(prefix="ssvi-bench-") as name:
        common = ["--data-root", f"{name}/data"]
        subprocess.run([sys.executable, "-m", "ssvi", "data", "digits", *common], check=True, capture_output=True)
        command = [sys.executable, "-c", FIRST_STEP, "train", "--model=resnet8", "--device=cpu", *common]
        seconds = []
        for i in range(repeats):
            start = time.time()
            out = subprocess.run([*command, "--out", f"{name}/{i}"], check=True, capture_output=True, text=True).stdout
            seconds.append(float(out.splitlines()[-1]) - start)
    return [Figure("startup.seconds", "s", tuple(seconds), "digits, resnet8, cpu")]


def gpu(repeats: int, say: Say) -> Iterable[Figure]:
    """Epochs, ratios, synchronisations and packing on the GPU; nothing without one."""
    from ssvi.bench import cuda

    if torch.cuda.is_available():
        yield from cuda.figures(repeats, say)
    else:
        say("no GPU: its figures are left out")


# Without names, `ssvi bench` runs all but the last two, which take long.
SUITES: dict[str, Suite] = {
    "steps": steps,
    "topology": topology,
    "checkpoints": checkpoints,
    "startup": startup,
    "gpu": gpu,
    "scaling": scaling,
    "accuracy": accuracy,
}
LONG = ("scaling", "accuracy")


def run(names: Iterable[str], repeats: int, say: Say, write: Callable[[list[Figure]], None]) -> list[Figure]:
    """Run suites one after the other; what is known so far goes to `write` after each figure."""
    found: list[Figure] = []
    torch.set_num_threads(THREADS)  # what runs in this process is measured as the contestants are
    for name in names:
        for figure in SUITES[name](repeats, say):
            found.append(figure)
            write(found)
    return found
