"""From a run folder to an MLflow run: finished ones once and for good, others as far as they have got."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from ssvi.analysis.collect import cause, load_frames, refusal
from ssvi.analysis.records import live_rows, published_rows, run_folder
from ssvi.analysis.tracking import experiment as experiments
from ssvi.analysis.tracking import store, views
from ssvi.analysis.tracking.experiment import Experiment, Known
from ssvi.analysis.tracking.means import settle
from ssvi.analysis.tracking.models import log_network
from ssvi.analysis.tracking.names import run_names
from ssvi.analysis.tracking.options import numbers_of, params_of, tags_of
from ssvi.analysis.tracking.pictures import NAME as PICTURE
from ssvi.analysis.tracking.pictures import picture
from ssvi.analysis.tracking.reports import digest_of, log_reports
from ssvi.analysis.tracking.store import Client, Unavailable
from ssvi.analysis.uncertain import named
from ssvi.errors import UserError, one_line
from ssvi.runs import files
from ssvi.runs.records import is_number, read_record, told_by_version
from ssvi.runs.runfolder import check_spec
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import check_ties

NAME = re.compile(r"\w[\w.\- ]{0,199}")  # of a metric that MLflow takes, which refuses all of a run with a/../b
NOT_NAMED = re.compile(r"[^\w.\- ]|^\W")
BATCH = 1000  # entities that MLflow takes in one call
TEXT_LENGTH = 5000

MLFLOW_STATUS = {"training": "RUNNING", "interrupted": "KILLED", "trained": "FINISHED", "diverged": "FAILED"}
SERIES = tuple(name for name in files.HISTORY_COLUMNS if name not in ("epoch", "step"))


@dataclass(frozen=True)
class MirrorResult:
    """What a call of `mirror` did, in runs; `artifacts` counts the files logged as reports, `models` the networks.

    `refused` holds, by run path, why a run, or the network of one, was left out.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    artifacts: int = 0
    models: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def mirror(
    results: Path, study: str, specs: Mapping[str, RunSpec], artifacts: Sequence[Path] = (), *, models: bool = False
) -> MirrorResult:
    """Bring the MLflow experiment `study` up to date with the finished runs among `specs`.

    A run already mirrored with the same files is left alone. One whose files changed gets a new
    MLflow run, and the old one a tag that names it. What was begun, by `serve` while the run was in
    training or by an interrupted call, is completed. A run whose files are unusable is left out.

    Args:
        results: the results folder.
        study: the MLflow experiment's name.
        specs: run paths and their specs; a run without metrics.json counts as missing.
        artifacts: files of tables and figures, kept with one MLflow run named "reports".
        models: whether the networks of the runs are logged too.

    Raises:
        Unavailable: if the store is locked, unreachable or unusable; the next call goes on from there.
        UserError: if the experiment was deleted.
    """
    with store.locked(results), store.quiet():
        store.note_writer(results, uuid.uuid4().hex)  # a watcher at work looks at the store afresh after this
        experiment = open_study(store.connect(results), results, study, specs)
        counts = dict.fromkeys(("added", "updated", "unchanged", "missing", "models"), 0)
        refused: dict[str, str] = {}
        for run, spec in specs.items():
            try:
                counts[outcome := finish(experiment, results, run, spec)] += 1
                if models and outcome != "missing":
                    counts["models"] += log_network(experiment, results, run, spec)
            except Unavailable:
                raise
            except (UserError, OSError) as error:
                refused[run] = cause(error)
        settle(experiment, results, specs)
        logged = log_reports(experiment, artifacts)
        experiment.delete_doubles()
    return MirrorResult(**counts, artifacts=logged, refused=refused)


def open_study(client: Client, results: Path, study: str, specs: Mapping[str, RunSpec]) -> Experiment:
    """The MLflow experiment of a study, shown and named as its runs ask for.

    Raises:
        As `open_experiment`.
    """
    experiment = experiments.open_experiment(client, results, study)
    experiment.names = run_names(specs)
    views.show(experiment, specs.values())
    return experiment


# Runs ---------------------------------------------------------------------------------------------


def finish(experiment: Experiment, results: Path, run: str, spec: RunSpec) -> str:
    """Make sure that a finished run is mirrored whole; returns which count of `MirrorResult` it is.

    Raises:
        UserError: if it is one that tables leave out (`ssvi.analysis.collect`).
    """
    folder = run_folder(results, run)
    if not (folder / files.METRICS).is_file():
        return "missing"
    suite = [folder / files.UNCERTAINTY] if (folder / files.UNCERTAINTY).is_file() else []
    if refused := refusal(results, run, spec, ["history", *(["uncertainty"] if suite else [])]):
        raise UserError(refused)
    provenance = check_spec(folder, spec).get("provenance", {})
    digest = digest_of([folder / files.SPEC, folder / files.HISTORY, folder / files.METRICS, *suite])
    whole = [old for old in experiment.runs.get(run, []) if old.digest is not None]
    current = next((old for old in whole if old.digest == digest), None)
    unchanged = current is not None and current.form == experiments.FORM
    outcome = "unchanged" if unchanged else "updated" if whole else "added"
    if not unchanged:
        if current is not None:
            current.digest = None  # gone on with as one that was begun
        current = _complete(experiment, results, run, spec, provenance, digest)
    for old in whole:
        if old is not current:
            experiment.client.set_tag(old.run_id, experiments.SUPERSEDED, current.run_id)
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
    start = _milliseconds(provenance.get("started"), folder)
    points = [*_series(rows, start, names, folder)[0], *numbers_of(spec, start)]
    tags = {**_tags(spec, provenance, {experiments.STATUS: status}, run, experiment.study), **signs}
    known = _send(experiment, folder, run, spec, provenance, points, tags)
    _set_status(experiment.client, known, status)
    _delete_halves(experiment, run, known)


