"""Several processes on the same run, the same file system, the same mirror; and results that were moved or changed."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SPECS, ended, fork, run, steps_begun_at, torn, training
from stopping import results

from ssvi.analysis.collect import load_frames
from ssvi.machine import preload
from ssvi.runs import files, records
from ssvi.runs.paths import run_path, to_flags
from ssvi.runs.records import read_json
from ssvi.runs.spec import make_spec

BIN = Path(sys.executable).parent


def held(folder: Path) -> Path:
    """Wait until somebody trains in the folder and has said who."""
    while not (folder / files.OWNER).exists():
        time.sleep(0.005)
    return folder


@pytest.mark.fault("two processes train the same run")
@pytest.mark.parametrize("first_one", ["ends", "is killed", "is asked to stop"])
def test_the_second_waits_and_then_finds_it_done_or_goes_on(tmp_path, data_root, undisturbed, first_one: str) -> None:
    folder, logs = tmp_path / "run", (tmp_path / "first", tmp_path / "second")
    words = training(SPECS["ssvi"], folder, data_root)
    first = fork(words, logs[0])
    held(folder)
    os.kill(first, signal.SIGSTOP)  # so that it is still there when the second one comes
    second = fork(words, logs[1])
    while "waiting for it to end" not in (logs[1].read_text() if logs[1].exists() else ""):
        time.sleep(0.01)
    assert f"note: {folder}: process {first} on {os.uname().nodename} (since 20" in logs[1].read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if first_one == "is killed":
        os.kill(first, signal.SIGKILL)
    elif first_one == "is asked to stop":
        os.kill(first, signal.SIGTERM)
    else:
        # what waits has not touched anything
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    if first_one != "is killed":
        os.kill(first, signal.SIGCONT)
    code = ended(first)
    assert ended(second) == 0, logs[1].read_text()
    assert results(folder) == results(undisturbed("ssvi"))
    if first_one == "ends":
        assert code == 0
        assert "already trained" in logs[1].read_text()
        assert steps_begun_at(folder) == [0]
    else:
        assert "already trained" not in logs[1].read_text()
        assert read_json(folder / files.OWNER)["process"] == second
    (line,) = {line for line in logs[1].read_text().splitlines() if "waiting" in line}
    assert line.endswith("(Ctrl-C stops the waiting).")


@pytest.mark.fault("two processes train the same run")
def test_a_lock_that_a_dead_process_left_holds_nobody_up(tmp_path, data_root, undisturbed) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run(training(SPECS["mlp"], folder, data_root), log, lambda: setattr(records, "append_jsonl", torn)) < 0
    assert (folder / files.LOCK).exists()
    assert (folder / files.OWNER).exists()
    assert run(training(SPECS["mlp"], folder, data_root), log) == 0
    assert "waiting" not in log.read_text()
    assert results(folder) == results(undisturbed("mlp"))


@pytest.mark.fault("two processes train the same run")
def test_who_waits_goes_on_when_the_lock_is_taken_away(tmp_path, data_root, undisturbed) -> None:
    """As the evaluation of the finished run does."""
    folder, logs = tmp_path / "run", (tmp_path / "first", tmp_path / "second")
    first = fork(training(SPECS["mlp"], folder, data_root), logs[0])
    held(folder)
    os.kill(first, signal.SIGSTOP)
    second = fork(training(SPECS["mlp"], folder, data_root), logs[1])
    while "waiting for it to end" not in (logs[1].read_text() if logs[1].exists() else ""):
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    shutil.rmtree(folder)
    ended(first)
    assert ended(second) == 0, logs[1].read_text()
    assert results(folder) == results(undisturbed("mlp"))


@pytest.mark.fault("two processes train the same run")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(tmp_path, data_root, undisturbed, number: int) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"

    def flock(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    assert run(training(SPECS["mlp"], folder, data_root), log, lambda: setattr(fcntl, "flock", flock)) == 0
    assert f"note: {folder}: this file system has no locks; let nobody else train here." in log.read_text()
    assert results(folder) == results(undisturbed("mlp"))


@pytest.mark.fault("config changed under finished results")
@pytest.mark.parametrize("lost", [files.TRAINED, (files.MODEL,), (files.TRAINING,)])
def test_metrics_of_a_training_before_do_not_stay(tmp_path, data_root, lost: tuple[str, ...]) -> None:
    """Trained again, a folder holds nothing that says how good it was before."""
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run(training(SPECS["mlp"], folder, data_root), log) == 0
    assert run(["evaluate", str(folder), "--data-root", str(data_root)], log) == 0
    for name in lost:
        (folder / name).unlink()
    assert run(training(SPECS["mlp"], folder, data_root), log, lambda: setattr(records, "append_jsonl", torn)) < 0
    assert not [name for name in (files.TRAINING, files.METRICS, files.PREDICTIONS) if (folder / name).exists()]


@pytest.mark.fault("two processes train the same run")
def test_results_that_a_workflow_deletes_meanwhile_are_published_whole(tmp_path, data_root, undisturbed) -> None:
    """A workflow that was killed and started again takes what is there for incomplete, and deletes it."""
    folder, log = tmp_path / "run", tmp_path / "log"
    process = fork(training(SPECS["ssvi"], folder, data_root), log)
    while not (folder / files.CHECKPOINT).exists():
        time.sleep(0.005)
    os.kill(process, signal.SIGSTOP)
    (folder / files.SPEC).unlink()
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 0
    assert files.is_trained(folder)
    spec = (folder / files.SPEC).read_bytes()
    for name in files.TRAINED:
        (folder / name).unlink()
    assert run(training(SPECS["ssvi"], folder, data_root), log) == 0
    assert results(folder) == results(undisturbed("ssvi"))
    assert steps_begun_at(folder) == [0, 12]
    assert (folder / files.SPEC).read_bytes() == spec


@pytest.mark.fault("results folder moved, or read elsewhere")
@pytest.mark.parametrize("name", SPECS)
def test_a_moved_run_goes_on_and_is_read(tmp_path, data_root, undisturbed, name: str) -> None:
    """From another path and working folder, and another folder of data: what counts is what they hold."""
    log, here = tmp_path / "log", tmp_path / "here"
    spec = SPECS[name]
    folder = here / "runs" / run_path(spec)
    assert run(training(spec, folder, data_root), log, lambda: setattr(records, "append_jsonl", torn)) < 0
    there, data = tmp_path / "there", tmp_path / "other data"
    shutil.copytree(here, there)
    shutil.rmtree(here)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = there / "runs" / run_path(spec)
    assert run(training(spec, Path(os.path.relpath(moved, elsewhere)), data), log, lambda: os.chdir(elsewhere)) == 0
    assert results(moved) == results(undisturbed(name))
    assert steps_begun_at(moved)[-1] > 0
    assert run(["evaluate", str(moved), "--data-root", str(data)], log) == 0
    finished = tmp_path / "somewhere" / "else"
    shutil.copytree(there, finished)
    shutil.rmtree(there)
    (row,) = load_frames(finished, {run_path(spec): spec}).runs.to_dict("records")
    assert row["status"] == "complete"
    assert row["accuracy"] > 0
    assert not [p for p in finished.rglob("*") if p.is_file() and str(tmp_path).encode() in p.read_bytes()]


@pytest.mark.fault("config changed under finished results")
@pytest.mark.parametrize(("option", "value"), [("lr", 0.5), ("epochs", 3), ("width", 0.5), ("prior_sigma", 2.0)])
def test_another_spec_than_the_folders_is_reported_not_averaged(tmp_path, data_root, option: str, value) -> None:
    log, spec = tmp_path / "log", SPECS["mlp"]
    folder = tmp_path / "results" / "runs" / run_path(spec)
    assert run(training(spec, folder, data_root), log) == 0
    assert run(["evaluate", str(folder), "--data-root", str(data_root)], log) == 0
    assert len(load_frames(tmp_path / "results", {run_path(spec): spec}).runs) == 1
    stored = json.loads((folder / files.SPEC).read_text())
    was = stored["spec"][option]
    stored["spec"][option] = value
    (folder / files.SPEC).write_text(json.dumps(stored))
    words = rf"{folder / files.SPEC}: .*: {option} was {value!r} and is now {was!r}"
    (row,) = load_frames(tmp_path / "results", {run_path(spec): spec}).runs.to_dict("records")
    assert row["status"] == "refused"
    assert re.search(words.replace("+", r"\+"), row["cause"])
    before = (folder / files.MODEL).read_bytes()
    assert run(training(spec, folder, data_root), log) == 1
    assert f"{option} was {value!r} and is now {was!r}" in log.read_text()
    assert (folder / files.MODEL).read_bytes() == before


@contextlib.contextmanager
def preloaded(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which commands are handed over to a process that has torch in memory."""
    path = str(folder / "socket")
    server = subprocess.Popen([BIN / "ssvi", "preload", path], stdin=subprocess.PIPE)
    while not os.path.exists(path):
        assert server.poll() is None
        time.sleep(0.05)
    try:
        yield {**os.environ, preload.SOCKET: path}
    finally:
        server.stdin.close()
        assert server.wait(timeout=60) == 0


