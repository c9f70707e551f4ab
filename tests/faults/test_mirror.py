"""MLflow away, slow, started again, locked, out of room: nothing else suffers; the mirror catches up, exactly once."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import with_seeds, write_run, write_runs
from flaky_proxy import Fault, Proxy, at, none
from mlflow import MlflowClient
from small_disk import fill, small_disk
from sqlalchemy import event
from sqlalchemy.engine import Engine
from studies import command, config_of, environment, write_config

from ssvi.analysis import tracking
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.records import to_jsonl
from ssvi.runs.spec import RunSpec

FAULT = "MLflow server unreachable, slow, restarted, locked"
SPECS = with_seeds(RunSpec(epochs=3), 2)
WHOLE = tracking.MirrorResult(added=2, artifacts=2)


class Server:
    """A real MLflow server on this machine, which can be killed and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.database = folder, port, folder / "mlflow.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--uvicorn-opts", "--log-level critical"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local store, and a fault costs a test a second, not a minute."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING_", "MLFLOW_HTTP_"))]:
        monkeypatch.delenv(name)
    patience = {
        "REQUEST_TIMEOUT": 1,
        "REQUEST_MAX_RETRIES": 3,
        "REQUEST_BACKOFF_FACTOR": 0,
        "REQUEST_BACKOFF_JITTER": 0,
    }
    for name, value in patience.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_{name}", str(value))


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes now has to succeed, however busy the machine is."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with nothing in it: making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.store.create_store(folder)
    return folder / "mlflow/mlflow.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), free_port())
    shutil.copy(empty_store, server.database)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Study:
    """Run folders and reports to mirror, under a name of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.results, self.reports, self.name, self.config = folder / "results", folder / "reports", name, folder / "c"
        self.specs = write_runs(self.results, SPECS, epochs=3)
        (self.reports / "tables").mkdir(parents=True)
        for path in ("tables/t.md", "report.html"):
            (self.reports / path).write_text(path)
        self.config.write_text("")

    def mirror(self) -> tracking.MirrorResult:
        return tracking.mirror(self.results, self.name, self.specs, tracking.report_files(self.reports))

    def watcher(self) -> tracking.Watcher:
        return tracking.Watcher(
            [self.config], lambda: tracking.Plan(self.results, {self.name: (self.specs, self.reports)}, self.name)
        )


@pytest.fixture
def study(tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    return Study(tmp_path, request.node.name)


@pytest.fixture
def local(study: Study, empty_store: Path) -> Path:
    """The database of the study's own store."""
    database = study.results / "mlflow/mlflow.db"
    database.parent.mkdir()
    return Path(shutil.copy(empty_store, database))


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the mirror and the server."""
    with Proxy(server.port).running() as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        yield proxy


def held(database: Path, study: str) -> dict[str, Any]:
    """What the database holds of a study, by run path: one MLflow run each, not deleted and not superseded."""
    with contextlib.closing(sqlite3.connect(database)) as store:

        def rows(query: str, *values: Any) -> list[Any]:
            return sorted(store.execute(query, values).fetchall())

        found: dict[str, Any] = {}
        settings = {}
        active = "lifecycle_stage = 'active' AND experiment_id = (SELECT experiment_id FROM experiments WHERE name = ?)"
        for uuid, status, start in rows(f"SELECT run_uuid, status, start_time FROM runs WHERE {active}", study):
            tags = dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", uuid))
            assert "ssvi.superseded_by" not in tags
            run = tags.get("ssvi.run", tags.get("ssvi.setting", tags.get("ssvi.kind")))
            assert run not in found, f"{run} is there twice"
            if "ssvi.setting" in tags:
                settings[uuid] = run
            tags = {name: value for name, value in tags.items() if name not in ("ssvi.made", "ssvi.study")}
            params = rows("SELECT key, value FROM params WHERE run_uuid = ?", uuid)
            points = rows("SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ?", uuid)
            if "ssvi.run" not in tags:  # made when they were
                start, points = None, [(key, step, value) for key, step, _, value in points]
            found[run] = (tags, status, start, params, points)
        for tags, *_ in found.values():
            if "mlflow.parentRunId" in tags:
                tags["mlflow.parentRunId"] = settings[tags["mlflow.parentRunId"]]
        return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> dict[str, Any]:
    """What a mirror without any fault holds."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), "study")
    (study.results / "mlflow").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copy(empty_store, study.results / "mlflow")
        assert study.mirror() == WHOLE
    found = held(study.results / "mlflow/mlflow.db", "study")
    setting = run_path(SPECS[0]).rpartition("/seed=")[0]
    assert found.keys() == {*study.specs, setting, "reports"}
    assert all(len(found[run][4]) > 3 * 9 for run in study.specs)
    assert all(found[run][0]["mlflow.parentRunId"] == setting for run in study.specs)
    return found


