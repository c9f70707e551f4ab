"""A run's network in MLflow's registry, under a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ssvi.analysis.tracking import experiment as experiments
from ssvi.analysis.tracking import store
from ssvi.analysis.tracking.mirror import finish, open_study
from ssvi.analysis.tracking.models import log_network
from ssvi.analysis.tracking.store import Unavailable
from ssvi.errors import UserError
from ssvi.runs.spec import RunSpec

NAMES = re.compile(r"\w[\w.\- ]{0,99}", re.ASCII)


def register(results: Path, study: str, specs: Mapping[str, RunSpec], run: str, name: str) -> str:
    """Put a run's network into MLflow's registry, and into MLflow before if need be; returns its version.

    The same network is registered under a name once.

    Args:
        results: the results folder.
        study: one that has the run.
        specs: its runs.
        run: the run path.
        name: of the registered model.

    Raises:
        UserError: if the name is none, there is no mirror, or the run has no network that could be used.
    """
    if not NAMES.fullmatch(name):
        raise UserError(f"the name is {name!r}, but must be of up to 100 letters, digits, spaces, '_', '.' and '-'.")
    if store.is_local() and not store.has_database(results):
        raise UserError(f"{store.store_folder(results)}: there is no mirror; `ssvi ui` or the workflow makes one.")
    with store.locked(results), store.quiet():
        store.note_writer(results, f"register {run}")
        client = store.connect(results)
        experiment = open_study(client, results, study, specs)
        finish(experiment, results, run, specs[run])
        log_network(experiment, results, run, specs[run])
        known = experiment.runs[run][0]
        try:
            client.create_registered_model(name)
        except Unavailable as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(experiments.MODEL) == known.model:
                return str(version.version)
        tags = {experiments.RUN: run, experiments.MODEL: known.model}
        place = client.get_logged_model(known.model).artifact_location
        made = client.create_model_version(name, place, known.run_id, tags=tags, model_id=known.model)
        return str(made.version)
