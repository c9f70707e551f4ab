"""SSVI, RigL and the dense network side by side on real images, for as many epochs as fit."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.commands import run, ssvi
from benchmarks.gpu.given import Fault, Given
from ssvi.runs import files
from ssvi.runs.options import FOLDER_PREFIX, options_of
from ssvi.runs.paths import to_flags
from ssvi.runs.records import read_json
from ssvi.runs.spec import RunSpec, make_spec

# What is trained, with the options in which they differ.
RUNS: dict[str, dict[str, Any]] = {
    "ssvi": {"method": "ssvi", "density": 0.1},
    "rigl": {"method": "rigl", "density": 0.1, "lr": 0.1},
    "dense": {"method": "dense", "lr": 0.1},
}
# Which contestant's step is as long, and milliseconds where none was measured.
AS_LONG_AS = {"ssvi": ("ssvi", 5.0), "rigl": ("dense", 2.5), "dense": ("dense", 2.5)}
TOLD = ("epoch", "loss", "train_accuracy", "validation_accuracy", "active_weights", "seconds")
MOST_EPOCHS = 200
# Seconds: to start and compile, to evaluate, and of an epoch beyond its steps.
START, EVALUATION, BESIDE_STEPS = 60.0, 30.0, 0.3


def images(given: Given, source: str) -> None:
    """A folder or archive of images, unpacked and decoded once.

    Raises:
        Fault: if it has no folders train/ and test/, at most two folders deep.
    """
    path, begun = Path(source), time.monotonic()
    if not path.is_dir():
        folder = given.room / "images"
        folder.mkdir()
        run(["tar", "-xf", str(path), "-C", str(folder)])
        path = folder
    places = [path, *path.glob("*"), *path.glob("*/*")]
    found = next((p for p in places if (p / "train").is_dir() and (p / "test").is_dir()), None)
    if found is None:
        raise Fault(f"{source}: has no folders train/ and test/ with a folder of images for each class")
    dataset = f"{FOLDER_PREFIX}{found.resolve()}"
    data = json.loads(run(ssvi(given, "data", dataset)))
    del data["dataset"]
    given.say(dataset=dataset, data=data, seconds=round(time.monotonic() - begun, 1))


def spec_of(name: str, dataset: str, epochs: int, tiny: bool) -> RunSpec:
    """One of the runs."""
    size = {"model": "resnet8", "batch_size": 64, "delta_t": 5} if tiny else {"model": "resnet18"}
    options = {**size, "dataset": dataset, "epochs": epochs, **RUNS[name]}
    return make_spec({key: value for key, value in options.items() if key in options_of(options["method"])})


def epochs_that_fit(milliseconds: Mapping[str, float], train_images: int, seconds: float) -> int:
    """How many epochs all runs together can have in so many seconds, as long as steps are as long as measured.

    `milliseconds` has what was measured, by contestant.
    """
    steps = math.ceil(train_images * (1 - RunSpec.validation) / RunSpec.batch_size)
    step = sum(milliseconds.get(contestant, default) for contestant, default in AS_LONG_AS.values()) / 1e3
    epoch = 1.1 * step * steps + BESIDE_STEPS * len(RUNS)
    return max(2, min(MOST_EPOCHS, int((seconds - START - EVALUATION) / epoch)))


def _new_rows(live: Path, known: int) -> list[dict[str, Any]]:
    """Epochs that a training has closed beyond those known; a line that is being written is left for later."""
    lines: Iterable[str] = live.read_text().splitlines(keepends=True) if live.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")][known:]


def training(name: str, given: Given, dataset: str, epochs: int) -> None:
    """One of the runs, told epoch by epoch, stopped in order if its time is over, else evaluated."""
    spec, folder = spec_of(name, dataset, epochs, given.tiny), given.room / "runs" / name
    given.say(spec=[flag for flag in to_flags(spec) if not flag.startswith("--dataset=")])
    job = subprocess.Popen(ssvi(given, "train", *to_flags(spec), "--out", folder, "--device", given.device))
    known, stopped = 0, False
    while True:
        ended = job.poll() is not None
        for row in _new_rows(folder / files.LIVE_HISTORY, known):
            known += 1
            given.say(history={column: row[column] for column in TOLD})
        if ended:
            break
        if given.left < EVALUATION and not stopped:
            stopped = True
            job.terminate()
        time.sleep(0.2)
    if stopped and not files.is_trained(folder):
        given.say(stopped_after=known, epochs=epochs, exit_code=job.returncode)
        return
    if job.returncode:
        raise Fault(f"ssvi train: exit code {job.returncode}; its error stands in the log")
    run(ssvi(given, "evaluate", folder, "--device", given.device))
    metrics, written = read_json(folder / files.METRICS), read_json(folder / files.TRAINING)
    kept = ("status", "accuracy", "nll", "ece", "sparsity", "training_seconds", "peak_memory_bytes")
    given.say(metrics={key: metrics.get(key) for key in kept}, self_check=written.get("self_check"))
    if metrics["status"] != "complete":
        raise Fault(f"{name}: {metrics['status']} in epoch {metrics['diverged_epoch']}: {metrics['cause']}")
