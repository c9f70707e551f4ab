"""The MLflow mirror: incremental, repaired after a crash, and careful with what people wrote into it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_runs import with_seeds, write_run, write_runs
from filelock import FileLock

from ssvi.analysis import tracking
from ssvi.analysis.tracking import store as stores
from ssvi.analysis.tracking.mirror import MlflowClient, _run_name
from ssvi.errors import UserError
from ssvi.spec import RunSpec, run_path

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
    client = _client(results)
    return list(client.search_runs([client.get_experiment_by_name(study).experiment_id]))


def test_a_run_is_mirrored_whole(store: Path) -> None:
    spec = dataclasses.replace(SSVI, seed=11)
    specs = write_runs(store, [spec], epochs=3)
    waiting = dataclasses.replace(SSVI, seed=12)
    assert tracking.mirror(store, "whole", {**specs, run_path(waiting): waiting}) == Result(added=1, missing=1)
    (run,) = _runs(store, "whole")
    assert run.data.tags["ssvi.run"] == run_path(spec)
    assert run.info.run_name == run_path(spec).split("/", 2)[2]
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
    kl = _client(store).get_metric_history(run.info.run_id, "kl")
    assert sorted(point.step for point in kl) == [1, 2, 3]


def test_options_and_series_a_method_lacks_are_left_out(store: Path) -> None:
    spec = RunSpec(method="dense", validation=0.0, epochs=3, seed=21)
    run = write_run(store, spec, diverged="the loss is nan at epoch 2")
    tracking.mirror(store, "dense", {run: spec})
    (mirrored,) = _runs(store, "dense")
    assert not {"density", "criterion", "kl_scale"} & set(mirrored.data.params)
    assert not {"kl", "sigma_mean", "validation_accuracy", "final/accuracy"} & set(mirrored.data.metrics)
    assert mirrored.data.tags["density"] == "1.0"
    assert mirrored.data.tags["cause"] == "the loss is nan at epoch 2"
    assert mirrored.info.status == "FAILED"


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
    loss = _client(store).get_metric_history(whole.info.run_id, "loss")
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
    for name in ("loss", "seconds", "sigma_mean"):
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


def test_a_moved_results_folder_keeps_its_reports(store: Path, tmp_path: Path) -> None:
    report = tmp_path / "summary.md"
    report.write_text("one")
    tracking.mirror(store, "moved", {}, [report])
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(store, elsewhere)
    report.write_text("two")
    # Another process, because MLflow remembers by run id where a run's artifacts were.
    code = (
        "import sys; from pathlib import Path; from ssvi.analysis.tracking import mirror; "
        "mirror(Path(sys.argv[1]), 'moved', {}, [Path(sys.argv[2])])"
    )
    subprocess.run([sys.executable, "-c", code, str(elsewhere), str(report)], check=True)
    (run,) = _runs(elsewhere, "moved")
    assert run.info.artifact_uri.startswith(elsewhere.resolve().as_uri())
    kept, moved = (next((where / "mlflow/artifacts/moved").rglob("summary.md")) for where in (store, elsewhere))
    assert (kept.read_text(), moved.read_text()) == ("one", "two")


def test_foreign_results_are_refused(store: Path) -> None:
    run = write_run(store, dataclasses.replace(SSVI, lr=0.05))
    with pytest.raises(UserError, match="delta_t was 100 and is now 7"):
        tracking.mirror(store, "foreign", {run: dataclasses.replace(SSVI, lr=0.05, delta_t=7)})


def test_a_deleted_experiment_is_named(store: Path) -> None:
    tracking.mirror(store, "gone", {})
    client = _client(store)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(UserError, match="'gone' was deleted"):
        tracking.mirror(store, "gone", {})


def test_only_one_mirror_at_a_time(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "mlflow").mkdir(exist_ok=True)
    monkeypatch.setattr(stores, "LOCK_SECONDS", 0.1)
    with FileLock(store / "mlflow" / "mirror.lock"), pytest.raises(UserError, match="another mirror"):
        tracking.mirror(store, "locked", {})


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri(tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking.tracking_uri(tmp_path) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path))
    with pytest.raises(UserError, match="no longer writes to"):
        tracking.tracking_uri(tmp_path)


def test_long_run_paths_fit_a_run_name() -> None:
    run = "digits/mlp/" + "a" * 300 + "/seed=0"
    assert len(_run_name(run)) == 250
    assert _run_name(run).endswith("/seed=0")
