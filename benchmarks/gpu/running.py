"""Jobs as processes of their own, each with a limit, several at once, ended together when the time is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.given import SKIPPED

# A job that would have less than these seconds is not started.
LEAST = 5.0
LOG_LINES = 12


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        outcome: passed, failed, timed out, skipped, not started, or stopped with the whole trial.
        reason: in a line, where it did not pass.
        found: what it said, a part of it also if it was killed.
        log: its last lines, where it failed.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    reason: str = ""
    found: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.outcome in ("passed", "skipped")


def read_found(path: Path) -> list[dict[str, Any]]:
    """What a job said; a line that it was killed in is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Runner:
    """Plays jobs.

    Args:
        command: the command line of a job by its name, its limit in seconds, and the file for what it finds.
        logs: folder of what jobs print and find.
        ended: is told each outcome, one at a time.
        environment: of the jobs.
        folder: in which they run.
    """

    def __init__(
        self,
        command: Callable[[str, float, Path], list[str]],
        logs: Path,
        ended: Callable[[Outcome], None],
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._command, self._logs, self._ended = command, logs, ended
        self._environment, self._folder = environment, folder
        self._lock, self._running = threading.Lock(), set[subprocess.Popen[bytes]]()
        self._closed = False

    def play(self, limits: Mapping[str, float], until: float, at_once: int = 1, **environment: str) -> None:
        """Jobs by name with their limits, in order, so many at once, none beyond `until` (of `time.monotonic`)."""
        with ThreadPoolExecutor(at_once) as pool:
            try:
                jobs = [pool.submit(self._one, name, limit, until, environment) for name, limit in limits.items()]
                for job in jobs:
                    job.result()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End what runs, and start nothing more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for job in running:
            self._kill(job)

    def _one(self, name: str, limit: float, until: float, environment: Mapping[str, str]) -> None:
        limit = min(limit, until - time.monotonic())
        if limit < LEAST or self._closed:
            reason = "the trial was stopped" if self._closed else "no time was left"
            outcome = Outcome(name, "not started", reason=reason)
        else:
            outcome = self._played(name, limit, environment)
        with self._lock:
            self._ended(outcome)

    def _played(self, name: str, limit: float, environment: Mapping[str, str]) -> Outcome:
        log, found = self._logs / f"{name}.log", self._logs / f"{name}.jsonl"
        begun = time.monotonic()
        with log.open("wb") as file:
            job = subprocess.Popen(
                self._command(name, limit, found),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**self._environment, **environment},
                cwd=self._folder,
            )
            with self._lock:
                self._running.add(job)
                if self._closed:
                    self._kill(job)
            try:
                code = job.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            self._kill(job)  # what it may have left running, too
            job.wait()
            with self._lock:
                self._running.discard(job)
        said, seconds = read_found(found), time.monotonic() - begun
        if code == 0:
            left_out = "; ".join(line["left_out"] for line in said if "left_out" in line)
            return Outcome(name, "passed", seconds, left_out and f"left out: {left_out}", said)
        if code == SKIPPED:
            return Outcome(name, "skipped", seconds, _last(said, "skipped"), said)
        if self._closed:
            return Outcome(name, "stopped", seconds, "the trial was stopped", said)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        if code is None:
            return Outcome(name, "timed out", seconds, f"it was ended after {limit:.0f} s", said, lines)
        reason = _last(said, "fault") or f"exit code {code}: {next((x for x in reversed(lines) if x.strip()), '')}"
        return Outcome(name, "failed", seconds, reason, said, lines)

    @staticmethod
    def _kill(job: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(job.pid, signal.SIGKILL)


def _last(said: Iterable[dict[str, Any]], key: str) -> str:
    return next((line[key] for line in reversed(list(said)) if key in line), "")
