"""The command: what is asked, from the command line and a config, and what it ends with."""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import sys
from pathlib import Path

from ssvi.doctor.base import DEVICES, Asked, chosen
from ssvi.doctor.registry import CHECKS
from ssvi.doctor.running import play
from ssvi.doctor.shown import summary, teller, to_json
from ssvi.doctor.study import settings
from ssvi.errors import UserError
from ssvi.runs.home import at_home

CONFIG = Path("config.yaml")
# For all checks together, without and with thorough ones.
SECONDS, THOROUGH_SECONDS = 110.0, 3600.0


def asked_of(given: argparse.Namespace) -> Asked:
    """What is to be looked at.

    Raises:
        UserError: if there is no such device.
    """
    if not DEVICES.fullmatch(given.device):
        raise UserError(f"--device {given.device!r} is not supported; choose auto, cpu, cuda or cuda:N.")
    path = given.config or (CONFIG if CONFIG.exists() else None)
    config = settings(path)
    root = path.parent if path else Path()
    return Asked(
        given.device,
        given.results or root / at_home(config.get("results", "results")),
        given.data_root or at_home(os.environ.get("SSVI_DATA") or str(root / at_home(config.get("data_root", "data")))),
        given.threads if given.threads is not None else config.get("threads"),
        path,
        secrets.token_hex(4),
    )


def examine(given: argparse.Namespace) -> int:
    """Make the checks and say what they find; the exit code is 1 if one has failed.

    Raises:
        UserError: if what is asked is wrong.
    """
    asked, checks = asked_of(given), chosen(CHECKS, given.only, given.thorough)
    if given.seconds is not None and not 0 < given.seconds < math.inf:
        raise UserError(f"--seconds is {given.seconds:g}, but must be > 0 and finite.")
    usual = THOROUGH_SECONDS if any(check.thorough for check in checks.values()) else SECONDS
    # standard output is for the JSON; whoever waits for it sees the lines
    tell = teller(checks, sys.stderr if given.json else sys.stdout)
    lines = play(checks, asked, given.seconds or usual, tell)
    print(json.dumps(to_json(lines, asked, given.thorough), indent=2) if given.json else summary(lines))
    return int(any(line.result.verdict == "failed" for line in lines))
