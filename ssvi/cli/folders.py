"""What commands say of a run folder, and know by where it lies."""

from __future__ import annotations

import os
from pathlib import Path

from ssvi.errors import UserError, say
from ssvi.machine.disk import check_replaceable
from ssvi.runs import files, plugins
from ssvi.runs.spec import RunSpec


def runs_around(folder: Path | None, run: str) -> Path | None:
    """The folder of all runs that a run folder lies in, if it does."""
    inside = folder is not None and str(folder).endswith(f"/{run}")
    return Path(str(folder).removesuffix(f"/{run}")) if inside else None


def check_no_part(flag: str, path: Path, network: Path) -> None:
    """Refuse to write where something else than a file is, into the network that a command reads, or over a run's.

    Raises:
        UserError: naming the option and the file.
    """
    check_replaceable(path)
    place, own = os.path.realpath(path), os.path.realpath(network)
    of_a_run = path.name in files.OWN and (path.parent / files.SPEC).is_file()
    if place == own or place.startswith(f"{own}{os.sep}") or of_a_run:
        raise UserError(f"{flag} is {str(path)!r}, which is part of the run; name another place.")


def warn_of_plugins(folder: Path, spec: RunSpec) -> None:
    """Of a trained run whose plugins have changed since."""
    from ssvi.runs.runfolder import plugins_of, read_spec_record

    for line in plugins.changes(plugins_of(folder, read_spec_record(folder)), plugins.used(spec)):
        say(f"warning: {folder}: {line}: it was trained with the former.")
