"""The MLflow mirror: incremental, repaired after a crash, and careful with what people wrote into it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import sqlite3
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import tie, uncertainty_rows, with_seeds, write_run, write_runs
from filelock import FileLock
from mlflow import MlflowClient
from unreadable import unreadable

from ssvi.analysis import tracking
from ssvi.analysis.collect import load_frames
from ssvi.analysis.tracking import store as stores
from ssvi.analysis.tracking.mirror import NAME, suite_metrics
from ssvi.errors import UserError
from ssvi.machine import disk
from ssvi.machine.disk import write_text
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

Result = tracking.MirrorResult

SSVI = RunSpec(epochs=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder for all tests, each with a study of its own: making the database takes seconds."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _client(results: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.tracking_uri(results))


def _runs(results: Path, study: str) -> list[Any]:
    """The MLflow runs of a study but for the means over seeds."""
    return [run for run in _all_runs(results, study) if run.data.tags.get("ssvi.kind") != "setting"]


def _means(results: Path, study: str) -> list[Any]:
    return [run for run in _all_runs(results, study) if run.data.tags.get("ssvi.kind") == "setting"]


def _all_runs(results: Path, study: str) -> list[Any]:
    client = _client(results)
    return list(client.search_runs([client.get_experiment_by_name(study).experiment_id]))


def test_a_run_is_mirrored_whole(store: Path) -> None:
    spec = dataclasses.replace(SSVI, seed=11)
    specs = write_runs(store, [spec], epochs=3)
    waiting = dataclasses.replace(SSVI, seed=12)
    assert tracking.mirror(store, "whole", {**specs, run_path(waiting): waiting}) == Result(added=1, missing=1)
    (run,) = _runs(store, "whole")
    assert run.data.tags["ssvi.run"] == run_path(spec)
    assert run.info.run_name == "ssvi s11"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 30_000
    assert run.data.params["density"] == "0.1"
    assert run.data.params["criterion"] == "snr_abs"
    expected = {"method": "ssvi", "dataset": "digits", "density": "0.1", "seed": "11", "git_commit": "0123abc"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.tags["status"] == "complete"
    assert len(run.data.tags["ssvi.digest"]) == 64
    assert run.data.metrics["final/test_images"] == 10_000
    assert "final/accuracy_best_test" not in run.data.metrics
    suite = {"test/ece_mass": 0.04, "test/temperature": 1.5, "test/nll_scaled": 0.3, "shift/accuracy_3": 0.87}
    suite |= {"shift/corruption_error": 0.13, "ood/kmnist/auroc_entropy": 0.94, "ood/held out/near": 1.0}
    suite |= {"selective/aurc": 0.02, "selective/accuracy_at_coverage_80": 0.92, "conformal/lac_coverage_90": 0.9}
    assert {name: run.data.metrics[name] for name in suite} == pytest.approx(suite)
    assert not [name for name in run.data.metrics if name.startswith(("risk", "histogram", "shift/fog"))]
    assert files.UNCERTAINTY in {one.path for one in _client(store).list_artifacts(run.info.run_id)}
    kl = _client(store).get_metric_history(run.info.run_id, "curves/kl")
    assert sorted(point.step for point in kl) == [1, 2, 3]


def test_the_suite_of_a_run_that_was_mirrored_before_makes_it_anew(store: Path) -> None:
    """And one that is not of this run is no reason to mirror a part of it."""
    spec = dataclasses.replace(SSVI, seed=13)
    specs = write_runs(store, [spec], epochs=3)
    path = store / "runs" / run_path(spec) / files.UNCERTAINTY
    text = path.read_text()
    path.unlink()
    assert tracking.mirror(store, "suite", specs) == Result(added=1)
    path.write_text(text.replace("0.87", "0.99"))
    assert list(tracking.mirror(store, "suite", specs).refused) == [run_path(spec)]
    path.write_text(text)
    assert tracking.mirror(store, "suite", specs) == Result(updated=1)
    assert tracking.mirror(store, "suite", specs) == Result(unchanged=1)


@pytest.mark.parametrize("name", ["folder:a/../b", "/x", "å" * 300, "a, b"])
def test_a_set_of_any_name_has_a_name_in_mlflow(name: str) -> None:
    rows = pd.DataFrame(uncertainty_rows(SSVI)).assign(run="r")
    rows = rows[rows["part"] == "ood"].replace({"name": {"kmnist": name}})
    found = suite_metrics(rows)
    assert len(found) == len(rows) - 2  # without the numbers of images
    assert all(NAME.fullmatch(part) for one in found for part in one.split("/"))
    assert all(len(one) < 250 for one in found)


def test_options_and_series_a_method_lacks_are_left_out(store: Path) -> None:
    spec = RunSpec(method="dense", validation=0.0, epochs=3, seed=21)
    run = write_run(store, spec, diverged="the loss is nan at epoch 2")
    tracking.mirror(store, "dense", {run: spec})
    (mirrored,) = _runs(store, "dense")
    assert not {"density", "criterion", "kl_scale"} & set(mirrored.data.params)
    assert not {"curves/kl", "curves/sigma_mean", "curves/validation_accuracy", "final/accuracy"} & set(
        mirrored.data.metrics
    )
    assert mirrored.data.tags["density"] == "1.0"
    assert mirrored.data.tags["cause"] == "the loss is nan at epoch 2"
    assert mirrored.info.status == "FAILED"


def test_a_history_with_the_columns_of_another_version_is_read_by_name(store: Path) -> None:
    spec = dataclasses.replace(SSVI, seed=22)
    run = write_run(store, spec, epochs=3)
    write_text(store / "runs" / run / files.HISTORY, "theirs,loss,epoch\nx,0.5,1\ny,0.25,2\n")
    tie(store / "runs" / run)
    tracking.mirror(store, "columns", {run: spec})
    (mirrored,) = _runs(store, "columns")
    assert {name for name in mirrored.data.metrics if name.startswith("curves/")} == {"curves/loss"}
    points = _client(store).get_metric_history(mirrored.info.run_id, "curves/loss")
    assert {point.step: point.value for point in points} == {1: 0.5, 2: 0.25}


def test_a_second_time_changes_nothing_and_notes_survive(store: Path) -> None:
    specs = write_runs(store, with_seeds(dataclasses.replace(SSVI, lr=0.02), 2))
    assert tracking.mirror(store, "twice", specs) == Result(added=2)
    run = _runs(store, "twice")[0].info.run_id
    _client(store).set_tag(run, "mlflow.note.content", "the one for the talk")
    _client(store).set_tag(run, "favourite", "yes")
    before = {r.info.run_id: r.data.tags for r in _runs(store, "twice")}
    assert tracking.mirror(store, "twice", specs) == Result(unchanged=2)
    after = {r.info.run_id: r.data.tags for r in _runs(store, "twice")}
    assert after == before
    assert after[run]["mlflow.note.content"] == "the one for the talk"


def test_changed_metrics_make_a_new_run_and_the_old_one_names_it(store: Path) -> None:
    spec = dataclasses.replace(SSVI, lr=0.03)
    specs = write_runs(store, [spec])
    tracking.mirror(store, "changed", specs)
    old = _runs(store, "changed")[0].info.run_id
    write_run(store, spec, accuracy=0.5)
    assert tracking.mirror(store, "changed", specs) == Result(updated=1)
    by_id = {r.info.run_id: r for r in _runs(store, "changed")}
    new = by_id[old].data.tags["ssvi.superseded_by"]
    assert by_id[new].data.metrics["final/accuracy"] == 0.5
    assert "ssvi.superseded_by" not in by_id[new].data.tags
    assert by_id[old].data.metrics["final/accuracy"] != 0.5
    assert tracking.mirror(store, "changed", specs) == Result(unchanged=1)


@pytest.mark.parametrize("crash", ["create_run", "log_batch", "set_terminated"])
def test_a_half_written_run_is_completed(store: Path, monkeypatch: pytest.MonkeyPatch, crash: str) -> None:
    spec = dataclasses.replace(SSVI, lr=0.04)
    specs = write_runs(store, [spec])
    real = getattr(MlflowClient, crash)

    def stop_after(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, crash, stop_after)
        with pytest.raises(KeyboardInterrupt):
            tracking.mirror(store, f"crash {crash}", specs)
    (half,) = _runs(store, f"crash {crash}")
    assert "ssvi.digest" not in half.data.tags
    _client(store).set_tag(half.info.run_id, "favourite", "yes")
    assert tracking.mirror(store, f"crash {crash}", specs) == Result(added=1)
    (whole,) = _runs(store, f"crash {crash}")
    assert whole.info.run_id == half.info.run_id
    assert len(whole.data.tags["ssvi.digest"]) == 64
    assert whole.data.tags["favourite"] == "yes"
    assert whole.info.status == "FINISHED"
    assert whole.data.params["criterion"] == "snr_abs"
    loss = _client(store).get_metric_history(whole.info.run_id, "curves/loss")
    assert sorted(point.step for point in loss) == [1, 2, 3, 4, 5]


def test_what_was_written_of_a_run_that_then_changed_is_superseded(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(SSVI, lr=0.06)
    specs = write_runs(store, [spec])
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", _crash)
        with pytest.raises(KeyboardInterrupt):
            tracking.mirror(store, "half changed", specs)
    write_run(store, spec, accuracy=0.5)
    assert tracking.mirror(store, "half changed", specs) == Result(added=1)
    runs = {"ssvi.digest" in r.data.tags: r for r in _runs(store, "half changed")}
    assert runs[True].data.metrics["final/accuracy"] == 0.5
    assert runs[False].data.tags["ssvi.superseded_by"] == runs[True].info.run_id
    assert runs[False].info.status == "KILLED"
    assert tracking.mirror(store, "half changed", specs) == Result(unchanged=1)


def test_a_long_history_is_sent_whole(store: Path) -> None:
    spec = dataclasses.replace(SSVI, lr=0.07)
    tracking.mirror(store, "long", write_runs(store, [spec], epochs=130))
    (run,) = _runs(store, "long")
    for name in ("curves/loss", "curves/seconds", "curves/sigma_mean"):
        assert len(_client(store).get_metric_history(run.info.run_id, name)) == 130


def _crash(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_reports_are_logged_when_they_change(store: Path, tmp_path: Path) -> None:
    names = ("tables/t.md", "tables/t.csv", "figures/c.png", "figures/c.csv", "figures/c.pdf", "report.html")
    for name in (*names, "tables/notes.log", "tables/.t.md.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = tracking.report_files(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in paths) == sorted(names)
    assert tracking.mirror(store, "reports", {}, paths) == Result(artifacts=6)
    assert tracking.mirror(store, "reports", {}, paths) == Result(artifacts=0)
    (tmp_path / "tables/t.md").write_text("new")
    assert tracking.mirror(store, "reports", {}, paths[:-1]) == Result(artifacts=2)
    (run,) = _runs(store, "reports")
    assert run.info.run_name == "reports"
    assert run.data.tags["ssvi.kind"] == "reports"
    folder = store / "mlflow" / "artifacts" / "reports" / run.info.run_id / "artifacts"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*")) == sorted(
        [*names[:-1], "report/report.html"]
    )
    assert (folder / "tables" / "t.md").read_text() == "new"
    with pytest.raises(UserError, match=r"lost\.md: no such file"):
        tracking.mirror(store, "reports", {}, [tmp_path / "lost.md"])


def test_the_mirror_of_a_moved_results_folder_is_refused_and_made_anew_where_it_was_deleted(
    store: Path, tmp_path: Path
) -> None:
    specs, report, elsewhere = write_runs(store, [SSVI]), tmp_path / "summary.md", tmp_path / "elsewhere"
    report.write_text("one")
    tracking.mirror(store, "moved", specs, [report])
    shutil.copytree(store, elsewhere)
    report.write_text("two")
    with pytest.raises(tracking.Unavailable, match=r"\A[^\n]*\Z") as raised:
        tracking.mirror(elsewhere, "moved", specs, [report])
    assert f"delete {elsewhere / 'mlflow'} and run this again" in str(raised.value)
    kept = next((store / "mlflow/artifacts/moved").rglob("summary.md"))
    assert kept.read_text() == "one"
    # as it says, but at a third place: MLflow keeps the database of a place open as long as a process lives
    shutil.rmtree(elsewhere / "mlflow")
    again = elsewhere.rename(tmp_path / "again")
    assert tracking.mirror(again, "moved", specs, [report]) == Result(added=1, artifacts=1)
    assert next((again / "mlflow/artifacts/moved").rglob("summary.md")).read_text() == "two"


def test_foreign_results_are_refused(store: Path) -> None:
    run = write_run(store, dataclasses.replace(SSVI, lr=0.05))
    fine = dataclasses.replace(SSVI, lr=0.06)
    specs = {run: dataclasses.replace(SSVI, lr=0.05, delta_t=7), **write_runs(store, [fine])}
    done = tracking.mirror(store, "foreign", specs)
    assert done.added == 1
    assert list(done.refused) == [run]
    assert "delta_t was 100 and is now 7" in done.refused[run]


def test_names_and_words_of_anywhere_stop_no_mirror(store: Path) -> None:
    """MLflow refuses a whole batch with one name that would be another file's."""
    odd = dict.fromkeys(("../../x", "a/../b", "/a", "a//b", ".", "..", "a/", "", " ", "a:b", "x" * 300), 1.0)
    spec = dataclasses.replace(SSVI, lr=0.41)
    run = write_run(store, spec, mine=2.5, **odd)
    path = store / "runs" / run / files.SPEC
    path.write_text(path.read_text().replace("0123abc", r"\u001b[31m\u202e<img>"))
    tie(path.parent)
    assert tracking.mirror(store, "anywhere", {run: spec}).added == 1
    (mirrored,) = _runs(store, "anywhere")
    names = {name for name in mirrored.data.metrics if name.startswith("final/")}
    assert {"final/mine", "final/accuracy"} <= names
    assert not {f"final/{name}" for name in odd} & names
    assert mirrored.data.tags["git_commit"] == r"\x1b[31m\u202e<img>"


