"""Where the mirror is, who may write to it, and how it is spoken to."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.tracking import MlflowClient

from ssvi.analysis.address import VARIABLE, given_address
from ssvi.analysis.passwords import one_line, without_password
from ssvi.errors import UserError, say
from ssvi.machine.disk import make_folder, replace, scratch, write_text

LOCK_SECONDS = 600

# What MLflow's client waits for a server, unless its variables are set: one that is dead costs 12 s, one that never
# answers a minute, and one that is started again is waited for.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "12",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "2",  # so 0, 4 and 8 s
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}


class Unavailable(UserError):
    """The mirror cannot be written now: MLflow, its database, its disk or the way there does not do what it is asked.

    Attributes:
        code: MLflow's word for what is wrong, where it gave an answer.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Busy(Unavailable):
    """Another mirror is at work."""


class Client:
    """MLflow's client, of which every error is an `Unavailable`: one line without a password, whatever it was.

    Args:
        uri: of the store.

    Raises:
        Unavailable: if MLflow has no client for it.
    """

    def __init__(self, uri: str) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self._uri = uri
        with clear_errors(uri):
            self._client = MlflowClient(tracking_uri=uri)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with clear_errors(self._uri):
                return method(*args, **kwargs)

        return call


def is_local() -> bool:
    """Whether the mirror is the SQLite file in the results folder, not a server of the user's."""
    return not os.environ.get(VARIABLE, "").strip()


def tracking_uri(results: Path) -> str:
    """Where the mirror is: MLFLOW_TRACKING_URI if set, else the SQLite file in the results folder.

    Raises:
        UserError: for an address where nothing could ever be mirrored.
    """
    return given_address() or f"sqlite:///{_database(results)}"


def store_folder(results: Path) -> Path:
    """The folder of the mirror's own files: database, artifacts, lock."""
    return results.resolve() / "mlflow"


@contextlib.contextmanager
def locked(results: Path, seconds: float | None = None) -> Iterator[None]:
    """Be the only mirror of this results folder; wait `seconds` (default: LOCK_SECONDS) for one's turn.

    Raises:
        Busy: if another mirror is still at work then.
        Unavailable: if the folder of the lock cannot be written.
    """
    seconds = LOCK_SECONDS if seconds is None else seconds
    path = store_folder(results) / "mirror.lock"
    lock = FileLock(path)
    with clear_errors(tracking_uri(results)):
        make_folder(path.parent)
        try:
            _acquire(lock, seconds)
        except Timeout:
            raise Busy(
                f"{path}: another mirror has been at work for over {seconds:g} s; wait for it to end, then try again."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, seconds: float) -> None:
    """Take the lock, at once or, after a word on what for, when it is free."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if seconds > 0:
            said = f"another mirror is at work; waiting up to {seconds:g} s for it to end"
            say(f"note: {lock.lock_file}: {said}.")
        lock.acquire(timeout=seconds)


def note_writer(results: Path, name: str) -> bool:
    """Note who writes now, under the lock; returns whether `name` was also the last who did.

    Then nobody else has written since, and what it remembers of the store is still true.

    Raises:
        Unavailable: if it cannot be noted.
    """
    path = store_folder(results) / "mirror.writer"
    with clear_errors(tracking_uri(results)):
        if path.is_file() and path.read_text() == name:
            return True
        write_text(path, name)
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of the first contact with a database, and of errors, which are said once as such.

    The libraries' own words of them would show the address, with the password.
    """
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow", "sqlalchemy.engine", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def clear_errors(uri: str) -> Iterator[None]:
    """Turn every error that is not a user's into an `Unavailable`.

    It is not chained to its cause: no traceback may show the address.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = f"MLflow at {without_password(uri)}: {one_line(_root(error), uri)}"
        raise Unavailable(said, getattr(error, "error_code", None)) from None


def _root(error: BaseException) -> BaseException:
    """What lies below the errors of MLflow and of the libraries of the web and of databases, which wrap each other."""
    below = error.__cause__ or error.__context__
    if below is None or (error.__cause__ is None and not type(below).__module__.startswith(("requests.", "urllib3."))):
        return error
    return _root(below)


def connect(results: Path) -> Client:
    """A client for the mirror, whose database is made if it is the local one and not there; call it under the lock.

    Raises:
        Unavailable: if it cannot be made.
    """
    uri = tracking_uri(results)
    if is_local() and not has_database(results):
        with clear_errors(uri):
            _make_database(_database(results))
    return Client(uri)


def create_store(results: Path) -> None:
    """Make the local database if there is none, so that the server and the mirror do not both begin to.

    Raises:
        Unavailable: if it cannot be made.
    """
    if not has_database(results):
        with locked(results), quiet():
            connect(results)


def has_database(results: Path) -> bool:
    """Whether the local store was made."""
    return _database(results).is_file()


def _database(results: Path) -> Path:
    return store_folder(results) / "mlflow.db"


def _make_database(path: Path) -> None:
    """Make the database whole or not at all: MLflow cannot go on with one whose making was cut short."""
    with scratch(path.parent, path.name) as room:
        part = room / path.name
        part.touch()  # with the permissions that the umask leaves, of which SQLite would take more
        MlflowClient(tracking_uri=f"sqlite:///{part}").search_experiments(max_results=1)
        replace(part, path)
