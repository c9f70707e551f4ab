"""Commands handed over to a process that has torch in memory: the same results, output, exit codes and signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssvi import preload

FLAGS = ["--dataset=digits", "--model=mlp", "--epochs=2", "--delta-t=5", "--threads=1"]
SSVI = [str(Path(sys.executable).parent / "ssvi")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("preload") / "socket")
    process = subprocess.Popen([*SSVI, "preload", path], stdin=subprocess.PIPE)
    while not os.path.exists(path):
        assert process.poll() is None
        time.sleep(0.05)
    yield path
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert not os.path.exists(path)


def run(server: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, preload.SOCKET: server}
    return subprocess.run([*SSVI, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_same_bytes_as_without(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(preload.SOCKET, server)
    assert preload.hand_over(["evaluate", "no folder"]) == 1  # it is there, and answers
    cold = run(str(tmp_path / "no socket"), "train", *FLAGS, "--out", "cold", cwd=tmp_path)
    warm = run(server, "train", *FLAGS, "--out", "warm", cwd=tmp_path)
    assert (cold.returncode, warm.returncode) == (0, 0)
    assert (tmp_path / "cold/model.safetensors").read_bytes() == (tmp_path / "warm/model.safetensors").read_bytes()
    assert (tmp_path / "cold/topology.jsonl").read_bytes() == (tmp_path / "warm/topology.jsonl").read_bytes()
    assert "warm: trained in" in warm.stderr
    done = run(server, "evaluate", "warm", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("accuracy 0.")


def test_mistakes_end_as_without(server: str, tmp_path: Path) -> None:
    done = run(server, "train", "--density", "3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ssvi: command line: density is 3, but must be > 0 and <= 1.\n"
    assert run(server, "train", "--epoch", "3", cwd=tmp_path).returncode == 2
    assert run(server, "evaluate", "nothing", cwd=tmp_path).returncode == 1


def test_the_server_ends_with_its_input_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    process = subprocess.Popen(
        [*SSVI, "preload", str(folder / "socket")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (folder / "socket").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == b""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_the_command(server: str, tmp_path: Path, sign: signal.Signals, code: int) -> None:
    """Interrupted or killed, the training stops with its caller, and leaves what it needs to go on."""
    flags = [*FLAGS[:2], "--epochs=100000", "--checkpoint-seconds=0", "--threads=1", "--out", "run"]
    caller = subprocess.Popen(
        [*SSVI, "train", *flags], cwd=tmp_path, env={**os.environ, preload.SOCKET: server}, stderr=subprocess.PIPE
    )
    checkpoint = tmp_path / "run/live/checkpoint.pt"
    while not checkpoint.exists():
        assert caller.poll() is None
        time.sleep(0.05)
    caller.send_signal(sign)
    caller.stderr.read()  # ends when the last process that could write to it has ended
    assert caller.wait(timeout=30) == code
    # killed between two renamings, it has only the one before
    assert checkpoint.exists() or (tmp_path / "run/live/checkpoint.previous.pt").exists()


def test_without_a_server_or_with_a_foreign_one_a_command_runs_by_itself(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(str(tmp_path / "no socket"), "train", "--density", "3", cwd=tmp_path)
    assert (done.returncode, "density is 3" in done.stderr) == (1, True)
    monkeypatch.setenv(preload.SOCKET, server)
    assert preload.hand_over(["train", "--density", "3"]) == 1
    assert preload.hand_over(["data", "digits"]) is None
    monkeypatch.setattr(preload, "installation", lambda: "another")
    assert preload.hand_over(["train", "--density", "3"]) is None
