"""What commands say of a run folder, and know by where it lies."""

from __future__ import annotations

from pathlib import Path

from ssvi.errors import say
from ssvi.runs import plugins
from ssvi.runs.spec import RunSpec


def runs_around(folder: Path | None, run: str) -> Path | None:
    """The folder of all runs that a run folder lies in, if it does."""
    inside = folder is not None and str(folder).endswith(f"/{run}")
    return Path(str(folder).removesuffix(f"/{run}")) if inside else None


def warn_of_plugins(folder: Path, spec: RunSpec) -> None:
    """Of a trained run whose plugins have changed since."""
    from ssvi.runs.runfolder import plugins_of, read_spec_record

    for line in plugins.changes(plugins_of(folder, read_spec_record(folder)), plugins.used(spec)):
        say(f"warning: {folder}: {line}: it was trained with the former.")
