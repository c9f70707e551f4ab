"""Checks are made in processes that are killed when they hang and replaced when they crash: each costs its line."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssvi.doctor.base import Asked, Check, Result

# What a killed process may take to be gone: one that waits for a file server takes for ever.
GOODBYE_SECONDS = 2.0
CLEANING = Check("probing:cleaned", 5.0)
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Line:
    """A check that was made, or left out."""

    name: str
    result: Result
    seconds: float = 0.0


class _Worker:
    """A process that makes one check after the other."""

    def __init__(self, asked: Asked) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._answers, answers = os.pipe()
        # this copy of the package, installed or not
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ssvi.doctor.worker", str(answers)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[answers],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        os.close(answers)
        self._said = b""
        self._tell(asked.to_json())

    def _tell(self, what: Mapping[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):  # one that has ended is noticed where it is read
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def make(self, check: Check, seconds: float) -> Result:
        """What a check finds.

        Raises:
            TimeoutError: if it finds nothing in so many seconds.
            ChildProcessError: if the process ended in it; the text says how.
        """
        self._tell({"code": check.code, "of": check.of})
        until = time.monotonic() + seconds
        while b"\n" not in self._said:
            if not select.select([self._answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            if not (part := os.read(self._answers, 1 << 16)):
                raise ChildProcessError(self._end())
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return Result(**json.loads(line))

    def _end(self) -> str:
        """How the process ended."""
        code = self._process.wait()
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"it ended with exit code {code}{f': {lines[-1]}' if lines else ''}"

    def close(self) -> None:
        """End the process, and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE_SECONDS)
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        os.close(self._answers)
        self._log.close()


def play(checks: Mapping[str, Check], asked: Asked, seconds: float, tell: Callable[[Line], None]) -> list[Line]:
    """Make checks in order, in so many seconds in all; each is told when it is done."""
    until, lines, left = time.monotonic() + seconds, list[Line](), False
    failed: set[str] = set()
    worker: _Worker | None = None
    try:
        for name, check in checks.items():
            begun = time.monotonic()
            if because := [need for need in check.needs if need in failed]:
                result = Result("skipped", f"{because[0]} failed", advice=f"mend {because[0]} first")
            elif (limit := min(check.limit, until - begun)) <= 0:
                result = _out_of_time(name, "not begun")
            else:
                worker, left_before, left = worker or _Worker(asked), left, True
                result, ended = _made(worker, name, check, limit)
                left = left_before or ended
                if ended or (check.alone and result.verdict != "skipped"):
                    worker.close()
                    worker = None
            if result.verdict == "failed":
                failed.add(name)
            lines.append(Line(name, result, time.monotonic() - begun))
            tell(lines[-1])
    finally:
        if worker is not None:
            worker.close()
        if left:  # by a check that was killed, or by one in which somebody stopped all
            _clean(asked)
    return lines


def _made(worker: _Worker, name: str, check: Check, limit: float) -> tuple[Result, bool]:
    """What a check finds, and whether its process has to go for it."""
    try:
        return worker.make(check, limit), False
    except TimeoutError:
        if limit < check.limit:
            return _out_of_time(name, f"ended after {limit:.0f} s"), True
        result = Result(
            "failed",
            f"it hangs: no answer in {limit:.0f} s, and it was killed",
            "what it asks for may keep a training waiting just so",
            "look at what it asks for; on a machine that is busy, try again",
        )
        return result, True
    except ChildProcessError as error:
        return Result("failed", f"it crashed: {error}", "a training may crash just so", "mend what it loads"), True


def _out_of_time(name: str, what: str) -> Result:
    return Result("skipped", f"{what}: the time for all checks was over", advice=f"ssvi doctor --only {name}")


def _clean(asked: Asked) -> None:
    """Remove what checks that were killed have left; where that hangs too, it stays."""
    worker = _Worker(asked)
    try:
        worker.make(CLEANING, CLEANING.limit)
    except (TimeoutError, ChildProcessError):
        return
    finally:
        worker.close()
