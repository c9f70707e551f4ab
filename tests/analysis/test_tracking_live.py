"""`ssvi ui`: runs in training are mirrored while they grow, and finished ones are looked at and left alone."""

from __future__ import annotations

import builtins
import dataclasses
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from fake_runs import tie, with_seeds, write_run, write_runs
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from places import ROOT
from unreadable import unreadable

from ssvi.analysis import tracking
from ssvi.analysis.tracking import live, ui
from ssvi.errors import UserError
from ssvi.machine.disk import write_json
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_jsonl, to_jsonl
from ssvi.runs.spec import RunSpec

SPEC = RunSpec(epochs=5)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with nothing in it: making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("empty")
    tracking.store.create_store(folder)
    return folder


class Study:
    """A results folder with a mirror, and a config with one study of runs in it."""

    def __init__(self, folder: Path, empty: Path) -> None:
        self.results, self.reports, self.config = folder / "results", folder / "reports", folder / "config.yaml"
        shutil.copytree(empty, self.results)
        self.specs: dict[str, RunSpec] = {}
        self.config.write_text("one")

    def read(self) -> tracking.Plan:
        if "nonsense" in self.config.read_text():
            raise UserError("config.yaml: nonsense.")
        return tracking.Plan(self.results, {"study": (self.specs, self.reports)}, "study")

    def watcher(self, *specs: RunSpec) -> tracking.Watcher:
        self.specs.update({run_path(spec): spec for spec in specs})
        return tracking.Watcher([self.config], self.read)

    def folder(self, spec: RunSpec) -> Path:
        return self.results / "runs" / run_path(spec)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking.tracking_uri(self.results))

    def runs(self) -> list[Any]:
        """The MLflow runs but for the means over seeds."""
        found = self.client.get_experiment_by_name("study")
        runs = list(self.client.search_runs([found.experiment_id])) if found else []
        return [run for run in runs if run.data.tags.get("ssvi.kind") != "setting"]

    def steps(self, name: str) -> list[int]:
        (run,) = self.runs()
        return [point.step for point in self.client.get_metric_history(run.info.run_id, name)]


@pytest.fixture
def study(tmp_path: Path, empty_store: Path) -> Study:
    return Study(tmp_path, empty_store)


def train(study: Study, spec: RunSpec, epochs: int, *, seconds: float = 10.0, torn: str = "") -> None:
    """Leave the folder of a run in training as it is after some epochs of the run that `write_run` writes."""
    scratch = study.results / "scratch"
    run = write_run(scratch, spec)
    made = scratch / "runs" / run
    folder = study.folder(spec)
    (folder / files.LIVE).mkdir(parents=True, exist_ok=True)
    (folder / files.SPEC).write_bytes((made / files.SPEC).read_bytes())
    lines = (made / files.HISTORY).read_text().splitlines()
    rows = [dict(zip(files.HISTORY_COLUMNS, line.split(","), strict=True)) for line in lines[1 : epochs + 1]]
    records = [{k: json.loads(v) if v else None for k, v in row.items()} | {"seconds": seconds} for row in rows]
    (folder / files.LIVE_HISTORY).write_text(to_jsonl(records) + torn)
    shutil.rmtree(scratch)


def publish(study: Study, spec: RunSpec, status: str = "complete") -> None:
    """End the training."""
    write_run(study.results, spec)
    (study.folder(spec) / files.METRICS).unlink()
    write_json(study.folder(spec) / files.TRAINING, {"status": status})
    tie(study.folder(spec))
    files.remove_live(study.folder(spec))


