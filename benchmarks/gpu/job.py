"""One job of a trial, in this process: `python -m benchmarks.gpu.job NAME ...`, as `running.py` starts it."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from ssvi.machine import process

process.calm_threads()

from benchmarks.gpu.given import SKIPPED, Fault, Given, Skipped  # noqa: E402
from benchmarks.gpu.plan import JOBS  # noqa: E402


def main(arguments: list[str]) -> int:
    """Do the job; the exit code says whether all is as it should be, or that there was nothing to do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=JOBS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--room", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--more", type=json.loads, default={})
    options = vars(parser.parse_args(arguments))
    job, more = JOBS[options.pop("name")], options.pop("more")
    given = Given(**options)
    try:
        job.work(given, **more)
    except Skipped as reason:
        given.say(skipped=str(reason))
        return SKIPPED
    except Fault as fault:
        given.say(fault=str(fault))
        return 1
    except SystemExit as end:  # a command of the package that was played in this process ended in its one line
        given.say(fault=str(end.code))
        return 1
    except Exception as error:
        traceback.print_exc()
        given.say(fault=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
