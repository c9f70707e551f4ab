"""`ssvi bench` and `ssvi doctor`: how fast, and how well, this machine does what it is to do."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ssvi.cli.arguments import to_number, to_path, to_whole
from ssvi.cli.machine import check_number
from ssvi.errors import UserError, say, unknown
from ssvi.machine import process


def add_bench(commands: Any) -> None:
    """Measure what a training costs."""
    bench = commands.add_parser("bench", help="measure what a training costs on this machine, beside other packages")
    bench.add_argument("suites", nargs="*", help="which (default: all but the long ones, scaling and accuracy)")
    bench.add_argument("--repeats", type=to_whole, default=5, help="rounds (default: 5)")
    bench.add_argument("--json", type=to_path, help="write the record to this file, after each suite")
    bench.set_defaults(run=_bench)


def _bench(given: argparse.Namespace) -> None:
    from ssvi import bench
    from ssvi.machine.disk import write_json
    from ssvi.runs.records import check_record

    if given.repeats < 1:
        raise UserError(f"--repeats is {given.repeats}, but must be >= 1.")
    for name in given.suites:
        if name not in bench.SUITES:
            raise unknown("suite", name, bench.SUITES, "command line")

    if given.json:
        check_record(given.json, "when", "hardware", "figures")

    def write(figures: list[bench.Figure]) -> None:
        if given.json:
            write_json(given.json, bench.record(figures))

    names = given.suites or [name for name in bench.SUITES if name not in bench.LONG]
    print(bench.table(bench.run(names, given.repeats, say, write)))


def add_doctor(commands: Any) -> None:
    """What would make results wrong, lost or slow."""
    doctor = commands.add_parser("doctor", help="what here would make results wrong, lost or slow")
    doctor.add_argument("--config", type=to_path, help="default: config.yaml, if it is there")
    doctor.add_argument("--results", type=to_path, help="results folder (default: the config's, or results)")
    doctor.add_argument("--data-root", type=to_path, help="default: $SSVI_DATA, or the config's, or data")
    doctor.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    doctor.add_argument("--threads", type=to_whole, help="CPU threads of each training (default: the config's)")
    doctor.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="these checks, as in 'results.*'")
    doctor.add_argument("--thorough", action="store_true", help="every method in every way too, which takes long")
    doctor.add_argument("--seconds", type=to_number, help="for all checks (default: 110; 3600 with thorough ones)")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON; lines go to standard error")
    doctor.set_defaults(run=_doctor)


def _doctor(given: argparse.Namespace) -> None:
    from ssvi.doctor.command import examine

    if given.threads is not None:
        check_number("threads", given.threads)
    code = examine(given)
    process.check_output()
    sys.exit(code)
