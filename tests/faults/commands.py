"""`ssvi` in a process of its own that is forked from the tests', so that it starts at once and can be killed."""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ssvi.cli import main
from ssvi.runs.paths import to_flags
from ssvi.runs.records import to_jsonl
from ssvi.runs.spec import RunSpec, make_spec

# What every command loads: a fork has it already. (The first optimiser of a process loads the first.)
for module in ("torch._dynamo", "ssvi.data", "ssvi.training.evaluate", "ssvi.training.lock", "ssvi.training.trainer"):
    importlib.import_module(module)

# Twelve steps, four of them with a subspace update.
SHORT = {"dataset": "digits", "model": "resnet8", "width": 0.25, "epochs": 2, "batch_size": 256}
SPECS: dict[str, RunSpec] = {
    "ssvi": make_spec({**SHORT, "density": 0.2, "delta_t": 2, "sigma_optimizer": "adam"}),
    "mcK": make_spec({**SHORT, "density": 0.2, "delta_t": 3, "addition": "mcK", "addition_samples": 2}),
    "rigl": make_spec({**SHORT, "method": "rigl", "density": 0.2, "delta_t": 2}),
    "mlp": make_spec({**SHORT, "model": "mlp", "width": 1.0, "density": 0.1, "delta_t": 2, "addition": "mean"}),
}


def training(spec: RunSpec, out: Path, data: Path, seconds_between: float = 0, threads: int = 1) -> list[str]:
    """The command line of a training with a checkpoint after every step, unless told otherwise."""
    where = ["--out", str(out), "--data-root", str(data), "--device=cpu", f"--threads={threads}"]
    return ["train", *to_flags(spec), *where, f"--checkpoint-seconds={seconds_between}"]


def fork(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start `ssvi` with these arguments and its output in `log`; `prepare` runs in it before. Returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        # what an ordinary process starts with, whatever runs the tests
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        prepare()
        main(arguments)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            os.write(2, f"{end.code}\n".encode())
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        code = 99
    finally:
        os._exit(code)


def ended(number: int) -> int:
    """Wait for a forked command: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def run(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """`fork` and `ended`."""
    return ended(fork(arguments, log, prepare))


def steps_begun_at(folder: Path) -> list[int]:
    """From which step on each process worked whose work is in a finished training."""
    return [one["from_step"] for one in json.loads((folder / "training.json").read_text())["sessions"]]


def torn(path: Path, record: dict) -> None:
    """In place of `runs.append_jsonl`: half a line, and the end."""
    if record["step"] >= 8:
        line = to_jsonl([record])
        with path.open("a") as file:
            file.write(line[: len(line) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    with path.open("a") as file:
        file.write(to_jsonl([record]))