@pytest.mark.fault("16 trainings at once, one file system, one mirror", quick=0, whole=3)
def test_sixteen_at_once_lose_nothing(tmp_path, data_root, monkeypatch, trial: int) -> None:
    """While two mirrors follow; the data set's cache is made by all of them at once, too."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    from ssvi.analysis.tracking import Plan, Watcher, mirror, tracking_uri

    common = {"dataset": "digits", "model": "mlp", "width": 0.25, "epochs": 3, "batch_size": 256, "delta_t": 2}
    found = [make_spec({**common, "density": 0.2, "seed": seed}) for seed in range(8)]
    found += [make_spec({**common, "method": "rigl", "density": 0.2, "seed": seed}) for seed in range(8)]
    specs = {run_path(spec): spec for spec in found}
    store, data = tmp_path / "results", tmp_path / "data"
    folders = [store / "runs" / path for path in specs]
    (tmp_path / "config.yaml").write_text("")
    with preloaded(tmp_path) as environment:
        words = [
            [BIN / "ssvi", "train", *to_flags(spec), "--out", folder, "--data-root", data, "--threads=1"]
            for spec, folder in zip(found, folders, strict=True)
        ]
        quiet = {"env": environment, "stderr": subprocess.DEVNULL}
        processes = [subprocess.Popen([*map(str, line), "--checkpoint-seconds=0"], **quiet) for line in words]
        plan = Plan(store, {"sixteen": (specs, tmp_path / "reports")}, "sixteen")
        watchers = [Watcher([tmp_path / "config.yaml"], lambda: plan) for _ in range(2)]
        while any(process.poll() is None for process in processes):
            for watcher in watchers:
                watcher.step()
            time.sleep(0.5)
        assert [process.returncode for process in processes] == [0] * 16
        evaluations = [
            subprocess.Popen(
                [BIN / "ssvi", "evaluate", folder, "--data-root", data], stdout=subprocess.DEVNULL, **quiet
            )
            for folder in folders
        ]
        assert [process.wait() for process in evaluations] == [0] * 16
    for watcher in watchers:
        watcher.step()
    mirror(store, "sixteen", specs)
    table = load_frames(store, specs).runs
    assert list(table["status"]) == ["complete"] * 16
    client = MlflowClient(tracking_uri(store))
    found_there = client.search_runs([client.get_experiment_by_name("sixteen").experiment_id])
    mirrored = [one for one in found_there if "ssvi.run" in one.data.tags]
    assert sum(one.data.metrics["n/accuracy"] for one in found_there if one not in mirrored) == 16
    assert sorted(one.data.tags["ssvi.run"] for one in mirrored) == sorted(specs)
    for one in mirrored:
        path = one.data.tags["ssvi.run"]
        history = client.get_metric_history(one.info.run_id, "curves/loss")
        assert [point.step for point in history] == [1, 2, 3]
        assert one.data.metrics["final/accuracy"] == table.set_index("run").loc[path, "accuracy"]
    # one of them, alone
    alone = tmp_path / "alone"
    assert run(training(found[trial], alone, data_root), tmp_path / "log") == 0
    assert results(folders[trial]) == results(alone)


def use(process: int) -> tuple[int, int]:
    """Bytes of memory and open files of a process."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    (memory,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    return memory, len(os.listdir(f"/proc/{process}/fd"))


