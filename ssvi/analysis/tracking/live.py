"""Mirroring again and again: what changed since the last pass is found by looking at times and sizes alone."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ssvi.analysis.passwords import one_line
from ssvi.analysis.tracking import store
from ssvi.analysis.tracking.experiment import Experiment
from ssvi.analysis.tracking.means import settle
from ssvi.analysis.tracking.mirror import MLFLOW_STATUS, abandon, finish, follow, open_study
from ssvi.analysis.tracking.models import log_network
from ssvi.analysis.tracking.reports import log_reports, report_files
from ssvi.analysis.tracking.store import Client, Unavailable
from ssvi.errors import UserError, say
from ssvi.runs import files
from ssvi.runs.spec import RunSpec

INTERVAL = 5.0  # seconds between two passes
TURN = 5.0  # seconds a pass spends on finished runs, if there are more; those in training come first
PAUSE = 0.5  # seconds after such a pass, for another mirror to have its turn
SILENCE = 600.0  # seconds without a new epoch or checkpoint that make a training an interrupted one

# What MLflow answers about a run that it will not take, or no longer has, whatever is tried.
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


@dataclass(frozen=True)
class Plan:
    """What a config file asks to mirror.

    Attributes:
        results: the results folder.
        studies: a study's runs (paths and specs) and its folder of reports, by its name.
        study: the one that is shown first.
        models: the studies whose networks are logged.
    """

    results: Path
    studies: Mapping[str, tuple[Mapping[str, RunSpec], Path]]
    study: str
    models: Collection[str] = ()


@dataclass(frozen=True)
class Look:
    """How far a run is, and what of its files would be otherwise if they had changed."""

    status: str
    stamp: tuple[int, ...]


def look(folder: str, now: float) -> Look | None:
    """How far the run in `folder` is, without reading a file; None for one that has not begun.

    The status is training, interrupted (silent for long), trained (published, not evaluated yet), done, or unreadable
    for this user. Files of a run folder are replaced whole, which changes the folder's own time.
    """
    try:
        return _look(folder, now)
    except OSError as error:
        return Look("unreadable", (error.errno or 0,))


def _look(folder: str, now: float) -> Look | None:
    if (place := _stat(folder)) is None:
        return None
    trained = _stat(f"{folder}/{files.TRAINING}")
    live = _stat(f"{folder}/{files.LIVE_HISTORY}") if trained is None else None
    if live is not None and _stat(f"{folder}/{files.SPEC}") is not None:
        checkpoint = _stat(f"{folder}/{files.CHECKPOINT}")
        sign = max(live.st_mtime, checkpoint.st_mtime if checkpoint else 0.0)
        return Look("interrupted" if now - sign > SILENCE else "training", (live.st_mtime_ns, live.st_size))
    metrics = _stat(f"{folder}/{files.METRICS}")
    if metrics is not None:
        return Look("done", (place.st_mtime_ns, metrics.st_mtime_ns, metrics.st_size))
    return None if trained is None else Look("trained", (place.st_mtime_ns, trained.st_mtime_ns, trained.st_size))


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamps(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = ((str(path), _stat(str(path))) for path in paths)
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in found if stat is not None)


def _is_done(seen: Look | None) -> bool:
    return seen is not None and seen.status == "done"


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else one_line(error)


class Watcher:
    """Mirrors what changes in the run folders of all studies of a config file, a pass at a time.

    Between passes it remembers of each run what it last saw, and of each MLflow experiment which runs it holds;
    that memory is good as long as nobody else wrote to the mirror, which a file beside its lock tells.

    Args:
        config: the config files; read again when one changes.
        read: makes a plan of it, or raises `UserError`.

    Raises:
        UserError: if the config file or the mirror's address is no good to begin with.
    """

    def __init__(self, config: Sequence[Path], read: Callable[[], Plan]) -> None:
        self._config, self._read = config, read
        self._config_stamp = _stamps(config)
        self.plan = read()
        store.tracking_uri(self.plan.results)  # refused now rather than in every pass
        self._name = uuid.uuid4().hex
        self._client: Client | None = None
        self._experiments: dict[str, Experiment] = {}
        self._doubtful: set[str] = set()  # studies whose experiments were open when a call failed
        self._seen: dict[tuple[str, str], Look | None] = {}
        self._refused: dict[tuple[str, str], Look | None] = {}
        self._shown: dict[str, tuple[object, object]] = {}  # stamps of reports: last seen, last mirrored
        self._said: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Make passes until `stop` is set. What goes wrong is said in a line, once, and tried again."""
        while not stop.is_set():
            try:
                more = self.step(stop)
                self._said.pop("pass", None)
            except Exception as error:
                more = self._say("pass", _line(error))
            stop.wait(PAUSE if more else INTERVAL)

    def step(self, stop: threading.Event | None = None) -> bool:
        """Mirror what has changed since the last pass; returns whether some of it is left for the next one.

        While another mirror is at work, nothing is done.

        Raises:
            Unavailable: if the store is unreachable or unusable.
        """
        self._reread_config()
        runs, reports = self._changed_runs(time.time()), list(self._changed_reports())
        studies = {study for study, _ in runs} | {study for study, *_ in reports} | self._doubtful
        if not studies:
            return False
        # Those in training first: they are few, and what people look at.
        queue = deque(sorted(runs, key=lambda key: _is_done(runs[key])))
        begun = time.monotonic()
        try:
            with store.locked(self.plan.results, seconds=0), store.quiet():
                if not store.note_writer(self.plan.results, self._name):
                    self._experiments.clear()
                opened = {study: self._open(study) for study in studies if study in self.plan.studies}
                while queue and not (stop is not None and stop.is_set()):
                    key = queue.popleft()
                    if (experiment := opened[key[0]]) is not None:
                        self._mirror(experiment, key, runs[key])
                    if _is_done(runs[key]) and time.monotonic() - begun > TURN:
                        break
                for study, paths, stamps in [] if queue else reports:
                    if (experiment := opened[study]) is not None:
                        self._mirror_reports(experiment, paths, stamps)
                for study, experiment in self._experiments.items():
                    if not queue:
                        settle(experiment, self.plan.results, self.plan.studies[study][0])
                    experiment.delete_doubles()
                self._doubtful.clear()
                return bool(queue)
        except store.Busy:
            return False
        except Unavailable:
            # What happened to the last call is unknown, and so is what the store holds now.
            self._doubtful |= studies | set(self._experiments)
            self._experiments.clear()
            raise

    def _reread_config(self) -> None:
        stamp = _stamps(self._config)
        if stamp == self._config_stamp:
            return
        self._config_stamp = stamp
        try:
            plan = self._read()
            if plan.results != self.plan.results:
                names = ", ".join(map(str, self._config))
                raise UserError(f"{names}: results is another folder now; start `ssvi ui` again to follow.")
            self.plan = plan
            # what runs are called, and which views there are, is otherwise now
            self._doubtful |= set(self._experiments)
            self._experiments.clear()
            self._said.pop("config", None)
        except (UserError, OSError) as error:
            self._say("config", f"{error} Going on with the config as it was.")

    def _changed_runs(self, now: float) -> dict[tuple[str, str], Look | None]:
        """How far the runs are that have changed; None for one that is gone."""
        root = f"{self.plan.results}/runs"
        changed = {}
        for study, (specs, _) in self.plan.studies.items():
            for run in specs:
                found, key = look(f"{root}/{run}", now), (study, run)
                if found != self._seen.get(key):
                    changed[key] = found
        return changed

    def _changed_reports(self) -> Iterator[tuple[str, list[Path], object]]:
        """The reports that changed, once they have stayed as they are from one pass to the next."""
        for study, (_, reports) in self.plan.studies.items():
            paths = report_files(reports)
            stamps = _stamps(paths)
            last, mirrored = self._shown.get(study, ((), ()))
            if stamps == last and stamps != mirrored:
                yield study, paths, stamps
            self._shown[study] = (stamps, mirrored)

    def _open(self, study: str) -> Experiment | None:
        """The study's MLflow experiment, listed if that has to be done again; None if it cannot be used."""
        if study in self._experiments:
            return self._experiments[study]
        if self._client is None:
            self._client = store.connect(self.plan.results)
        try:
            experiment = open_study(self._client, self.plan.results, study, self.plan.studies[study][0])
        except Unavailable:
            raise
        except UserError as error:
            self._say(study, str(error))
            return None
        self._said.pop(study, None)
        self._experiments[study] = experiment
        specs, _ = self.plan.studies[study]
        for run, known in experiment.runs.items():
            if len(known) > 1:  # to be looked at again, though its files are as they were
                self._seen.pop((study, run), None)
            running = any(one.digest is None and one.status == MLFLOW_STATUS["training"] for one in known)
            if running and run in specs and look(f"{self.plan.results}/runs/{run}", time.time()) is None:
                abandon(experiment, run)
        return experiment

    def _mirror(self, experiment: Experiment, key: tuple[str, str], seen: Look | None) -> None:
        """Mirror one run. One that cannot be is named, and left alone until its files change."""
        study, run = key
        folder = self.plan.results / "runs" / run
        spec = self.plan.studies[study][0][run]
        try:
            if seen is None:
                abandon(experiment, run)
            elif _is_done(seen):
                finish(experiment, self.plan.results, run, spec)
                if study in self.plan.models:
                    log_network(experiment, self.plan.results, run, spec)
            else:
                signs = {}
                if seen.status != "trained":
                    at = datetime.fromtimestamp(seen.stamp[0] / 1e9, UTC)
                    signs = {"ssvi.last_epoch_at": at.isoformat(timespec="seconds")}
                follow(experiment, folder, run, spec, seen.status, signs)
            self._said.pop(f"{study}: {run}", None)
        except Unavailable as error:
            # Perhaps somebody deleted it in MLflow: look again what there is, and only then give up.
            if error.code not in REFUSALS or self._refused.get(key) != seen:
                self._refused[key] = seen
                raise
            self._say(f"{study}: {run}", str(error))
        except Exception as error:  # whatever its files hold, the other runs go on
            if look(str(folder), time.time()) != seen:
                return  # it changed while it was read; the next pass sees it as it is then
            self._say(f"{study}: {run}", _line(error))
        self._seen[key] = seen

    def _mirror_reports(self, experiment: Experiment, paths: list[Path], stamps: object) -> None:
        study = experiment.study
        try:
            log_reports(experiment, paths)
            self._said.pop(f"{study}: reports", None)
        except Unavailable:
            raise
        except (UserError, OSError) as error:
            if _stamps(paths) != stamps:
                return
            self._say(f"{study}: reports", str(error))
        self._shown[study] = (stamps, stamps)

    def _say(self, subject: str, message: str) -> bool:
        """Print what is wrong with `subject`, unless that was the last that was said of it."""
        if self._said.get(subject) != message:
            self._said[subject] = message
            say(f"ssvi ui: {message}")
        return False
