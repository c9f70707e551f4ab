"""From a run folder to an MLflow run: finished ones once and for good, others as far as they have got."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from ssvi.analysis.collect import cause, refusal
from ssvi.analysis.records import live_rows, published_rows, run_folder
from ssvi.analysis.tracking import store
from ssvi.analysis.tracking.store import Client, Experiment, Known, Unavailable
from ssvi.errors import UserError, one_line, told
from ssvi.runs import files
from ssvi.runs.options import options_of
from ssvi.runs.records import is_number, read_record, told_by_version
from ssvi.runs.runfolder import check_spec
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import check_ties

NAME = re.compile(r"\w[\w.\- ]{0,199}")  # of a metric that MLflow takes, which refuses all of a run with a/../b
BATCH = 1000  # entities that MLflow takes in one call
NAME_LENGTH = 250
TEXT_LENGTH = 5000

MLFLOW_STATUS = {"training": "RUNNING", "interrupted": "KILLED", "trained": "FINISHED", "diverged": "FAILED"}
SERIES = tuple(name for name in files.HISTORY_COLUMNS if name not in ("epoch", "step"))
SHOWN = (".csv", ".md", ".html", ".tex", ".png", ".svg", ".pdf")


@dataclass(frozen=True)
class MirrorResult:
    """What a call of `mirror` did, in runs; `artifacts` counts the files logged as reports.

    `refused` holds, by run path, why a run was left out.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    artifacts: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def mirror(results: Path, study: str, specs: Mapping[str, RunSpec], artifacts: Sequence[Path] = ()) -> MirrorResult:
    """Bring the MLflow experiment `study` up to date with the finished runs among `specs`.

    A run already mirrored with the same files is left alone. One whose files changed gets a new
    MLflow run, and the old one a tag that names it. What was begun, by `serve` while the run was in
    training or by an interrupted call, is completed. A run whose files are unusable is left out.

    Args:
        results: the results folder.
        study: the MLflow experiment's name.
        specs: run paths and their specs; a run without metrics.json counts as missing.
        artifacts: files of tables and figures, kept with one MLflow run named "reports".

    Raises:
        Unavailable: if the store is locked, unreachable or unusable; the next call goes on from there.
        UserError: if the experiment was deleted.
    """
    with store.locked(results), store.quiet():
        store.note_writer(results, uuid.uuid4().hex)  # a watcher at work looks at the store afresh after this
        experiment = store.open_experiment(store.connect(results), results, study)
        counts = dict.fromkeys(("added", "updated", "unchanged", "missing"), 0)
        refused: dict[str, str] = {}
        for run, spec in specs.items():
            try:
                counts[finish(experiment, results, run, spec)] += 1
            except Unavailable:
                raise
            except (UserError, OSError) as error:
                refused[run] = cause(error)
        logged = log_reports(experiment, artifacts)
        experiment.delete_doubles()
    return MirrorResult(**counts, artifacts=logged, refused=refused)


# Runs ---------------------------------------------------------------------------------------------


def finish(experiment: Experiment, results: Path, run: str, spec: RunSpec) -> str:
    """Make sure that a finished run is mirrored whole; returns which count of `MirrorResult` it is.

    Raises:
        UserError: if it is one that tables leave out (`ssvi.analysis.collect`).
    """
    folder = run_folder(results, run)
    if not (folder / files.METRICS).is_file():
        return "missing"
    if refused := refusal(results, run, spec, ["history"]):
        raise UserError(refused)
    provenance = check_spec(folder, spec).get("provenance", {})
    digest = _digest([folder / files.SPEC, folder / files.HISTORY, folder / files.METRICS])
    whole = [old for old in experiment.runs.get(run, []) if old.digest is not None]
    current = next((old for old in whole if old.digest == digest), None)
    outcome = "unchanged" if current else "updated" if whole else "added"
    if current is None:
        current = _complete(experiment, folder, run, spec, provenance, digest)
    for old in whole:
        if old is not current:
            experiment.client.set_tag(old.run_id, store.SUPERSEDED, current.run_id)
    _delete_halves(experiment, run, current)
    experiment.runs[run] = [current]
    return outcome


