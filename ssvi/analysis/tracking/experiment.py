"""The MLflow experiment of a study, and what it holds already."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import Metric, Run, RunInfo, ViewType

from ssvi.analysis.tracking.store import Client, Unavailable, is_local, store_folder
from ssvi.errors import UserError

PAGE = 1000
# The tags by which a mirror knows what it made.
RUN, STUDY, DIGEST, KIND, SUPERSEDED = "ssvi.run", "ssvi.study", "ssvi.digest", "ssvi.kind", "ssvi.superseded_by"
MADE, NAMED, FORMED, MODEL = "ssvi.made", "ssvi.name", "ssvi.form", "ssvi.model"
STATUS = "status"
REPORTS = "reports"
SETTING, SETTING_PATH = "setting", "ssvi.setting"
# What sections of numbers are called: MLflow shows them in the order of the alphabet.
CURVES, FINAL, MEAN, LOW, HIGH, COUNT, OPTIONS = "curves", "final", "mean", "low", "high", "n", "options"
# What a whole MLflow run holds of a run folder; one of an earlier form is completed.
#   1: params, series, final/, tags.
#   2: also a short name, curves/, options/ and the picture.
FORM = "2"


@dataclass(eq=False)
class Known:
    """An MLflow run of ours.

    Attributes:
        run_id: MLflow's name of it.
        digest: of the files it was made from, once it is whole.
        status: in MLflow's words (RUNNING, KILLED, FINISHED, FAILED).
        held: how many metrics and tags it was found with.
        points: the values it holds by series and epoch, while it grows; None as long as nobody asked.
        name: what it is called.
        named: what it was called by a mirror; people call it otherwise.
        form: which `FORM` it has.
        model: MLflow's name of its network, where that was logged.
    """

    run_id: str
    digest: str | None = None
    status: str | None = None
    held: int = 0
    points: dict[tuple[str, int], float] | None = None
    name: str = ""
    named: str = ""
    form: str | None = None
    model: str | None = None


@dataclass
class Experiment:
    """The MLflow experiment of a study, and the runs it is known to hold, superseded ones left out.

    Attributes:
        client: for its store.
        study: its name.
        id: MLflow's name of it.
        names: what its runs are to be called, by run path.
        tags: its own.
        runs: by run path, the one that holds most first.
        settings: the MLflow runs of the means over seeds, by run path without the seed.
        reports: the MLflow run of the reports.
        report_tags: that run's tags.
        made: the MLflow runs made since `delete_doubles`.
        token: a tag of these.
    """

    client: Client
    study: str
    id: str
    names: Mapping[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    runs: dict[str, list[Known]] = field(default_factory=dict)
    settings: dict[str, list[Known]] = field(default_factory=dict)
    reports: str | None = None
    report_tags: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def make_run(self, name: str, tags: Mapping[str, str], start: int | None = None) -> RunInfo:
        """Make an MLflow run."""
        tags = {**tags, MADE: self.token}
        info = self.client.create_run(self.id, start_time=start, tags=tags, run_name=name).info
        self.made.add(info.run_id)
        return info

    def rename(self) -> None:
        """Call each run as `names` has it, unless people call it otherwise."""
        for run, name in self.names.items():
            for known in self.runs.get(run, []):
                if known.name == known.named != name:
                    self.client.update_run(known.run_id, name=name)
                    self.client.set_tag(known.run_id, NAMED, name)
                    known.name = known.named = name

    def foreign_tags(self, run_id: str) -> dict[str, str]:
        """The tags of an MLflow run that people gave it, notes included."""
        tags = self.client.get_run(run_id).data.tags
        return {k: v for k, v in tags.items() if not k.startswith(("ssvi.", "mlflow.")) or k == "mlflow.note.content"}

    def finals(self, run_id: str) -> list[Metric]:
        """The final metrics of an MLflow run that has ended."""
        run = self.client.get_run(run_id)
        final = {name: value for name, value in run.data.metrics.items() if name.startswith(f"{FINAL}/")}
        return [Metric(name, value, run.info.end_time, 0) for name, value in final.items()]

    def delete_doubles(self) -> None:
        """Delete what was made twice because the first answer was lost on its way and MLflow's client asked again."""
        if self.made:
            for run in list(self.search(f"tags.`{MADE}` = '{self.token}'")):
                if run.info.run_id not in self.made:
                    self.client.delete_run(run.info.run_id)
            self.made.clear()
            self.token = uuid.uuid4().hex

    def search(self, condition: str = "") -> Iterator[Run]:
        """The MLflow runs that nobody deleted, a thousand a query."""
        token = None
        while True:
            page = self.client.search_runs([self.id], condition, ViewType.ACTIVE_ONLY, PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def open_experiment(client: Client, results: Path, study: str) -> Experiment:
    """The MLflow experiment named `study`, made if need be, with what it holds: a few queries a thousand runs.

    Call it under the lock.

    Raises:
        Unavailable: if the results folder was moved since the experiment was made.
        UserError: if it was deleted in MLflow.
    """
    experiment = find_experiment(client, results, study)
    _list_runs(experiment)
    return experiment


def find_experiment(client: Client, results: Path, study: str) -> Experiment:
    """The MLflow experiment named `study`, made if need be; what it holds is not looked at.

    Raises:
        As `open_experiment`.
    """
    location = (store_folder(results) / "artifacts" / study).as_uri() if is_local() else None
    found = client.get_experiment_by_name(study)
    if found is None:
        try:
            return Experiment(client, study, client.create_experiment(study, artifact_location=location))
        except Unavailable as error:
            # made all the same, by a request whose answer was lost or by a mirror of another results folder
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(study)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {study!r} was deleted there: restore it, or remove it for good with mlflow gc."
        )
    if location is not None and found.artifact_location.startswith("file:") and found.artifact_location != location:
        # MLflow stores absolute places, and has no call that changes them.
        raise Unavailable(
            f"{store_folder(results)}: this mirror was made where its reports are {found.artifact_location}, and "
            f"MLflow would look for them there: move the results folder back or, with `ssvi ui` ended, delete "
            f"{store_folder(results)} and run this again, which mirrors all run folders anew (notes and tags that were "
            "added in MLflow are lost with it)"
        )
    return Experiment(client, study, found.experiment_id, tags=dict(found.tags))