def test_a_run_in_training_grows_and_becomes_the_finished_one(study: Study) -> None:
    watcher = study.watcher(SPEC)
    assert watcher.step() is False
    assert study.runs() == []
    train(study, SPEC, 2, torn='{"epoch": 3, "st')
    watcher.step()
    (run,) = study.runs()
    assert run.info.status == "RUNNING"
    assert run.data.tags["status"] == "training"
    assert run.data.tags["ssvi.run"] == run_path(SPEC)
    assert run.data.tags["ssvi.last_epoch_at"].endswith("+00:00")
    assert run.data.params["criterion"] == "snr_abs"
    assert "ssvi.digest" not in run.data.tags
    assert study.steps("curves/loss") == [1, 2]
    study.client.set_tag(run.info.run_id, "favourite", "yes")
    train(study, SPEC, 4)
    watcher.step()
    assert study.steps("curves/loss") == [1, 2, 3, 4]
    publish(study, SPEC)
    watcher.step()
    assert study.steps("curves/kl") == study.steps("curves/seconds") == [1, 2, 3, 4, 5]
    assert study.runs()[0].data.tags["status"] == "trained"
    assert study.runs()[0].info.status == "FINISHED"
    write_run(study.results, SPEC)
    watcher.step()
    (whole,) = study.runs()
    assert whole.info.run_id == run.info.run_id
    assert whole.data.tags["favourite"] == "yes"
    assert whole.data.tags["status"] == "complete"
    assert len(whole.data.tags["ssvi.digest"]) == 64
    assert whole.info.end_time - whole.info.start_time == 50_000
    assert study.steps("curves/loss") == study.steps("curves/seconds") == [1, 2, 3, 4, 5]
    assert tracking.mirror(study.results, "study", study.specs) == tracking.MirrorResult(unchanged=1)


def test_a_resumed_training_doubles_no_point(study: Study) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 4)
    watcher.step()
    train(study, SPEC, 2)
    watcher.step()
    assert study.steps("curves/loss") == [1, 2, 3, 4]
    train(study, SPEC, 5, seconds=99.0)
    study.watcher().step()
    assert study.steps("curves/loss") == [1, 2, 3, 4, 5]
    write_run(study.results, SPEC)
    files.remove_live(study.folder(SPEC))
    study.watcher().step()
    assert study.steps("curves/loss") == study.steps("curves/seconds") == [1, 2, 3, 4, 5]


def test_epochs_that_come_out_otherwise_take_a_new_run_and_peoples_tags_along(study: Study) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 3)
    watcher.step()
    (old,) = study.runs()
    study.client.set_tag(old.info.run_id, "mlflow.note.content", "the one for the talk")
    path = study.folder(SPEC) / files.LIVE_HISTORY
    rows = read_jsonl(path)
    path.write_text(to_jsonl([*rows[:2], {**rows[2], "loss": 0.125}]))
    watcher.step()
    runs = {r.info.run_id: r for r in study.runs()}
    new = runs[runs.pop(old.info.run_id).data.tags["ssvi.superseded_by"]]
    assert new.data.tags["mlflow.note.content"] == "the one for the talk"
    assert [p.value for p in study.client.get_metric_history(new.info.run_id, "curves/loss")][-1] == 0.125
    assert (study.client.get_run(old.info.run_id).info.status, new.info.status) == ("KILLED", "RUNNING")
    train(study, SPEC, 2)
    watcher.step()
    assert len(study.runs()) == 2


def test_a_silent_training_is_an_interrupted_one_until_it_goes_on(study: Study) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 2)
    for name in (files.LIVE_HISTORY, files.CHECKPOINT):
        (study.folder(SPEC) / name).touch()
        os.utime(study.folder(SPEC) / name, (1e9, 1e9))
    watcher.step()
    (run,) = study.runs()
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")
    assert run.data.tags["ssvi.last_epoch_at"] == "2001-09-09T01:46:40+00:00"
    (study.folder(SPEC) / files.CHECKPOINT).touch()
    watcher.step()
    (run,) = study.runs()
    assert (run.info.status, run.data.tags["status"]) == ("RUNNING", "training")
    shutil.rmtree(study.folder(SPEC))
    watcher.step()
    (run,) = study.runs()
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")


def test_a_run_that_vanished_while_nobody_watched_is_interrupted(study: Study) -> None:
    other = dataclasses.replace(SPEC, seed=1)
    train(study, SPEC, 2)
    study.watcher(SPEC, other).step()
    shutil.rmtree(study.folder(SPEC))
    train(study, other, 1)
    study.watcher().step()
    assert sorted(run.info.status for run in study.runs()) == ["KILLED", "RUNNING"]


def test_a_diverged_training_has_failed(study: Study) -> None:
    publish(study, SPEC, "diverged")
    watcher = study.watcher(SPEC)
    watcher.step()
    assert study.runs()[0].info.status == "FAILED"
    write_run(study.results, SPEC, diverged="the loss is nan")
    watcher.step()
    (run,) = study.runs()
    assert (run.info.status, run.data.tags["cause"]) == ("FAILED", "the loss is nan")


