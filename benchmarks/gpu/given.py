"""What every job of a trial is told, and how it says what it found."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssvi.doctor import passes
from ssvi.doctor.agreement import DIGITS
from ssvi.runs.options import options_of
from ssvi.runs.spec import RunSpec, make_spec

# A job ends with it where it has nothing to do on this device; "skipped", as for automake.
SKIPPED = 77


class Fault(Exception):
    """What was checked is not so; the text says what is."""


class Skipped(Exception):
    """This device cannot do it; the text says why."""


@dataclass(frozen=True)
class Given:
    """What a job is told.

    Attributes:
        device: cpu or cuda.
        tiny: next to nothing, to try the trial itself.
        room: a folder for data, runs and caches, which goes with the trial.
        limit: seconds after which the job is killed.
        found: the file of JSON lines that it writes.
        backend: the compiler's.
    """

    device: str
    tiny: bool
    room: Path
    limit: float
    found: Path
    backend: str
    start: float = field(default_factory=time.monotonic)

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def data(self) -> Path:
        """Root of the data sets."""
        return self.room / "data"

    @property
    def left(self) -> float:
        """Seconds until the job is killed."""
        return self.limit - (time.monotonic() - self.start)

    def cannot_compile(self) -> str:
        """Why nothing is compiled for this device, in a line; empty where it is."""
        return passes.cannot_compile(self.device, self.backend)

    def ways(self) -> list[str]:
        """The ways to take a step that can be compared here, eager first; what is left out is said."""
        ways, left_out = passes.ways(self.device, self.backend)
        if left_out:
            self.say(left_out="; ".join(f"{switch}: {reason}" for switch, reason in left_out.items()))
        return ways

    def say(self, **facts: Any) -> None:
        """Write down something that was found, so that it is kept however the job ends."""
        line = json.dumps(_readable(facts), allow_nan=False)
        with self.found.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def _readable(value: Any) -> Any:
    """The same with a word for each number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def spec_of(method: str, **more: Any) -> RunSpec:
    """A short training on digits; options that the method does not use are left out."""
    options = {**DIGITS, **more, "method": method}
    return make_spec({name: value for name, value in options.items() if name in options_of(method)})
