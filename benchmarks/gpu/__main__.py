"""Check, measure and train on a GPU within a time limit.

    python -m benchmarks.gpu [--seconds 570] [--images FOLDER] [--json benchmarks/records/gpu.json]
    python -m benchmarks.gpu --device cpu --tiny          tries the trial itself, without a GPU

Every job is a process of its own with a limit, and what is known is saved after each. The exit code is 0 if all jobs
passed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu import plan, trainings
from benchmarks.gpu.record import figures, found, record
from benchmarks.gpu.running import Outcome, Runner
from ssvi.bench.cuda import CONTESTANTS
from ssvi.errors import UserError, unknown
from ssvi.machine.disk import write_json
from ssvi.runs.records import check_record

ROOT = Path(__file__).resolve().parents[2]
# Shares of the time, among the stages that were asked for; with tiny sizes all but the checks take next to none.
SHARES = {"checks": 0.28, "figures": 0.47, "trainings": 0.25}
TINY_SHARES = {"checks": 0.8, "figures": 0.1, "trainings": 0.1}
# Seconds at the end for what is to be written.
CLOSING = 5.0
MOST_AT_ONCE = 6


class Trial:
    """One trial, from its first job to its record."""

    def __init__(self, given: argparse.Namespace, room: Path) -> None:
        self.given, self.room = given, room
        self.start = time.monotonic()
        self.until = self.start + given.seconds - CLOSING
        self.outcomes: list[Outcome] = []
        self.more: dict[str, dict[str, Any]] = {"images": {"source": str(given.images)}}
        self.at_once = given.at_once or max(1, min(MOST_AT_ONCE, (os.cpu_count() or 1) // 2))
        for folder in (given.out, room / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        for name in plan.JOBS:  # of the trial before; what else is there is not ours
            for suffix in ("log", "jsonl"):
                (given.out / f"{name}.{suffix}").unlink(missing_ok=True)
        self.runner = Runner(self._command, given.out, self._ended, self._environment(), ROOT)

    def _environment(self) -> dict[str, str]:
        """Of every job: this copy of the package, and nothing left behind elsewhere, however a job ends."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        caches = {"TMPDIR": "tmp", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
        return {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            **{name: str(self.room / folder) for name, folder in caches.items()},
            **({"OMP_NUM_THREADS": "1"} if self.given.device == "cpu" else {}),
        }

    def _command(self, name: str, limit: float, found: Path) -> list[str]:
        given = self.given
        options = ["--device", given.device, "--room", self.room, "--limit", limit, "--found", found]
        options += ["--backend", given.backend, "--more", json.dumps(self.more.get(name, {}))]
        options += ["--tiny"] if given.tiny else []
        return [sys.executable, "-m", "benchmarks.gpu.job", name, *map(str, options)]

    def _ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        now = time.monotonic() - self.start
        line = f"{now:6.1f} s  {outcome.name:22} {outcome.outcome:11} {outcome.seconds:6.1f} s  {outcome.reason}"
        print(line.rstrip(), flush=True)
        self.save()

    def save(self) -> dict[str, Any]:
        """Write what is known so far; returns it."""
        seconds, whole = time.monotonic() - self.start, self.given.only == ["*"]
        what = record(self.outcomes, self.given.device, self.given.tiny, whole, seconds)
        write_json(self.given.out / "record.json", what)
        return what

    def publish(self) -> bool:
        """Write what a GPU has found to --json: of a trial that was played to its end, with everything in it."""
        what = self.save()
        begun = all(outcome.good for outcome in self.outcomes if outcome.name in plan.stage("first"))
        counts = what["device"] == "cuda" and what["whole"] and not what["tiny"] and begun
        if self.given.json and counts:
            write_json(self.given.json, what)
        return counts

    def limits(self, stage: str) -> dict[str, float]:
        """The jobs of a stage that were asked for, with their limits."""
        names = [n for n in plan.stage(stage) if any(fnmatch.fnmatchcase(n, pattern) for pattern in self.given.only)]
        if not self.given.images:
            names = [name for name in names if name != "images"]
        return {name: plan.JOBS[name].limit for name in names}

    def play(self) -> bool:
        """All stages; whether everything passed."""
        checked, measured = self._ends()
        self.runner.play({name: plan.JOBS[name].limit for name in plan.stage("first")}, self.until)
        if all(outcome.good for outcome in self.outcomes):
            self._check(checked)
            self.runner.play(self.limits("figures"), measured)
            self._train()
        return all(outcome.good for outcome in self.outcomes)

    def _ends(self) -> tuple[float, float]:
        """When the checks and the figures end: a stage of which no job was asked for takes nobody's time."""
        shares = TINY_SHARES if self.given.tiny else SHARES
        asked = {stage: share for stage, share in shares.items() if self.limits(stage)}
        total = sum(asked.values()) or 1.0
        whole, checks, figures = self.until - self.start, asked.get("checks", 0.0), asked.get("figures", 0.0)
        return self.start + whole * checks / total, self.start + whole * (checks + figures) / total

    def _check(self, until: float) -> None:
        """The checks, several at once, and beside them what later stages need."""
        cores = str(max(1, (os.cpu_count() or 1) // self.at_once))
        shared = {"OMP_NUM_THREADS": cores, "TORCHINDUCTOR_COMPILE_THREADS": cores}
        shared = shared if self.given.device == "cuda" else {}
        beside = self.limits("beside")
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(self.runner.play, beside, until, max(1, len(beside)))
            try:
                self.runner.play(self.limits("checks"), until, self.at_once, **shared)
                ahead.result()
            except BaseException:
                self.runner.close()
                raise

    def _train(self) -> None:
        """The trainings, side by side, in the time that is left."""
        jobs = self.limits("trainings")
        source = "images" if self.given.images else "digits"
        data = found(self.outcomes, "data", source)
        if not data:
            reason = "the images are not there" if self.given.images else "digits are not there"
            for name in jobs:
                self._ended(Outcome(name, "not started", reason=reason))
            return
        dataset = next(iter(found(self.outcomes, "dataset", source)), "digits")
        epochs = 2
        if not self.given.tiny:
            rows = {row["name"]: row["value"] for row in figures(self.outcomes)}
            steps = {name: rows[full] for name in CONTESTANTS if (full := f"gpu.ms.{name}.both") in rows}
            epochs = trainings.epochs_that_fit(steps, data[0]["train_images"], self.until - time.monotonic())
        self.more |= {name: {"dataset": dataset, "epochs": epochs} for name in jobs}
        self.runner.play(jobs, self.until, max(1, len(jobs)))

    def summary(self, published: bool) -> str:
        """What people want to know at the end."""
        bad = [outcome for outcome in self.outcomes if not outcome.good]
        lines = [f"{row['name']:28} {row['value']:.4g} {row['unit']}" for row in figures(self.outcomes)]
        for outcome in bad:
            lines += ["", f"{outcome.name}: {outcome.outcome}: {outcome.reason}", *(f"    {x}" for x in outcome.log)]
        counted = {kind: sum(o.outcome == kind for o in self.outcomes) for kind in ("passed", "skipped")}
        names = ", ".join(outcome.name for outcome in bad) or "none"
        lines += ["", f"{counted['passed']} passed, {counted['skipped']} skipped, not passed: {names}"]
        lines.append(f"record: {self.given.out / 'record.json'}; logs beside it")
        if self.given.json:
            kept = "written" if published else "not written: only a whole trial on a GPU, not --tiny, is a record"
            lines.append(f"{self.given.json}: {kept}")
        return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: for what cannot be played.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=570.0, help="time limit of all of it (default: 570)")
    parser.add_argument("--images", type=Path, help="train on a folder, or tar archive, of images in train/ and test/")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="record and logs (default: results/gpu)")
    parser.add_argument("--json", type=Path, help="where a whole trial on a GPU also writes its record")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="next to nothing of everything, to try the trial itself")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="JOB", help="names or patterns, as in 'smoke.*'")
    parser.add_argument("--at-once", type=int, default=0, help="checks at a time (default: by the number of cores)")
    parser.add_argument("--backend", help="of torch.compile in checks (default: inductor; on a CPU aot_eager)")
    given = parser.parse_args(arguments)
    given.backend = given.backend or ("inductor" if given.device == "cuda" else "aot_eager")
    if given.device == "cpu" and not given.tiny:
        raise UserError("--device cpu: full sizes take hours there; give --tiny, which tries the trial itself.")
    if not 0 < given.seconds < float("inf"):
        raise UserError(f"--seconds is {given.seconds:g}, but must be > 0 and finite.")
    if given.at_once < 0:
        raise UserError(f"--at-once is {given.at_once}, but must be >= 0.")
    if given.images and not given.images.exists():
        raise UserError(f"--images {given.images}: no such file or folder.")
    for pattern in given.only:
        if not fnmatch.filter(plan.JOBS, pattern):
            raise unknown("job", pattern, plan.JOBS, "--only")
    check_record(given.out / "record.json", "jobs", "figures")
    given.images, given.out = given.images and given.images.resolve(), given.out.resolve()
    return given


def main(arguments: list[str] | None = None) -> int:
    """Play a trial; the exit code."""
    try:
        given = parse(arguments)
    except UserError as error:
        sys.exit(f"benchmarks.gpu: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ssvi-gpu-", ignore_cleanup_errors=True) as room:
        trial = Trial(given, Path(room))
        try:
            passed = trial.play()
        except KeyboardInterrupt:
            trial.runner.close()
            trial.save()
            print("stopped", file=sys.stderr)
            return 130
        print(trial.summary(trial.publish()))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