def follow(
    experiment: Experiment, folder: Path, run: str, spec: RunSpec, status: str, signs: Mapping[str, str]
) -> None:
    """Send what a run that is not finished has reached, in an MLflow run that `finish` will complete.

    Args:
        experiment: where to.
        folder: the run folder.
        run: the run path.
        spec: what the folder must have been made with.
        status: training, interrupted, or trained (published, not evaluated yet).
        signs: tags beside the status.

    Raises:
        UserError: if the folder's files are unreadable, not of one training, or were made under another spec.
    """
    provenance = check_spec(folder, spec).get("provenance", {})
    if status == "trained":
        check_ties(folder, files.TRAINING)
        rows, names = published_rows(folder / files.HISTORY), SERIES
        ended = read_record(folder / files.TRAINING, "status")["status"]
        status = "diverged" if ended == "diverged" else status
    else:
        # Epochs trained again after a resume have the same values but took another time, and MLflow forgets
        # no point: the seconds wait for the published history.
        rows, names = live_rows(folder / files.LIVE_HISTORY), [name for name in SERIES if "seconds" not in name]
    points, _ = _series(rows, _milliseconds(provenance.get("started"), folder), names, folder)
    tags = {**_tags(spec, provenance, {store.STATUS: status}, run, experiment.study), **signs}
    known = _send(experiment, folder, run, spec, provenance, points, tags)
    _set_status(experiment.client, known, status)
    _delete_halves(experiment, run, known)


def abandon(experiment: Experiment, run: str) -> None:
    """Say of an unfinished MLflow run that its training is no longer there."""
    for known in experiment.runs.get(run, []):
        if known.digest is None and known.status != MLFLOW_STATUS["interrupted"]:
            experiment.client.set_tag(known.run_id, store.STATUS, "interrupted")
            _set_status(experiment.client, known, "interrupted")


def _delete_halves(experiment: Experiment, run: str, kept: Known) -> None:
    """Delete what was begun of a run beside the MLflow run that is gone on with."""
    for half in [known for known in experiment.runs.get(run, []) if known.digest is None and known is not kept]:
        experiment.client.delete_run(half.run_id)
        experiment.runs[run].remove(half)


def _set_status(client: Client, known: Known, status: str) -> None:
    if known.status != MLFLOW_STATUS[status]:
        known.status = MLFLOW_STATUS[status]
        client.update_run(known.run_id, status=known.status)


def _complete(
    experiment: Experiment, folder: Path, run: str, spec: RunSpec, provenance: Mapping[str, Any], digest: str
) -> Known:
    client = experiment.client
    metrics = read_record(folder / files.METRICS, "status")
    start = _milliseconds(provenance.get("started"), folder)
    series, end = _series(published_rows(folder / files.HISTORY), start, SERIES, folder)
    final = [
        Metric(f"final/{name}", float(value), end, 0)
        for name, value in {**metrics, **(metrics.get("evaluation") or {})}.items()
        if is_number(value) and NAME.fullmatch(name)
    ]
    tags = _tags(spec, provenance, metrics, run, experiment.study)
    known = _send(experiment, folder, run, spec, provenance, [*series, *final], tags)
    status = "FINISHED" if metrics["status"] == "complete" else "FAILED"
    client.set_terminated(known.run_id, status=status, end_time=end)
    client.log_batch(known.run_id, tags=[RunTag(store.DIGEST, digest)])
    known.digest, known.points = digest, None
    return known


def _send(
    experiment: Experiment,
    folder: Path,
    run: str,
    spec: RunSpec,
    provenance: Mapping[str, Any],
    points: Sequence[Metric],
    tags: Mapping[str, str],
) -> Known:
    """Send the points that the unfinished MLflow run of this run lacks; make one where there is none.

    MLflow adds points and never takes one back. So where an epoch came out with other values when it was trained
    again (possible on a GPU), a new MLflow run takes the place of the old one, and people's tags with it.
    """
    client = experiment.client
    params: list[Param] = []
    begun = next((known for known in experiment.runs.get(run, []) if known.digest is None), None)
    if begun is not None and begun.points is None:
        begun.points = _points_of(client, begun.run_id)
        params = _params(spec)  # perhaps never sent; the same again is nothing new
    if begun is not None and not _conflict(begun.points or {}, points):
        known, sent = begun, begun.points or {}
        new_tags = [RunTag(name, value) for name, value in tags.items()]
    else:
        start = _milliseconds(provenance.get("started"), folder)
        kept = {} if begun is None else _foreign_tags(client, begun.run_id)
        made = experiment.make_run(_run_name(run), {**kept, **tags}, start)
        known, sent, new_tags, params = Known(made.run_id, status=made.status), {}, [], _params(spec)
        if begun is not None:
            client.set_tag(begun.run_id, store.SUPERSEDED, known.run_id)
            client.set_terminated(begun.run_id, status="KILLED")
            experiment.runs[run].remove(begun)
        experiment.runs.setdefault(run, []).append(known)
    batch = [p for p in points if (p.key, p.step) not in sent]
    known.points = None  # unknown, should one of the calls fail
    room = BATCH - len(params) - len(new_tags)
    client.log_batch(known.run_id, metrics=batch[:room], params=params, tags=new_tags)
    for first in range(room, len(batch), BATCH):
        client.log_batch(known.run_id, metrics=batch[first : first + BATCH])
    known.points = {**sent, **{(p.key, p.step): p.value for p in batch}}
    return known


