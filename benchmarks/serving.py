"""What it costs to use a trained network: seconds of `ssvi predict`, bytes of an exported file.

Trains the CIFAR ResNet-18 by SSVI for an epoch on made-up images of 32 x 32 pixels, which is not enough to be right but
costs as much to use as any. Every time is that of a command in a process of its own, from its start: on two cores until
all images are predicted with five weight samples, and on one core until the first row is there. Processor time beside
it does not depend on what else the machine does.

    python benchmarks/serving.py [--json benchmarks/records/serving.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from ssvi.machine.devices import processor_name
from ssvi.machine.disk import write_json
from ssvi.runs.records import check_record

IMAGES, SIDE, SAMPLES, DENSITY = 1000, 32, 5, 0.05
CLASSES, PER_CLASS = 10, 64
# Seconds that the two commands may take, and on how many cores.
LIMITS = {"serving.predict": (60.0, 2), "serving.first_row": (4.0, 1)}
TRAINING = ("--model=resnet18", f"--image-size={SIDE}", f"--density={DENSITY}", "--epochs=1", "--delta-t=2")


def write_images(folder: Path, number: int, rng: np.random.Generator) -> None:
    """So many images of noise."""
    folder.mkdir(parents=True)
    for i in range(number):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")


def command(*words: object) -> list[str]:
    """`ssvi` as it is here."""
    return [sys.executable, "-m", "ssvi", *map(str, words)]


def prepared(folder: Path) -> Path:
    """The run folder of a network trained in `folder`, with images to predict beside it."""
    rng = np.random.default_rng(0)
    for part, number in (("train", PER_CLASS), ("test", 1)):
        for label in range(CLASSES):
            write_images(folder / "set" / part / f"class{label}", number, rng)
    write_images(folder / "images", IMAGES, rng)
    words = ("train", "--dataset=folder:set", *TRAINING, "--device=cpu", "--out=run")
    subprocess.run(command(*words), cwd=folder, check=True, capture_output=True)
    return folder / "run"


def timed(words: list[str], folder: Path, cores: int, until: Callable[[subprocess.Popen], object]) -> dict[str, float]:
    """Seconds from the start of a command until something, and of the processor until its end.

    Args:
        words: of the command.
        folder: where it runs.
        cores: on how many.
        until: waits for it.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        sys.exit(f"this measures on {cores} cores, but may use {len(allowed)} here")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.sched_setaffinity(0, allowed[:cores])  # which the command inherits
    try:
        began = time.perf_counter()
        with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            until(process)
            seconds = time.perf_counter() - began
            process.communicate()
    finally:
        os.sched_setaffinity(0, allowed)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"": seconds, ".processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def times(folder: Path, repeats: int) -> dict[str, list[float]]:
    """The seconds of each figure, one a repeat."""
    predict = ("predict", "run", f"--samples={SAMPLES}", "--device=cpu")
    found: dict[str, list[float]] = {}
    for i in range(repeats):
        whole = timed(command(*predict, "images", "--out=rows.csv"), folder, 2, lambda process: process.wait())
        # the heading, then the row
        first = timed(
            command(*predict, "images/0000.png"), folder, 1, lambda process: [process.stdout.readline() for _ in "12"]
        )
        for name, one in (("serving.predict", whole), ("serving.first_row", first)):
            for suffix, seconds in one.items():
                found.setdefault(name + suffix, []).append(seconds)
        print(f"repeat {i + 1}: {IMAGES} images {whole['']:.1f} s, the first row {first['']:.2f} s", flush=True)
    return found


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of an exported file by the type of its standard deviations, and of the plain network's weights."""
    from ssvi.training.stored import read_model

    found = {}
    for sigma in ("float32", "bfloat16"):
        words = ("export", "run", f"--to={sigma}.safetensors", f"--sigma={sigma}")
        subprocess.run(command(*words), cwd=folder, check=True, capture_output=True)
        found[f"serving.file.{sigma}"] = (folder / f"{sigma}.safetensors").stat().st_size
    weights = (tensor for name, tensor in read_model(folder / "run").items() if not name.endswith((".rho", ".mask")))
    return found | {"serving.file.plain": sum(4 * tensor.numel() for tensor in weights)}


def made(
    load: float,
    repeats: int,
    setting: dict[str, object],
    measured: Mapping[str, Sequence[float]],
    bytes_of: Mapping[str, int],
) -> dict[str, object]:
    """A record: where and of what, the seconds of each figure (a value a repeat), and numbers of bytes."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": processor_name(),
        "python": platform.python_version(),
        "load": load,
        "repeats": repeats,
        "setting": setting,
        "figures": [
            *(
                {"name": name, "value": median(v), "unit": "s", "minimum": min(v), "maximum": max(v)}
                for name, v in measured.items()
            ),
            *({"name": name, "value": size, "unit": "bytes"} for name, size in bytes_of.items()),
        ],
    }


def say_limits(limits: Mapping[str, tuple[float, int]], measured: Mapping[str, Sequence[float]], load: float) -> None:
    """Print figures beside the seconds that they may take, on how many cores."""
    for name, (limit, cores) in limits.items():
        seconds, processor = (median(measured[name + suffix]) for suffix in ("", ".processor"))
        words = f"{seconds:.2f} s, {processor:.2f} s of processor time"
        idle = f"{cores} idle core{'s' if cores > 1 else ''}"
        print(f"{name}: {words} (must be at most {limit:g} s on {idle}; load before {load:.1f})")


def main() -> None:
    """Measure, print, and write a record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.json:
        check_record(given.json, "when", "hardware", "figures")
    load = os.getloadavg()[0]  # what others do here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        measured, bytes_of = times(folder, given.repeats), sizes(folder)
    setting = {"images": IMAGES, "image_size": SIDE, "samples": SAMPLES, "density": DENSITY, "model": "resnet18"}
    record = made(load, given.repeats, setting, measured, bytes_of)
    say_limits(LIMITS, measured, load)
    print("  ".join(f"{name} {size:,} bytes" for name, size in bytes_of.items()))
    if given.json:
        write_json(given.json, record)


if __name__ == "__main__":
    main()
