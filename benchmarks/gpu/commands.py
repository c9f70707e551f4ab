"""The commands as a user has them: every method trained and evaluated, a training stopped and gone on, the tests."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.given import Fault, Given, Skipped, spec_of
from ssvi.doctor.outcome import results
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.parents import with_parents
from ssvi.runs.paths import run_path, to_flags
from ssvi.runs.records import read_json

KEPT = ("accuracy", "nll", "ece", "sparsity", "training_seconds", "evaluation_seconds", "peak_memory_bytes")
EPOCHS, TINY_EPOCHS = 8, 2


def ssvi(given: Given, *arguments: object) -> list[str]:
    """The command line of a command on this trial's data."""
    return [sys.executable, "-m", "ssvi", *map(str, arguments), "--data-root", str(given.data)]


def run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        Fault: if it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Fault(f"{' '.join(command[2:5])}: exit code {done.returncode}; its error stands in the log")
    return done.stdout


def digits(given: Given) -> None:
    """The data set that the checks need."""
    given.say(data=json.loads(run(ssvi(given, "data", "digits"))))


def tests(given: Given) -> None:
    """The tests of a step that need a GPU, or are about one."""
    few = ["-k", "captur or machine or switch"]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/training/test_step.py", *few]
    job, last = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), "no output"
    assert job.stdout is not None
    # as they come, for the case that time is over before they are
    for line in job.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    given.say(tests=last)
    if job.wait():
        raise Fault(f"tests/training/test_step.py: {last}")


def smoke(method: str, extra: tuple[str, ...], given: Given) -> None:
    """`ssvi train` and `ssvi evaluate` of a method on digits, its parents first."""
    if extra and given.tiny:
        raise Skipped("compiling takes too long for a tiny trial")
    if "--compile=on" in extra and (reason := given.cannot_compile()):
        raise Skipped(reason)
    kind, epochs = KINDS[method], TINY_EPOCHS if given.tiny else EPOCHS
    parent = {"parent": f"{kind.parents[0]},epochs={epochs}"} if kind.parents else {}
    spec = spec_of(method, epochs=0 if method == "pruned" else epochs, **parent)
    root = given.room / "smoke" / "-".join((method, *extra))
    for path, one in with_parents({run_path(spec): spec}).items():
        switches = extra if one == spec else ()
        run(
            ssvi(
                given,
                "train",
                *to_flags(one),
                "--runs",
                root,
                "--out",
                root / path,
                "--device",
                given.device,
                *switches,
            )
        )
    folder = root / run_path(spec)
    run(ssvi(given, "evaluate", folder, "--device", given.device))
    training, metrics = read_json(folder / files.TRAINING), read_json(folder / files.METRICS)
    given.say(
        method=method,
        switches=read_json(folder / files.SPEC)["provenance"]["switches"],
        self_check=training.get("self_check"),
        **{name: metrics.get(name) for name in ("status", *KEPT)},
    )
    if metrics["status"] != "complete":
        raise Fault(f"{method}: {metrics['status']} in epoch {metrics['diverged_epoch']}: {metrics['cause']}")
    if not math.isfinite(metrics["nll"]):
        raise Fault(f"{method}: the negative log-likelihood is {metrics['nll']}")


def _stop_in_the_middle(command: list[str], folder: Path, seconds: float) -> int:
    """Start a training and ask it to stop after its first epoch; its exit code.

    Raises:
        Fault: if there is no first epoch in time.
    """
    job = subprocess.Popen(command)
    until, live = time.monotonic() + seconds, folder / files.LIVE_HISTORY
    while job.poll() is None and not (live.exists() and live.stat().st_size):
        if time.monotonic() > until:
            job.kill()
            raise Fault("the training that was to be stopped had no first epoch in time")
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    return job.wait()


def resume(given: Given) -> None:
    """A training stopped and gone on ends byte by byte as an undisturbed one, where two undisturbed ones do."""
    spec = spec_of("ssvi", epochs=3 * TINY_EPOCHS if given.tiny else 4 * EPOCHS)

    def trained(kind: str) -> str:
        folder = given.room / "resume" / kind / run_path(spec)
        command = ssvi(given, "train", *to_flags(spec), "--out", folder, "--device", given.device)
        if kind == "stopped":
            code = _stop_in_the_middle(command, folder, given.left / 2)
            given.say(exit_code_of_the_stopped=code)
            if not (folder / files.CHECKPOINT).exists() or files.is_trained(folder):
                raise Fault(f"the training was not stopped in the middle (exit code {code})")
        run(command)
        sessions = len(read_json(folder / files.TRAINING)["sessions"])
        if sessions != (2 if kind == "stopped" else 1):
            raise Fault(f"the training {kind!r} was worked on by {sessions} processes")
        return results(folder)

    undisturbed, stopped = trained("undisturbed"), trained("stopped")
    given.say(same=undisturbed == stopped)
    if undisturbed == stopped:
        return
    # a device whose kernels give other bytes each time promises nothing
    repeatable = trained("again") == undisturbed
    given.say(repeatable=repeatable)
    if repeatable:
        raise Fault("a training that was stopped and gone on ended with other bytes than two undisturbed ones")
