"""What the checks found, as lines for a person and as JSON for a program."""

from __future__ import annotations

import datetime
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

from ssvi import __version__
from ssvi.doctor.base import VERDICTS, Asked
from ssvi.doctor.running import Line

# Of the JSON; raised when something in it gets another name or meaning. What is new has a name of its own.
FORMAT = 1
COLOURS = {"ok": "green", "skipped": "dim", "note": "cyan", "warning": "yellow", "failed": "bold red"}


def text(line: Line, width: int) -> str:
    """A check in a line, without its verdict: what is so, what it means, what to do."""
    result = line.result
    told = ". ".join(part for part in (result.finding, result.meaning) if part)
    return f"{line.name:<{width}}  {told}" + (f" -> {result.advice}" if result.advice else "")


def teller(names: Mapping[str, Any], to: TextIO) -> Callable[[Line], None]:
    """Shows a line as it comes, with coloured verdicts where a person looks on."""
    width, wide = max(map(len, names)), max(map(len, VERDICTS))
    if not to.isatty():
        return lambda line: print(f"{line.result.verdict:<{wide}}  {text(line, width)}", file=to, flush=True)
    from rich.console import Console
    from rich.text import Text

    console = Console(file=to)
    return lambda line: console.print(
        Text.assemble((f"{line.result.verdict:<{wide}}", COLOURS[line.result.verdict]), "  ", text(line, width))
    )


def summary(lines: list[Line]) -> str:
    """How many checks ended how, and in what time."""
    counts = Counter(line.result.verdict for line in lines)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{len(lines)} checks in {sum(line.seconds for line in lines):.0f} s: {told}"


def to_json(lines: list[Line], asked: Asked, thorough: bool) -> dict[str, Any]:
    """The record: what was asked where and when, how many checks ended how, and each check."""
    counts = Counter(line.result.verdict for line in lines)
    return {
        "format": FORMAT,
        "ssvi": __version__,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "thorough": thorough,
        "asked": {name: value for name, value in asked.to_json().items() if name != "token"},
        "seconds": round(sum(line.seconds for line in lines), 2),
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "checks": [{"name": line.name, **asdict(line.result), "seconds": round(line.seconds, 2)} for line in lines],
    }
