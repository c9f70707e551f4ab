"""What a path means that somebody wrote: `~` is a home folder, wherever it is read, and never a folder of that name."""

from __future__ import annotations

from pathlib import Path

from ssvi.errors import UserError


def at_home(text: str) -> Path:
    """A path whose leading `~` or `~user` is that home folder.

    Raises:
        UserError: if there is no such user, or the home folder is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text!r} is in no home folder that is known here; write the whole path.") from None