def abandon(experiment: Experiment, run: str) -> None:
    """Say of an unfinished MLflow run that its training is no longer there."""
    for known in experiment.runs.get(run, []):
        if known.digest is None and known.status != MLFLOW_STATUS["interrupted"]:
            experiment.client.set_tag(known.run_id, experiments.STATUS, "interrupted")
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
    experiment: Experiment, results: Path, run: str, spec: RunSpec, provenance: Mapping[str, Any], digest: str
) -> Known:
    client, folder = experiment.client, run_folder(results, run)
    metrics = read_record(folder / files.METRICS, "status")
    start = _milliseconds(provenance.get("started"), folder)
    history = published_rows(folder / files.HISTORY)
    series, end = _series(history, start, SERIES, folder)
    drawn = picture(results, run, spec, history, (metrics.get("evaluation") or {}).get("bins"))
    final = [
        Metric(f"{experiments.FINAL}/{name}", float(value), end, 0)
        for name, value in {**metrics, **(metrics.get("evaluation") or {})}.items()
        if is_number(value) and NAME.fullmatch(name)
    ]
    tags = _tags(spec, provenance, metrics, run, experiment.study)
    suite = load_frames(results, {run: spec}, uses=["uncertainty"]).uncertainty
    figures = [Metric(name, value, end, 0) for name, value in suite_metrics(suite).items()]
    points = [*series, *final, *figures, *numbers_of(spec, start)]
    known = _send(experiment, folder, run, spec, provenance, points, tags)
    if len(suite):
        client.log_artifact(known.run_id, str(folder / files.UNCERTAINTY))
    if drawn is not None:
        with tempfile.TemporaryDirectory() as room:
            path = Path(room) / PICTURE
            path.write_bytes(drawn)
            client.log_artifact(known.run_id, str(path))
    status = "FINISHED" if metrics["status"] == "complete" else "FAILED"
    client.set_terminated(known.run_id, status=status, end_time=end)
    signs = {experiments.FORMED: experiments.FORM, experiments.DIGEST: digest}
    client.log_batch(known.run_id, tags=[RunTag(name, value) for name, value in signs.items()])
    known.form, known.digest, known.points = experiments.FORM, digest, None
    return known


def suite_metrics(figures: pd.DataFrame) -> dict[str, float]:
    """The figures of one run that have a name (`ssvi.analysis.uncertain`) by their names in MLflow: `shift/accuracy_3`.

    Of the name of an OOD set, MLflow takes some characters only: one that has others is told apart by a hash.
    """
    found = {}
    for place, figure, value in (
        named(figures)[["place", "figure", "value"]].dropna().itertuples(index=False, name=None)
    ):
        group, _, name = place.partition("/")
        if name and not NAME.fullmatch(name):
            name = f"{re.sub(NOT_NAMED, '_', name)[:100]}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
        found["/".join(filter(None, (group, name, figure)))] = value
    return found


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
        params = params_of(spec)  # perhaps never sent; the same again is nothing new
    if begun is not None and not _conflict(begun.points or {}, points):
        known, sent = begun, begun.points or {}
        new_tags = [RunTag(name, value) for name, value in tags.items()]
    else:
        start = _milliseconds(provenance.get("started"), folder)
        kept = {} if begun is None else experiment.foreign_tags(begun.run_id)
        name = experiment.names[run]
        made = experiment.make_run(name, {**kept, **tags, experiments.NAMED: name}, start)
        known = Known(made.run_id, status=made.status, name=name, named=name)
        sent, new_tags, params = {}, [], params_of(spec)
        if begun is not None:
            client.set_tag(begun.run_id, experiments.SUPERSEDED, known.run_id)
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


def _tags(
    spec: RunSpec, provenance: Mapping[str, Any], metrics: Mapping[str, Any], run: str, study: str
) -> dict[str, str]:
    tags = {
        experiments.RUN: run,
        experiments.STUDY: study,
        **tags_of(spec),
        "seed": str(spec.seed),
        "git_commit": provenance.get("commit"),
        experiments.STATUS: metrics["status"],
        "cause": metrics.get("cause"),
    }
    return {name: one_line(str(value))[:TEXT_LENGTH] for name, value in tags.items() if value is not None}


# Files --------------------------------------------------------------------------------------------


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
            shown = {f"{experiments.CURVES}/{name}": value for name, value in values.items() if math.isfinite(value)}
            points += [Metric(name, value, now, int(row["epoch"])) for name, value in shown.items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: not a history ({error!r}); {told_by_version(folder)}") from None
    return points, start + int(seconds * 1000)