REQUESTS = 33  # about as many as a mirror of the study sends


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, server: Server, undisturbed: dict[str, Any]) -> list[str]:
    """The requests of a mirror without any fault."""
    with pytest.MonkeyPatch.context() as patch, Proxy(server.port).running() as proxy:
        patch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        assert Study(tmp_path_factory.mktemp("sent"), "sent").mirror() == WHOLE
    assert held(server.database, "sent") == undisturbed
    return proxy.asked


@pytest.fixture
def nth(sent: list[str], trial: int) -> int:
    """The request that a trial is about: all in turn, but those first that make something."""
    return sorted(range(len(sent)), key=lambda n: (not sent[n].endswith("/create"), n))[trial % len(sent)]


@pytest.mark.fault(FAULT, quick=5, whole=REQUESTS)
def test_a_lost_answer_is_asked_for_again(
    study: Study, proxy: Proxy, server: Server, undisturbed: dict[str, Any], sent: list[str], nth: int
) -> None:
    proxy.begin(at(nth, "lose"))
    assert study.mirror() == WHOLE
    assert len(proxy.asked) > len(sent)
    assert held(server.database, study.name) == undisturbed


@pytest.mark.fault(FAULT, quick=1, whole=8)
@pytest.mark.parametrize("kind", ["refuse", "503", "twice"])
def test_a_server_that_is_away_for_a_moment_is_waited_for(
    study: Study, proxy: Proxy, server: Server, undisturbed: dict[str, Any], sent: list[str], kind: str, nth: int
) -> None:
    proxy.begin(at(nth, kind))
    assert study.mirror() == WHOLE
    assert len(proxy.asked) > len(sent)
    assert held(server.database, study.name) == undisturbed


@pytest.mark.fault(FAULT, quick=0, whole=8)
@pytest.mark.parametrize("kind", ["hang", "late"])
def test_a_server_that_is_slow_is_asked_again(
    study: Study, proxy: Proxy, server: Server, undisturbed: dict[str, Any], sent: list[str], kind: str, nth: int
) -> None:
    proxy.begin(at(nth, kind))
    assert study.mirror() == WHOLE
    assert len(proxy.asked) > len(sent)
    assert held(server.database, study.name) == undisturbed


def gone_after(nth: int) -> Fault:
    """The answer to this request is lost, and no other gets through."""
    return lambda number, asked: "lose" if number == nth else "refuse" if number > nth else None


def doubling_and_gone_after(nth: int) -> Fault:
    """Whatever is made is made twice, as the first answer is lost; after so many requests none gets through."""
    lost: set[int] = set()

    def fault(number: int, asked: str) -> str | None:
        if number - len(lost) > nth:
            return "refuse"
        if asked.endswith("/create") and number - 1 not in lost:
            lost.add(number)
            return "lose"
        return None

    return fault


@pytest.fixture(params=[(gone_after, 0), (doubling_and_gone_after, 1)], ids=["gone", "doubling and gone"])
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, nth: int) -> Fault:
    """The server goes away after so many requests; MLflow's client asks again once where answers are lost before."""
    going, retries = request.param
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    return going(nth)