def test_the_mirror_leaves_out_what_tables_leave_out(store: Path) -> None:
    """And mirrors the others."""
    seeds = with_seeds(dataclasses.replace(SSVI, lr=0.31), 3)
    specs = write_runs(store, seeds)
    other = dataclasses.replace(SSVI, lr=0.32)
    specs[write_run(store, other, accuracy=97.5)] = other
    first, second = (store / "runs" / run_path(spec) / "model.safetensors" for spec in seeds[:2])
    shutil.copy(first, second)
    done = tracking.mirror(store, "ties", specs)
    assert done.added == 2
    runs = load_frames(store, specs, ["history"]).runs.set_index("run")
    assert done.refused == runs.loc[runs["status"] == "refused", "cause"].to_dict()
    assert len(done.refused) == 2


def test_a_deleted_experiment_is_named(store: Path) -> None:
    tracking.mirror(store, "gone", {})
    client = _client(store)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(UserError, match="'gone' was deleted"):
        tracking.mirror(store, "gone", {})


def test_only_one_mirror_at_a_time(store: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (store / "mlflow").mkdir(exist_ok=True)
    monkeypatch.setattr(stores, "LOCK_SECONDS", 0.1)
    with FileLock(store / "mlflow" / "mirror.lock"), pytest.raises(UserError, match="another mirror"):
        tracking.mirror(store, "locked", {})
    assert f"{store / 'mlflow/mirror.lock'}: another mirror is at work; waiting up to 0.1 s" in capsys.readouterr().err


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri(tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking.tracking_uri(tmp_path) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path))
    with pytest.raises(UserError, match="no longer writes to"):
        tracking.tracking_uri(tmp_path)


