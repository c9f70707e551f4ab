"""Where the mirror is, who may write to it, and what it holds already."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ssvi import runs as files
from ssvi.errors import UserError

LOCK_SECONDS = 600
PAGE = 1000

RUN, STUDY, DIGEST, KIND, SUPERSEDED = "ssvi.run", "ssvi.study", "ssvi.digest", "ssvi.kind", "ssvi.superseded_by"
STATUS = "status"
REPORTS = "reports"


class Busy(UserError):
    """Another mirror is at work."""


@dataclass(eq=False)
class Known:
    """An MLflow run of ours.

    Attributes:
        run_id: MLflow's name of it.
        digest: of the files it was made from, once it is whole.
        status: in MLflow's words (RUNNING, KILLED, FINISHED, FAILED).
        points: the values it holds by series and epoch, while it grows; None as long as nobody asked.
    """

    run_id: str
    digest: str | None = None
    status: str | None = None
    points: dict[tuple[str, int], float] | None = None


@dataclass
class Experiment:
    """The MLflow experiment of a study, and the runs it is known to hold, superseded ones left out."""

    client: MlflowClient
    study: str
    id: str
    runs: dict[str, list[Known]] = field(default_factory=dict)
    reports: str | None = None
    report_tags: dict[str, str] = field(default_factory=dict)


def is_local() -> bool:
    """Whether the mirror is the SQLite file in the results folder, not a server of the user's."""
    return not os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def tracking_uri(results: Path) -> str:
    """Where the mirror is: MLFLOW_TRACKING_URI if set, else the SQLite file in the results folder.

    Raises:
        UserError: for a folder of files, which MLflow no longer accepts as a store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return f"sqlite:///{store_folder(results) / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri!r} is a folder, which MLflow no longer writes to; "
            "give a server (http://...) or a database (sqlite:///...), or unset it."
        )
    return uri


def without_password(uri: str) -> str:
    """The address as it may be shown."""
    scheme, slashes, rest = uri.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def store_folder(results: Path) -> Path:
    """The folder of the mirror's own files: database, artifacts, lock."""
    return results.resolve() / "mlflow"


@contextlib.contextmanager
def locked(results: Path, seconds: float | None = None) -> Iterator[None]:
    """Be the only mirror of this results folder; wait `seconds` (default: LOCK_SECONDS) for one's turn.

    Raises:
        Busy: if another mirror is still at work then.
    """
    seconds = LOCK_SECONDS if seconds is None else seconds
    path = store_folder(results) / "mirror.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(
            f"{path}: another mirror has been at work for over {seconds:g} s; wait for it to end, then try again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def note_writer(results: Path, name: str) -> bool:
    """Note who writes now, under the lock; returns whether `name` was also the last who did.

    Then nobody else has written since, and what it remembers of the store is still true.
    """
    path = store_folder(results) / "mirror.writer"
    if path.is_file() and path.read_text() == name:
        return True
    files.write_text(path, name)
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of the first contact with a database (one line a migration)."""
    loggers = [
        logging.getLogger(name) for name in ("alembic", "alembic.runtime.migration", "mlflow", "mlflow.store.db.utils")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def clear_error(uri: str, error: MlflowException) -> UserError:
    """What MLflow complains about, in one line and without the password."""
    return UserError(f"MLflow at {without_password(uri)}: {str(error).splitlines()[0].replace(uri, '')}")


@contextlib.contextmanager
def clear_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into a `UserError`."""
    try:
        yield
    except MlflowException as error:
        raise clear_error(uri, error) from error


def create_store(results: Path) -> None:
    """Make the local database if there is none, so that the server and the mirror do not both begin to.

    Raises:
        UserError: if it cannot be made.
    """
    uri = tracking_uri(results)
    if not (store_folder(results) / "mlflow.db").is_file():
        with locked(results), quiet(), clear_errors(uri):
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def open_experiment(client: MlflowClient, results: Path, study: str) -> Experiment:
    """The MLflow experiment named `study`, made if need be, with what it holds: a few queries a thousand runs.

    Raises:
        UserError: if it was deleted in MLflow.
    """
    found = client.get_experiment_by_name(study)
    location = (store_folder(results) / "artifacts" / study).as_uri() if is_local() else None
    if found is None:
        return Experiment(client, study, client.create_experiment(study, artifact_location=location))
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {study!r} was deleted there: restore it, or remove it for good with mlflow gc."
        )
    if location is not None and found.artifact_location.startswith("file:") and found.artifact_location != location:
        _relocate(results, found.experiment_id, found.artifact_location, location)
    experiment = Experiment(client, study, found.experiment_id)
    _list_runs(experiment)
    return experiment


def _relocate(results: Path, experiment: str, old: str, new: str) -> None:
    """Let a store whose results folder was moved find its reports again.

    MLflow stores absolute places and has no call that changes them, so this is done in its database.
    """
    with contextlib.closing(sqlite3.connect(store_folder(results) / "mlflow.db", timeout=60)) as database, database:
        where = {"id": int(experiment), "old": old, "new": new}
        database.execute("UPDATE experiments SET artifact_location = :new WHERE experiment_id = :id", where)
        database.execute(
            "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
            "WHERE experiment_id = :id AND substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
            where,
        )


def _list_runs(experiment: Experiment) -> None:
    token = None
    while True:
        page = experiment.client.search_runs(
            [experiment.id], run_view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token
        )
        for run in page:
            tags = run.data.tags
            if RUN in tags and SUPERSEDED not in tags:
                known = Known(run.info.run_id, tags.get(DIGEST), run.info.status)
                experiment.runs.setdefault(tags[RUN], []).append(known)
            elif tags.get(KIND) == REPORTS:
                experiment.reports, experiment.report_tags = run.info.run_id, dict(tags)
        token = page.token
        if not token:
            return
