"""Running one step of the workflow with its output in a log file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from ssvi.errors import UserError


@contextlib.contextmanager
def logged(path: str) -> Iterator[None]:
    """Send what is printed to the job's log; a user's mistake is one line there and on the terminal.

    Raises:
        SystemExit: with code 1, after a `UserError`.
    """
    terminal = sys.stderr
    with Path(path).open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except UserError as error:
            for stream in (log, terminal):
                print(f"ssvi: {error}", file=stream)
            sys.exit(1)