# Addresses that lead nowhere, each in another way, and a word of why.
NOWHERE = [
    ("http://user:geheim@127.0.0.1:{closed}", "Connection refused"),
    ("http://user:geheim@127.0.0.1:{closed}/mlflow/", "Connection refused"),
    ("http://127.0.0.1:{closed}/?password=geheim", "Connection refused"),
    ("https://geheim@nowhere.invalid", ""),
    ("http://user:ge/heim@127.0.0.1", "not a valid host or port"),
    ("http://user:geheim@[::1", "Invalid IPv6 URL"),
    ("http://user:geheim@host:port", "not a valid host or port"),
    ("http://user:geheim@a host", ""),
    ("http://gehei\u00dfm:geheim@h\u2100st", ""),
    ("nothing://user:geheim@host/db", "scheme 'nothing' is unknown"),
    ("postgresql+nothing://user:geheim@host/db", "Can't load plugin"),
    ("mysql://user:geheim@host:port/db?password=geheim", ""),
    ("sqlite:////dev/null/mlflow.db?password=geheim", ""),
    ("user:geheim@host:5000", "is a folder"),
]


@pytest.mark.parametrize(("uri", "why"), NOWHERE)
def test_an_address_that_leads_nowhere_is_one_line_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str, why: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(closed=closed.getsockname()[1]))
        with pytest.raises(UserError) as caught:
            tracking.mirror(tmp_path, "study", {})
    line = str(caught.value)
    assert why in line
    assert "\n" not in line
    assert len(line) < 600
    printed = "".join([*traceback.format_exception(caught.value), *capfd.readouterr()])
    assert "geheim" not in f"{line}{printed}"
    assert "heim@" not in printed


