"""A mirror of finished runs in MLflow. The files stay the truth; this is the only module that imports mlflow.

A run that is mirrored is never touched again, so notes and tags that people add to it stay. The tag
`ssvi.digest` is set last and says that an MLflow run is whole.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import logging
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ssvi import runs as files
from ssvi.errors import UserError
from ssvi.spec import RunSpec, options_of

# MLflow checks at import whether it may send usage data; a mirror has nothing to say to the outside.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

LOCK_SECONDS = 600
PAGE = 1000
BATCH = 1000
NAME_LENGTH = 250
TEXT_LENGTH = 5000

RUN, STUDY, DIGEST, KIND, SUPERSEDED = "ssvi.run", "ssvi.study", "ssvi.digest", "ssvi.kind", "ssvi.superseded_by"
REPORTS = "reports"

SERIES = tuple(name for name in files.HISTORY_COLUMNS if name not in ("epoch", "step"))


@dataclass(frozen=True)
class MirrorResult:
    """What a call of `mirror` did, in runs; `artifacts` counts the files logged as reports."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    artifacts: int = 0


def tracking_uri(results: Path) -> str:
    """Where the mirror is: MLFLOW_TRACKING_URI if set, else the SQLite file in the results folder.

    Raises:
        UserError: for a folder of files, which MLflow no longer accepts as a store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return f"sqlite:///{_folder(results) / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri!r} is a folder, which MLflow no longer writes to; "
            "give a server (http://...) or a database (sqlite:///...), or unset it."
        )
    return uri


def _folder(results: Path) -> Path:
    return results.resolve() / "mlflow"


def _is_local(results: Path) -> bool:
    return not os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def mirror(results: Path, study: str, specs: Mapping[str, RunSpec], artifacts: Sequence[Path] = ()) -> MirrorResult:
    """Bring the MLflow experiment `study` up to date with the finished runs among `specs`.

    A run already mirrored with the same files is left alone. One whose files changed gets a new
    MLflow run, and the old one a tag that names it. What an interrupted call left half-written is
    deleted and written anew.

    Args:
        results: the results folder.
        study: the MLflow experiment's name.
        specs: run paths and their specs; a run without metrics.json counts as missing.
        artifacts: files of tables and figures, kept with one MLflow run named "reports".

    Raises:
        UserError: if the store is locked, unreachable or unusable, or a run's files are.
    """
    uri = tracking_uri(results)
    with _locked(results), _quiet(), _clear_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, results, study)
        known = _known_runs(client, experiment)
        counts = dict.fromkeys(("added", "updated", "unchanged", "missing"), 0)
        for run, spec in specs.items():
            counts[_mirror_run(client, experiment, results, study, run, spec, known.get(run, []))] += 1
        logged = _mirror_reports(client, experiment, study, artifacts, known.get(None, []))
    return MirrorResult(**counts, artifacts=logged)


@contextlib.contextmanager
def _locked(results: Path) -> Iterator[None]:
    path = _folder(results) / "mirror.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{path}: another mirror has been at work for over {LOCK_SECONDS} s; wait for it to end, then try again."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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


@contextlib.contextmanager
def _clear_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise UserError(f"MLflow at {_without_password(uri)}: {str(error).splitlines()[0]}") from error


def _without_password(uri: str) -> str:
    scheme, slashes, rest = uri.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def _experiment(client: MlflowClient, results: Path, study: str) -> str:
    found = client.get_experiment_by_name(study)
    location = (_folder(results) / "artifacts" / study).as_uri() if _is_local(results) else None
    if found is None:
        return client.create_experiment(study, artifact_location=location)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {study!r} was deleted there: restore it, or remove it for good with mlflow gc."
        )
    if location is not None and found.artifact_location.startswith("file:") and found.artifact_location != location:
        _relocate(results, found.experiment_id, found.artifact_location, location)
    return found.experiment_id


def _relocate(results: Path, experiment: str, old: str, new: str) -> None:
    """Let a store whose results folder was moved find its reports again.

    MLflow stores absolute places and has no call that changes them, so this is done in its database.
    """
    with contextlib.closing(sqlite3.connect(_folder(results) / "mlflow.db", timeout=60)) as database, database:
        where = {"id": int(experiment), "old": old, "new": new}
        database.execute("UPDATE experiments SET artifact_location = :new WHERE experiment_id = :id", where)
        database.execute(
            "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
            "WHERE experiment_id = :id AND substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
            where,
        )


def _known_runs(client: MlflowClient, experiment: str) -> dict[str | None, list[MlflowRun]]:
    """The MLflow runs of an experiment by run path, the reports under None, superseded ones left out."""
    known: dict[str | None, list[MlflowRun]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token)
        for run in page:
            tags = run.data.tags
            if RUN in tags and SUPERSEDED not in tags:
                known.setdefault(tags[RUN], []).append(run)
            elif tags.get(KIND) == REPORTS:
                known.setdefault(None, []).append(run)
        token = page.token
        if not token:
            return known


def _mirror_run(
    client: MlflowClient,
    experiment: str,
    results: Path,
    study: str,
    run: str,
    spec: RunSpec,
    known: list[MlflowRun],
) -> str:
    folder = results / "runs" / run
    if not (folder / files.METRICS).is_file():
        return "missing"
    files.check_spec(folder, spec)
    digest = _digest([folder / files.SPEC, folder / files.HISTORY, folder / files.METRICS])
    whole = [old for old in known if DIGEST in old.data.tags]
    for half in (old for old in known if DIGEST not in old.data.tags):
        client.delete_run(half.info.run_id)
    current = next((old.info.run_id for old in whole if old.data.tags[DIGEST] == digest), None)
    outcome = "unchanged" if current else "updated" if whole else "added"
    if current is None:
        current = _write_run(client, experiment, folder, study, run, spec, digest)
    for old in whole:
        if old.data.tags[DIGEST] != digest:
            client.set_tag(old.info.run_id, SUPERSEDED, current)
    return outcome


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the files' names and contents."""
    total = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        total.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _write_run(
    client: MlflowClient, experiment: str, folder: Path, study: str, run: str, spec: RunSpec, digest: str
) -> str:
    provenance = files.read_json(folder / files.SPEC).get("provenance", {})
    metrics = files.read_json(folder / files.METRICS)
    start = _milliseconds(provenance.get("started"), folder)
    series, end = _series(folder, start)
    final = [
        Metric(f"final/{name}", float(value), end, 0)
        for name, value in {**metrics, **(metrics.get("evaluation") or {})}.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    tags = _tags(spec, provenance, metrics, run, study)
    written = client.create_run(experiment, start_time=start, tags=tags, run_name=_run_name(run))
    run_id = written.info.run_id
    params = [Param(name, str(getattr(spec, name))) for name in sorted(options_of(spec.method))]
    client.log_batch(run_id, params=params)
    points = [*series, *final]
    for first in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[first : first + BATCH])
    status = "FINISHED" if metrics["status"] == "complete" else "FAILED"
    client.set_terminated(run_id, status=status, end_time=end)
    client.log_batch(run_id, tags=[RunTag(DIGEST, digest)])
    return run_id