def _conflict(sent: Mapping[tuple[str, int], float], points: Iterable[Metric]) -> bool:
    """Whether a point has another value than the one that was sent for its epoch."""
    return any(not math.isclose(sent.get((p.key, p.step), p.value), p.value, rel_tol=1e-9) for p in points)


def _points_of(client: Client, run_id: str) -> dict[tuple[str, int], float]:
    """The points an MLflow run holds; asked for once for each run that was begun."""
    keys = client.get_run(run_id).data.metrics
    return {(key, point.step): point.value for key in keys for point in client.get_metric_history(run_id, key)}


def _foreign_tags(client: Client, run_id: str) -> dict[str, str]:
    """The tags of an MLflow run that people gave it, notes included."""
    tags = client.get_run(run_id).data.tags
    return {k: v for k, v in tags.items() if not k.startswith(("ssvi.", "mlflow.")) or k == "mlflow.note.content"}


def _params(spec: RunSpec) -> list[Param]:
    return [Param(name, str(getattr(spec, name))) for name in sorted(options_of(spec.method))]


def _tags(
    spec: RunSpec, provenance: Mapping[str, Any], metrics: Mapping[str, Any], run: str, study: str
) -> dict[str, str]:
    density = spec.density if "density" in options_of(spec.method) else 1.0
    tags = {
        store.RUN: run,
        store.STUDY: study,
        "method": spec.method,
        "dataset": spec.dataset,
        "density": repr(density),
        "seed": str(spec.seed),
        "git_commit": provenance.get("commit"),
        store.STATUS: metrics["status"],
        "cause": metrics.get("cause"),
    }
    return {name: one_line(str(value))[:TEXT_LENGTH] for name, value in tags.items() if value is not None}


def _run_name(run: str) -> str:
    """The run path from its method on, as far as it fits MLflow's column; the tag holds the whole path."""
    run = run.split("/", 2)[2]
    if len(run) <= NAME_LENGTH:
        return run
    return f"{run[: NAME_LENGTH - 61]}…{run[-60:]}"


# Files --------------------------------------------------------------------------------------------


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the files' names and contents."""
    total = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        except OSError as error:
            raise UserError(told(error)) from None
        total.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _milliseconds(started: str | None, folder: Path) -> int:
    try:
        return int(datetime.fromisoformat(started).timestamp() * 1000) if started else 0
    except (ValueError, OverflowError):
        raise UserError(f"{folder / files.SPEC}: started is {started!r}, but must be an ISO 8601 time.") from None


def _series(
    rows: Iterable[Mapping[str, Any]], start: int, names: Sequence[str], folder: Path
) -> tuple[list[Metric], int]:
    """The history as points with step = epoch, and the time of the last epoch's end."""
    points: list[Metric] = []
    seconds = 0.0
    try:
        for row in rows:
            seconds += float(row.get("seconds") or 0)
            now = start + int(seconds * 1000)
            values = {name: float(row[name]) for name in names if row.get(name) not in ("", None)}
            points += [Metric(k, v, now, int(row["epoch"])) for k, v in values.items() if math.isfinite(v)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: not a history ({error!r}); {told_by_version(folder)}") from None
    return points, start + int(seconds * 1000)


# Reports ------------------------------------------------------------------------------------------


def report_files(reports: Path) -> list[Path]:
    """The tables and figures of a study, and its HTML report, where they are there."""
    shown = [p for kind in ("tables", "figures") for p in sorted((reports / kind).glob("*.*")) if p.suffix in SHOWN]
    return [path for path in [*shown, reports / "report.html"] if path.is_file() and not path.name.startswith(".")]


def log_reports(experiment: Experiment, artifacts: Sequence[Path]) -> int:
    """Log tables, figures and report, each kind if a file of it changed; returns how many files were logged.

    Raises:
        UserError: if one of the files is not there.
    """
    client, logged = experiment.client, 0
    for kind, paths in itertools.groupby(sorted(artifacts, key=lambda p: (_kind(p), p)), key=_kind):
        ordered = list(paths)
        digest, tag = _digest(ordered), f"{store.DIGEST}.{kind}"
        if experiment.report_tags.get(tag) == digest:
            continue
        if experiment.reports is None:
            experiment.reports = experiment.make_run(
                store.REPORTS, {store.KIND: store.REPORTS, store.STUDY: experiment.study}
            ).run_id
            client.set_terminated(experiment.reports)
        for path in ordered:
            client.log_artifact(experiment.reports, str(path), kind)
        client.set_tag(experiment.reports, tag, digest)
        experiment.report_tags[tag] = digest
        logged += len(ordered)
    return logged


def _kind(path: Path) -> str:
    """The folder of a report's file in MLflow: tables, figures, or report."""
    return path.parent.name if path.parent.name in ("tables", "figures") else "report"