def test_an_unchanged_pass_reads_nothing_and_asks_nothing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = with_seeds(SPEC, 3)
    write_runs(study.results, specs)
    train(study, live_spec := dataclasses.replace(SPEC, seed=7), 2)
    watcher = study.watcher(*specs, live_spec, dataclasses.replace(SPEC, seed=8))
    assert watcher.step() is False
    with monkeypatch.context() as patch:
        store = tracking.store
        for place, name in ((builtins, "open"), (pathlib.Path, "open"), (store, "locked"), (store, "connect")):
            patch.setattr(place, name, _never)
        for name in ("search_runs", "get_run", "log_batch", "get_experiment_by_name"):
            patch.setattr(MlflowClient, name, _never)
        assert watcher.step() is False
    with monkeypatch.context() as patch:
        # A new run costs no look at those that are there already.
        write_run(study.results, new := dataclasses.replace(SPEC, seed=8))
        read: list[str] = []
        patch.setattr(live, "finish", lambda *args: read.append(args[2]))
        patch.setattr(MlflowClient, "search_runs", _never)
        watcher.step()
        assert read == [run_path(new)]


def _never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError(f"called with {args} {kwargs}")


def test_many_finished_runs_are_mirrored_in_turns_and_those_in_training_first(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TURN", -1.0)
    specs = with_seeds(SPEC, 3)
    write_runs(study.results, specs)
    train(study, training := dataclasses.replace(SPEC, seed=9), 1)
    watcher = study.watcher(*specs, training)
    assert watcher.step() is True
    assert sorted(run.info.status for run in study.runs()) == ["FINISHED", "RUNNING"]
    assert watcher.step() is True
    assert watcher.step() is False
    assert len(study.runs()) == 4
    stop = threading.Event()
    stop.set()
    write_run(study.results, specs[0], accuracy=0.5)
    watcher.step(stop)
    assert len(study.runs()) == 4


@pytest.mark.fault("two mirrors at once")
def test_two_mirrors_take_turns_and_write_each_run_once(study: Study) -> None:
    specs = with_seeds(SPEC, 2)
    watcher = study.watcher(*specs)
    train(study, specs[0], 2)
    watcher.step()
    write_run(study.results, specs[0])
    write_run(study.results, specs[1])
    files.remove_live(study.folder(specs[0]))
    with FileLock(study.results / "mlflow" / "mirror.lock"):
        assert watcher.step() is False
    assert tracking.mirror(study.results, "study", study.specs).added == 2
    watcher.step()
    assert len(study.runs()) == 2
    assert all("ssvi.digest" in run.data.tags for run in study.runs())


@pytest.mark.parametrize(
    ("name", "content", "said_of_it"),
    [
        (files.METRICS, "{", "not readable as JSON"),
        (files.METRICS, "{}", "has no 'status'"),
        (files.HISTORY, "epoch,loss\n1,many\n", "loss is 'many', but must be a number"),
        (files.SPEC, '{"spec": {}, "provenance": 1}', "provenance is 1, but must be an object"),
        (files.SPEC, '{"spec": {"delta_t": 7}}', "delta_t was 7 and is now 100"),
    ],
)
def test_a_run_that_cannot_be_mirrored_is_named_once_and_the_others_go_on(
    study: Study, capsys: pytest.CaptureFixture[str], name: str, content: str, said_of_it: str
) -> None:
    broken, fine = with_seeds(RunSpec(), 2)
    write_runs(study.results, [broken, fine])
    (study.folder(broken) / name).write_text(content)
    tie(study.folder(broken))
    watcher = study.watcher(broken, fine)
    watcher.step()
    watcher.step()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("ssvi ui: ")
    assert said_of_it in said[0]
    assert len(study.runs()) == 1
    write_run(study.results, broken)
    watcher.step()
    assert len(study.runs()) == 2


def test_a_store_that_fails_for_a_while_is_tried_again(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 2)
    stop, passes = threading.Event(), []
    real = MlflowClient.log_batch

    def log_batch(*args: Any, **kwargs: Any) -> None:
        if len(passes) < 2:
            raise MlflowException("database is locked")
        real(*args, **kwargs)

    def wait(seconds: float) -> None:
        passes.append(seconds)
        if len(passes) == 4:
            stop.set()

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    monkeypatch.setattr(stop, "wait", wait)
    watcher.run(stop)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("database is locked")
    assert study.steps("curves/loss") == [1, 2]
    assert study.runs()[0].data.params["criterion"] == "snr_abs"


def test_a_double_is_deleted_even_if_looking_for_it_fails_at_first(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(study.results, SPEC)
    watcher = study.watcher(SPEC)
    create, search = MlflowClient.create_run, MlflowClient.search_runs

    def twice(*args: Any, **kwargs: Any) -> Any:
        create(*args, **kwargs)
        return create(*args, **kwargs)

    def fail(self: MlflowClient, experiments: list[str], condition: str = "", *args: Any, **kwargs: Any) -> Any:
        if condition:
            raise MlflowException("database is locked")
        return search(self, experiments, condition, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", twice)
        patch.setattr(MlflowClient, "search_runs", fail)
        with pytest.raises(tracking.Unavailable, match="database is locked"):
            watcher.step()
    assert len(study.runs()) == 2
    watcher.step()
    watcher.step()
    (run,) = study.runs()
    assert "ssvi.digest" in run.data.tags
    monkeypatch.setattr(tracking.store, "connect", _never)
    monkeypatch.setattr(MlflowClient, "search_runs", _never)
    assert watcher.step() is False


def test_a_run_deleted_in_mlflow_while_it_trains_comes_back(study: Study) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 2)
    watcher.step()
    study.client.delete_run(study.runs()[0].info.run_id)
    train(study, SPEC, 3)
    with pytest.raises(UserError, match="deleted"):
        watcher.step()
    watcher.step()
    assert study.steps("curves/loss") == [1, 2, 3]


def test_a_run_that_mlflow_refuses_is_given_up_until_it_changes(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = study.watcher(SPEC)
    train(study, SPEC, 2)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise MlflowException("too long", error_code=1000)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", refuse)
        with pytest.raises(UserError, match="too long"):
            watcher.step()
        watcher.step()
        assert "too long" in capsys.readouterr().err
        patch.setattr(MlflowClient, "search_runs", _never)
        watcher.step()
    train(study, SPEC, 3)
    watcher.step()
    assert study.steps("curves/loss") == [1, 2, 3]
    assert study.runs()[0].data.params["criterion"] == "snr_abs"


def test_a_deleted_experiment_is_said_once_and_waited_for(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    tracking.mirror(study.results, "study", {})
    experiment = study.client.get_experiment_by_name("study").experiment_id
    study.client.delete_experiment(experiment)
    write_run(study.results, SPEC)
    watcher = study.watcher(SPEC)
    watcher.step()
    watcher.step()
    assert capsys.readouterr().err.count("was deleted there") == 1
    study.client.restore_experiment(experiment)
    watcher.step()
    assert len(study.runs()) == 1


def test_the_config_is_read_again_when_it_changes(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = study.watcher()
    study.specs = write_runs(study.results, [SPEC])
    watcher.step()
    assert study.runs() == []
    study.config.write_text("nonsense")
    watcher.step()
    watcher.step()
    assert capsys.readouterr().err == "ssvi ui: config.yaml: nonsense. Going on with the config as it was.\n"
    study.config.write_text("two, and good")
    watcher.step()
    assert len(study.runs()) == 1
    before, study.results = study.results, study.results.parent / "elsewhere"
    study.config.write_text("elsewhere")
    watcher.step()
    assert "results is another folder now" in capsys.readouterr().err
    assert watcher.plan.results == before


def test_reports_are_mirrored_once_they_are_still(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = study.watcher(SPEC)
    (study.reports / "tables").mkdir(parents=True)
    (study.reports / "tables" / "t.md").write_text("one")
    watcher.step()
    assert study.runs() == []
    watcher.step()
    (run,) = study.runs()
    assert {"ssvi.kind": "reports", "ssvi.study": "study"}.items() <= run.data.tags.items()
    (study.reports / "report.html").write_text("one")
    logged: list[str] = []
    monkeypatch.setattr(MlflowClient, "log_artifact", lambda self, run, path, kind: logged.append(kind))
    for _ in range(3):
        watcher.step()
    assert logged == ["report"]


def test_serve_refuses_what_cannot_work(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="from 1 to 65535"):
        tracking.serve([study.config], study.read, port=70000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            tracking.serve([study.config], study.read, port=taken.getsockname()[1])
    study.config.write_text("nonsense")
    with pytest.raises(UserError, match="nonsense"):
        tracking.serve([study.config], study.read)


def test_a_server_of_the_users_is_filled_and_none_started(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    monkeypatch.setattr(tracking.Watcher, "run", end)
    monkeypatch.setattr(ui, "_server", _never)
    study.specs = {run_path(SPEC): SPEC}
    assert tracking.serve([study.config], study.read) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "mirrors the 1 runs of study" in said
    assert "to https://host (MLFLOW_TRACKING_URI" in said
    assert "secret" not in said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ssvi_ui_follows_a_training_and_ends_whole(study: Study) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config |= {"study": "study", "results": "results", "reports": "reports"}
    config["studies"] = {"study": {"train": {"epochs": 5}, "experiments": {"one": {"method": "ssvi", "seed": [0]}}}}
    study.config.write_text(yaml.safe_dump(config))
    spec = dataclasses.replace(SPEC, seed=0)
    train(study, spec, 2)
    port = free_port()
    command = [sys.executable, "-m", "ssvi", "ui", "--config", "config.yaml", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=study.config.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: process.poll() is not None or (study.runs() and study.steps("curves/loss") == [1, 2]))
        train(study, spec, 4)
        until(lambda: process.poll() is not None or study.steps("curves/loss") == [1, 2, 3, 4])
        assert process.poll() is None, process.communicate()
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("ssvi ui: mirrors the 1 runs of study from results/runs every 5 s; MLflow: http://127.0.0.1:")
    assert f":{port}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=ssvi-runs (in about" in out
    assert out.count("\n") == 1
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("host", "warned"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("127.0.0.5", False), ("0.0.0.0", True), ("::", True)],
)
def test_opening_mlflow_to_the_network_is_said_to_be_dangerous(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, warned: bool
) -> None:
    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ui, "_check_free", lambda *_: None)
    monkeypatch.setattr(ui, "_server", end)
    assert tracking.serve([study.config], study.read, host, 5001) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == warned
    if warned:
        assert said.startswith(f"ssvi ui: warning: --host {host} opens MLflow to the network: ")
        assert "can read, change and delete" in said
        assert "ssh -L 5001:127.0.0.1:5001" in said


def ask(port: int, host: str, origin: str | None = None) -> int:
    """The status of the answer to a page's question of which runs there are, asked under this name of the machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Host": host, "Content-Type": "application/json", **({"Origin": origin} if origin else {})}
        path = "/ajax-api/2.0/mlflow/runs/search"
        connection.request("POST", path, json.dumps({"experiment_ids": ["0"]}), headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_mlflow_opened_to_the_network_answers_under_this_machines_names_and_no_others(study: Study) -> None:
    port, name = free_port(), socket.gethostname()
    with ui._server(study.results, "0.0.0.0", port) as server:
        until(lambda: server.poll() is not None or ask(port, f"localhost:{port}") == 200)
        for here in (f"{name}:{port}", f"0.0.0.0:{port}", f"127.0.0.1:{port}", f"localhost:{port + 1}"):
            assert ask(port, here) == 200
            assert ask(port, here, f"http://{here}") == 200
        assert ask(port, f"evil.example:{port}") == 403
        assert ask(port, f"{name}:{port}", "http://evil.example") == 403


@pytest.mark.parametrize("what", ["", files.METRICS, files.SPEC])
def test_a_run_that_cannot_be_read_is_said_once_and_the_others_go_on(study: Study, capsys, what: str) -> None:
    specs = [dataclasses.replace(SPEC, seed=seed) for seed in (0, 1)]
    for spec in specs:
        write_run(study.results, spec)
    watcher = study.watcher(*specs)
    with unreadable(study.folder(specs[0]) / what):
        watcher.step()
        watcher.step()
    assert capsys.readouterr().err.count("Permission denied") == 1
    assert len(study.runs()) == 1
    (study.folder(specs[0]) / files.METRICS).touch()
    watcher.step()
    assert len(study.runs()) == 2