def soak(tmp_path: Path, data_root: Path, seconds: float, epochs: int) -> list[tuple[int, int]]:
    """Train for so many seconds or epochs, whichever takes longer, and look at its use once an epoch or so."""
    spec = make_spec({**{k: v for k, v in SPECS["ssvi"].__dict__.items() if k in ("dataset", "model", "width")},
                      "epochs": 100_000, "batch_size": 256, "density": 0.2, "delta_t": 2})  # fmt: skip
    folder, log = tmp_path / "run", tmp_path / "log"
    process = fork(training(spec, folder, data_root, seconds_between=1), log)
    begun, seen = time.monotonic(), []
    history = folder / files.LIVE_HISTORY
    while len(seen) < epochs or time.monotonic() - begun < seconds:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), log.read_text()
        size = history.stat().st_size if history.exists() else 0
        while (history.stat().st_size if history.exists() else 0) == size:
            time.sleep(0.01)
        seen.append(use(process))
    os.kill(process, signal.SIGTERM)
    assert ended(process) == 75
    return seen


def check_flat(seen: list[tuple[int, int]]) -> None:
    memory, files = zip(*seen, strict=True)
    third = len(seen) // 3
    # While a checkpoint is written, which may be seen at any time, its file and its folder are open too. What is never
    # closed is there whenever one looks, and makes the fewest more.
    assert max(files[third:]) - min(files[third:]) <= 2, files
    assert min(files[-third:]) <= min(files[third:-third]), files
    # the history itself grows: a kilobyte an epoch
    assert max(memory[-third:]) - max(memory[third:-third]) < 4e6 + 4e3 * len(seen), memory[:: len(seen) // 20 or 1]


@pytest.mark.parametrize(
    ("counts", "is_flat"),
    [
        ([9] * 30, True),
        ([9] * 25 + [10] + [9] * 4, True),  # a checkpoint that was seen once, late
        ([9, 11] * 15, True),
        ([9] * 15 + [10] * 15, False),
        ([9 + i // 10 for i in range(30)], False),
        ([9] * 25 + [13] + [9] * 4, False),
    ],
)
def test_what_is_never_closed_is_no_checkpoint(counts: list[int], is_flat: bool) -> None:
    with contextlib.nullcontext() if is_flat else pytest.raises(AssertionError):
        check_flat([(10**8, n) for n in counts])


@pytest.mark.fault("memory and open files over many epochs", quick=1, whole=0)
def test_memory_and_files_are_flat_over_forty_epochs(tmp_path, data_root) -> None:
    check_flat(soak(tmp_path, data_root, 0, 40))


@pytest.mark.fault("memory and open files over ten minutes of epochs", quick=0, whole=1)
def test_memory_and_files_are_flat_over_ten_minutes(tmp_path, data_root) -> None:
    seen = soak(tmp_path, data_root, 600, 60)
    memory, files = zip(*seen, strict=True)
    print(f"{len(seen)} epochs: {min(memory) / 1e6:.1f}-{max(memory) / 1e6:.1f} MB, {min(files)}-{max(files)} files")
    check_flat(seen)