@pytest.mark.fault(FAULT, quick=2, whole=REQUESTS - 1)
def test_what_was_begun_when_the_server_went_away_is_completed(
    study: Study,
    proxy: Proxy,
    server: Server,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    proxy.begin(fault)
    with pytest.raises(tracking.Unavailable, match=r"^MLflow at http://127.0.0.1:\d+: "):
        study.mirror()
    be_patient(monkeypatch)
    proxy.begin(none)
    study.mirror()
    assert held(server.database, study.name) == undisturbed
    assert study.mirror() == tracking.MirrorResult(unchanged=2)


@pytest.mark.fault(FAULT, quick=2, whole=REQUESTS - 1)
def test_a_watcher_catches_up(
    study: Study,
    proxy: Proxy,
    server: Server,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    """A run in training is mirrored too when the server goes away, and ends as any other."""
    begin_training(study, SPECS[0])
    watcher = study.watcher()
    proxy.begin(fault)
    for _ in range(4):
        with contextlib.suppress(tracking.Unavailable):
            watcher.step()
    be_patient(monkeypatch)
    proxy.begin(none)
    settle(watcher, proxy)
    assert held(server.database, study.name).keys() == undisturbed.keys()
    write_run(study.results, SPECS[0], epochs=3)
    files.remove_live(study.results / "runs" / run_path(SPECS[0]))
    settle(watcher, proxy)
    found = held(server.database, study.name)
    for tags, *_ in found.values():
        tags.pop("ssvi.last_epoch_at", None)
    assert found == undisturbed


def settle(watcher: tracking.Watcher, proxy: Proxy) -> None:
    """Let the watcher make passes until it asks nothing more."""
    for _ in range(10):
        before = len(proxy.asked)
        watcher.step()
        if len(proxy.asked) == before:
            return
    raise AssertionError(f"still asking: {proxy.asked}")


def begin_training(study: Study, spec: RunSpec) -> None:
    """Leave of a finished run what there is after two of its epochs."""
    folder = study.results / "runs" / run_path(spec)
    rows = (folder / files.HISTORY).read_text().splitlines()
    names = rows[0].split(",")
    records = [{k: float(v) for k, v in zip(names, row.split(","), strict=True) if v} for row in rows[1:3]]
    for record in records:
        record |= {name: None for name in names if name not in record}
    (folder / files.LIVE).mkdir()
    (folder / files.LIVE_HISTORY).write_text(to_jsonl(records))
    for name in (files.TRAINING, files.METRICS, files.HISTORY):
        (folder / name).unlink()


@pytest.mark.fault(FAULT, quick=0, whole=2)
def test_a_server_that_is_killed_and_started_again_is_waited_for(
    study: Study,
    proxy: Proxy,
    server: Server,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "10")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")

    def fault(number: int, asked: str) -> None:
        if number == nth:
            server.kill()
            threading.Thread(target=server.start).start()

    proxy.begin(fault)
    assert study.mirror() == WHOLE
    assert held(server.database, study.name) == undisturbed


@pytest.mark.fault(FAULT, quick=1)
def test_a_server_that_does_not_run_is_named_and_filled_later(
    study: Study, server: Server, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:geheim@{where}")
        with pytest.raises(tracking.Unavailable) as caught:
            study.mirror()
        assert str(caught.value) == f"MLflow at http://{where}: Connection refused"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:geheim@127.0.0.1:{server.port}")
    assert study.mirror() == WHOLE
    assert held(server.database, study.name) == undisturbed


@pytest.mark.fault(FAULT, quick=0)
def test_a_database_that_is_locked_behind_the_server_is_filled_later(
    study: Study, proxy: Proxy, server: Server, undisturbed: dict[str, Any]
) -> None:
    with locking(server.database), pytest.raises(tracking.Unavailable, match="timed out"):
        study.mirror()
    study.mirror()
    assert held(server.database, study.name) == undisturbed


@contextlib.contextmanager
def locking(database: Path) -> Iterator[sqlite3.Connection]:
    """Keep everybody else out of a database; COMMIT lets them in."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@pytest.mark.fault(FAULT, quick=0)
def test_a_local_database_that_stays_locked_is_named_and_filled_later(
    study: Study, local: Path, undisturbed: dict[str, Any]
) -> None:
    with locking(local), pytest.raises(tracking.Unavailable, match=r"^MLflow at sqlite:.*: database is locked$"):
        study.mirror()
    assert study.mirror() == WHOLE
    assert held(local, study.name) == undisturbed


CALLS = ("create_experiment", "create_run", "log_batch", "set_terminated", "log_artifact", "set_tag", "search_runs")


@pytest.mark.fault(FAULT, quick=2, whole=len(CALLS))
def test_a_local_database_that_is_locked_for_a_while_is_waited_for(
    study: Study, local: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trial: int
) -> None:
    """Locked when a call begins, by somebody who is done once MLflow has asked for something."""
    real, asked = getattr(MlflowClient, CALLS[trial]), threading.Event()

    def locked_at_first(*args: Any, **kwargs: Any) -> Any:
        if asked.is_set():
            return real(*args, **kwargs)
        with locking(local) as other:
            release = threading.Thread(target=lambda: (asked.wait(), other.execute("COMMIT")))
            release.start()
            event.listen(Engine, "before_cursor_execute", note)
            try:
                return real(*args, **kwargs)
            finally:
                event.remove(Engine, "before_cursor_execute", note)
                asked.set()
                release.join()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("PRAGMA"):
            asked.set()

    monkeypatch.setattr(MlflowClient, CALLS[trial], locked_at_first)
    assert study.mirror() == WHOLE
    assert asked.is_set()
    assert held(local, study.name) == undisturbed


AT_ONCE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_mirror import SPECS
from ssvi.analysis import tracking
from ssvi.runs.paths import run_path

specs = {run_path(spec): spec for spec in SPECS}
print("ready", flush=True)
sys.stdin.readline()
print(tracking.mirror(Path(sys.argv[2]), sys.argv[3], specs, tracking.report_files(Path(sys.argv[4]))))
"""


@pytest.mark.fault(FAULT, quick=0)
@pytest.mark.parametrize("where", ["local", "server"])
def test_of_two_mirrors_at_once_each_run_comes_once(
    study: Study, local: Path, server: Server, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    words = [sys.executable, "-c", AT_ONCE, Path(__file__).parent, study.results, study.name, study.reports]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    both = [subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}, **pipes) for _ in range(2)]
    assert [one.stdout.readline() for one in both] == ["ready\n"] * 2
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = sorted(one.communicate(timeout=120)[0] for one in both)
    assert said == sorted(f"{result}\n" for result in (WHOLE, tracking.MirrorResult(unchanged=2)))
    assert held(server.database if where == "server" else local, study.name) == undisturbed


# Bytes left: for nothing; for a part of the database; for the database and a part of its first run, and of its second.
ROOM = (60_000, 0, 3_000, 100_000, 500_000, 900_000, 1_000_000, 1_040_000)


@pytest.mark.fault("disk full in the mirror", quick=1, whole=len(ROOM))
def test_a_store_without_room_stays_whole_and_is_filled_later(
    tmp_path: Path, empty_store: Path, undisturbed: dict[str, Any], trial: int
) -> None:
    """With a database that was there already, or none."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        study = Study(disk, "study")
        folder = study.results / "mlflow"
        folder.mkdir()
        if not trial:
            shutil.copy(empty_store, folder)
        (study.reports / "tables/t.csv").write_bytes(b"0" * 100_000)
        filler = fill(disk, ROOM[trial])
        with pytest.raises(tracking.Unavailable, match=r"full|No space left"):
            study.mirror()
        filler.unlink()
        (study.reports / "tables/t.csv").unlink()
        study.mirror()
        assert study.mirror() == tracking.MirrorResult(unchanged=2)
        assert held(folder / "mlflow.db", "study") == undisturbed
        assert not list(folder.glob(".*"))


@pytest.mark.fault(FAULT, quick=0)
def test_a_workflow_without_its_server_ends_well_and_the_same_command_catches_up(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the password of the server is nowhere."""
    train = {"dataset": "digits", "model": "mlp", "epochs": 1}
    study = {"train": train, "experiments": {"one": {"method": "vi"}}, "tables": {"summary": ["one"]}, "figures": {}}
    write_config(tmp_path, config_of("tiny", study))
    (tmp_path / "results/mlflow").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "results/mlflow")
    record = tmp_path / "results/mlflow/tiny.json"

    def workflow(**variables: str) -> str:
        words, clean = command(tmp_path), environment() | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"} | variables
        done = subprocess.run(words, capture_output=True, text=True, env=clean, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        said = workflow(MLFLOW_TRACKING_URI=f"http://user:geheim@{where}/?token=geheim")
    assert said.count("warning: the mirror is not up to date") == 1
    assert f"MLflow at http://{where}/: Connection refused. The same command, or ssvi ui, catches up" in said
    assert "Connection refused" in (tmp_path / "results/logs/mirror/tiny.log").read_text()
    assert json.loads(record.read_text()).keys() == {"error"}
    for path in ("reports/tiny/tables/summary.md", "reports/tiny/report.html"):
        assert (tmp_path / path).exists()
    trained = next(tmp_path.rglob("model.safetensors")).stat().st_mtime_ns
    again = workflow()
    assert "warning" not in again
    assert json.loads(record.read_text())["added"] == 1
    assert next(tmp_path.rglob("model.safetensors")).stat().st_mtime_ns == trained
    assert len(held(tmp_path / "results/mlflow/mlflow.db", "tiny")) == 3  # the run, its means, the reports
    assert "geheim" not in said
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"geheim" in p.read_bytes()]
