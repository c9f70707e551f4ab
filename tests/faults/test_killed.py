"""Trainings that are killed without a word, or asked to stop: what comes out is what would have come out."""

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SPECS, ended, fork, run, steps_begun_at, torn, training
from stopping import results

from ssvi.core import exchange
from ssvi.machine.disk import write_bytes
from ssvi.machine.process import usable_cpus
from ssvi.runs import files, records
from ssvi.runs.records import read_json
from ssvi.training import checkpoint


def goes_on(name: str, folder: Path, data_root: Path, log: Path, whole: Path, seconds_between: float = 0) -> None:
    """The same command again ends well, with the bytes of the undisturbed training and nothing else."""
    assert run(training(SPECS[name], folder, data_root, seconds_between), log) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert results(folder) == results(whole)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    # a training that was never interrupted has just the one checkpoint
    assert found | {files.PREVIOUS_CHECKPOINT} == {*files.TRAINED, *files.IN_LIVE}


@pytest.mark.fault("SIGKILL at a random moment", quick=6, whole=60)
def test_killed_at_random_moments(tmp_path, data_root, undisturbed, trial: int) -> None:
    """Three times in a row, each time anywhere between the start and the end of what was left to train."""
    name = list(SPECS)[trial % len(SPECS)]
    whole, log, folder = undisturbed(name), tmp_path / "log", tmp_path / "run"
    begun = time.monotonic()
    assert run(training(SPECS[name], tmp_path / "timed", data_root), log) == 0
    seconds = time.monotonic() - begun
    moments = random.Random(trial)
    for _ in range(3):
        process = fork(training(SPECS[name], folder, data_root), log)
        time.sleep(moments.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        ended(process)
    goes_on(name, folder, data_root, log, whole)


@pytest.mark.fault("SIGKILL, then another number of threads")
@pytest.mark.skipif(usable_cpus() < 2, reason="needs two CPUs")
def test_killed_and_gone_on_with_on_another_number_of_threads(tmp_path, data_root, undisturbed) -> None:
    """It keeps the number it began with, on which the last digits of its weights depend, and says so."""
    folder = tmp_path / "run"

    def words(out: Path, seconds_between: float, threads: int) -> list[str]:
        # processes of their own: a fork has none of the threads that its parent may have computed with
        ssvi = str(Path(sys.executable).parent / "ssvi")
        return [ssvi, *training(SPECS["ssvi"], out, data_root, seconds_between, threads)]

    subprocess.run(words(tmp_path / "whole", 3600, 2), stderr=subprocess.DEVNULL, check=True)
    assert results(tmp_path / "whole")["model"] != results(undisturbed("ssvi"))["model"]  # of one thread
    with subprocess.Popen(words(folder, 0, 2), stderr=subprocess.DEVNULL) as process:
        while not (folder / files.PREVIOUS_CHECKPOINT).exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    again = subprocess.run(words(folder, 0, 1), capture_output=True, text=True, check=True)
    assert results(folder) == results(tmp_path / "whole")
    if len(steps_begun_at(folder)) > 1:  # else it was killed too late
        assert "note: threads: 2 as when this training began, not 1" in again.stderr
        assert {session["threads"] for session in read_json(folder / files.TRAINING)["sessions"]} == {2}


def watch_changes(folder: Path, change: Callable[[], None]) -> None:
    """Have `change` called right before every change that this process makes to the file system below the folder."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            changes = isinstance(arguments[0], str) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")
        if changes and str(arguments[0]).startswith(str(folder)):
            change()

    sys.addaudithook(hook)


@pytest.fixture(scope="module")
def changes(tmp_path_factory, data_root) -> int:
    """How many there are in a training of twelve steps with a checkpoint after each."""
    folder, count = tmp_path_factory.mktemp("counted"), mmap.mmap(-1, 8)  # shared with the fork

    def change() -> None:
        count[:] = (int.from_bytes(count[:]) + 1).to_bytes(8)

    run(training(SPECS["mlp"], folder / "run", data_root), folder / "log", lambda: watch_changes(folder, change))
    assert files.is_trained(folder / "run")
    return int.from_bytes(count[:])


@pytest.mark.fault("SIGKILL between two changes of files", quick=8, whole=120)
def test_killed_between_two_changes_of_files(tmp_path, data_root, undisturbed, changes, request, trial: int) -> None:
    """Before a file is made, written, renamed or removed for a checkpoint, a history, a publication; up to the last."""
    trials = 120 if request.config.getoption("--all-trials") else 8
    moment = round(changes * (trial + 1) / trials)
    log, folder, left = tmp_path / "log", tmp_path / "run", [moment]

    def change() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    code = run(training(SPECS["mlp"], folder, data_root), log, lambda: watch_changes(folder, change))
    assert code == -signal.SIGKILL
    goes_on("mlp", folder, data_root, log, undisturbed("mlp"))


@pytest.mark.fault("SIGKILL while a line of history is appended")
@pytest.mark.parametrize("seconds_between", [0, 3600])
@pytest.mark.parametrize("name", SPECS)
def test_killed_while_a_line_is_appended(tmp_path, data_root, undisturbed, name: str, seconds_between: int) -> None:
    log, folder = tmp_path / "log", tmp_path / "run"
    arguments = training(SPECS[name], folder, data_root, seconds_between)
    assert run(arguments, log, lambda: setattr(records, "append_jsonl", torn)) == -signal.SIGKILL
    written = [(folder / file).read_text() for file in (files.LIVE_HISTORY, files.LIVE_TOPOLOGY)]
    assert any(text and not text.endswith("\n") for text in written)
    goes_on(name, folder, data_root, log, undisturbed(name), seconds_between)
    assert steps_begun_at(folder) == ([0] if seconds_between else [0, int("step 7" in log.read_text()) * 7 or 11])
    assert ("starting anew: this training was stopped before its first checkpoint" in log.read_text()) == (
        seconds_between > 0
    )


@pytest.mark.fault("SIGKILL during a topology update")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_killed_during_a_topology_update(tmp_path, data_root, undisturbed, count: int) -> None:
    """Weights or momenta are those of the new subspace, the index not yet."""
    log, folder = tmp_path / "log", tmp_path / "run"
    calls, carry = iter(range(1, 10_000)), exchange._carry

    def carry_and_die(*arguments):
        carry(*arguments)
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    arguments = training(SPECS["rigl"], folder, data_root)
    assert run(arguments, log, lambda: setattr(exchange, "_carry", carry_and_die)) == -signal.SIGKILL
    goes_on("rigl", folder, data_root, log, undisturbed("rigl"))


@pytest.mark.fault("SIGTERM, SIGUSR1, SIGINT, SIGHUP", quick=4, whole=24)
def test_asked_to_stop_at_a_random_moment(tmp_path, data_root, undisturbed, trial: int) -> None:
    """A checkpoint where there was none, an exit code that says "again", and the same results."""
    name, log, folder = list(SPECS)[trial % len(SPECS)], tmp_path / "log", tmp_path / "run"
    number = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)[trial % 4]
    process = fork(training(SPECS[name], folder, data_root, 3600), log)
    while not (folder / files.LIVE_TOPOLOGY).exists() or not (folder / files.LIVE_TOPOLOGY).read_text():
        assert os.waitpid(process, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.002)
    time.sleep(random.Random(trial).uniform(0, 0.2))
    os.kill(process, number)
    code = ended(process)
    # it may have come too late
    if not files.is_trained(folder):
        assert code == (130 if number == signal.SIGINT else 75), log.read_text()
        said = log.read_text().splitlines()[-1]
        assert said.startswith(f"ssvi: {folder}: stopped by {number.name} in epoch ")
        assert said.endswith("the same command goes on from there")
        assert (folder / files.CHECKPOINT).exists()
    goes_on(name, folder, data_root, log, undisturbed(name), 3600)
    assert steps_begun_at(folder)[-1] > 0 or files.is_trained(folder)


@pytest.mark.fault("a second signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_second_signal_stops_at_once(tmp_path, data_root, undisturbed, number: int) -> None:
    """While the first one's checkpoint is written: the process is gone, and the checkpoint before it still counts."""
    log, folder, name = tmp_path / "log", tmp_path / "run", "ssvi"

    def never_written(*arguments, **options):
        # one checkpoint as usual; in the middle of the next one, which the first signal wants, the disk hangs
        if folder.joinpath(files.CHECKPOINT).exists() and arguments[0].name == Path(files.CHECKPOINT).name:
            (tmp_path / "hangs").touch()
            while True:
                time.sleep(60)
        write_bytes(*arguments, **options)

    arguments = training(SPECS[name], folder, data_root)
    process = fork(arguments, log, lambda: setattr(checkpoint, "write_bytes", never_written))
    while not (tmp_path / "hangs").exists():
        assert os.waitpid(process, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.01)
    # what comes at the same moment is the same wish, and it is only remembered
    for _ in range(2):
        os.kill(process, number)
        assert os.waitpid(process, os.WNOHANG) == (0, 0)
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.1)
        os.kill(process, number)
    assert ended(process) == -number
    goes_on(name, folder, data_root, log, undisturbed(name))


@pytest.mark.fault("SIGKILL at a random moment")
def test_a_process_of_its_own_is_no_different(tmp_path, data_root, undisturbed) -> None:
    """The command as a user starts it, not forked from the tests: killed, asked to stop, and gone on with."""
    log, folder = tmp_path / "log", tmp_path / "run"
    words = [str(Path(sys.executable).parent / "ssvi"), *training(SPECS["ssvi"], folder, data_root)]
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        step = 0 if not (folder / files.CHECKPOINT).exists() else (folder / files.CHECKPOINT).stat().st_mtime_ns
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            while not (folder / files.CHECKPOINT).exists() or (folder / files.CHECKPOINT).stat().st_mtime_ns == step:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(number)
        assert process.returncode == code or files.is_trained(folder)
    goes_on("ssvi", folder, data_root, log, undisturbed("ssvi"))