def _list_runs(experiment: Experiment) -> None:
    """Note which MLflow runs there are; of several for the reports only the one that holds most stays."""
    reports: list[tuple[int, Run]] = []
    for run in experiment.search():
        tags, run_id = run.data.tags, run.info.run_id
        held = len(run.data.metrics) + len(tags)
        if RUN in tags and SUPERSEDED not in tags:
            known = Known(run_id, tags.get(DIGEST), run.info.status, held, name=run.info.run_name)
            known.named, known.form, known.model = _named(run), tags.get(FORMED), tags.get(MODEL)
            experiment.runs.setdefault(tags[RUN], []).append(known)
        elif tags.get(KIND) == SETTING:
            known = Known(run_id, tags.get(DIGEST), run.info.status, held)
            experiment.settings.setdefault(tags[SETTING_PATH], []).append(known)
        elif tags.get(KIND) == REPORTS:
            reports.append((held, run))
    for known_runs in experiment.runs.values():
        known_runs.sort(key=lambda known: known.held, reverse=True)
    if reports:
        *others, (_, run) = sorted(reports, key=lambda found: (found[0], found[1].info.run_id))
        for _, other in others:
            experiment.client.delete_run(other.info.run_id)
        if run.info.status == "RUNNING":
            experiment.client.set_terminated(run.info.run_id)
        experiment.reports, experiment.report_tags = run.info.run_id, dict(run.data.tags)


def _named(run: Run) -> str:
    """What a mirror called an MLflow run: before it said so, its path, cut in the middle where that was too long."""
    name, path = run.info.run_name, run.data.tags[RUN].split("/", 2)[-1]
    return run.data.tags.get(NAMED, name if path.startswith(name.split("…")[0]) else "")
