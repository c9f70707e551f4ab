"""Checks one after the other in this process, which may hang or crash in any of them; `running.py` starts and reads it.

Standard input has a line of JSON for what is asked, then one for each check; what each finds is a line on the file that
the command line names by its number.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from ssvi.doctor.base import Asked, Result
from ssvi.errors import UserError, told
from ssvi.machine import process


def examined(code: str, of: str, asked: Asked) -> Result:
    """What a check finds; one that breaks has failed."""
    module, function = code.split(":")
    try:
        work: Callable[..., Result] = getattr(importlib.import_module(f"ssvi.doctor.{module}"), function)
        return work(asked, of) if of else work(asked)
    except Exception as error:  # whatever is wrong with a machine, in any library: the other checks are still made
        first = (str(error).strip().splitlines() or [""])[0]
        said = told(error) if isinstance(error, OSError) else first if isinstance(error, UserError) else ""
        said = said or f"{type(error).__name__}: {first}"
        return Result("failed", said, "what trains here may break in the same way", "mend what the message names")


def main() -> None:
    """Make the checks."""
    process.calm_threads()
    asked = Asked.from_json(json.loads(sys.stdin.readline()))
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        for line in sys.stdin:
            print(json.dumps(asdict(examined(**json.loads(line), asked=asked))), file=answers, flush=True)


if __name__ == "__main__":
    main()
