"""What the uncertainty suite of a run costs: seconds of `ssvi evaluate RUN --suite uncertainty`, memory, bytes kept.

Trains SSVI on digits and on Fashion-MNIST as the studies do (14 x 14 pixels, all 10,000 test images), since what is
predicted with confidence compresses otherwise. Every time is that of the command in a process of its own on one core,
from its start; processor time beside it does not depend on what else the machine does. Memory is the most that the
command holds, of made-up images of 14 x 14 pixels, 1,000 and 10,000 of them to test, after an epoch of training.

    python -m benchmarks.uncertainty [--data FOLDER] [--json benchmarks/records/uncertainty.json]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving import command, made, say_limits, timed
from ssvi.machine.disk import write_json
from ssvi.runs import files
from ssvi.runs.places import at_hand
from ssvi.runs.records import check_record

SAMPLES, DENSITY, SIDE, CLASSES = 5, 0.1, 14, 10
# Made-up images: to train on, and to test.
TO_TRAIN, TESTED = 640, (1_000, 10_000)
# Seconds that the suite of a run may take, and on how many cores.
LIMITS = {"uncertainty.digits": (10.0, 1), "uncertainty.fashion": (40.0, 1)}
TRAINING = ("--model=resnet8", f"--density={DENSITY}", "--lr=0.1", "--prior-sigma=0.05", "--device=cpu", "--threads=1")
DATA = {
    "digits": ("--dataset=digits", "--epochs=12", "--batch-size=64", "--delta-t=10"),
    "fashion": (
        *("--dataset=fashion", "--shrink=2", "--training-images=10000", "--augment=false"),
        *("--epochs=10", "--delta-t=35"),
    ),
}
MADE_UP = (f"--image-size={SIDE}", "--epochs=1", "--batch-size=64", "--delta-t=5")


def trained(folder: Path, name: str, data: Sequence[str], root: Path) -> Path:
    """The folder `name` of a run on such data, trained and evaluated."""
    words = ("train", *data, *TRAINING, f"--data-root={root}", f"--out={name}")
    subprocess.run(command(*words), cwd=folder, check=True, capture_output=True)
    evaluate = ("evaluate", name, f"--samples={SAMPLES}", f"--data-root={root}", "--device=cpu", "--threads=1")
    subprocess.run(command(*evaluate), cwd=folder, check=True, capture_output=True)
    return folder / name


def suite(name: str, root: Path) -> list[str]:
    """The command that is measured."""
    words = ("evaluate", name, "--suite=uncertainty", f"--data-root={root}", "--device=cpu", "--threads=1")
    return command(*words)


def write_images(folder: Path, tested: int) -> None:
    """A data set of noise: class folders to train on and to test."""
    rng = np.random.default_rng(0)
    for part, number in (("train", TO_TRAIN), ("test", tested)):
        for label in range(CLASSES):
            (place := folder / part / f"class{label}").mkdir(parents=True)
            for i in range(number // CLASSES):
                Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(place / f"{i:04}.png")


def peak(words: list[str], folder: Path) -> int:
    """The most bytes that a command held in memory at once."""
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024


def sets_of(run: Path) -> list[str]:
    """The sets from outside that a suite was of."""
    with (run / files.UNCERTAINTY).open(newline="") as file:
        return [row["name"] for row in csv.DictReader(file) if (row["part"], row["metric"]) == ("ood", "images")]


def main() -> None:
    """Measure, print, and write a record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="where Fashion-MNIST is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    root = given.data.absolute()
    if given.json:
        check_record(given.json, "when", "hardware", "figures")
    if not at_hand("fashion", root):
        sys.exit(f"Fashion-MNIST is not in {root}; fetch it: ssvi data fashion --download --root {root}")
    load = os.getloadavg()[0]  # what others do here
    times: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    setting = {"samples": SAMPLES, "density": DENSITY, "model": "resnet8", "outside": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for data, words in DATA.items():
            run = trained(folder, data, words, root)
            for _ in range(given.repeats):
                for suffix, seconds in timed(suite(data, root), folder, 1, lambda process: process.wait()).items():
                    times.setdefault(f"uncertainty.{data}{suffix}", []).append(seconds)
            kept = (run / files.UNCERTAINTY, run / files.UNCERTAINTY_PREDICTIONS)
            sizes[f"uncertainty.kept.{data}"] = sum(path.stat().st_size for path in kept)
            setting["outside"][data] = sets_of(run)
        for tested in TESTED:
            write_images(folder / f"set{tested}", tested)
            trained(folder, f"run{tested}", (f"--dataset=folder:set{tested}", *MADE_UP), folder)
            sizes[f"uncertainty.memory.{tested}"] = peak(suite(f"run{tested}", folder), folder)
    say_limits(LIMITS, times, load)
    print("  ".join(f"{name} {size:,} bytes" for name, size in sizes.items()))
    if given.json:
        write_json(given.json, made(load, given.repeats, setting, times, sizes))


if __name__ == "__main__":
    main()
