"""The config, and the study that it names, where both can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssvi.doctor.base import Asked, Result
from ssvi.errors import UserError
from ssvi.machine.extras import told
from ssvi.runs.config import load_config, study_runs
from ssvi.runs.configfile import read_config
from ssvi.runs.spec import RunSpec


def settings(path: Path | None) -> dict[str, Any]:
    """What a config says of places and threads; nothing where it cannot be read, which `config` tells."""
    try:
        found = read_config(path) if path else {}
    except (UserError, ImportError):
        return {}
    kinds = {"results": str, "data_root": str, "threads": int}
    return {name: found[name] for name, kind in kinds.items() if type(found.get(name)) is kind}


def specs(asked: Asked) -> dict[str, RunSpec]:
    """The runs of the config's study, by their paths; none without a config that can be read, which `config` tells."""
    try:
        config = load_config(asked.config) if asked.config else None
    except (UserError, ImportError):
        return {}
    return study_runs(config, config["study"]) if config else {}


def config(asked: Asked) -> Result:
    """Whether the config can be read, and what it asks for."""
    if asked.config is None:
        return Result("skipped", "no config.yaml here (--config names one)")
    try:
        found = load_config(asked.config)
    except ImportError as error:
        said = told(error, "reading it") or error
        return Result("skipped", f"{asked.config}: {said}", "single trainings run here, studies do not")
    except UserError as error:
        return Result("failed", str(error), "no workflow starts", f"correct {asked.config}")
    return Result("ok", f"{asked.config}: study {found['study']}, {len(study_runs(found, found['study']))} runs")
