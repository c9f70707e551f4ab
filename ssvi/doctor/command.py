"""The command: what is asked, from the command line and a config, and what it ends with."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

from ssvi.doctor.base import DEVICES, Asked, chosen
from ssvi.doctor.registry import CHECKS
from ssvi.doctor.running import play
from ssvi.doctor.shown import summary, teller, to_json
from ssvi.doctor.study import settings
from ssvi.errors import UserError

CONFIG = Path("config.yaml")
# For all checks together, without and with --thorough.
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
        given.results or root / config.get("results", "results"),
        given.data_root or Path(os.environ.get("SSVI_DATA") or root / config.get("data_root", "data")),
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
    tell = (lambda line: None) if given.json else teller(checks)
    lines = play(checks, asked, THOROUGH_SECONDS if given.thorough else SECONDS, tell)
    print(json.dumps(to_json(lines, asked, given.thorough), indent=2) if given.json else summary(lines))
    return int(any(line.result.verdict == "failed" for line in lines))
