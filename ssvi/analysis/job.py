"""Running one step of the workflow with its output in a log file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ssvi.errors import UserError, told


@contextlib.contextmanager
def logged(path: str) -> Iterator[None]:
    """Send what is printed to the job's log; a user's mistake or a full disk is one line there and on the terminal.

    Raises:
        SystemExit: with code 1, after a `UserError` or an `OSError`.
    """
    try:
        with _log(path) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                yield
            except (UserError, OSError) as error:
                print(_line(error))
                raise
    except (UserError, OSError) as error:
        with contextlib.suppress(OSError):  # nobody can be told, but for the exit code
            print(_line(error), file=sys.stderr, flush=True)
        sys.exit(1)


@contextlib.contextmanager
def _log(path: str) -> Iterator[TextIO]:
    log = Path(path).open("w")  # noqa: SIM115 (closed here, but otherwise)
    try:
        yield log
    finally:
        # where there is no room for the log, what it says of that is on the terminal
        with contextlib.suppress(OSError):
            log.close()


def _line(error: Exception) -> str:
    return f"ssvi: {told(error) if isinstance(error, OSError) else error}"