def _tags(
    spec: RunSpec, provenance: Mapping[str, Any], metrics: Mapping[str, Any], run: str, study: str
) -> dict[str, str]:
    density = spec.density if "density" in options_of(spec.method) else 1.0
    tags = {
        RUN: run,
        STUDY: study,
        "method": spec.method,
        "dataset": spec.dataset,
        "density": repr(density),
        "seed": str(spec.seed),
        "git_commit": provenance.get("commit"),
        "status": metrics["status"],
        "cause": metrics.get("cause"),
    }
    return {name: str(value)[:TEXT_LENGTH] for name, value in tags.items() if value is not None}


def _run_name(run: str) -> str:
    """The run path from its method on, as far as it fits MLflow's column; the tag holds the whole path."""
    run = run.split("/", 2)[2]
    if len(run) <= NAME_LENGTH:
        return run
    return f"{run[: NAME_LENGTH - 61]}…{run[-60:]}"


def _milliseconds(started: str | None, folder: Path) -> int:
    try:
        return int(datetime.fromisoformat(started).timestamp() * 1000) if started else 0
    except ValueError:
        raise UserError(f"{folder / files.SPEC}: started is {started!r}, but must be an ISO 8601 time.") from None


def _series(folder: Path, start: int) -> tuple[list[Metric], int]:
    """The history as points with step = epoch, and the time of the last epoch's end."""
    path = folder / files.HISTORY
    points: list[Metric] = []
    seconds = 0.0
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                seconds += float(row["seconds"] or 0)
                now = start + int(seconds * 1000)
                values = {name: float(row[name]) for name in SERIES if row[name]}
                points += [Metric(k, v, now, int(row["epoch"])) for k, v in values.items() if math.isfinite(v)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a history ({error!r}); delete the run folder to train it anew.") from None
    return points, start + int(seconds * 1000)


def _mirror_reports(
    client: MlflowClient, experiment: str, study: str, artifacts: Sequence[Path], known: list[MlflowRun]
) -> int:
    """Log the tables and figures, if any of them changed; returns how many files were logged."""
    if not artifacts:
        return 0
    ordered = sorted(artifacts)
    digest = _digest(ordered)
    if known and known[0].data.tags.get(DIGEST) == digest:
        return 0
    tags = {KIND: REPORTS, STUDY: study}
    run_id = known[0].info.run_id if known else client.create_run(experiment, tags=tags, run_name=REPORTS).info.run_id
    for path in ordered:
        client.log_artifact(run_id, str(path), _artifact_folder(path))
    client.set_terminated(run_id)
    client.set_tag(run_id, DIGEST, digest)
    return len(ordered)


def _artifact_folder(path: Path) -> str:
    """figures/ for pictures and the CSV beside one, tables/ for the rest."""
    picture = path.suffix in (".png", ".svg") or path.with_suffix(".png").is_file()
    return "figures" if picture else "tables"


def serve(results: Path, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Show the mirror in a browser until Ctrl-C; returns the server's exit code, 0 after Ctrl-C.

    With MLFLOW_TRACKING_URI set, prints that address instead of serving.

    Raises:
        UserError: if there is nothing to show, or the port is taken.
    """
    uri = tracking_uri(results)
    if not _is_local(results):
        print(f"The runs are mirrored to {_without_password(uri)} (MLFLOW_TRACKING_URI).")
        return 0
    folder = _folder(results)
    if not (folder / "mlflow.db").is_file():
        raise UserError(f"{folder / 'mlflow.db'}: no such file; nothing has been mirrored yet.")
    _check_port(host, port)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    environment = {"PYTHONWARNINGS": "ignore", **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _ended_by_signals():
        # A session of its own, so that Ctrl-C reaches the server's processes once, from here, and none stays behind.
        server = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
        try:
            print(f"MLflow: http://{host}:{port} (ready in about 10 s; Ctrl-C stops it)", flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(server)


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"port is {port}, but must be from 1 to 65535.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot serve at {host}:{port} ({error.strerror}); choose another --port.") from None


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a terminated or hung-up parent take its server with it, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.signal(sign, signal.default_int_handler) for sign in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