def test_a_server_that_is_dead_or_silent_holds_nobody_up_for_long(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in stores.PATIENCE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "34")
    stores.Client(tracking.tracking_uri(store))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "34"
    waits = {name.rpartition("REQUEST_")[2]: os.environ[name] for name in stores.PATIENCE}
    retries, factor = int(waits["MAX_RETRIES"]), int(waits["BACKOFF_FACTOR"])
    # as urllib3 does it: none before the second request, then twice as long each time, and up to a second more
    between = sum(factor * 2**n + 1 for n in range(1, retries))
    assert 12 <= between <= 20
    assert (retries + 1) * int(stores.PATIENCE["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + between < 70


def test_damaged_files_are_not_taken_for_a_server_that_is_away(store: Path) -> None:
    spec = dataclasses.replace(SSVI, lr=0.08)
    specs = write_runs(store, [spec])
    (store / "runs" / run_path(spec) / "metrics.json").write_text("{")
    (cause,) = tracking.mirror(store, "damaged", specs).refused.values()
    assert "not readable as JSON" in cause


def test_of_two_halves_the_fuller_is_completed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(SSVI, lr=0.11)
    specs = write_runs(store, [spec])
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", _crash)
        with pytest.raises(KeyboardInterrupt):
            tracking.mirror(store, "halves", specs)
    (half,) = _runs(store, "halves")
    # MLflow names the one that began last first
    empty = _client(store).create_run(half.info.experiment_id, tags={"ssvi.run": run_path(spec)})
    assert _runs(store, "halves")[0].info.run_id == empty.info.run_id
    assert tracking.mirror(store, "halves", specs) == Result(added=1)
    assert [run.info.run_id for run in _runs(store, "halves")] == [half.info.run_id]


def test_of_two_whole_runs_one_takes_the_place_of_the_other(store: Path) -> None:
    """As two mirrors leave them whose results folders lie on disks that know no locks."""
    spec = dataclasses.replace(SSVI, lr=0.09)
    specs = write_runs(store, [spec])
    tracking.mirror(store, "two", specs)
    (first,) = _runs(store, "two")
    tags = {name: value for name, value in first.data.tags.items() if name.startswith("ssvi.")}
    _client(store).create_run(first.info.experiment_id, tags=tags)
    _client(store).create_run(first.info.experiment_id, tags={"ssvi.run": run_path(spec)})
    assert tracking.mirror(store, "two", specs) == Result(unchanged=1)
    runs = {run.info.run_id: run.data.tags for run in _runs(store, "two")}
    (second,) = runs.keys() - {first.info.run_id}
    assert runs[second]["ssvi.superseded_by"] == first.info.run_id
    assert "ssvi.superseded_by" not in runs[first.info.run_id]


def test_of_several_runs_of_reports_the_fullest_stays(store: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("one")
    tracking.mirror(store, "several", {}, [tmp_path / "summary.md"])
    (kept,) = _runs(store, "several")
    for _ in range(2):
        _client(store).create_run(kept.info.experiment_id, tags={"ssvi.kind": "reports"})
    assert tracking.mirror(store, "several", {}, [tmp_path / "summary.md"]) == Result()
    assert [run.info.run_id for run in _runs(store, "several")] == [kept.info.run_id]


def test_a_database_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(tracking_uri: str) -> None:
        Path(tracking_uri.removeprefix("sqlite:///")).write_text("a part")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores, "MlflowClient", cut_short)
        with pytest.raises(KeyboardInterrupt):
            stores.create_store(tmp_path)
    assert [path.name for path in (tmp_path / "mlflow").iterdir()] == ["mirror.lock"]
    left_by_a_kill = disk._name(tmp_path / "mlflow/mlflow.db")
    left_by_a_kill.mkdir()
    (left_by_a_kill / "mlflow.db").write_text("a part")
    (tmp_path / "mlflow/.mlflow.db.swp").write_text("somebody's")
    assert tracking.mirror(tmp_path, "study", {}) == Result()
    assert sorted(path.name for path in (tmp_path / "mlflow").iterdir()) == [
        ".mlflow.db.swp",
        "mirror.lock",
        "mirror.writer",
        "mlflow.db",
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("in the way")
    with pytest.raises(tracking.Unavailable, match=r"^MLflow at sqlite:.*/mlflow: Not a directory$"):
        tracking.mirror(tmp_path, "study", {})


@pytest.mark.parametrize("what", ["", *(files.SPEC, files.METRICS, files.HISTORY, files.TRAINING, files.MODEL)])
def test_what_cannot_be_read_is_left_out_and_the_others_are_mirrored(store: Path, what: str) -> None:
    study = f"unreadable {what}"
    first, second = (dataclasses.replace(SSVI, seed=seed, lr=0.37) for seed in (0, 1))
    specs = write_runs(store, [first, second], epochs=3)
    with unreadable(store / "runs" / run_path(first) / what):
        done = tracking.mirror(store, study, specs)
    assert (done.added, list(done.refused)) == (1, [run_path(first)])
    assert "Permission denied" in done.refused[run_path(first)]
    assert tracking.mirror(store, study, specs) == Result(added=1, unchanged=1)


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_a_mirror_follows_the_umask(
    tmp_path: Path, empty_store_of: Callable[[Path], None], mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        empty_store_of(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "mlflow").iterdir()}
    assert modes == dict.fromkeys(["mirror.lock", "mlflow.db"], mode)


@pytest.fixture
def empty_store_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a store as `ssvi` does, with a database of SQLite's making that MLflow need not fill."""

    class Maker:
        def __init__(self, tracking_uri: str) -> None:
            self.path = tracking_uri.removeprefix("sqlite:///")

        def search_experiments(self, max_results: int) -> None:
            with contextlib.closing(sqlite3.connect(self.path)) as database, database:
                database.execute("CREATE TABLE runs (id INTEGER)")

    monkeypatch.setattr(stores, "MlflowClient", Maker)
    return stores.create_store
